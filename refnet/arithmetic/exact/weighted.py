"""Sums of values with rational weights, rounded once: what bins read, and shares that meet in a cell."""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from refnet._core import exact_sums
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.exact import fallback
from refnet.arithmetic.exact.rational import nearest, rational
from refnet.arrays import Array

Weight = Callable[[int], Fraction]


class Entries(NamedTuple):
    """Terms of sums, one an entry.

    Attributes
    ----------
    result, value : ndarray of intp
        The row of the result that it is a term of, and the row of the values that it weighs.
    weights : (entries, 3) ndarray
        high, low and error: the weight is high + low, off by at most error.
    exact : ``(entry) -> Fraction``
        The weight itself.
    """

    result: Array
    value: Array
    weights: Array
    exact: Weight

    def turned(self) -> "Entries":
        """The transposed sums: results are values, and values results."""
        return Entries(self.value, self.result, self.weights, self.exact)


def sums(what: str, values: Array, entries: Entries, rows: int, count: int = 1) -> Array:
    """RN(sum of weight times row of `values` (M, C), over a count): (rows, C)."""
    order = np.argsort(entries.result, kind="stable")
    starts = np.searchsorted(entries.result[order], np.arange(rows + 1)).astype(np.intp)
    index, weights = entries.value[order], np.ascontiguousarray(entries.weights[order])
    y = empty((rows, values.shape[1]), values.dtype)
    marks = empty(y.shape, np.dtype(np.uint8))
    marks.fill(0)
    undecided = exact_sums.weighted_sums(values, starts, index, weights, count, y, marks)
    fallback.note(what, y.size, undecided)
    for row, column in np.argwhere(marks) if undecided else ():
        terms = range(starts[row], starts[row + 1])
        total = sum(
            (entries.exact(int(order[k])) * rational(values[index[k], column]) for k in terms), Fraction(0)
        )
        y[row, column] = nearest(total / count, values.dtype)
    return y


def split(numerator: int, denominator: int) -> tuple[float, float, float]:
    """A weight as a sum of two doubles, high and low, and how far that may be off; 0 where it is a double."""
    high = numerator / denominator  # of two integers, Python rounds once
    n, d = high.as_integer_ratio()
    low = (numerator * d - n * denominator) / (denominator * d)
    return high, low, abs(low) * 2.0**-52
