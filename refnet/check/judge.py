"""One call of one operator, judged on its own inputs against an oracle in float64.

The oracle is never what is judged: kernels of `core` are judged by `reference`, all others by `core`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refnet.arithmetic import Arithmetic, core, reference
from refnet.arithmetic.table import Context
from refnet.arrays import INTEGER, Array, wide
from refnet.check.bounds import Bound, Claim, bound
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

    def forward(self) -> tuple[Array, Context]:
        """The oracle's y and context, in float64."""
        return self.oracle[self.op.name].forward(*map(_wide, self.arrays), **self.attrs)

    def output(self, y: Array, expected: Array) -> Comparison:
        """Compare y with the oracle's."""
        magnitude = self.op.magnitude(*map(_wide, self.arrays), **self.attrs)
        return compare(y, expected, self._bound(magnitude))

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
        magnitudes = self.op.gradient_magnitude(dy, *map(_wide, self.arrays), needs=needs, **self.attrs)
        return [
            None
            if found is None or right is None or magnitude is None
            else compare(found, right, self._bound(magnitude))
            for found, right, magnitude in zip(gradients, expected, magnitudes, strict=True)
        ]

    def _bound(self, magnitude: Magnitude) -> Bound:
        """B; 0 where one value is handed on by an operator that computes nothing."""
        found = bound(magnitude, self.claim, chained=self.oracle is core and self.op.family == "product")
        if not hands_on(self.op):
            return found
        if magnitude.terms.max() <= 1:
            return Bound(np.zeros(()), 0.0)
        # A sum of what several windows hand on is rounded, a single value is not.
        several = magnitude.terms > 1
        return Bound(np.where(several, found.absolute + found.relative * magnitude.sum_abs, 0), 0.0)


def hands_on(op: Op) -> bool:
    """Whether the operator chooses and moves values, and computes none of them."""
    chooses = op.family in ("activation", "pooling", "move", "stop")
    return chooses and not op.smooth and not op.divides


def _wide(array: Array) -> Array:
    """An input for the oracle; labels stay integers."""
    return array if array.dtype == INTEGER else wide(array)
