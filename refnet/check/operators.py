"""An operator of an arithmetic against its definition: y, every gradient, the adjoint identity.

Its small cases and problems drawn for it are run, forward and backward, in both dtypes. On whole numbers, of
which every sum is exact in the dtype, nothing is allowed to differ; on reals each element has its bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from inspect import signature
from itertools import product
from math import inf
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnet.arithmetic import ARITHMETICS, Arithmetic, named
from refnet.arrays import DTYPES, Array, dtype_name, wide
from refnet.check.bounds import EXACT, bound, plain, unit
from refnet.check.compare import Comparison, compare
from refnet.check.diagnosis import diagnosed, verdict_of
from refnet.check.judge import Judge, oracle_of
from refnet.check.problems import COUNTABLE, KINDS, LARGEST, Kind, Problem, kinds_of, problem
from refnet.check.report import Report, Verdict
from refnet.environment import errstate
from refnet.errors import require_known
from refnet.inputs.fill import require_seed
from refnet.op import OUTPUT, InputGradients, Magnitude, Needs, Op
from refnet.ops import OPS
from refnet.progress import Progress, silent, steps
from refnet.shapes import whole

__all__ = ["check_op", "problem"]


def check_op(
    name: str,
    arithmetic: str | Arithmetic = "core",
    seed: int = 0,
    draws: int = 32,
    *,
    dtypes: DTypeLike | Sequence[DTypeLike] = DTYPES,
    kinds: Kind | Sequence[Kind] = KINDS,
    largest: int = LARGEST,
    progress: Progress = silent,
) -> Report:
    """Judge an operator of an arithmetic, forward and backward, on its cases and on problems drawn for it.

    y and each gradient, all at once and each alone, are compared with those of the definition, `reference` in
    float64 where the kernel is core's own, with `core` in float64 otherwise: on whole numbers, where the
    operator is exact on them, with threshold 0; on reals within the bound that follows from the dtype,
    element by element. Where y is affine in an input x, or piecewise so, the adjoint identity must hold,
    <y(x) - y(0), dy> = <x, dx>, which needs no definition: exactly on whole numbers, else to rounding.

    Parameters
    ----------
    name : str
    arithmetic : str or Arithmetic
        What is checked; `Arithmetic.replace` puts a kernel of one's own into one.
    seed : int
        Of problems and values.
    draws : int
        How many problems are drawn beside the operator's cases.
    dtypes, kinds : sequence of str
        Of the problems, or a single one: dtypes as NumPy takes them, kinds "integers" and "reals", those of
        them that say something of the operator.
    largest : int
        The largest whole number.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Report
        Verdicts on ``"y"``, ``"dx"``, ``"dw"``, ... by the names of the definition's inputs, on
        ``"adjoint dx"``, ... and on what a kernel has to leave alone: ``"inputs"``, and gradients that nobody
        ``"needs"``. Each is the worst over all problems; its node is the problem, its counts are of all.

    Raises
    ------
    UnknownNameError
        If there is no such operator or arithmetic.
    """
    require_known("operator", name, OPS)
    op, arithmetic = OPS[name], named(arithmetic)
    formats = [dtype_name(dtype) for dtype in _several(dtypes)]
    kinds = _several(kinds)
    for kind in kinds:
        require_known("kind of values", kind, KINDS)
    found = _Findings(op, arithmetic, seed, largest)
    count = len(op.cases) + whole("draws", draws, 0)
    require_seed(seed)
    step = steps(progress, f"check {name}", count)
    for index in range(count):
        asked = [kind for kind in kinds_of(name, index, seed) if kind in kinds]
        for dtype, kind in product(formats, asked):
            given = problem(name, dtype, kind, index, seed, largest)
            _Trial(found, given, index).run(adjoint=kind == asked[0])
        step(index)
    return Report(
        title=f"{name} in {arithmetic.name}",
        verdicts=found.verdicts(),
        facts={
            "op": name,
            "arithmetic": arithmetic.name,
            "oracle": {dtype: oracle_of(arithmetic, name, dtype).name for dtype in formats},
            "dtypes": formats,
            "seed": seed,
            "cases": len(op.cases),
            "draws": draws,
            "calls": len(found.calls),
        },
    )


def _several(given: Any) -> list[Any]:
    """Several, where one may be given alone."""
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


@dataclass
class _Findings:
    """The verdicts so far, and on which calls they are."""

    op: Op
    arithmetic: Arithmetic
    seed: int
    largest: int
    calls: list[Problem] = field(default_factory=list)
    worst: dict[str, tuple[Verdict, Callable[[Verdict], Verdict]]] = field(default_factory=dict)
    judged: dict[str, set[int]] = field(default_factory=dict)
    failed: dict[str, set[int]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)

    @property
    def inputs(self) -> list[str]:
        """What the definition calls the inputs."""
        return list(signature(self.op.infer).parameters)

    def keep(self, verdict: Verdict, diagnose: Callable[[Verdict], Verdict]) -> None:
        """Count a verdict on the latest call; keep it, to be diagnosed, if it is the worst of its name."""
        name, call = verdict.tensor, len(self.calls) - 1
        self.judged.setdefault(name, set()).add(call)
        if verdict.verdict == "wrong":
            self.failed.setdefault(name, set()).add(call)
        self.wrong[name] += verdict.wrong
        self.elements[name] += verdict.elements
        before = self.worst.get(name)
        if before is None or verdict.badness > before[0].badness:
            self.worst[name] = verdict, diagnose

    def verdicts(self) -> dict[str, Verdict]:
        """The worst verdict of each name, in the order of a call, with the counts of all calls."""
        gradients = [f"d{name}" for name in self.inputs]
        order = ["y", *gradients, *(f"adjoint {name}" for name in gradients), "inputs", "needs"]
        return {name: self._total(name) for name in order if name in self.worst}

    def _total(self, name: str) -> Verdict:
        verdict, diagnose = self.worst[name]
        verdict = diagnose(verdict)
        structure = "; ".join(filter(None, (verdict.structure, self._pattern(name))))
        return replace(verdict, wrong=self.wrong[name], elements=self.elements[name], structure=structure)

    def _pattern(self, name: str) -> str:
        """In which calls it is wrong: those with the rarest trait that all of them have."""
        failed, judged = self.failed.get(name), self.judged[name]
        if not failed:
            return ""
        having = {trait: {i for i in judged if holds(self.calls[i])} for trait, holds in TRAITS.items()}
        common = {trait: some for trait, some in having.items() if failed <= some < judged}
        if not common:
            return f"in {len(failed)} of {len(judged)} calls"
        trait = min(common, key=lambda trait: len(common[trait]))
        return f"only where {trait}: in {len(failed)} of {len(common[trait])} such calls"


def _above(least: int, attr: str) -> Callable[[Problem], bool]:
    """Whether an attribute, or an entry of it, is above what it is by default."""
    return lambda call: bool(np.max(call.case.attrs.get(attr, least)) > least)


def _sizes(call: Problem) -> tuple[int, ...]:
    return call.case.shapes[0][2:]


TRAITS: dict[str, Callable[[Problem], bool]] = {
    "a stride is above 1": _above(1, "stride"),
    "a pad is above 0": _above(0, "pad"),
    "a dilation is above 1": _above(1, "dilation"),
    "there are several groups": _above(1, "groups"),
    "a size is odd": lambda call: any(n % 2 for n in _sizes(call)),
    "a size is even": lambda call: any(n % 2 == 0 for n in _sizes(call)),
    "there are several samples": lambda call: call.case.shapes[0][0] > 1,
    "there are several frames": lambda call: len(_sizes(call)) == 3 and _sizes(call)[0] > 1,
    "the dtype is float32": lambda call: call.dtype == "float32",
    "the dtype is float64": lambda call: call.dtype == "float64",
    "values are whole": lambda call: call.exact,
    "values are not whole": lambda call: not call.exact,
}


class _Trial:
    """One problem, run and judged."""

    def __init__(self, found: _Findings, given: Problem, index: int):
        found.calls.append(given)
        self._found, self._given, self._index = found, given, index
        self._attrs, self._door = given.case.attrs, found.arithmetic[given.op.name]
        self._judge = Judge.of(found.arithmetic, given.op.name, plain(given.dtype), given.arrays, self._attrs)
        self._expected, self._of_oracle = self._judge.forward()
        self._asked = given.needs  # of the call that is judged

    def run(self, *, adjoint: bool) -> None:
        """Judge y and all gradients, then each gradient alone; then, where it holds, the adjoint identity."""
        needs = self._given.needs
        gradients = self._judged(needs)
        for i in range(len(needs)):
            if needs[i] and sum(needs) > 1:
                self._judged(tuple(i == j for j in range(len(needs))))
        self._asked = needs
        if adjoint and gradients is not None and not self._given.op.smooth:
            for i, gradient in enumerate(gradients):
                if gradient is not None:
                    self._judge_adjoint(i, gradient)

    def _judged(self, needs: Needs) -> InputGradients | None:
        """Run forward and backward on copies, judge what comes back and what was left behind."""
        given, self._asked = self._given, needs
        arrays, dy = [a.copy() for a in given.arrays], given.dy.copy()
        needed = [f"d{name}" for name, need in zip(self._found.inputs, needs, strict=False) if need]
        try:
            y, context = self._door.forward(*arrays, **self._attrs)
        except (Exception, SystemExit) as error:  # whatever a kernel raises is a finding
            self._keep_raised(["y", *needed], error)
            return None
        if needs == given.needs:
            by_threshold = partial(compare, bound=EXACT) if given.exact else self._judge.output
            self._keep("y", OUTPUT, by_threshold(y, self._expected), y)
        kept = y.copy()
        try:
            gradients = self._door.backward(dy, context, needs)
        except (Exception, SystemExit) as error:
            self._keep_raised(needed or ["needs"], error)
            return None
        self._judge_gradients(gradients, needs)
        self._judge_rest([*arrays, dy, y], [*given.arrays, given.dy, kept], gradients, needs)
        return gradients

    def _judge_gradients(self, gradients: InputGradients, needs: Needs) -> None:
        if not any(needs):
            return
        given, oracle = self._given, self._judge.oracle[self._given.op.name]
        if given.exact:
            right = oracle.backward(wide(given.dy), self._of_oracle, needs)
            results = [
                None if g is None or r is None else compare(g, r, EXACT)
                for g, r in zip(gradients, right, strict=True)
            ]
        else:
            results = self._judge.gradients(given.dy, gradients, self._of_oracle, needs)
        for i, (gradient, result) in enumerate(zip(gradients, results, strict=True)):
            if gradient is not None and result is not None:
                self._keep(f"d{self._found.inputs[i]}", i, result, gradient)

    def _judge_rest(
        self, now: list[Array], before: list[Array], gradients: InputGradients, needs: Needs
    ) -> None:
        """Judge whether inputs, dy and y are what they were, and whether only what is needed came back."""
        inputs = self._found.inputs[: len(needs)]
        named_arrays = zip([*inputs, "dy", "y"], now, before, strict=True)
        changed = [name for name, a, b in named_arrays if a.tobytes() != b.tobytes()]
        self._keep_stated("inputs", f"the call changed {' and '.join(changed)}" if changed else "")
        results = zip(inputs, gradients, needs, strict=True)
        extra = [f"d{name}" for name, gradient, need in results if gradient is not None and not need]
        self._keep_stated("needs", f"it returned {' and '.join(extra)}, which nobody needed" if extra else "")

    def _judge_adjoint(self, i: int, gradient: Array) -> None:
        """Judge whether <y(x) - y(0), dy> = <x, dx>, of an input x."""
        given, name = self._given, self._found.inputs[i]
        y, y0 = (self._door.forward(*arrays, **self._attrs)[0] for arrays in (given.arrays, self._without(i)))
        left, right = _dot(y, given.dy) - _dot(y0, given.dy), _dot(given.arrays[i], gradient)
        off, allowed = abs(float(left - right)), 0.0 if given.exact else self._allowed(i, y, y0, gradient)
        ok = off <= allowed
        verdict = Verdict(
            tensor=f"adjoint d{name}",
            verdict="ok" if ok else "wrong",
            margin=0.0 if off == 0 else off / allowed if allowed else inf,
            node=given.case.name,
            op=given.op.name,
            found=float(right),
            expected=float(left),
            bound=allowed,
            wrong=int(not ok),
            elements=1,
            cause="" if ok else f"<{name}, d{name}> is not <y - y without {name}, dy>",
        )
        self._found.keep(verdict, partial(self._reproducible, self._asked))

    def _without(self, i: int) -> list[Array]:
        """The inputs, with zeros in place of one."""
        return [np.zeros_like(a) if i == j else a for j, a in enumerate(self._given.arrays)]

    def _allowed(self, i: int, y: Array, y0: Array, gradient: Array) -> float:
        """By how much the two products may differ if y, y without the input, and its gradient are rounded."""
        given, dy = self._given, wide(self._given.dy)
        of_gradients = given.op.gradient_magnitude(dy, *self._judge.wide, needs=given.needs, **self._attrs)
        of_gradient = of_gradients[i]
        assert of_gradient is not None  # it has a gradient
        without = [wide(a) for a in self._without(i)]
        return (
            _off(given.op.magnitude(*self._judge.wide, **self._attrs), y, dy)
            + _off(given.op.magnitude(*without, **self._attrs), y0, dy)
            + _off(of_gradient, gradient, given.arrays[i])
        )

    def _keep(self, name: str, subject: int, result: Comparison, found: Array) -> None:
        """Keep the verdict of a comparison."""
        asked = self._asked

        def diagnose(verdict: Verdict) -> Verdict:
            told = diagnosed(verdict, result, self._judge, subject, found, wide(self._given.dy))
            return self._reproducible(asked, told)

        self._found.keep(verdict_of(name, self._given.case.name, self._given.op.name, result), diagnose)

    def _keep_raised(self, names: list[str], error: BaseException) -> None:
        """Call wrong what a kernel has raised an error in place of."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        for name in names:
            self._keep_stated(name, f"the call ended with {type(error).__name__}: {reason}")

    def _keep_stated(self, name: str, cause: str) -> None:
        """Keep what is right or, where a cause is given, wrong as a whole."""
        verdict = Verdict(
            tensor=name,
            verdict="wrong" if cause else "ok",
            margin=inf if cause else 0.0,
            node=self._given.case.name,
            op=self._given.op.name,
            cause=cause,
        )
        self._found.keep(verdict, partial(self._reproducible, self._asked))

    def _reproducible(self, asked: Needs, verdict: Verdict) -> Verdict:
        """Add a line that makes the call again, where it is wrong; its arithmetic may be somebody's own."""
        if verdict.verdict == "ok":
            return verdict
        given, arithmetic, name = self._given, self._found.arithmetic, self._given.op.name
        lines = ["from refnet.check.operators import problem"]
        if ARITHMETICS.get(arithmetic.name) is arithmetic:
            lines.append(f"from refnet.arithmetic import {arithmetic.name} as arithmetic")
        values: tuple[Any, ...] = (name, given.dtype, given.kind, self._index, self._found.seed)
        if self._found.largest != LARGEST:
            values += (self._found.largest,)
        needs = "" if asked == given.needs else f", {asked}"
        lines += [
            f"p = problem{values}",
            f"y, context = arithmetic.{name}.forward(*p.arrays, **p.case.attrs)",
            f"gradients = arithmetic.{name}.backward(p.dy, context{needs})",
        ]
        return replace(verdict, reproduce="; ".join(lines))


def _off(magnitude: Magnitude, values: Array, weights: Array) -> float:
    """By how much the product of rounded values and weights may be off, the rounding of `_dot` included."""
    allowed, size = bound(magnitude, plain(values.dtype)), np.abs(wide(values))
    own = (values.size + 1) * unit(np.float64) * size
    return float(np.sum((allowed.absolute + allowed.relative * size + own) * np.abs(wide(weights))))


def _dot(a: Array, b: Array) -> Fraction | float:
    """The sum of products: exact if all are small multiples of 2**-16, as averages by powers of two are."""
    a, b = (np.ldexp(wide(v).reshape(-1), 16) for v in (a, b))
    if all(((np.abs(v) < 2**16 * COUNTABLE) & (v == np.rint(v))).all() for v in (a, b)):
        products = map(int.__mul__, a.astype(np.int64).tolist(), b.astype(np.int64).tolist())
        return Fraction(sum(products), 2**32)
    with errstate(invalid="ignore", over="ignore"):
        return float(np.dot(a, b)) / 2**32
