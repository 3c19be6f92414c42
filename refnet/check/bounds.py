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
from refnet.check.precision import format_of
from refnet.op import Magnitude

# `core` adds up chains of so many products: the height of its summation tree is 256 + ceil(K / 256).
CHAIN = 256


class Claim(NamedTuple):
    """What a candidate claims of its arithmetic.

    Attributes
    ----------
    accumulate, store : dtype
        The format of its sums, and of its results.
    operands : {"float32", "tf32", "bfloat16", "float16", "float64"}, optional
        The format to which the operands of products are rounded; None for that in which they are.
    operand_rounding : {"nearest", "away", "zero"}, optional
        How: to nearest, ties to even; to nearest, ties away from zero; toward zero. None for any of these.
    flush_to_zero : bool
        Whether what is below the smallest normal number, operands included, may be taken as zero.
    algorithm : {"direct", "winograd", "fft", "one-pass variance"}
        *Direct*: a sum of products, in any order.
    """

    accumulate: DTypeLike
    store: DTypeLike
    operands: str | None = None
    operand_rounding: str | None = None
    flush_to_zero: bool = False
    algorithm: str = "direct"


def plain(dtype: DTypeLike) -> Claim:
    """The claim of who computes in the dtype of the arrays."""
    return Claim(dtype, dtype)


def unit(dtype: DTypeLike) -> float:
    """The unit roundoff u of a format: half the distance from 1 to the next number."""
    return format_of(dtype).unit


def smallest(dtype: DTypeLike) -> float:
    """The smallest subnormal number of a format, eta."""
    return format_of(dtype).smallest


def may_overflow(magnitude: Magnitude, claim: Claim) -> Array:
    """Where a sum that is made in some order could be beyond the largest number of the claimed format."""
    most = magnitude.sum_abs * (1 + magnitude.terms * unit(claim.accumulate))
    may: Array = ~(most <= format_of(claim.accumulate).largest)
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


def bound(magnitude: Magnitude, claim: Claim, chain: int | None = None) -> Bound:
    """The bound of a result that a float64 oracle judges, the oracle's own error included.

    B = (K + 1) u_a m + K eta_a + u_s |r| + eta_s + h u m, with the units u_a and u_s of the claim, u = 2**-53
    and the oracle's h: K + 1, or that of chains of so many products. An oracle that rounds once is off by
    u |r| in place of h u m.

    Parameters
    ----------
    magnitude : Magnitude
        m and K of each element.
    claim : Claim
    chain : int, optional
        The length of the chains in which the oracle adds up products; 0 where it rounds once.
    """
    count = magnitude.terms.astype(np.float64)
    height = count + 1
    own = height if chain is None else np.minimum(height, chain + np.ceil(count / max(chain, 1)))
    once = chain == 0
    factor = height * unit(claim.accumulate) + (0 if once else own) * unit(np.float64)
    tiny = (1 + once) * smallest(claim.store) + count * smallest(claim.accumulate)
    return Bound(factor * magnitude.sum_abs + tiny, unit(claim.store) + once * unit(np.float64))
