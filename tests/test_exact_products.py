"""conv3d and linear of exact arithmetic: each element is the exact sum, rounded once, to the last bit."""

import numpy as np
import pytest
from exact_products import (
    DTYPES,
    KINDS,
    arrays,
    cancelling,
    compare,
    computed,
    oracle,
    ordinary,
    small,
    ties,
    wide,
)
from rounding import same_bits
from threadpoolctl import threadpool_limits

from refnet._core import micro_kernel
from refnet.arithmetic.exact import conv3d, linear
from refnet.arithmetic.table import Kernel
from refnet.ops import OPS


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


def test_positions_that_are_as_many_and_others_are_not_taken_for_the_same():
    """A kernel of one tap, stride and padding: position o reads 2 o - 2, of five; o itself holds zeros."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype("float32") for shape in ((8, 64, 1, 1, 5), (16, 64, 1, 1, 1)))
    x[..., 1::2] = 0
    x[:, 32:] = -x[:, :32]
    w[:, 32:] = w[:, :32] * (1 + rng.integers(-1, 2, (16, 32, 1, 1, 1)).astype("float32") * 2.0**-23)
    attrs = {"stride": (1, 1, 2), "pad": (0, 0, 2)}
    y, _ = conv3d.forward(x, w, **attrs)
    expected, _, _ = oracle(x, w, None, y, **attrs)
    assert same_bits(y, expected)


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
