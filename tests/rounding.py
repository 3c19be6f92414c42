"""Rational numbers, rounded once: the independent definition that exact arithmetic is compared with."""

from fractions import Fraction

import numpy as np

# Bits of a significand, and the exponent of the smallest number.
FORMATS = {"float32": (24, -149, 128), "float64": (53, -1074, 1024)}


def nearest(value, dtype):
    """The number of a dtype that is nearest to a rational one, of two the one whose last bit is 0.

    What is beyond the largest number by half a unit of its last place is infinite; 0 is +0, and what is not 0
    and rounds to it keeps its sign.
    """
    dtype = np.dtype(dtype)
    precision, smallest, limit = FORMATS[dtype.name]
    value = Fraction(value)
    is_negative = value < 0
    value = abs(value)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if value < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - precision + 1, smallest)
    units, rest = divmod(value, unit)
    units += rest > unit / 2 or (rest == unit / 2 and units % 2 == 1)
    magnitude = units * unit
    found = np.inf if magnitude >= Fraction(2) ** limit else float(magnitude)
    return dtype.type(-found if is_negative else found)


def rational(array):
    """The values of an array as an array of `Fraction`."""
    array = np.asarray(array)
    return np.array([Fraction(float(v)) for v in array.ravel()] + [None], object)[:-1].reshape(array.shape)


def nearest_all(values, dtype):
    """Each rational number of an array, rounded."""
    values = np.asarray(values, object)
    return np.array([nearest(v, dtype) for v in values.ravel()], dtype).reshape(values.shape)


def same_bits(found, expected):
    """Whether two arrays have the same dtype, shape and bits."""
    found, expected = np.asarray(found), np.asarray(expected)
    return (
        found.dtype == expected.dtype
        and found.shape == expected.shape
        and np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(expected).tobytes()
    )
