"""Intervals around values and gradients that somebody computed and nobody recorded.

Each is derived in float64, by `core`, from what was recorded; the bounds of the calls between add up.
"""

from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic.core import core
from refnet.arrays import INTEGER, Array, wide
from refnet.check.bounds import Claim, bound
from refnet.errors import ValueRangeError
from refnet.op import Magnitude, Needs, Op


class Enclosure(NamedTuple):
    """What lies within value - error and value + error, element by element.

    Attributes
    ----------
    value : ndarray
        In float64, or as it was recorded.
    error : ndarray of float64, broadcastable to the value's shape
    """

    value: Array
    error: Array

    @property
    def exact(self) -> bool:
        """Whether it is one value."""
        return not self.error.any()


def exactly(value: Array) -> Enclosure:
    """The enclosure of what was recorded."""
    return Enclosure(value, np.zeros(()))


def forward(op: Op, claim: Claim, inputs: tuple[Enclosure, ...], attrs: dict[str, Any]) -> Enclosure:
    """Enclose y = op(inputs) as computed in the claimed format.

    What does not multiply its inputs and curves nowhere (sums, rectifiers, pools, moves, averages) takes no
    two inputs farther apart than it takes |difference| from zero, so y of the errors bounds what comes from
    them. What is given to it and not learnt (boxes, a mask) is exact, and stays what it is.

    Raises
    ------
    ValueRangeError
        If the operator is another, and its inputs are not exact.
    """
    arrays = tuple(_widened(x.value) for x in inputs)
    y, _ = core[op.name].forward(*arrays, **attrs)
    error = np.zeros(())
    if not op.hands_on:
        absolute, relative = bound(op.magnitude(*arrays, **attrs), claim)
        error = absolute + relative * np.abs(y)
    if all(x.exact for x in inputs):
        return Enclosure(y, error)
    if op.smooth or op.family in ("product", "norm", "other"):
        raise ValueRangeError(f"{op.name} reads what was not recorded: expected the record of its inputs")
    spread = [
        np.broadcast_to(x.error, x.value.shape) if op.domain(index).gradient else arrays[index]
        for index, x in enumerate(inputs)
    ]
    carried, _ = core[op.name].forward(*spread, **attrs)
    return Enclosure(y, error + carried)


def backward(
    op: Op,
    claim: Claim,
    dy: Enclosure,
    arrays: tuple[Array, ...],
    needs: Needs,
    attrs: dict[str, Any],
) -> tuple[Enclosure | None, ...]:
    """Enclose the gradients of the inputs, given those of y.

    Parameters
    ----------
    op : Op
    claim : Claim
    dy : Enclosure
    arrays : tuple of ndarray
        The inputs; gradients are linear in dy, not in these.
    needs : tuple of bool
    attrs : dict

    Returns
    -------
    tuple of Enclosure or None
    """
    arrays = tuple(_widened(array) for array in arrays)
    _, context = core[op.name].forward(*arrays, **attrs)
    expected = core[op.name].backward(wide(dy.value), context, needs)
    error = np.broadcast_to(dy.error, dy.value.shape)
    size = np.abs(wide(dy.value)) + error
    rounded = op.gradient_magnitude(size, *arrays, needs=needs, **attrs)
    carried = op.gradient_magnitude(error, *arrays, needs=needs, **attrs) if error.any() else rounded
    found: list[Enclosure | None] = []
    for value, own, moved in zip(expected, rounded, carried, strict=True):
        if value is None or own is None or moved is None:
            found.append(None)
            continue
        total = _rounding(op, claim, own)
        found.append(Enclosure(value, total + moved.sum_abs if error.any() else total))
    return tuple(found)


def _rounding(op: Op, claim: Claim, magnitude: Magnitude) -> Array:
    """How far rounding takes a gradient; what is handed on as it is, or added to nothing, not at all."""
    absolute, relative = bound(magnitude, claim)
    allowed: Array = absolute + relative * magnitude.sum_abs
    if op.hands_on or op.family == "sum":
        return np.where(magnitude.terms > 1, allowed, 0.0)
    return allowed


def total(parts: list[Enclosure], claim: Claim) -> Enclosure:
    """Enclose the sum of gradients that meet, added up in the claimed format in any order."""
    value, error = wide(parts[0].value), parts[0].error
    if len(parts) == 1:
        return Enclosure(value, error)
    size = np.abs(value) + error
    for part in parts[1:]:
        value, error = value + part.value, error + part.error
        size = size + np.abs(wide(part.value)) + part.error
    absolute, relative = bound(Magnitude(size, np.asarray(len(parts) - 1)), claim)
    return Enclosure(value, error + absolute + relative * size)


def _widened(value: Array) -> Array:
    """As `core` reads it in float64; labels stay integers."""
    return value if value.dtype == INTEGER else wide(value)
