"""A kernel under test, live: on whole and real numbers, alone and in a batch, and in which order it adds."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from math import inf
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnet.arithmetic import Arithmetic, core, reference
from refnet.arrays import INTEGER, Array, dtype_name, wide
from refnet.check.bounds import Claim
from refnet.check.foreign_kernel import EXPECTED, ForeignKernel, is_kernel, title_of
from refnet.check.kernel_order import Ordered, order_of
from refnet.check.one_call import check
from refnet.check.operators import check_op
from refnet.check.precision import FLOAT32, WAYS, format_of
from refnet.check.problems import LARGEST, Problem, problem
from refnet.check.report import OPEN, Report, Verdict, Word
from refnet.errors import DTypeError, RefnetError, kind_of, one_line, require_kind, require_known
from refnet.inputs.fill import require_seed
from refnet.op import OUTPUT, Op
from refnet.ops import OPS
from refnet.progress import Progress, silent, steps
from refnet.shapes import whole

# Problems of several samples that are run sample by sample, and calls that are made again.
BATCHES, REPEATS = 8, 3
# How probable a false alarm on real numbers may be.
DELTA = 1e-6
# What is said of whole numbers, which no order of a sum rounds.
OF_INTEGERS: dict[Word, Word] = {"ok": "exact", "wrong": "impossible", "undecided": "refused"}


def examine(
    op: str,
    kernel: Any,
    *,
    claim: Claim | None = None,
    seed: int = 0,
    draws: int = 32,
    dtype: DTypeLike = "float32",
    title: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Judge a kernel of somebody's own.

    - *integers*: on the operator's cases and on problems drawn for it, whole numbers of which every sum is
      exact in any order: threshold 0. Operands of fewer bits than claimed show here, and are named.
    - *reals*: the same problems on real numbers, each call judged by `check`, by what is claimed.
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
        ``backward`` as `refnet.Kernel` has them, whose gradients are judged, too; of an `Arithmetic`, its own
        for the operator.
    claim : Claim, optional
        What it claims of its arithmetic: that of the dtype, if not given.
    seed : int
        Of problems and values.
    draws : int
        How many problems are drawn beside the operator's cases.
    dtype : {"float32", "float64"}
        Of the arrays that it is given.
    title : str, optional
        What the report calls it: "module:function", if not given; of a `Kernel`, its forward's.
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
    KernelError
        If it returns what no kernel does: a function (y, context), an object's forward y alone.
    """
    require_known("operator", op, OPS)
    draws = whole("draws", draws, 0)
    if not is_kernel(kernel):
        raise DTypeError(f"kernel is {kind_of(kernel)}: expected {EXPECTED}")
    if isinstance(kernel, Arithmetic):
        require_known(f"operator of arithmetic {kernel.name}", op, kernel)
        kernel = kernel.kernels[op]
    dtype = dtype_name(dtype)
    require_seed(seed)
    claim = Claim(dtype, dtype) if claim is None else claim
    require_kind("claim", claim, Claim, "as refnet.check.bounds.Claim(...)")
    if title is None:
        title = title_of(kernel)
    require_kind("title", title, str, "what the report calls the kernel")
    foreign = ForeignKernel(kernel, op, claim.store, title)
    trial = _Trial(OPS[op], foreign, core.replace(**{op: foreign.kernel}), claim, dtype, seed, draws)
    verdicts: dict[str, Verdict] = {}
    for verdict in trial.verdicts(progress):
        if foreign.misused is not None:
            raise foreign.misused
        verdicts[verdict.tensor] = verdict
    return Report(title=f"{title} as {op}", verdicts=verdicts, facts=trial.facts)


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
        yield from self._integers(progress)
        yield from self._reals(progress)
        yield self._inputs()
        threads = self._threads()
        for verdict in (self._batch(), self._repeats(), threads):
            if verdict is not None:
                yield verdict
        # Thousands of small calls: on one thread, if the bits are the same.
        with _on_threads(1) if threads is not None and threads.verdict == "exact" else nullcontext():
            yield from self._orders(progress)

    # ---- Problems

    def _integers(self, progress: Progress) -> Iterator[Verdict]:
        """What `check_op` finds on whole numbers that the claimed formats hold; of a function, on y alone."""
        if min(format_of(f).digits for f in (self.claim.accumulate, self.claim.store)) < FLOAT32.digits:
            self.facts["integers"] = "not asked: sums are claimed to be rounded to fewer bits than they have"
            return
        digits = format_of(self.claim.operands or self.dtype).digits
        self.facts["largest integer"] = largest = min(LARGEST, 2**digits - 1)
        report = check_op(
            self.op.name,
            self.arithmetic,
            self.seed,
            self.draws,
            dtypes=(self.dtype,),
            kinds=("integers",),
            largest=largest,
            progress=progress,
        )
        for name, verdict in report.verdicts.items():
            if name == "needs" and self.foreign.backward:
                yield self._stated(
                    "needs", "consistent" if verdict.cause else "exact", structure=verdict.cause
                )
            elif name not in ("inputs", "needs") and (name == "y" or self.foreign.backward):
                word, again = OF_INTEGERS[verdict.verdict], self._again(verdict)
                yield replace(verdict, tensor=f"integers {name}", verdict=word, reproduce=again)

    def _reals(self, progress: Progress) -> Iterator[Verdict]:
        """The worst that `check` finds of each array, over all problems that say something of it.

        Where all outputs see nothing but padding, there is nothing to compare.
        """
        worst: dict[str, Verdict] = {}
        judged, failed = Counter[str](), Counter[str]()
        step = steps(progress, f"certify {self.op.name}", self._count)
        for index, given in enumerate(self._problems()):
            for name, verdict in self._certified(given).items():
                before = worst.get(name)
                if verdict.verdict in OPEN and before is not None:
                    continue
                judged[name] += verdict.verdict not in OPEN
                failed[name] += not verdict.passes and verdict.verdict not in OPEN
                if before is None or before.verdict in OPEN or verdict.badness > before.badness:
                    worst[name] = replace(
                        verdict, reproduce="" if verdict.passes else self._line(given, index)
                    )
            step(index)
        for name, verdict in worst.items():
            where = f"in {failed[name]} of {judged[name]} calls" if failed[name] else ""
            structure = "; ".join(filter(None, (verdict.structure, where)))
            yield replace(verdict, tensor=f"reals {name}", structure=structure)

    def _certified(self, given: Problem) -> dict[str, Verdict]:
        """What `check` says of one call."""
        names = ["y", *(f"d{n}" for n in list(signature(self.op.infer).parameters)[: len(given.arrays)])]
        try:
            y, *gradients = self._call(given, given.arrays, given.dy)
        except (Exception, SystemExit) as error:  # whatever a kernel raises is a finding
            ended = replace(self._ended("y", error), verdict="impossible", margin=inf)
            ended = replace(ended, cause=ended.why, why="")
            wanted = names if self.foreign.backward else names[:1]
            return {
                name: replace(ended, tensor=name, node=given.case.name)
                for name, need in zip(wanted, (True, *given.needs), strict=False)
                if need
            }
        every = iter(gradients)
        returned = [next(every) if need else None for need in given.needs] if gradients else None
        report = check(
            self.op.name,
            given.arrays,
            y,
            dy=given.dy if gradients else None,
            gradients=returned,
            delta=DELTA / self._count,
            **self._claims,
            **given.case.attrs,
        )
        return {name: replace(verdict, node=given.case.name) for name, verdict in report.verdicts.items()}

    @property
    def _claims(self) -> dict[str, Any]:
        """What is claimed, as `check` takes it."""
        words = {part: format_of(getattr(self.claim, part)).name for part in ("accumulate", "store")}
        return self.claim._asdict() | words | {"operands": format_of(self.claim.operands or self.dtype).name}

    @property
    def _count(self) -> int:
        return len(self.op.cases) + self.draws

    def _line(self, given: Problem, index: int) -> str:
        """The line that makes a call on reals again."""
        values = (self.op.name, given.dtype, given.kind, index, self.seed)
        call = "y, context = kernel.forward" if self.foreign.backward else "y = kernel"
        return "; ".join(
            [
                self._import,
                "from refnet.check.operators import problem",
                f"p = problem{values}",
                f"{call}(*p.arrays, **p.case.attrs)",
            ]
        )

    @property
    def _import(self) -> str:
        """The line that imports the kernel, if it has a name that can be."""
        found = title_of(self.foreign.given)
        module, _, function = found.partition(":")
        importable = not ({"<", "."} & set(function)) and module != "__main__"
        return f"from {module} import {function} as kernel" if importable else f"kernel = {found}"

    def _again(self, verdict: Verdict) -> str:
        """The line that makes a call of `check_op` again, with the kernel in place of its arithmetic's."""
        line, name = verdict.reproduce, self.op.name
        if not line:
            return ""
        if self.foreign.backward:
            own = f"from refnet.arithmetic import core; arithmetic = core.replace({name}=kernel)"
            return f"{self._import}; {own}; {line}"
        given, _, _ = line.partition(f"; y, context = arithmetic.{name}")
        return f"{self._import}; {given}; y = kernel(*p.arrays, **p.case.attrs)"

    def _inputs(self) -> Verdict:
        """Whether it has left its inputs alone, in all calls so far."""
        names = [*signature(self.op.infer).parameters, "dy"]
        changed = " and ".join(names[i] for i in sorted(self.foreign.changed, key=lambda i: i % len(names)))
        return self._stated(
            "inputs", "impossible" if changed else "exact", cause=f"it changed {changed}" if changed else ""
        )

    def _problems(self) -> Iterator[Problem]:
        """The cases and drawn problems, on reals."""
        for index in range(self._count):
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
            except (Exception, SystemExit) as error:  # whatever a kernel raises is a finding
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
        if whole.shape[:1] != (samples,):
            return []
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
            except (RefnetError, IndexError):  # a box of another sample
                continue
            if all(np.allclose(y, whole[n : n + 1], rtol=1e-9, atol=1e-9) for n, y in enumerate(alone)):
                return cuts
        return []

    def _within(self, given: Problem, arrays: Sequence[Array], y: Array) -> bool:
        """Whether y is what may be expected of it."""
        return check(self.op.name, arrays, y, delta=DELTA, **self._claims, **given.case.attrs).ok

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
        except (Exception, SystemExit) as error:  # whatever a kernel raises is a finding
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
            except (Exception, SystemExit) as error:  # whatever a kernel raises is a finding
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

    def _ended(self, name: str, error: BaseException) -> Verdict:
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
