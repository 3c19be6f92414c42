"""From a dumped array and what is expected of it to a verdict: its word, where, and why."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic.core import core
from refnet.arrays import Array
from refnet.check.algorithms import transforms
from refnet.check.bounds import Claim, unit
from refnet.check.causes import Cause, explain
from refnet.check.expected import BY_VARIANCE, NARROW, Expected, Known, Oracle
from refnet.check.formulas import FOREIGN
from refnet.check.judge import Judge
from refnet.check.locate import BLOB, axes_of, structure
from refnet.check.maps import maps
from refnet.check.natural import Summed, reconsidered
from refnet.check.plausible import Assessment, Levels, assess, heat
from refnet.check.precision import WAYS, Way, format_of
from refnet.check.replay import parameters
from refnet.check.report import SEVERITY, Verdict
from refnet.check.summands import counted
from refnet.environment import errstate
from refnet.op import OUTPUT, Op

# The correlation of errors with what is right from which on they are no noise.
NOISE = 0.125
# The share of elements that are not zero below which a verdict says so.
FEW = 0.01
ALL_ZERO = "it is zero everywhere, as it should be"
NOTHING_TO_COMPARE = "everything is zero: there is nothing to compare"
# How many elements are looked at first, and the share in which a sum in float64, rounded, may miss the
# correctly rounded float32: where it is within its error of a tie.
SAMPLE = 1 << 12
TWICE_ROUNDED = 2.0**-10
TINY = float(np.finfo(np.float64).tiny)

# An expectation for each way in which operands may have been rounded.
Ways = Mapping[Way | None, Callable[[], Expected]]


class Call(NamedTuple):
    """The call whose result is judged.

    Attributes
    ----------
    op : Op
    arrays : tuple of ndarray
        Its inputs.
    attrs : dict
    subject : int
        OUTPUT, or which input's gradient.
    dy : ndarray, optional
    exact : bool
        Whether all of it was dumped: then terms can be looked at, and mistakes replayed.
    others : tuple of (str, dict of int to ndarray)
        Other nodes whose parameters might be taken for its own, and these, by input.
    """

    op: Op
    arrays: tuple[Array, ...]
    attrs: dict[str, Any]
    subject: int
    dy: Array | None = None
    exact: bool = True
    others: tuple[tuple[str, dict[int, Array]], ...] = ()


@dataclass
class Jury:
    """Judges the arrays of one report.

    Attributes
    ----------
    claim : Claim
    levels : Levels
    verdicts : dict of str to Verdict
        In the order in which arrays were judged.
    """

    claim: Claim
    levels: Levels
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    _worst: str | None = None

    def ways(self) -> tuple[Way | None, ...]:
        """How operands may have been rounded, the usual way first; None: not at all, which is better."""
        operands = self.claim.operands
        if operands is None or unit(operands) <= unit(self.claim.accumulate):
            return (None,)
        if self.claim.operand_rounding is not None:
            return (*tuple(way for way in WAYS if way == self.claim.operand_rounding), None)
        return ("nearest", None, "zero", "away") if operands in NARROW else (None, "nearest", "zero", "away")

    def oracle(self, way: Way | None) -> Oracle:
        """Who computes what is expected."""
        return Oracle(self.claim, way)

    def judge(
        self, tensor: str, node: str, found: Array, ways: Ways, call: Call | None, why: str = ""
    ) -> None:
        """Judge an array by the way that fits best.

        Parameters
        ----------
        tensor, node : str
            The array's name in the report, and whose result it is.
        found : ndarray of float32 or float64
        ways : mapping
            What is expected, before it is stored.
        call : Call, optional
            Whose result it is, if it is that of one.
        why : str
            What is said of a verdict that passes.
        """
        axes = axes_of(call.op, call.subject, found.ndim) if call else BLOB[: found.ndim]
        levels = self._levels(call, found)
        best: tuple[Assessment, Expected, Way | None] | None = None
        for way, expectation in ways.items():
            expected = expectation().stored(self.claim)
            assessed = assess(found, expected, axes, levels)
            if assessed.wrong:
                spared = self._overflowing(found, expected)
                assessed = assessed if spared is found else assess(spared, expected, axes, levels)
            if best is None or _badness(assessed) < _badness(best[0]):
                best = assessed, expected, way
            if assessed.word in ("exact", "consistent", "refused"):
                break
        assert best is not None, "there is a way"
        assessed, expected, way = best
        word, said = assessed.word, why
        if word in ("implausible", "systematic"):
            excuse = self._excuse(call, way, found, expected, assessed)
            word, said = ("consistent", excuse) if excuse else (word, said)
        if word in ("exact", "consistent") and self._nearly_exact(found, expected):
            right = self._rounded_once(call, way)
            if right is not None:
                word = "exact" if np.array_equal(found, right) else "consistent"
        if word in ("exact", "consistent") and assessed.unjudged:
            word, said = "refused", f"{assessed.unjudged} elements are made of what is not finite"
        if word == "consistent" and not found.any() and not expected.value.any():
            word = "exact"
        if assessed.word == "refused":
            nothing = "the bound is above the array's own scale: it says nothing"
            said = f"{nothing}; {said}" if said else nothing
        if word in ("exact", "consistent") and not said:
            said = _mostly_zero(found)
        verdict = Verdict(
            tensor=tensor,
            verdict=word,
            margin=assessed.margin,
            node=node,
            op=call.op.name if call else "",
            where=assessed.where,
            found=assessed.found,
            expected=assessed.expected,
            bound=assessed.bound,
            wrong=assessed.wrong,
            elements=assessed.elements,
            why=said,
            residual=assessed.residual,
        )
        if not verdict.passes and word != "refused":
            verdict = self._diagnosed(verdict, assessed, found, expected, axes, call)
        self.keep(verdict, lambda: heat(found, expected) if "frame" in axes else None)

    def _nearly_exact(self, found: Array, expected: Expected) -> bool:
        """Whether it is a sum, and the expected value rounded but for few that may be the error of that."""
        if not expected.statistical:
            return False
        sample = slice(None, None, -(-found.size // SAMPLE))
        values = expected.value.ravel()
        for part in (sample, slice(None)):
            with errstate(all="ignore"):
                differ = found.ravel()[part] != values[part].astype(found.dtype)
            if np.count_nonzero(differ) > 1 + differ.size * TWICE_ROUNDED:
                return False
        return True

    def _rounded_once(self, call: Call | None, way: Way | None) -> Array | None:
        """The correctly rounded result of a call of which all was dumped."""
        if call is None or not call.exact:
            return None
        return self.oracle(way).rounded_once(call.op.name, call.dy, call.arrays, call.subject, call.attrs)

    def _excuse(
        self, call: Call | None, way: Way | None, found: Array, expected: Expected, assessed: Assessment
    ) -> str:
        """Why what is expected of a plain chain is not expected here; "" where it is."""
        if call is None or not call.exact:
            return ""
        shapes = tuple(a.shape for a in call.arrays)
        shape = found.shape if call.dy is None else call.dy.shape
        if counted(call.op, call.subject, shapes, shape, call.attrs) is None:
            return ""
        oracle = self.oracle(way)
        multiplies = call.op.family == "product"
        arrays = (*map(oracle.narrowed, call.arrays[:2]), *call.arrays[2:]) if multiplies else call.arrays
        dy = oracle.narrowed(call.dy) if multiplies and call.dy is not None else call.dy
        order = reconsidered(
            Summed(call.op, call.subject, arrays, dy, call.attrs),
            found,
            expected,
            assessed.where,
            self.claim,
            self.levels,
        )
        if order.alike:
            return "its terms are alike, rounding errors are not of mean zero: the bound alone decides"
        if order.plausible and assessed.word == "implausible" and not assessed.structures:
            return f"larger than the error of a plain chain, as sums {order.name} make it"
        return ""

    def settle(self) -> None:
        """Say of a report in which everything is zero that there is nothing to compare."""
        judged = [v for v in self.verdicts.values() if v.elements]
        if not judged or any(v.verdict != "exact" or v.why != ALL_ZERO for v in judged):
            return
        for verdict in judged:
            self.verdicts[verdict.tensor] = replace(verdict, verdict="refused", why=NOTHING_TO_COMPARE)

    def keep(self, verdict: Verdict, picture: Callable[[], Any] = lambda: None) -> None:
        """Hold a verdict; of the worst one so far, draw where the differences are large."""
        worst = None if self._worst is None else self.verdicts[self._worst]
        if verdict.residual is not None and (worst is None or verdict.badness > worst.badness):
            verdict = replace(verdict, residual=replace(verdict.residual, heat=picture()))
            self._worst = verdict.tensor
        self.verdicts[verdict.tensor] = verdict

    def fail(self, tensor: str, node: str, op: str, cause: str, hypothesis: str | None = None) -> None:
        """Note an array that is wrong as a whole."""
        self.keep(
            Verdict(
                tensor=tensor,
                verdict="impossible",
                margin=np.inf,
                node=node,
                op=op,
                cause=cause,
                hypothesis=hypothesis,
            )
        )

    def refuse(self, tensor: str, node: str, op: str, why: str) -> None:
        """Note an array of which nothing can be said."""
        self.keep(Verdict(tensor=tensor, verdict="refused", node=node, op=op, why=why))

    def _levels(self, call: Call | None, found: Array) -> Levels:
        """The levels for a result; by statistics of a channel, all its elements share their errors."""
        if call is None or call.op.family != "norm" or not call.op.smooth or found.ndim != 5:
            return self.levels
        return replace(self.levels, copies=found.size / found.shape[1])

    def _overflowing(self, found: Array, expected: Expected) -> Array:
        """The array, with what is expected where it is infinite and may be: where a sum can overflow."""
        if np.isfinite(found).all():
            return found
        most = format_of(self.claim.accumulate).largest
        with errstate(over="ignore", invalid="ignore"):
            size = np.maximum(expected.error() / max(expected.per, 2.0**-52), np.abs(expected.value))
            may = (size >= most) | (np.abs(expected.value) >= format_of(self.claim.store).largest)
        allowed = may & ~np.isfinite(found)
        return np.where(allowed, expected.value, found) if allowed.any() else found

    def _diagnosed(
        self,
        verdict: Verdict,
        assessed: Assessment,
        found: Array,
        expected: Expected,
        axes: tuple[str, ...],
        call: Call | None,
    ) -> Verdict:
        """Say of a failure which elements, and what explains it."""
        groups = call.attrs.get("groups", 1) if call else 1
        with errstate(all="ignore"):
            off = np.abs(found - expected.value)
            limit = expected.error()
            if verdict.verdict == "implausible":
                limit = np.minimum(limit, self.levels.largest * np.sqrt(expected.variance(2.0)))
            beyond = ~(off <= limit) & np.isfinite(expected.value)
        where = structure(beyond, axes, groups) if beyond.any() else ""
        regular = "; ".join(one.words for one in assessed.structures)
        verdict = replace(
            verdict,
            structure="; ".join(filter(None, (where, regular if verdict.verdict == "systematic" else ""))),
            maps=maps(beyond, axes) if beyond.any() else (),
        )
        nans = int(np.count_nonzero(~np.isfinite(found) & np.isfinite(expected.value)))
        if nans:
            return replace(
                verdict, cause=f"{nans} of {found.size} elements are not finite", hypothesis="not finite"
            )
        slack = None if call is None or call.exact else expected.error()
        cause = None if call is None else self.explained(call, found, expected, slack)
        if cause is not None:
            return replace(verdict, cause=cause.sentence, hypothesis=cause.hypothesis)
        if assessed.structures and verdict.verdict != "impossible":
            first = max(assessed.structures, key=lambda one: one.certainty)
            return replace(verdict, cause=f"it is {first.words}", hypothesis=first.name)
        return verdict

    def explained(
        self, call: Call, found: Array, expected: Expected, slack: Array | None = None
    ) -> Cause | None:
        """The mistake that explains a result, if one does; the result may be off by some slack."""
        judge = Judge(FOREIGN[call.op.name], core, self.claim, call.arrays, call.attrs)
        kind = "output" if call.subject == OUTPUT else call.subject
        cause = explain(judge, kind, found, call.dy, typical=self._typical(expected), slack=slack)
        unsure = cause is None or (call.op.name in BY_VARIANCE and cause.hypothesis.startswith("sums"))
        if unsure and slack is None:
            cause = self._of_another(call, judge, found) or self._of_algorithm(call, found, expected) or cause
        return cause

    def _of_algorithm(self, call: Call, found: Array, expected: Expected) -> Cause | None:
        """The algorithm that is no direct sum, and whose errors they may be."""
        op = call.op.name
        if self.claim.algorithm != "direct" or op not in ("conv3d", *BY_VARIANCE):
            return None
        which = {"winograd": "Winograd's convolution", "fft": "an FFT convolution"}
        if op not in BY_VARIANCE and not transforms(call.arrays[1].shape, call.attrs, call.subject):
            return None
        if op in BY_VARIANCE:
            which = {"one-pass variance": "a variance in one pass, the mean of squares less the squared mean"}
        axes = axes_of(call.op, call.subject, found.ndim)
        if op not in BY_VARIANCE and assess(found, expected, axes, self.levels).word == "systematic":
            return None  # no larger than the errors of a direct sum
        for algorithm, said in which.items():
            right = self.again(self.claim._replace(algorithm=algorithm), call, call.arrays)
            assessed = assess(found, right.stored(self.claim), axes, self.levels)
            # A wrong variance is a factor of its channel; of a convolution, noise alone is meant.
            if assessed.word == "consistent" and (op in BY_VARIANCE or _is_noise(found, right.value)):
                return Cause(f"algorithm {algorithm}", f"its errors are as large as those of {said}")
        return None

    @staticmethod
    def again(claim: Claim, call: Call, arrays: tuple[Array, ...], way: Way | None = None) -> Expected:
        """What the call gives of other arrays, or by another claim."""
        oracle, known = Oracle(claim, way), [Known(a) for a in arrays]
        if call.subject == OUTPUT:
            return oracle.forward(call.op.name, known, call.attrs)
        assert call.dy is not None, "a gradient is that of a dy"
        needs = tuple(i == call.subject for i in range(len(arrays)))
        found = oracle.gradients(call.op.name, Known(call.dy), known, needs, call.attrs)[call.subject]
        assert found is not None, "it is needed"
        return found

    def _of_another(self, call: Call, judge: Judge, found: Array) -> Cause | None:
        """The parameter of another node that the call has read instead of its own."""
        axes = axes_of(call.op, call.subject, found.ndim)
        for node, parameters_of in call.others:
            arrays = tuple(parameters_of.get(i, a) for i, a in enumerate(call.arrays))
            right = self.again(self.claim, call, arrays)
            if assess(found, right.stored(self.claim), axes, self.levels).wrong == 0:
                what = " and ".join(parameters(judge)[index] for index in parameters_of)
                return Cause(f"{what} of {node}", f"it is that of {what} of another node: {node}")
        return None

    def _typical(self, expected: Expected) -> Array | None:
        """What no honest error exceeds, in units of the sum of magnitudes; None where nothing is expected."""
        if not expected.statistical or not expected.terms:
            return None
        size = expected.scale * np.broadcast_to(expected.absolute, expected.value.size).reshape(
            expected.value.shape
        )
        with errstate(divide="ignore", invalid="ignore"):
            ratio = self.levels.largest * np.sqrt(expected.variance(2.0)) / size
        return np.where(size > 0, ratio, expected.per)


def _mostly_zero(found: Array) -> str:
    """Say of an array that few of its elements say anything."""
    share = np.count_nonzero(found) / max(found.size, 1)
    if not share:
        return ALL_ZERO
    return f"only {share:.1%} of it is not zero" if share < FEW else ""


def _is_noise(found: Array, right: Array) -> bool:
    """Whether errors have nothing to do with what is right."""
    off = found - right
    sizes = float(np.linalg.norm(right)) * float(np.linalg.norm(off))
    return abs(float((off * right).sum())) < NOISE * max(sizes, TINY)


def _badness(assessed: Assessment) -> tuple[int, float, float]:
    return SEVERITY.index(assessed.word), assessed.residual.rms or 0.0, assessed.margin


def one_way(expected: Expected) -> Ways:
    """What is expected, however operands were rounded."""
    return {None: lambda: expected}


def names_of(nodes: Iterable[str]) -> str:
    """Some names, the first few."""
    found = list(nodes)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more
