"""One call of one operator, judged on its own inputs against an oracle in float64.

The oracle is never what is judged: kernels of `core` are judged by `reference`, all others by `core`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from refnet.arithmetic import Arithmetic, core, reference
from refnet.arithmetic.table import Context
from refnet.arrays import INTEGER, Array, wide
from refnet.check.bounds import EXACT, Bound, Claim, bound, may_overflow
from refnet.check.compare import Comparison, compare
from refnet.op import Magnitude, Needs, Op
from refnet.ops import OPS


def oracle_of(arithmetic: Arithmetic, op: str) -> Arithmetic:
    """Who judges an operator of an arithmetic: `reference` where the kernel is core's own, else `core`.

    The two have one definition of what computes nothing (`stop_gradient`, `slice_keyframe`).
    """
    return reference if arithmetic.kernels[op] == core.kernels[op] else core


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
        return cls(OPS[op], oracle_of(arithmetic, op), claim, arrays, attrs)

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
        return Context(self.op.context(*self.wide, **self.attrs), shapes, y, np.dtype(np.float64))

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
        return bound(magnitude, self.claim, chained=self.oracle is core and self.op.family == "product")
