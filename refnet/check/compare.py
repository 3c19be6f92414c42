"""Results against expected values and bounds, element by element."""

from dataclasses import dataclass, field, replace

import numpy as np

from refnet._core import compare as kernels
from refnet.arrays import Array
from refnet.check.bounds import Bound
from refnet.environment import errstate


@dataclass(frozen=True)
class Comparison:
    """How far an array is from what was expected.

    Attributes
    ----------
    margin : float
        The largest abs(found - expected) / bound: 0 where they are equal, infinite for NaN.
    where : tuple of int
        The first index of that element.
    found, expected, bound : float
        Of that element.
    wrong : int
        How many elements are beyond their bounds.
    elements : int
    says : bool
        Whether the comparison says something of every element: no bound is infinite, nothing expected is NaN.
    beyond : ndarray of bool, optional
        Which ones; None where none is.
    """

    margin: float
    where: tuple[int, ...]
    found: float
    expected: float
    bound: float
    wrong: int
    elements: int
    says: bool = True
    beyond: Array | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether no element is beyond its bound."""
        return self.wrong == 0


def compare(found: Array, expected: Array, bound: Bound) -> Comparison:
    """Compare an array with what was expected of it, in float64.

    Parameters
    ----------
    found : ndarray
        float32 or float64. What it rounds an expected value to is within every bound: so is infinity where
        that is beyond the largest number.
    expected : ndarray of float64
    bound : Bound

    Returns
    -------
    Comparison
    """
    found = np.ascontiguousarray(found)
    absolute = np.asarray(bound.absolute, np.float64)
    says = bool(np.isfinite(absolute.max(initial=0)))
    if absolute.size > 1:
        absolute = np.broadcast_to(absolute, found.shape)
    flat = [np.ascontiguousarray(a).reshape(-1) for a in (found, expected, absolute)]
    count = -(-found.size // kernels.piece_length())
    margins, places, wrong = np.empty(count), np.empty(count, np.intp), np.empty(count, np.intp)
    kernels.compare(*flat, margins, places, wrong, bound.relative)
    if wrong.any():
        with errstate(over="ignore"):
            rounds_to = expected.astype(found.dtype)
        both = np.isnan(found) & np.isnan(expected)
        same = (found == rounds_to) & ~np.isfinite(found) | both
        if same.any():
            spared = Bound(np.where(same, 0.0, absolute), bound.relative)
            others = compare(np.where(same, 0, found), np.where(same, 0.0, expected), spared)
            return replace(others, says=says and others.says and not both.any())
    piece = int(margins.argmax())
    worst = piece * kernels.piece_length() + int(places[piece])
    of_worst = absolute.reshape(-1)[0] if absolute.size == 1 else flat[2][worst]
    expected_there = float(flat[1][worst])
    return Comparison(
        margin=float(margins[piece]),
        where=tuple(int(i) for i in np.unravel_index(worst, found.shape)),
        found=float(flat[0][worst]),
        expected=expected_there,
        bound=float(of_worst + bound.relative * abs(expected_there)),
        wrong=int(wrong.sum()),
        elements=found.size,
        says=says,
        beyond=beyond(found, expected, bound) if wrong.any() else None,
    )


def beyond(found: Array, expected: Array, bound: Bound) -> Array:
    """Which elements are beyond their bounds: an array of bool."""
    with errstate(invalid="ignore", over="ignore"):
        within = np.abs(found - expected) <= bound.absolute + bound.relative * np.abs(expected)
        outside: Array = ~(within | (found == expected.astype(found.dtype)))
    return outside
