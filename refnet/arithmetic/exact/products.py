"""What exact sums of products share: certificates for float32, grids, errors of sums whose order is known.

Products of float32 are exact in float64, so core's sums in float64 are off by (terms of a chain + chains
added) u times the sum of |products| at most, which norms bound (Cauchy and Schwarz): docs/exact.md.
"""

from typing import Any

import numpy as np

from refnet._core import exact_round
from refnet._core.conv3d import CHAIN, SPAN
from refnet.arithmetic.core.buffers import empty
from refnet.arrays import Array

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
UNIT = 2.0**-53
KC = int(CHAIN)  # terms of a chain
# Above 1 by more than what norms, computed in float64, lose to rounding.
WIDER = 1 + 2.0**-20


def bias(b: Array | None, dtype: np.dtype[Any]) -> Array:
    """The bias, or an empty array."""
    return np.empty(0, dtype) if b is None else b


def are_coarse(terms: int, *operands: Array) -> bool:
    """Whether all products are multiples of one power of two, and no sum of them needs more than 53 bits."""
    room = 53 - int(terms).bit_length()
    last = first = 0
    for operand in sorted(operands, key=np.size):  # the larger one seldom needs more than a look
        found = exact_round.grid(operand.reshape(-1), room - (first - last))
        if found is None:
            return False
        last, first = last + found[0], first + found[1]
    return last >= -1074 and first < 1000


def chain_error(terms: int, chains: int) -> float:
    """Relative to the sum of |products|, the error of chains of `terms` at most, added one by one."""
    return WIDER * UNIT * (min(terms, KC) + chains)


def spans(samples: int, positions: int) -> int:
    """How many additions core makes of the chains of a weight's gradient: of a span, and of spans."""
    return int(SPAN) + samples * -(-positions // (int(SPAN) * KC))


def widened(blob: Array, groups: int) -> tuple[Array, Array]:
    """A blob (N, C, P) in float64, and the sums of squares over each group's channels: (N, groups, P)."""
    n, c, p = blob.shape
    wide, squares = empty(blob.shape, DOUBLE), empty((n, groups, p), DOUBLE)
    by_group = (n * groups, c // groups, p)
    exact_round.widen(blob.reshape(by_group), wide.reshape(by_group), squares.reshape(-1, p))
    return wide, squares


def norms(values: Array, axes: tuple[int, ...]) -> Array:
    """Euclidean norms of float64 values over some axes, rounded up."""
    return roots(np.square(values).sum(axes))


def roots(sums_of_squares: Array) -> Array:
    """Square roots, rounded up."""
    found: Array = np.sqrt(sums_of_squares)
    found *= WIDER
    return found


def rounded(sums: Array, of_rows: Array, of_columns: Array) -> Array:
    """Round float64 sums to float32, NaN where that is undecided.

    Parameters
    ----------
    sums : ndarray of float64, (R, P)
    of_rows : ndarray of float64, (R,)
    of_columns : ndarray of float64, (Q, P)
        An element's error is at most its row's times its column's; R / Q rows share one row of of_columns.
    """
    y = empty(sums.shape, SINGLE)
    exact_round.round_sums(sums, of_rows, of_columns, y)
    return y
