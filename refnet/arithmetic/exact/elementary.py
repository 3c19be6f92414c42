"""The exponential and the logarithm, correctly rounded.

The standard library's `decimal` rounds both correctly to any number of digits. The exponential of a number
that is not 0, and the logarithm of one that is not 1, is irrational (Lindemann), so it is never half-way
between two numbers: with enough digits both ends of what it may be round to the same one (Ziv's test, ACM
TOMS 17(3), 1991).
"""

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from refnet._core import softmax as kernels
from refnet.arithmetic.exact import fallback
from refnet.arithmetic.exact.rational import nearest
from refnet.arrays import Array, wide
from refnet.environment import errstate

DIGITS = 30
# Below it, exponentials are less than half of the smallest double, 2^-1074.
LEAST = -746.0


def exponentials(x: Array) -> Array:
    """exp(x), each correctly rounded, of x <= 0; of -infinity, 0."""
    flat = x.reshape(-1)
    if x.dtype == np.float32:
        # core's, in double, is within 0.68 units of the last place.
        rough = np.empty(flat.shape)
        kernels.exponential(np.maximum(wide(flat), LEAST), rough)
        with errstate(under="ignore"):
            first, last = ((rough * (1 + side)).astype(np.float32) for side in (-(2.0**-50), 2.0**-50))
        found: Array = first
        (undecided,) = np.nonzero((first != last) & (flat != 0))
        found[flat == 0] = 1
    else:
        found, undecided = np.empty(flat.shape), np.arange(flat.size)
    for i in undecided:
        found[i] = _exponential(float(flat[i]), x.dtype)
    fallback.note("exp", flat.size, len(undecided))
    return found.reshape(x.shape)


def logarithms(x: Array) -> Array:
    """log(x), each correctly rounded, of finite x >= 1."""
    found = [_logarithm(float(value), x.dtype) for value in x.reshape(-1)]
    return np.array(found, x.dtype).reshape(x.shape)


def _exponential(x: float, dtype: np.dtype[Any]) -> float:
    if x == 0:
        return 1.0
    return 0.0 if x < LEAST else _decided(Decimal(x), Context.exp, dtype)


def _logarithm(x: float, dtype: np.dtype[Any]) -> float:
    return 0.0 if x == 1 else _decided(Decimal(x), Context.ln, dtype)


def _decided(x: Decimal, function: Any, dtype: np.dtype[Any]) -> float:
    """A function of `decimal`, with as many digits as it takes."""
    digits = DIGITS
    while True:
        context = Context(prec=digits, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
        value = Fraction(function(context, x))
        margin = abs(value) / 10 ** (digits - 1)
        first, last = nearest(value - margin, dtype), nearest(value + margin, dtype)
        if first == last:
            return first
        digits *= 2
