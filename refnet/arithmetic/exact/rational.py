"""Rational numbers rounded once: for values of which there are few."""

from collections.abc import Iterable
from fractions import Fraction
from math import isqrt, ldexp
from typing import Any

import numpy as np

from refnet.arrays import Array
from refnet.environment import errstate

# Bits of a quotient that is rounded to odd before it is rounded to float32: at least two more than that has.
ODD_BITS = 50


def nearest(value: Fraction, dtype: np.dtype[Any]) -> float:
    """The number of a dtype nearest to a rational one, ties to even; of one that is too large, infinity."""
    n, d = abs(value.numerator), value.denominator
    if dtype == np.float32 and n:
        # To odd: what is no number of so many bits is the one below, or the one above, whose last bit is 1.
        shift = ODD_BITS - (n.bit_length() - d.bit_length())
        n, d = n << max(shift, 0), d << max(-shift, 0)
        bits, rest = divmod(n, d)
        n, d = bits | (rest != 0), 1
        found = ldexp(n, -shift) if abs(shift) < 900 else (float("inf") if shift < 0 else 0.0)
        with errstate(over="ignore", under="ignore"):
            found = float(np.float32(found))
    else:
        try:
            found = n / d  # of two integers, Python rounds once
        except OverflowError:
            found = float("inf")
    return -found if value < 0 else found


def nearest_all(values: Iterable[Fraction], dtype: np.dtype[Any]) -> Array:
    """Round each of some rational numbers: a row of a dtype."""
    return np.array([nearest(value, dtype) for value in values], dtype)


def rational(value: Any) -> Fraction:
    """A floating-point number, exactly."""
    return Fraction(float(value))


def reciprocal_root(value: Fraction, dtype: np.dtype[Any]) -> float:
    """1 / sqrt(value), correctly rounded, of a positive rational number."""
    n, d = value.numerator, value.denominator
    # 2^k / sqrt(value) has about 80 bits; half a unit more stands for what is cut off.
    k = 80 + (n.bit_length() - d.bit_length()) // 2
    numerator, denominator = (d << 2 * k, n) if k >= 0 else (d, n << -2 * k)
    root = isqrt(numerator // denominator)
    is_cut = root * root * denominator != numerator
    return nearest(Fraction(2 * root + is_cut) / Fraction(2) ** (k + 1), dtype)


def quotients(values: Array, count: int) -> Array:
    """Each value over a positive count, rounded once; an exact zero is +0."""
    divisor = values.dtype.type(count)
    if int(divisor) == count:
        found = values / divisor
    else:
        flat = [rational(value) / count for value in values.reshape(-1)]
        found = nearest_all(flat, values.dtype).reshape(values.shape)
    quotient: Array = np.where(values == 0, values.dtype.type(0), found)
    return quotient


def products(a: Array, b: Array) -> Array:
    """Each a b, rounded once; an exact zero is +0, what underflows keeps its sign."""
    with errstate(over="ignore", under="ignore"):
        product: Array = np.where((a == 0) | (b == 0), a.dtype.type(0), a * b)
    return product
