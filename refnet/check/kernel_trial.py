"""A kernel under test, live: on whole and real numbers, alone and in a batch, and in which order it adds."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from math import inf
from typing import Any

import numpy as np

from refnet.arithmetic import Arithmetic, core, reference
from refnet.arrays import DTYPES, INTEGER, Array, wide
from refnet.check.bounds import Claim
from refnet.check.foreign_kernel import ForeignKernel, title_of
from refnet.check.judge import Judge
from refnet.check.kernel_order import Ordered, order_of
from refnet.check.operators import check_op
from refnet.check.precision import FLOAT32, WAYS, format_of
from refnet.check.problems import LARGEST, Problem, problem
from refnet.check.report import Report, Verdict, Word
from refnet.errors import RefnetError, one_line, require_known
from refnet.op import OUTPUT, Op
from refnet.ops import OPS
from refnet.progress import Progress, silent

# Problems of several samples that are run sample by sample, and calls that are made again.
BATCHES, REPEATS = 8, 3
# What whole numbers, and real ones, say of a result.
OF_INTEGERS: dict[Word, Word] = {"ok": "exact", "wrong": "impossible", "undecided": "refused"}
OF_REALS: dict[Word, Word] = {"ok": "consistent", "wrong": "impossible", "undecided": "refused"}


def examine(
    op: str,
    kernel: Any,
    *,
    claim: Claim | None = None,
    seed: int = 0,
    draws: int = 32,
    dtype: str = "float32",
    progress: Progress = silent,
) -> Report:
    """Judge a kernel of somebody's own.

    - *integers*: on the operator's cases and on problems drawn for it, whole numbers of which every sum is
      exact in any order: threshold 0. Operands of fewer bits than claimed show here, and are named.
    - *reals*: the same problems on real numbers, within the bound that follows from the claim.
    - *inputs*: whether it leaves its inputs alone. *needs*: whether it returns gradients that nobody asked
      for, which costs time and is no error.
    - *batch*, *repeats*, *threads*: whether a sample alone has the bits that it has in a batch; a call, those
      of the call before; a call on another number of threads, those on one. An honest kernel may differ,
      and then is consistent, and that is said.
    - *order*: in which tree each element's terms are added, and whether every bit is that of this tree:
      exact. Where there is no fixed tree, consistent, and that is said; where there is one and its sums have
      other bits, refused.

    Parameters
    ----------
    op : str
        The operator that it computes.
    kernel : callable or object
        ``y = kernel(*arrays, **attrs)``, of float32 arrays of NumPy's, or an object with ``forward`` and
        ``backward`` as `refnet.Kernel` has them, whose gradients are judged, too.
    claim : Claim, optional
        What it claims of its arithmetic: that of the dtype, if not given.
    seed : int
        Of problems and values.
    draws : int
        How many problems are drawn beside the operator's cases.
    dtype : {"float32", "float64"}
        Of the arrays that it is given.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Report
        Verdicts ``"integers y"``, ``"reals dx"``, ``"batch"``, ``"order y"``, ...; ``facts["order"]`` has the
        trees in words.

    Raises
    ------
    UnknownNameError
        If there is no such operator or dtype.
    """
    require_known("operator", op, OPS)
    require_known("dtype", dtype, DTYPES)
    claim = Claim(dtype, dtype) if claim is None else claim
    foreign = ForeignKernel(kernel, op, claim.store)
    trial = _Trial(OPS[op], foreign, core.replace(**{op: foreign.kernel}), claim, dtype, seed, draws)
    verdicts: dict[str, Verdict] = {}
    for verdict in trial.verdicts(progress):
        verdicts[verdict.tensor] = verdict
    return Report(title=f"{title_of(kernel)} as {op}", verdicts=verdicts, facts=trial.facts)


@dataclass
class _Trial:
    """A kernel, what it claims, and on what it is run."""

    op: Op
    foreign: ForeignKernel
    arithmetic: Arithmetic
    claim: Claim
    dtype: str
    seed: int
    draws: int
    facts: dict[str, Any] = field(default_factory=dict)

    def verdicts(self, progress: Progress) -> Iterator[Verdict]:
        """All verdicts, in the order of the report."""
        self.facts.update(
            op=self.op.name,
            dtype=self.dtype,
            accumulate=format_of(self.claim.accumulate).name,
            store=format_of(self.claim.store).name,
            operands=format_of(self.claim.operands or self.dtype).name,
            seed=self.seed,
            cases=len(self.op.cases),
            draws=self.draws,
        )
        yield from self._whole(progress)
        yield from self._real(progress)
        yield self._inputs()
        threads = self._threads()
        for verdict in (self._batch(), self._repeats(), threads):
            if verdict is not None:
                yield verdict
        # Thousands of small calls: on one thread, if the bits are the same.
        with _on_threads(1) if threads is not None and threads.verdict == "exact" else nullcontext():
            yield from self._orders(progress)

    # ---- Problems

    def _whole(self, progress: Progress) -> Iterator[Verdict]:
        """On whole numbers that the claimed formats hold."""
        if min(format_of(f).digits for f in (self.claim.accumulate, self.claim.store)) < FLOAT32.digits:
            self.facts["integers"] = "not asked: sums are claimed to be rounded to fewer bits than they have"
            return
        digits = format_of(self.claim.operands or self.dtype).digits
        self.facts["largest integer"] = min(LARGEST, 2**digits - 1)
        yield from self._checked("integers", OF_INTEGERS, progress)

    def _real(self, progress: Progress) -> Iterator[Verdict]:
        yield from self._checked("reals", OF_REALS, progress)

    def _checked(self, kind: Any, words: dict[Word, Word], progress: Progress) -> Iterator[Verdict]:
        """What `check_op` finds; of a function, on y alone."""
        report = check_op(
            self.op.name,
            self.arithmetic,
            self.seed,
            self.draws,
            dtypes=(self.dtype,),
            kinds=(kind,),
            largest=self.facts.get("largest integer", LARGEST),
            progress=progress,
        )
        for name, verdict in report.verdicts.items():
            if name == "needs" and self.foreign.backward and kind == "reals":
                yield self._stated(
                    "needs", "consistent" if verdict.cause else "exact", structure=verdict.cause
                )
            elif name not in ("inputs", "needs") and (name == "y" or self.foreign.backward):
                word, again = words[verdict.verdict], self._again(verdict)
                yield replace(verdict, tensor=f"{kind} {name}", verdict=word, reproduce=again)

    def _again(self, verdict: Verdict) -> str:
        """The line that makes a call again, with the kernel under its own name."""
        if not verdict.reproduce:
            return ""
        name, found = self.op.name, title_of(self.foreign.given)
        module, _, function = found.partition(":")
        importable = "<" not in found and module != "__main__" and "." not in function
        kernel = f"from {module} import {function} as kernel" if importable else f"kernel = {found}"
        if self.foreign.backward:
            begin = "from refnet.arithmetic import core"
            return "; ".join([kernel, begin, f"arithmetic = core.replace({name}=kernel)", verdict.reproduce])
        given, _, _ = verdict.reproduce.partition(f"; y, context = arithmetic.{name}")
        return "; ".join([kernel, given, "y = kernel(*p.arrays, **p.case.attrs)"])

    def _inputs(self) -> Verdict:
        """Whether it has left its inputs alone, in all calls so far."""
        names = [*signature(self.op.infer).parameters, "dy"]
        changed = " and ".join(names[i] for i in sorted(self.foreign.changed, key=lambda i: i % len(names)))
        return self._stated(
            "inputs", "impossible" if changed else "exact", cause=f"it changed {changed}" if changed else ""
        )

    def _problems(self) -> Iterator[Problem]:
        """The cases and drawn problems, on reals."""
        for index in range(len(self.op.cases) + self.draws):
            yield problem(self.op.name, self.dtype, "reals", index, self.seed)

    # ---- Equal bits

    def _call(self, given: Problem, arrays: Sequence[Array], dy: Array) -> list[Array]:
        """Y, and all gradients if it has a backward pass."""
        door = self.arithmetic[self.op.name]
        y, context = door.forward(*arrays, **given.case.attrs)
        if not self.foreign.backward:
            return [y.copy()]
        y = y.copy()
        return [y, *(np.array(g) for g in door.backward(dy, context, given.needs) if g is not None)]

    def _batch(self) -> Verdict | None:
        """Whether each sample has the same bits alone."""
        count = elements = 0
        note = ""
        for given in self._problems():
            if count == BATCHES:
                break
            samples = given.case.shapes[0][0]
            cuts = [] if samples == 1 else self._samples(given)
            if not cuts:
                continue
            count += 1
            try:
                whole = self._call(given, given.arrays, given.dy)[0]
                for n, arrays in enumerate(cuts):
                    alone = self._call(given, arrays, given.dy[n : n + 1])[0]
                    elements += alone.size
                    off = _differing(alone, whole[n : n + 1])
                    if off and not self._within(given, arrays, alone):
                        cause = f"sample {n} of {samples}, computed alone, is beyond its bound"
                        return self._stated("batch", "impossible", node=given.case.name, cause=cause)
                    if off and not note:
                        note = f"sample {n} of {samples} has other bits alone: {off} of {alone.size} elements"
                        where = given.case.name
            except Exception as error:  # whatever a kernel raises is a finding
                return self._ended("batch", error)
        if not count:
            self.facts["batch"] = "does not apply: no sample is computed by itself"
            return None
        if note:
            return self._stated("batch", "consistent", node=where, elements=elements, structure=note)
        return self._stated("batch", "exact", elements=elements)

    def _samples(self, given: Problem) -> list[list[Array]]:
        """The inputs of each sample alone, if the definition computes each by itself."""
        definition, attrs = reference[self.op.name], given.case.attrs
        values = [a if a.dtype == INTEGER else wide(a) for a in given.arrays]
        whole = definition.forward(*values, **attrs)[0]
        samples = len(values[0])
        for chosen in ((True,) + (False,) * (len(values) - 1), (True,) * len(values)):
            try:
                cuts = [
                    [a[n : n + 1] if cut else a for a, cut in zip(given.arrays, chosen, strict=True)]
                    for n in range(samples)
                ]
                alone = [
                    definition.forward(*(a if a.dtype == INTEGER else wide(a) for a in arrays), **attrs)[0]
                    for arrays in cuts
                ]
            except RefnetError:
                continue
            if all(np.allclose(y, whole[n : n + 1], rtol=1e-9, atol=1e-9) for n, y in enumerate(alone)):
                return cuts
        return []

    def _within(self, given: Problem, arrays: Sequence[Array], y: Array) -> bool:
        """Whether y is within its bound."""
        judge = Judge.of(self.arithmetic, self.op.name, self.claim, tuple(arrays), given.case.attrs)
        return judge.output(y, judge.forward()[0]).ok

    def _largest(self) -> Problem:
        """The problem of the most work."""
        return max(
            self._problems(),
            key=lambda given: self.op.cost(*given.case.shapes, itemsize=1, **given.case.attrs),
        )

    def _repeats(self) -> Verdict:
        """Whether a call that is made again returns the same bits."""
        return self._same("repeats", [(f"call {i + 2}", nullcontext) for i in range(REPEATS)])

    def _threads(self) -> Verdict | None:
        """Whether a call has the same bits on any number of threads."""
        means = _means()
        self.facts["threads"] = " and ".join(means) if means else "not varied: threadpoolctl is not installed"
        if not means:
            return None
        counts = sorted({1, 2, os.cpu_count() or 1})
        return self._same("threads", [(f"a call on {n} threads", partial(_on_threads, n)) for n in counts])

    def _same(self, name: str, ways: list[tuple[str, Callable[[], AbstractContextManager[Any]]]]) -> Verdict:
        given = self._largest()
        elements = 0
        try:
            first = self._call(given, given.arrays, given.dy)
            for said, way in ways:
                with way():
                    again = self._call(given, given.arrays, given.dy)
                elements += sum(a.size for a in again)
                off = sum(_differing(a, b) for a, b in zip(again, first, strict=True))
                if off:
                    note = f"{said} returned other bits: {off} of {sum(a.size for a in again)} elements"
                    return self._stated(
                        name, "consistent", node=given.case.name, elements=elements, structure=note
                    )
        except Exception as error:  # whatever a kernel raises is a finding
            return self._ended(name, error)
        return self._stated(name, "exact", node=given.case.name, elements=elements)

    # ---- The order

    def _orders(self, progress: Progress) -> Iterator[Verdict]:
        """Of y, and of a product's gradients."""
        if self.op.sums is None:
            self.facts["order"] = "not asked: no element is a long sum"
            return
        subjects = {"y": OUTPUT}
        if self.foreign.backward and self.op.family == "product":
            subjects |= {"dx": 0, "dw": 1}
        self.facts["order"] = {}
        for done, (name, subject) in enumerate(subjects.items()):
            progress(f"order of {self.op.name}", done, len(subjects))
            try:
                found = order_of(self.arithmetic, self.op, subject, self.claim, self.dtype, self.seed)
            except Exception as error:  # whatever a kernel raises is a finding
                yield self._ended(f"order {name}", error)
                continue
            self.facts["order"][name] = found.words or "none"
            yield self._ordered(name, found)
        progress(f"order of {self.op.name}", len(subjects), len(subjects))

    def _ordered(self, name: str, found: Ordered) -> Verdict:
        same = sum(found.counts)
        verdict = self._stated(
            f"order {name}",
            "exact",
            node=self.op.sums.name if self.op.sums is not None else "",
            elements=found.elements,
            structure=found.said,
        )
        if not found.complete and not found.orders:
            return replace(
                verdict, verdict="consistent", elements=0, structure=f"no fixed order: {found.why}"
            )
        if not found.complete:
            why = (
                f"{same} of {found.elements} elements are sums of ({found.words}); of the others, {found.why}"
            )
            return replace(verdict, verdict="refused", wrong=found.elements - same, where=found.left, why=why)
        if not found.claimed:
            assert found.rounding is not None
            form, way = found.rounding.operands, found.rounding.way
            sentence = f"every bit of {name} is that of operands rounded to {form.title}, {WAYS[way]}"
            return replace(
                verdict,
                verdict="impossible",
                cause=sentence,
                hypothesis=f"operands {form.name} {way}",
                margin=inf,
            )
        return verdict

    # ---- Verdicts

    def _stated(self, name: str, word: Word, **said: Any) -> Verdict:
        margin = inf if word == "impossible" else 0.0
        return Verdict(**{"tensor": name, "verdict": word, "op": self.op.name, "margin": margin, **said})

    def _ended(self, name: str, error: Exception) -> Verdict:
        return self._stated(
            name, "refused", why=f"the call ended with {type(error).__name__}: {one_line(error)}"
        )


def _differing(a: Array, b: Array) -> int:
    """How many elements have other bits."""
    kind = f"V{a.dtype.itemsize}"
    return int(np.count_nonzero(np.ascontiguousarray(a).view(kind) != np.ascontiguousarray(b).view(kind)))


def _means() -> list[str]:
    """By what the number of threads can be set."""
    means = []
    try:
        import threadpoolctl

        means.append(
            "threadpoolctl: "
            + ", ".join(sorted({i["internal_api"] for i in threadpoolctl.threadpool_info()}))
        )
    except ImportError:
        pass
    return [*means, "torch.set_num_threads"] if "torch" in sys.modules else means


@contextmanager
def _on_threads(count: int) -> Iterator[None]:
    """Every library that can be told runs on that many threads."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    try:
        from threadpoolctl import threadpool_limits

        limits: AbstractContextManager[Any] = threadpool_limits(count)
    except ImportError:
        limits = nullcontext()
    with limits:
        if torch is not None:
            torch.set_num_threads(count)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
