"""How far a result may be from the exact one: what follows from the formats in which it was computed.

For a sum of K terms, in any order, with or without fused multiply-adds, |error| <= h u sum|terms|, with
h = K + 1 for the last rounding too (Jeannerod and Rump, 2013; Rump, Buenger and Jeannerod, BIT 56, 2016);
gradual underflow adds at most the smallest subnormal number a product. What is no sum states its roundings
likewise (`Op.magnitude`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from refnet.arrays import Array
from refnet.op import Magnitude

# `core` adds up chains of so many products: the height of its summation tree is 256 + ceil(K / 256).
CHAIN = 256


class Claim(NamedTuple):
    """What a candidate claims of its arithmetic.

    Attributes
    ----------
    accumulate, store : dtype
        The format of its sums, and of its results.
    """

    accumulate: DTypeLike
    store: DTypeLike


def plain(dtype: DTypeLike) -> Claim:
    """The claim of who computes in the dtype of the arrays."""
    return Claim(dtype, dtype)


def unit(dtype: DTypeLike) -> float:
    """The unit roundoff u: half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def smallest(dtype: DTypeLike) -> float:
    """The smallest subnormal number, eta."""
    return float(np.finfo(dtype).smallest_subnormal)


def may_overflow(magnitude: Magnitude, claim: Claim) -> Array:
    """Where a sum that is made in some order could be beyond the largest number of the claimed format."""
    most = magnitude.sum_abs * (1 + magnitude.terms * unit(claim.accumulate))
    may: Array = ~(most <= float(np.finfo(claim.accumulate).max))
    return may


class Bound(NamedTuple):
    """B of an element whose exact value is r: absolute + relative |r|.

    Attributes
    ----------
    absolute : ndarray of float64, broadcastable to the result's shape
    relative : float
    """

    absolute: Array
    relative: float


EXACT = Bound(np.zeros(()), 0.0)


def bound(magnitude: Magnitude, claim: Claim, *, chained: bool = False) -> Bound:
    """The bound of a result that a float64 oracle judges, the oracle's own error included.

    B = (K + 1) u_a m + K eta_a + u_s |r| + eta_s + h u m, with the units u_a and u_s of the claim, u = 2**-53
    and the oracle's h: K + 1, or that of chains of 256 products.

    Parameters
    ----------
    magnitude : Magnitude
        m and K of each element.
    claim : Claim
    chained : bool
        Whether the oracle adds up products as `core` does.
    """
    count = magnitude.terms.astype(np.float64)
    height = count + 1
    own = np.minimum(height, CHAIN + np.ceil(count / CHAIN)) if chained else height
    factor = height * unit(claim.accumulate) + own * unit(np.float64)
    tiny = smallest(claim.store) + count * smallest(claim.accumulate)
    return Bound(factor * magnitude.sum_abs + tiny, unit(claim.store))
