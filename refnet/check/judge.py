"""One call of one operator, judged on its own inputs against an oracle in float64.

The oracle is never what is judged: kernels of `core` and `exact`, which share the packing of operands, are
judged by `reference`. All others in float64 by `exact`, whose error is that of one rounding, where an
operator rounds once and its inputs are finite; else, and in narrower formats, beside which the error of sums
in float64 is nothing, by `core`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnet.arithmetic import Arithmetic, core, exact, reference
from refnet.arithmetic.exact import ROUNDED_ONCE
from refnet.arithmetic.table import Context
from refnet.arrays import INTEGER, Array, wide
from refnet.cached import cached_property
from refnet.check.bounds import CHAIN, EXACT, Bound, Claim, bound, may_overflow, unit
from refnet.check.compare import Comparison, compare
from refnet.errors import ValueRangeError
from refnet.op import Magnitude, Needs, Op
from refnet.ops import OPS
from refnet.pieces import all_finite

# What nobody else defines as `exact` does, who computes by rational numbers and by stated steps.
EXACT_ALONE = {
    "roi_align": "has its samples at rational numbers, not at the nearest ones of float64",
    "batch_norm_training": "rounds the mean and the variance to the dtype",
}


def oracle_of(arithmetic: Arithmetic, op: str, dtype: DTypeLike) -> Arithmetic:
    """Who judges an operator of an arithmetic, whose results are of that dtype.

    `reference` where the kernel is core's or exact's own; else, in float64, `exact` where that rounds once,
    and else `core`. `reference` and `core` have one definition of what computes nothing (`stop_gradient`,
    `slice_keyframe`).

    Raises
    ------
    ValueRangeError
        Of an operator of `exact` whose definition is another one than the others'.
    """
    if op in EXACT_ALONE and arithmetic.kernels[op] == exact.kernels[op]:
        raise ValueRangeError(
            f"{op} of exact arithmetic {EXACT_ALONE[op]}: no other arithmetic judges it; "
            "expected core or reference, or another operator"
        )
    if arithmetic.kernels[op] in (core.kernels[op], exact.kernels[op]):
        return reference
    return exact if op in ROUNDED_ONCE and unit(dtype) <= unit("float64") else core


@dataclass(frozen=True)
class Judge:
    """What a call should have made of its inputs, and how far from it each element may be.

    Parameters
    ----------
    op : Op
    oracle : Arithmetic
    claim : Claim
        What is claimed of the results that are judged.
    arrays : tuple of ndarray
        The inputs of the call, in the dtype in which it read them.
    attrs : dict
    """

    op: Op
    oracle: Arithmetic
    claim: Claim
    arrays: tuple[Array, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, arithmetic: Arithmetic, op: str, claim: Claim, arrays: tuple[Array, ...], attrs: dict[str, Any]
    ) -> "Judge":
        """The judge of a call of an arithmetic's operator."""
        oracle = oracle_of(arithmetic, op, claim.store)
        if oracle is exact and not all(map(all_finite, arrays)):
            oracle = core
        return cls(OPS[op], oracle, claim, arrays, attrs)

    @cached_property
    def wide(self) -> tuple[Array, ...]:
        """The inputs as the oracle reads them, in float64; labels stay integers."""
        return tuple(array if array.dtype == INTEGER else wide(array) for array in self.arrays)

    def forward(self) -> tuple[Array, Context]:
        """The oracle's y and context, in float64."""
        return self.oracle[self.op.name].forward(*self.wide, **self.attrs)

    def context(self) -> Context:
        """The oracle's context; y is computed where that takes it."""
        if self.op.context is None:
            return self.forward()[1]
        shapes = tuple(array.shape for array in self.arrays)
        y = self.op.output_shape(shapes, self.attrs)
        kept, dtype = self.op.context(*self.wide, **self.attrs), np.dtype(np.float64)
        return Context(self.oracle.name, self.op.name, kept, shapes, y, dtype)

    def output(self, y: Array, expected: Array) -> Comparison:
        """Compare y with the oracle's."""
        magnitude = self.op.norms or self.op.magnitude
        return self._compare(y, expected, lambda: magnitude(*self.wide, **self.attrs))

    def gradients(
        self, dy: Array, gradients: tuple[Array | None, ...], context: Context, needs: Needs
    ) -> list[Comparison | None]:
        """Compare the gradients that are needed with the oracle's; None for the others.

        Parameters
        ----------
        dy : ndarray
            What backward was given.
        gradients : tuple of ndarray or None
            What it returned.
        context : Context
            Of the oracle.
        needs : tuple of bool
        """
        dy = wide(dy)
        expected = self.oracle[self.op.name].backward(dy, context, needs)

        @cache
        def magnitudes() -> tuple[Magnitude | None, ...]:
            magnitude = self.op.gradient_norms or self.op.gradient_magnitude
            return magnitude(dy, *self.wide, needs=needs, **self.attrs)

        def magnitude(index: int) -> Magnitude:
            found = magnitudes()[index]
            assert found is not None  # what is needed
            return found

        return [
            None if found is None or right is None else self._compare(found, right, partial(magnitude, index))
            for index, (found, right) in enumerate(zip(gradients, expected, strict=True))
        ]

    def _compare(self, found: Array, expected: Array, magnitude: Callable[[], Magnitude]) -> Comparison:
        """Compare with the oracle's; what is handed on must be equal, where it is not a sum."""
        if not self.op.hands_on:
            of_terms = magnitude()
            return self._allowing(of_terms, found, compare(found, expected, self._bound(of_terms)), expected)
        exactly = compare(found, expected, EXACT)
        if exactly.ok:
            return exactly
        of_sums = magnitude()
        allowed = self._bound(of_sums)
        absolute = np.where(of_sums.terms > 1, allowed.absolute + allowed.relative * of_sums.sum_abs, 0)
        return compare(found, expected, Bound(absolute, 0.0))

    def _allowing(
        self, magnitude: Magnitude, found: Array, comparison: Comparison, expected: Array
    ) -> Comparison:
        """The comparison, but for elements that are infinite or NaN where a sum on the way may overflow."""
        if comparison.ok or np.isfinite(found).all():
            return comparison
        allowed = ~np.isfinite(found) & may_overflow(magnitude, self.claim)
        if not allowed.any():
            return comparison
        bound = self._bound(magnitude)
        spared = Bound(np.where(allowed, 0.0, bound.absolute), bound.relative)
        others = compare(np.where(allowed, 0, found), np.where(allowed, 0.0, expected), spared)
        return replace(others, says=False)

    def _bound(self, magnitude: Magnitude) -> Bound:
        height = None
        if self.oracle is exact:
            height = 0
        elif self.oracle is core and self.op.family == "product":
            height = CHAIN
        return bound(magnitude, self.claim, height)
