"""Products with weights of exact arithmetic: what they are compared with, and on what.

The oracle sums whole numbers of Python, multiples of the smallest subnormal number, with `shifted_sums`.
"""

from fractions import Fraction

import numpy as np
from rounding import nearest, same_bits
from support import shifted_sums

from refnet.arithmetic.exact import conv3d, fallback
from refnet.ops import OPS

DTYPES = ("float32", "float64")
# Bits behind the point of every float64, and so of every product of two.
POINT = 1074


def whole(array):
    """The values as whole multiples of 2**-1074, exact."""
    pairs = (float(v).as_integer_ratio() for v in array.ravel())
    values = [p * ((1 << POINT) // q) for p, q in pairs]
    return np.array([*values, None], object)[:-1].reshape(array.shape)


def rounded(sums, dtype, point=2 * POINT):
    """Whole multiples of 2**-point, rounded once: Python's division of integers rounds so to float64."""
    one = 1 << point
    found = np.empty(sums.shape, dtype)
    for i, value in enumerate(sums.ravel()):
        try:
            double = value / one
        except OverflowError:
            double = np.inf if value > 0 else -np.inf
        if not value:
            double = 0.0
        elif dtype == "float32" and (not np.isfinite(double) or is_between(double)):
            double = nearest_whole(value, dtype, point)
        with np.errstate(over="ignore", under="ignore"):
            found.ravel()[i] = double
    return found


def is_between(double):
    """Whether a double may lie in the middle between two numbers of float32, or is subnormal there."""
    bits = int(np.float64(double).view(np.int64))
    return bits & 0x1FFFFFFF == 0x10000000 or abs(double) < 2.0**-120


def nearest_whole(value, dtype, point):
    return nearest(Fraction(value, 1 << point), dtype)


def oracle(x, w, b, dy, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1), groups=1):
    """(y, dx, dw), rounded once."""
    y, dx, dw = shifted_sums(whole(x), whole(w), whole(dy), stride, pad, dilation, groups)
    if b is not None:
        y = y + (whole(b) << POINT)[:, None, None, None]
    return tuple(rounded(sums, x.dtype.name) for sums in (y, dx, dw))


# What the values are like: of each array, from draws of a normal distribution.
def ordinary(values, rng, dtype):
    return values


def coarse(values, rng, dtype):
    """A few bits: many sums are ties, zeros, or need no rounding."""
    return np.round(values * 4)


def ties(values, rng, dtype):
    """Values of half as many bits and one more: products lie in the middle between two numbers."""
    bits = 12 if dtype == "float32" else 27
    return np.where(
        rng.random(values.shape) < 0.7, np.round(values * 2.0**bits) * 2.0**-bits, np.sign(values)
    )


def sparse(values, rng, dtype):
    """Zeros of both signs."""
    return np.where(rng.random(values.shape) < 0.7, np.copysign(0, values), values)


def subnormal(values, rng, dtype):
    """Products about the smallest subnormal number."""
    return values * 2.0 ** (-74 if dtype == "float32" else -537)


def tiny(values, rng, dtype):
    """Subnormal numbers."""
    return values * 2.0 ** (-140 if dtype == "float32" else -1065)


def huge(values, rng, dtype):
    """Sums about the largest number."""
    return values * 2.0 ** (63 if dtype == "float32" else 511)


def largest(values, rng, dtype):
    """Some values are the largest number: the scale of a column is infinite."""
    return np.where(rng.random(values.shape) < 0.05, np.copysign(np.finfo(dtype).max, values), values)


def outlier(values, rng, dtype):
    """One is 2**200, or 2**100."""
    values = values.copy()
    values.ravel()[rng.integers(values.size)] *= 2.0 ** (100 if dtype == "float32" else 200)
    return values


def wide(values, rng, dtype):
    """Of all magnitudes."""
    most = 30 if dtype == "float32" else 250
    return values * 2.0 ** rng.integers(-most, most, values.shape)


def cancelling(values, rng, dtype):
    """Pairs of channels: what one adds is taken away by the other, but for a few ulp."""
    axis = min(1, values.ndim - 1)
    values = values.copy()
    pairs = np.moveaxis(values, axis, 0)
    half = len(pairs) // 2
    pairs[half : 2 * half] = pairs[:half]
    pairs[half : 2 * half] *= 1 + np.finfo(dtype).eps * rng.integers(-2, 3, pairs[:half].shape)
    return values


KINDS = (ordinary, coarse, ties, sparse, subnormal, tiny, huge, largest, outlier, wide, cancelling)


def arrays(kind, dtype, shapes, rng):
    made = [kind(rng.standard_normal(shape), rng, dtype) for shape in shapes]
    if kind is cancelling and len(made) > 1:  # the weights of a pair have opposite signs
        half = made[1].shape[1] // 2
        made[1][:, half : 2 * half] = -made[1][:, :half]
    with np.errstate(over="ignore", under="ignore"):
        made = [np.asarray(array.astype(dtype)) for array in made]
    return [np.where(np.isfinite(array), array, 1).astype(dtype) for array in made]


def computed(kernel, given, dy, attrs):
    """(y, dx, dw, how many elements, how many of them in integers)."""
    with fallback.counted() as counts:
        y, context = kernel.forward(*given, **attrs)
        dx, dw, *_ = kernel.backward(dy, context, (True, True) + (False,) * (len(given) - 2))
    found = counts.of.values()
    return (y, dx, dw), sum(c.elements for c in found), sum(c.undecided for c in found)


def compare(case, kind, dtype, rng, kernel=conv3d.KERNEL):
    given = arrays(kind, dtype, case.shapes, rng)
    shape = OPS["conv3d"].output_shape(case.shapes, case.attrs)
    (dy,) = arrays(kind, dtype, [shape], rng)
    with np.errstate(all="ignore"):
        found, elements, undecided = computed(kernel, given, dy, case.attrs)
    expected = oracle(*given[:2], given[2] if len(given) > 2 else None, dy, **case.attrs)
    for name, one, other in zip(("y", "dx", "dw"), found, expected, strict=True):
        assert same_bits(one, other), f"{name} of {case}, {kind.__name__}, {dtype}"
    return elements, undecided


def small(rng):
    """A case that takes an oracle of Python's numbers a fraction of a second."""
    while True:
        case = OPS["conv3d"].drawn(rng)
        if OPS["conv3d"].cost(*case.shapes, itemsize=1, **case.attrs).multiply_adds < 60_000:
            return case
