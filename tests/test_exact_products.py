"""conv3d and linear of exact arithmetic: each element is the exact sum, rounded once, to the last bit.

The oracle sums whole numbers of Python, multiples of the smallest subnormal number, with `shifted_sums`.
"""

from fractions import Fraction

import numpy as np
import pytest
from refnet._core import micro_kernel
from rounding import nearest, same_bits
from support import shifted_sums
from threadpoolctl import threadpool_limits

from refnet.arithmetic.exact import conv3d, fallback, linear
from refnet.arithmetic.table import Kernel
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_is_the_exact_sum_rounded_once(kind, dtype):
    rng = np.random.default_rng([3, KINDS.index(kind), dtype == "float32"])
    for _ in range(12):
        compare(small(rng), kind, dtype, rng)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_are_rounded_once(kind, dtype):
    """A layer's products are a convolution's of one tap and one position."""
    rng = np.random.default_rng([4, KINDS.index(kind), dtype == "float32"])
    for n, d, k in ((1, 300, 7), (3, 17, 5), (9, 40, 11)):
        given = arrays(kind, dtype, [(n, d), (k, d), (k,)], rng)
        (dy,) = arrays(kind, dtype, [(n, k)], rng)
        with np.errstate(all="ignore"):
            found, *_ = computed(linear.KERNEL, given, dy, {})
        x, w, b = given
        volumes = [a.reshape(*a.shape, 1, 1, 1) for a in (x, w, dy)]
        expected = oracle(volumes[0], volumes[1], b, volumes[2])
        for one, other in zip(found, expected, strict=True):
            assert same_bits(one, other.reshape(one.shape)), (kind.__name__, dtype, n, d, k)


LONG = (
    ((1, 40, 3, 5, 6), (5, 40, 3, 3, 3), {"pad": (1, 1, 1)}),
    ((2, 3, 2, 33, 31), (4, 3, 1, 7, 7), {"stride": (1, 2, 2), "pad": (0, 3, 3)}),
    ((1, 9, 2, 26, 25), (17, 9, 1, 1, 1), {}),
)


@pytest.mark.parametrize("version", micro_kernel.versions())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", (ordinary, ties, wide, cancelling))
def test_long_sums_in_every_version_of_the_kernel(version, dtype, kind):
    """Sums of several chains; the same bits, and the same elements in doubt, for any threads and vectors."""
    x, w, attrs = LONG[KINDS.index(kind) % len(LONG)]
    rng = np.random.default_rng(5)
    given = arrays(kind, dtype, [x, w], rng)
    (dy,) = arrays(kind, dtype, [OPS["conv3d"].output_shape((x, w), attrs)], rng)
    expected = oracle(*given, None, dy, **attrs)
    doubts = set()
    try:
        micro_kernel.use(version)
        for threads in (1, 2, 3):
            with threadpool_limits(threads):
                found, _, undecided = computed(conv3d.KERNEL, given, dy, attrs)
            assert all(map(same_bits, found, expected))
            doubts.add(undecided)
    finally:
        micro_kernel.use(micro_kernel.versions()[-1])
    assert len(doubts) == 1


def test_few_elements_of_ordinary_data_are_in_doubt():
    """Of float64, none; of float32, those within core's error of the middle between two numbers."""
    for dtype, most in (("float64", 0), ("float32", 0.002)):
        given = arrays(ordinary, dtype, [(1, 64, 2, 9, 9), (32, 64, 3, 3, 3)], np.random.default_rng(6))
        dy = arrays(ordinary, dtype, [(1, 32, 2, 9, 9)], np.random.default_rng(7))[0]
        _, elements, undecided = computed(conv3d.KERNEL, given, dy, {"pad": (1, 1, 1)})
        assert undecided <= most * elements


def test_one_ulp_is_seen():
    """The comparison of these tests fails where a kernel is off by one ulp in one element."""

    def off(*given, **attrs):
        y, context = conv3d.forward(*given, **attrs)
        y.ravel()[-1] = np.nextafter(y.ravel()[-1], np.float32(np.inf))
        return y, context

    with pytest.raises(AssertionError, match="^y of"):
        compare(
            small(np.random.default_rng(0)),
            ordinary,
            "float32",
            np.random.default_rng(0),
            Kernel(off, conv3d.backward),
        )
