"""What a call should give of what it read, and by how much an honest implementation misses it.

Each result has a hard bound, B, which no order of its sums exceeds, and where it is a sum an expected error,
sigma, that of a plain chain whose order has nothing to do with the values of its terms: docs/certify.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic import Arithmetic, core, exact
from refnet.arithmetic.exact import ROUNDED_ONCE
from refnet.arithmetic.table import Context
from refnet.arrays import INTEGER, Array, per_channel, wide
from refnet.check import algorithms
from refnet.check.bounds import CHAIN, Claim, unit
from refnet.check.formulas import FOREIGN, of_one_pass, training_variance
from refnet.check.precision import FORMATS, Way, format_of
from refnet.check.summands import SCALE, counted
from refnet.environment import errstate
from refnet.errors import ValueRangeError
from refnet.op import OUTPUT, Magnitude, Needs, Op
from refnet.pieces import all_finite

NOTHING = np.zeros(())
# What is rounded to the claimed storage between the steps of a norm: a product, a sum, a reciprocal.
STEPS = 3
# What a variance is computed in.
BY_VARIANCE = ("batch_norm_training", "running_variance")
# Formats that processors multiply matrices in.
NARROW = ("tf32", "bfloat16", "float16")
# Products that are added before a sum is truncated, where matrices are multiplied by one instruction.
FEWEST = 4


class UnderivedError(ValueRangeError):
    """What was not dumped, and cannot be derived."""


class Known(NamedTuple):
    """What is known of an array.

    Attributes
    ----------
    value : ndarray
        As it was dumped, or in float64.
    error : ndarray of float64, broadcastable to the value's shape
        How far it may be from what the candidate had.
    variance : ndarray of float64, broadcastable to the value's shape
        The square by which it is expected to be.
    """

    value: Array
    error: Array = NOTHING
    variance: Array = NOTHING

    @property
    def exact(self) -> bool:
        """Whether it is what the candidate had."""
        return self.error.ndim == 0 and not self.error


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What should be found, before it is stored.

    B = relative |value| + scale per absolute + least; of the expected error the square is
    plain value**2 + scale**2 spread_per spread / 6 + floor**2, where value is near 0 that with spread / 2.

    Attributes
    ----------
    value : ndarray of float64
    absolute : ndarray of float32, of one element or of the value's size
    spread : ndarray of float32, likewise, or of no element: no error is expected, the bound decides
    scale, per, spread_per, relative, least, plain, floor : float
    terms : int
        Of the longest sum; 0 where nothing is summed.
    shrink : float
        By how much of itself the value may be smaller on average, where sums are truncated.
    rounded : bool
        Whether it is the very number that is stored: what was chosen and moved, not computed.
    """

    value: Array
    absolute: Array
    spread: Array
    scale: float = 1.0
    per: float = 1.0
    spread_per: float = 1.0
    relative: float = 0.0
    least: float = 0.0
    plain: float = 0.0
    floor: float = 0.0
    terms: int = 0
    shrink: float = 0.0
    rounded: bool = False

    @property
    def statistical(self) -> bool:
        """Whether an error is expected."""
        return self.spread.size > 0

    def error(self) -> Array:
        """B, element by element."""
        of_absolute = wide(_shaped(self.absolute, self.value)) * (self.scale * self.per) + self.least
        return np.asarray(of_absolute + self.relative * np.abs(self.value))

    def variance(self, part: float = 6.0) -> Array:
        """The square of the expected error; with a part of 2 that of a result near 0."""
        if not self.statistical:
            return np.square(self.error()) / 3
        near = wide(_shaped(self.spread, self.value)) * (self.scale**2 * self.spread_per / part)
        return np.asarray(near + self.plain * np.square(self.value) + self.floor**2)

    def stored(self, claim: Claim) -> "Expected":
        """The expectation of what is rounded to the claimed storage."""
        form = format_of(claim.store)
        if self.rounded:
            return replace(self, least=self.least + (form.tiny if claim.flush_to_zero else 0.0))
        eta = form.tiny if claim.flush_to_zero else form.smallest
        return replace(
            self,
            relative=self.relative + form.unit,
            least=self.least + eta,
            plain=self.plain + form.unit**2 / 3,
            floor=float(np.hypot(self.floor, eta)),
        )

    def known(self, claim: Claim) -> Known:
        """What is known of a value that was not dumped: whether it was stored or handed on, it is near."""
        kept = self.stored(claim)
        return Known(self.value, kept.error(), kept.variance())


def _shaped(array: Array, like: Array) -> Array:
    """An array of one element, or of all of them, as it meets another."""
    return array.reshape(like.shape) if array.size == like.size else array.reshape(())


def normalised(array: Array) -> tuple[Array, float]:
    """Round up to float32 in units of a power of two, which is returned too."""
    largest = float(np.max(array, initial=0, where=np.isfinite(array)))
    scale = 2.0 ** min(max(int(np.frexp(largest)[1]), -1000), 1000)
    with errstate(over="ignore"):
        return np.ravel((array / scale) * (1 + 2.0**-20) + 2.0**-140).astype(np.float32), scale


def exactly(value: Array, claim: Claim) -> Expected:
    """The expectation of what is handed on; what the claimed storage lacks may be rounded, or kept."""
    form = format_of(claim.store)
    if form.unit > unit(np.float32):
        off = np.abs(form.round(value) - value)
        if off.any():
            return replace(of_errors(wide(value), off, None, 0), rounded=True)
    return Expected(
        value=wide(value), absolute=np.zeros(1, np.float32), spread=np.empty(0, np.float32), rounded=True
    )


def of_errors(value: Array, error: Array, variance: Array | None, terms: int) -> Expected:
    """An expectation from errors and their squares, each element's own."""
    absolute, scale = normalised(error)
    if variance is None:
        return Expected(value=value, absolute=absolute, scale=scale, spread=np.empty(0, np.float32))
    spread = np.ravel(6 * variance / scale**2)
    tiny = np.finfo(np.float32).tiny
    if 0 < np.max(spread, initial=0) < tiny:  # bounds of a long chain: no error is seen beside them
        return Expected(value=value, absolute=absolute, scale=scale, spread=np.empty(0, np.float32))
    np.maximum(spread, tiny, out=spread, where=spread > 0)
    return Expected(
        value=value, absolute=absolute, scale=scale, spread=spread.astype(np.float32), terms=terms
    )


def moved(expected: Expected, error: Array, variance: Array) -> Expected:
    """The same, where what is read may be off: by how much the result may be off for it is added."""
    whole = of_errors(
        expected.value,
        expected.error() + error,
        expected.variance() + variance,
        max(expected.terms, 1),
    )
    return replace(whole, terms=expected.terms, shrink=expected.shrink)


class Sizes(NamedTuple):
    """Sums of the magnitudes of products, and of their squares, in float32 in units of scale and scale**2."""

    sums: Array
    squares: Array
    scale: float


@dataclass(frozen=True)
class Oracle:
    """Computes what calls of a claimed arithmetic should give.

    Parameters
    ----------
    claim : Claim
    way : {"nearest", "away", "zero"}, optional
        How operands of products are rounded to the claimed format; None: they are not.
    """

    claim: Claim
    way: Way | None = None

    def forward(self, name: str, inputs: Sequence[Known], attrs: dict[str, Any]) -> Expected:
        """What y should be.

        Raises
        ------
        UnderivedError
            If an input was not dumped, and y curves in it.
        """
        op, arrays = FOREIGN[name], tuple(_widened(known.value) for known in inputs)
        if op.family == "product":
            arrays = (*map(self.narrowed, arrays[:2]), *arrays[2:])
        arithmetic = self._arithmetic(name, arrays)
        value, _ = arithmetic[name].forward(*arrays, **attrs)
        multiplies = op.family == "product" or name == "affine"
        sizes = _output_sizes(op, arrays, attrs, self._least) if multiplies else None
        expected = self._sum(arithmetic, op, OUTPUT, value, arrays, None, attrs, sizes)
        if all(known.exact for known in inputs):
            return expected
        carry = self._carried(op, inputs, arrays, attrs)
        return moved(expected, carry(1), carry(2))

    def gradients(
        self,
        name: str,
        dy: Known,
        inputs: Sequence[Known],
        needs: Needs,
        attrs: dict[str, Any],
    ) -> tuple[Expected | None, ...]:
        """What the gradients of the inputs should be, for the operators whose derivative is one formula.

        Raises
        ------
        UnderivedError
            If what backward reads was not dumped, and the gradients curve in it.
        """
        op, arrays = FOREIGN[name], tuple(_widened(known.value) for known in inputs)
        gradient = _widened(dy.value)
        if op.family == "product":
            arrays, gradient = (*map(self.narrowed, arrays[:2]), *arrays[2:]), self.narrowed(gradient)
        arithmetic = self._arithmetic(name, (gradient, *arrays))
        values = _gradients(arithmetic, op, gradient, arrays, needs, attrs)
        sizes: list[Sizes | None] = [None] * len(arrays)
        if op.family == "product":
            sizes = _gradient_sizes(op, gradient, arrays, needs, attrs, self._least)
        found = [
            None if v is None else self._sum(arithmetic, op, i, v, arrays, gradient, attrs, sizes[i])
            for i, v in enumerate(values)
        ]
        if not dy.exact:
            error, variance = (
                self._reached(op, power, spread, inputs, needs, attrs)
                for power, spread in ((1, dy.error), (2, dy.variance))
            )
            found = _all_moved(found, error, variance)
        read = [i for i in op.keeps if i != OUTPUT and i < len(inputs) and not inputs[i].exact]
        if read and any(v is not None for i, v in enumerate(found) if self._reads(op, i, read)):
            if op.family not in ("product", "norm") or op.smooth or read != [0]:
                raise UnderivedError(f"its gradients are made of an input that was not dumped ({op.name})")
            error, variance = (self._reread(op, power, dy, inputs, needs, attrs) for power in (1, 2))
            found = _all_moved(found, error, variance)
        return tuple(found)

    def rounded_once(
        self, name: str, dy: Array | None, arrays: Sequence[Array], subject: int, attrs: dict[str, Any]
    ) -> Array | None:
        """The correctly rounded result, in the dtype of the claimed storage; None where `exact` has none."""
        dtype = np.dtype(str(self.claim.store)) if str(self.claim.store) in ("float32", "float64") else None
        if dtype is None or name not in ROUNDED_ONCE:
            return None
        operands = [*arrays] if dy is None else [*arrays, dy]
        if any(unit(array.dtype) < unit(dtype) or not all_finite(array) for array in operands):
            return None
        op = FOREIGN[name]
        if op.family == "product":
            operands = [*map(self.narrowed, operands[:2]), *operands[2:]]
            if dy is not None:
                operands[-1] = self.narrowed(dy)
        read = [array.astype(dtype, copy=False) for array in operands]
        if dy is None:
            return exact[name].forward(*read, **attrs)[0]
        needs = tuple(index == subject for index in range(len(arrays)))
        return _gradients(exact, op, read[-1], tuple(read[:-1]), needs, attrs)[subject]

    def _arithmetic(self, name: str, arrays: Sequence[Array]) -> Arithmetic:
        """Who computes: `exact` where float64 is claimed, finite, rounded once; else `core`, in float64."""
        narrow = unit(self.claim.accumulate) > unit(np.float64)
        if narrow or name not in ROUNDED_ONCE or not all(map(all_finite, arrays)):
            return core
        return exact

    def _reads(self, op: Op, index: int, read: list[int]) -> bool:
        """Whether the gradient of an input is made of one of these inputs."""
        return index == SCALE if op.family in ("product", "norm") and not op.smooth else bool(read)

    def total(self, parts: Sequence[Expected]) -> Expected:
        """What the sum of gradients that meet should be, added up in any order."""
        if len(parts) == 1:
            return parts[0]
        u = max(unit(self.claim.accumulate), unit(self.claim.store))
        stored = [part.stored(self.claim) for part in parts]
        value = np.asarray(sum(part.value for part in parts))
        size = np.asarray(sum(np.abs(part.value) for part in parts))
        error = np.asarray(sum(part.error() for part in stored)) + len(parts) * u * size
        if not any(part.statistical for part in parts):
            return of_errors(value, error, None, 0)
        variance = np.asarray(sum(part.variance() for part in stored)) + u**2 / 3 * np.square(size)
        whole = of_errors(value, error, variance, max(part.terms for part in parts))
        return replace(whole, shrink=max(part.shrink for part in parts))

    def narrowed(self, array: Array) -> Array:
        """An operand of a product, as the claim has it."""
        if self.way is None or array.dtype == INTEGER:
            return array
        return FORMATS[str(self.claim.operands)].round(array, self.way)

    def _sum(
        self,
        arithmetic: Arithmetic,
        op: Op,
        subject: int,
        value: Array,
        arrays: tuple[Array, ...],
        dy: Array | None,
        attrs: dict[str, Any],
        sizes: Sizes | None,
    ) -> Expected:
        """The bound of a result of an arithmetic, and its expected error where it is a sum."""
        y = value.shape if dy is None else dy.shape
        count = counted(op, subject, tuple(a.shape for a in arrays), y, attrs)
        accumulate, u = format_of(self.claim.accumulate), unit(self.claim.accumulate)
        if op.hands_on and (dy is None or not self._adds(op)):
            return exactly(value, self.claim)
        if sizes is not None and count is None:
            count = 2
        elif sizes is None:
            sizes, counted_all = self._sizes(op, subject, arrays, dy, attrs, count)
            count = count or counted_all
        assert count is not None, "a product is a sum"
        norms = None
        if self.claim.algorithm in ("winograd", "fft"):
            norms = algorithms.normwise(op, subject, arrays, dy, attrs, self.claim.algorithm)
        rounds_once = arithmetic is exact
        own = (1 if rounds_once else min(count + 1, CHAIN + count / CHAIN + 1)) * unit(np.float64)
        steps = STEPS * unit(self.claim.store) if op.family == "norm" else 0.0
        if op.family == "product" and subject == OUTPUT and len(arrays) > 2 and unit(self.claim.store) > u:
            steps = unit(self.claim.store)  # a bias may be added to what was stored
        # float32 sums of magnitudes are off by as much as the chains of core are high.
        grown = 1 + 2 * (CHAIN + count / CHAIN + 8) * unit(np.float32)
        eta = accumulate.tiny if self.claim.flush_to_zero else accumulate.smallest
        base = Expected(
            value=value,
            absolute=sizes.sums,
            scale=sizes.scale,
            per=((count + 1) * u + steps + own) * grown,
            least=count * eta,
            spread=np.empty(0, np.float32),
            terms=count,
        )
        if norms is not None:
            return of_errors(value, base.error() + u * norms, None, 0)
        if sizes.squares.size == 0:
            return replace(base, terms=0)
        # The chains of core are as long as a candidate's in its format.
        square = (u**2 + (0 if rounds_once else unit(np.float64)) ** 2) / 3
        summed = replace(
            base,
            spread=sizes.squares,
            spread_per=square * count * grown + 6 * steps**2 / 3,
            plain=square * max(count / 3 - 1 / 6, 0.25),
            floor=float(np.sqrt(count) * eta),
        )
        return self._truncated(summed, u) if op.family == "product" and self._multiplies_matrices else summed

    @property
    def _multiplies_matrices(self) -> bool:
        """Whether products are claimed of a format that processors multiply matrices in."""
        return self.claim.operands in NARROW and unit(str(self.claim.operands)) > unit(self.claim.accumulate)

    @staticmethod
    def _truncated(expected: Expected, u: float) -> Expected:
        """The same of sums that are truncated, not rounded, once for every FEWEST products or more.

        NVIDIA's tensor cores do so: Fasi, Higham, Mikaitis and Pranesh, PeerJ Computer Science 7:e330, 2021.
        A truncation takes between 0 and 2 u of a partial sum, u on average: of n partial sums, whose mean is
        half the result, n u / 2 of it, more or less by u times the deviation of their sum, whose square is
        n**2 q / 12.
        """
        steps = expected.terms / FEWEST
        return replace(
            expected,
            per=2 * expected.per,
            spread_per=expected.spread_per + 6 * (u * steps) ** 2 / 12,
            plain=expected.plain + (u * steps / 2) ** 2,
            shrink=u * steps,
        )

    @property
    def _least(self) -> float:
        """What magnitudes are raised to."""
        return format_of(self.claim.accumulate).tiny if self.claim.flush_to_zero else 0.0

    @staticmethod
    def _adds(op: Op) -> bool:
        """Whether gradients of what hands values on may meet there."""
        return op.family == "move" or op.family == "pooling"

    def _sizes(
        self,
        op: Op,
        subject: int,
        arrays: tuple[Array, ...],
        dy: Array | None,
        attrs: dict[str, Any],
        summed: int | None,
    ) -> tuple[Sizes, int]:
        """Sums of magnitudes, of squares where it is a sum of so many terms, and the number of terms."""
        magnitude = _magnitude(op, subject, arrays, dy, attrs)
        if self.claim.algorithm == "one-pass variance" and op.name in BY_VARIANCE:
            sum_abs, more = magnitude.sum_abs, algorithms.one_pass(arrays[0])
            if op.smooth and subject == OUTPUT:
                sum_abs = sum_abs + of_one_pass(*arrays[:2], **attrs)
            else:
                sum_abs = sum_abs * (per_channel(more) if sum_abs.ndim == 5 else more)
            magnitude = Magnitude(sum_abs, magnitude.terms)
        count = int(np.max(magnitude.terms))
        sums, scale = normalised(magnitude.sum_abs)
        squares = np.empty(0, np.float32)
        if summed:
            squared = None if dy is None else dy**2
            of_squares = _magnitude(op, subject, _squared(op, arrays, attrs), squared, attrs)
            q = of_squares.sum_abs / (summed if op.family == "pooling" else 1)
            squares = np.ravel(q / scale**2).astype(np.float32)
        elif op.name == "batch_norm_training" and subject == OUTPUT:
            of_batch = training_variance(arrays[0], arrays[1], str(self.claim.accumulate), **attrs)
            if self.claim.algorithm == "one-pass variance":
                u = unit(self.claim.accumulate)
                of_batch = of_batch + np.square(u * of_one_pass(*arrays[:2], **attrs)) * (count / 9)
            per = 6 / (unit(self.claim.accumulate) ** 2 / 3 * count)
            squares = np.ravel(of_batch * per / scale**2).astype(np.float32)
        return Sizes(sums, squares, scale), count

    def _carried(
        self, op: Op, inputs: Sequence[Known], arrays: tuple[Array, ...], attrs: dict[str, Any]
    ) -> Callable[[int], Array]:
        """By how much y is off, or its square (power 2), for what its inputs are off by.

        What curves nowhere takes no two inputs farther apart than its coefficients' magnitudes say.
        """
        if op.smooth:
            if op.name == "batch_norm_training":
                return partial(_through_statistics, inputs[0], arrays, attrs)
            raise UnderivedError(f"it reads what was not dumped, and {op.name} curves in it")
        names = list(signature(op.infer).parameters)

        def carried(power: int) -> Array:
            spread = []
            for index, (name, known, array) in enumerate(zip(names, inputs, arrays, strict=False)):
                off = known.error if power == 1 else known.variance
                if name in ("b", "mean"):
                    spread.append(np.zeros(array.shape))
                elif name in ("w", "s"):
                    spread.append(np.abs(array) ** power)
                elif op.domain(index).gradient or op.hands_on:
                    spread.append(np.broadcast_to(off, array.shape))
                else:
                    spread.append(array)
            if op.name == "batch_norm" and power == 2:
                once, _ = core[op.name].forward(spread[0], np.abs(arrays[1]), *spread[2:], **attrs)
                return core[op.name].forward(once, np.abs(arrays[1]), *spread[2:], **attrs)[0]
            return core[op.name].forward(*spread, **attrs)[0]

        return carried

    def _reached(
        self,
        op: Op,
        power: int,
        off: Array,
        inputs: Sequence[Known],
        needs: Needs,
        attrs: dict[str, Any],
    ) -> tuple[Array | None, ...]:
        """By how much the gradients are off, or its square (power 2), for what dy is off by."""
        arrays = tuple(_widened(known.value) for known in inputs)
        y = op.output_shape(tuple(a.shape for a in arrays), attrs)
        if op.family == "product":
            sized = [np.abs(a) + known.error for a, known in zip(arrays, inputs, strict=True)]
            spread = np.ascontiguousarray(np.broadcast_to(off, y))
            return _gradients(core, op, spread, tuple(a**power for a in sized), needs, attrs)
        at = np.broadcast_to(off if power == 1 else np.sqrt(off), y)
        found = op.gradient_magnitude(at, *arrays, needs=needs, **attrs)
        return tuple(None if m is None else m.sum_abs**power for m in found)

    def _reread(
        self,
        op: Op,
        power: int,
        dy: Known,
        inputs: Sequence[Known],
        needs: Needs,
        attrs: dict[str, Any],
    ) -> tuple[Array | None, ...]:
        """By how much the gradient of w or s is off, or its square, for what x is off by."""
        x = inputs[0]
        off = np.ascontiguousarray(np.broadcast_to(x.error if power == 1 else x.variance, x.value.shape))
        arrays = (off, *(_widened(known.value) for known in inputs[1:]))
        size = np.abs(_widened(dy.value)) ** power
        only = tuple(need and index == SCALE for index, need in enumerate(needs))
        if op.family == "product":
            return _gradients(core, op, size, arrays, only, attrs)
        if op.name == "batch_norm":
            arrays = (*arrays[:3], np.zeros_like(arrays[3]), arrays[4])
        found = op.gradient_magnitude(size, *arrays, needs=only, **attrs)
        return tuple(None if m is None else m.sum_abs for m in found)


def _widened(value: Array) -> Array:
    """As `core` reads it in float64; labels stay integers."""
    return value if value.dtype == INTEGER else wide(value)


def _gradients(
    arithmetic: Arithmetic,
    op: Op,
    dy: Array,
    arrays: tuple[Array, ...],
    needs: Needs,
    attrs: dict[str, Any],
) -> tuple[Array | None, ...]:
    """Gradients; y is computed where the context takes it."""
    if op.context is None:
        context = arithmetic[op.name].forward(*arrays, **attrs)[1]
    else:
        shapes = tuple(array.shape for array in arrays)
        kept, y = op.context(*arrays, **attrs), op.output_shape(shapes, attrs)
        context = Context(arithmetic.name, op.name, kept, shapes, y, dy.dtype)
    return arithmetic[op.name].backward(dy, context, needs)


def _magnitude(
    op: Op,
    subject: int,
    arrays: tuple[Array, ...],
    dy: Array | None,
    attrs: dict[str, Any],
) -> Magnitude:
    """Of y, or of the gradient of one input."""
    if subject == OUTPUT:
        return op.magnitude(*arrays, **attrs)
    only = tuple(index == subject for index in range(len(arrays)))
    found = op.gradient_magnitude(dy, *arrays, needs=only, **attrs)[subject]
    assert found is not None, "what is needed has a magnitude"
    return found


def _squared(op: Op, arrays: tuple[Array, ...], attrs: dict[str, Any]) -> tuple[Array, ...]:
    """Inputs for which the sums of magnitudes are sums of squares."""
    if op.family != "norm":
        return tuple(a**2 for a in arrays)
    if op.name == "batch_norm":
        x, s, b, mean, variance = arrays
        deviation = np.sqrt(variance + attrs.get("epsilon", 0.0))
        z = (x - mean[:, None, None, None]) / deviation[:, None, None, None]
        return (z**2 * deviation[:, None, None, None], s, b, np.zeros_like(mean), variance)
    return (arrays[0] ** 2, *arrays[1:])


def _output_sizes(op: Op, arrays: tuple[Array, ...], attrs: dict[str, Any], least: float) -> Sizes:
    """Sums of magnitudes and of squares of a product, by `core` in float32 on operands of about 1.

    Parameters
    ----------
    least : float
        What magnitudes are raised to: the smallest normal number, where smaller ones may be taken for it.
    """
    (x, x_unit), (w, w_unit) = (_scaled(a, least) for a in arrays[:2])
    scale = x_unit * w_unit
    bias = [(np.abs(b) / scale).astype(np.float32) for b in arrays[2:]]
    sums, _ = core[op.name].forward(x, w, *bias, **attrs)
    if op.family != "product":
        return Sizes(sums.ravel(), np.empty(0, np.float32), scale)
    squares, _ = core[op.name].forward(x * x, w * w, *(b * b for b in bias), **attrs)
    return Sizes(sums.ravel(), squares.ravel(), scale)


def _gradient_sizes(
    op: Op, dy: Array, arrays: tuple[Array, ...], needs: Needs, attrs: dict[str, Any], least: float
) -> list[Sizes | None]:
    """Sums of magnitudes and of squares of the gradients of a product's operands, and of its bias."""
    (x, x_unit), (w, w_unit), (dy, dy_unit) = (_scaled(a, least) for a in (*arrays[:2], dy))
    bias = [np.zeros(b.shape, np.float32) for b in arrays[2:]]
    sums = _gradients(core, op, dy, (x, w, *bias), needs, attrs)
    squares = _gradients(core, op, dy * dy, (x * x, w * w, *bias), needs, attrs)
    scales = (dy_unit * w_unit, dy_unit * x_unit, dy_unit)
    return [
        None if m is None or q is None else Sizes(m.ravel(), q.ravel(), scale)
        for m, q, scale in zip(sums, squares, scales, strict=False)
    ]


def _scaled(array: Array, least: float) -> tuple[Array, float]:
    """Magnitudes in float32 in units of a power of two, which is returned too; 0 for what is not finite."""
    size = np.abs(array)
    largest = float(size.max(initial=0))
    if not np.isfinite(largest):
        size = np.where(np.isfinite(size), size, 0.0)
        largest = float(size.max(initial=0))
    if least:
        np.maximum(size, least, out=size)
    scale = 2.0 ** min(max(int(np.frexp(max(largest, least))[1]), -1000), 1000)
    size *= 1 / scale
    return size.astype(np.float32), scale


def _all_moved(
    found: list[Expected | None], error: tuple[Array | None, ...], variance: tuple[Array | None, ...]
) -> list[Expected | None]:
    return [
        expected if expected is None or e is None or v is None else moved(expected, e, v)
        for expected, e, v in zip(found, error, variance, strict=True)
    ]


def _through_statistics(x: Known, arrays: tuple[Array, ...], attrs: dict[str, Any], power: int) -> Array:
    """What batch norm in training makes of errors of x: through its elements, the mean and the deviation."""
    value = arrays[0]
    mean, variance = value.mean(axis=(0, 2, 3, 4)), value.var(axis=(0, 2, 3, 4))
    deviation = np.sqrt(variance + attrs.get("epsilon", 1e-5))
    z = np.abs(value - mean[:, None, None, None]) / deviation[:, None, None, None]
    off = np.broadcast_to(x.error if power == 1 else np.sqrt(x.variance), value.shape)
    of_mean, of_z = (np.mean(v, axis=(0, 2, 3, 4)) for v in (off, off * z))
    total = off + of_mean[:, None, None, None] + z * of_z[:, None, None, None]
    scale = np.abs(arrays[1]) / deviation
    found: Array = (scale[:, None, None, None] * total) ** power
    return found
