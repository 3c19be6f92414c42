"""Convolution against its definition in seven loops."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loops import conv3d, conv3d_gradients
from support import LAYOUTS, every_arithmetic, every_dtype, shifted_sums, unit

from refnet.arithmetic import core
from refnet.errors import RefnetError


@st.composite
def problems(draw):
    """A convolution of at most a few thousand products, every option drawn."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    depth, filters = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel = draw(st.tuples(*[st.integers(1, 3)] * 3))
    dilation = draw(st.tuples(*[st.integers(1, 3)] * 3))
    pad = draw(st.tuples(*[st.integers(0, 3)] * 3))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, e - 2 * p) for e, p in zip(extent, pad, strict=True)]
    volume = [draw(st.integers(n, n + 3)) for n in least]
    return {
        "x": (draw(st.integers(1, 2)), groups * depth, *volume),
        "w": (groups * filters, depth, *kernel),
        "bias": draw(st.booleans()),
        "attrs": {
            "stride": draw(st.tuples(*[st.integers(1, 3)] * 3)),
            "pad": pad,
            "dilation": dilation,
            "groups": groups,
        },
    }


STEM = {
    "x": (1, 3, 2, 9, 8),
    "w": (4, 3, 1, 7, 7),
    "bias": False,
    "attrs": {"stride": (1, 2, 2), "pad": (0, 3, 3)},
}


@every_arithmetic
@given(
    problem=problems(),
    dtype=st.sampled_from(["float32", "float64"]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**32 - 1),
)
@example(problem=STEM, dtype="float32", layout="byte-swapped", seed=0)
def test_integers_are_exact(arithmetic, problem, dtype, layout, seed):
    rng = np.random.default_rng(seed)
    shapes = [problem["x"], problem["w"]] + [problem["w"][:1]] * problem["bias"]
    arrays = [LAYOUTS[layout](rng.integers(-9, 10, shape).astype(dtype)) for shape in shapes]
    before = [a.copy() for a in arrays]
    y, context = arithmetic.conv3d.forward(*arrays, **problem["attrs"])
    exact = [a.astype(int).astype(object) for a in arrays]
    assert y.dtype == dtype
    assert np.array_equal(y.astype(object), conv3d(*exact, **problem["attrs"]))

    dy = LAYOUTS[layout](rng.integers(-9, 10, y.shape).astype(dtype))
    gradients = arithmetic.conv3d.backward(dy, context)
    expected = conv3d_gradients(dy.astype(int).astype(object), *exact[:2], **problem["attrs"])
    assert len(gradients) == len(arrays)
    for ours, theirs in zip(gradients, expected, strict=False):
        assert ours.dtype == dtype
        assert np.array_equal(ours.astype(object), theirs)
    for array, copy in zip(arrays, before, strict=True):
        assert np.array_equal(array, copy), "an input was modified"


@every_dtype
@every_arithmetic
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_floats_stay_within_the_rounding_bound(arithmetic, dtype, problem, seed):
    """|y - exact| <= gamma_K m, in exact rational arithmetic (Higham, ch. 3)."""
    rng = np.random.default_rng(seed)
    shapes = [problem["x"], problem["w"]] + [problem["w"][:1]] * problem["bias"]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    y, _ = arithmetic.conv3d.forward(*arrays, **problem["attrs"])
    exact = [np.vectorize(Fraction, otypes=[object])(a) for a in arrays]
    right = conv3d(*exact, **problem["attrs"])
    magnitude = conv3d(*[np.abs(a) for a in exact], **problem["attrs"])
    terms = int(np.prod(problem["w"][1:])) + problem["bias"]
    u = Fraction(unit(dtype))
    gamma = terms * u / (1 - terms * u)
    found = np.vectorize(Fraction, otypes=[object])(y)
    assert (np.abs(found - right) <= gamma * magnitude).all()


@every_dtype
@every_arithmetic
@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((1, 70, 3, 20, 21), (33, 70, 3, 3, 3), {"pad": (1, 1, 1)}),
        ((2, 130, 2, 12, 25), (40, 130, 1, 1, 1), {}),
        ((1, 96, 4, 9, 40), (64, 48, 3, 3, 3), {"stride": (1, 2, 2), "pad": (1, 1, 1), "groups": 2}),
        ((1, 3, 2, 60, 70), (8, 3, 1, 7, 7), {"stride": (1, 2, 2), "pad": (0, 3, 3)}),
        ((1, 600, 2, 9, 16), (5, 600, 1, 2, 3), {"dilation": (1, 2, 1)}),
        # Three phases of dx side by side; lines that no tap reaches, before, between and after others.
        ((1, 8, 6, 24, 33), (40, 8, 2, 2, 4), {"stride": (1, 5, 3), "pad": (0, 2, 0), "dilation": (2, 1, 1)}),
        ((1, 20, 3, 32, 41), (70, 20, 1, 1, 1), {"stride": (2, 2, 2)}),
        ((1, 20, 2, 31, 40), (30, 20, 1, 2, 1), {"stride": (1, 4, 2), "pad": (0, 1, 1)}),
        ((2, 9, 2, 20, 63), (80, 9, 1, 2, 2), {"stride": (1, 3, 7)}),
        # Of dw, filters are copied when their turn comes, for one strip or for two.
        ((1, 70, 2, 24, 28), (300, 70, 1, 1, 1), {}),
        ((1, 300, 2, 20, 18), (420, 300, 1, 1, 1), {}),
    ],
)
def test_several_tiles_are_exact(arithmetic, dtype, x, w, attrs):
    """Problems larger than a tile, against integer sums of shifted inputs in int64."""
    require_exact_tiles(arithmetic, dtype, x, w, attrs)


@every_dtype
@settings(max_examples=40)
@given(problem=problems(), larger=st.tuples(*[st.sampled_from([1, 3, 12])] * 3), wide=st.integers(1, 60))
def test_any_geometry_is_exact_in_tiles(dtype, problem, larger, wide):
    """Geometries drawn as above, with larger volumes, and more channels of one side or the other."""
    n, channels, *volume = problem["x"]
    filters, depth, *kernel = problem["w"]
    volume = [size * times for size, times in zip(volume, larger, strict=True)]
    if wide % 2:
        channels, depth = channels * wide, depth * wide
    else:
        filters *= wide
    x, w = (n, channels, *volume), (filters, depth, *kernel)
    require_exact_tiles(core, dtype, x, w, problem["attrs"])


@st.composite
def lines(draw):
    """A convolution whose output lines are cut into micro-tiles of seven or eight positions, or others."""
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 3, 3, 7])))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 3))
    pad = draw(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)))
    stride = draw(st.tuples(*[st.integers(1, 2)] * 3))
    width = draw(st.one_of(st.sampled_from([7, 8, 14, 16, 21, 28]), st.integers(5, 40)))
    out = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), width)
    volume = []
    for count, k, d, p, s in zip(out, kernel, dilation, pad, stride, strict=True):
        least = (count - 1) * s + d * (k - 1) + 1 - 2 * p
        volume.append(max(1, least + draw(st.integers(0, s - 1))))
    channels, filters = draw(st.integers(1, 40)), draw(st.sampled_from([8, 16, 32, 48, 64, 100]))
    attrs = {"stride": stride, "pad": pad, "dilation": dilation}
    return (draw(st.integers(1, 2)), channels, *volume), (filters, channels, *kernel), attrs


@every_dtype
@settings(max_examples=100)
@given(problem=lines())
@example(problem=((1, 8, 1, 4, 11), (32, 8, 1, 3, 1), {"stride": (1, 1, 2), "pad": (0, 0, 1)}))
@example(problem=((1, 1, 1, 2, 12), (16, 1, 1, 2, 3), {"stride": (1, 1, 2), "pad": (0, 0, 2)}))
@example(problem=((1, 40, 1, 9, 32), (16, 40, 1, 7, 7), {"stride": (1, 2, 2), "pad": (0, 3, 3)}))
def test_any_line_is_exact(dtype, problem):
    """The examples read the padding at both ends with one tap, two of a position, and three of seven."""
    require_exact_tiles(core, dtype, *problem)


@st.composite
def groups(draw):
    """A convolution in groups of few filters, of one chain or of several; or in many groups of fewer."""
    if draw(st.booleans()):
        count, rows, channels = (
            draw(st.integers(2, 6)),
            draw(st.integers(1, 9)),
            draw(st.sampled_from([1, 2, 8, 30])),
        )
    else:
        channels = draw(st.sampled_from([1, 2, 3, 4, 8]))
        rows = draw(st.one_of(st.integers(1, 4), st.just(channels), st.just(2 * channels)))
        count = draw(st.integers(7, 50))
    kernel = draw(st.tuples(*[st.integers(1, 3)] * 3))
    attrs = {"pad": draw(st.tuples(*[st.integers(0, 2)] * 3)), "groups": count}
    attrs["dilation"] = draw(st.tuples(*[st.integers(1, 2)] * 3))
    attrs["stride"] = draw(st.sampled_from([(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 1, 3)]))
    out = (draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 70 if count < 7 else 20)))
    each = zip(out, kernel, attrs["stride"], attrs["dilation"], attrs["pad"], strict=True)
    volume = [max(1, (size - 1) * s + d * (k - 1) + 1 - 2 * p) for size, k, s, d, p in each]
    return (draw(st.integers(1, 2)), count * channels, *volume), (count * rows, channels, *kernel), attrs


@every_dtype
@settings(max_examples=80)
@given(problem=groups())
@example(problem=((1, 4, 3, 14, 14), (4, 1, 3, 3, 3), {"pad": (1, 1, 1), "groups": 4}))
@example(problem=((1, 60, 2, 9, 17), (4, 30, 3, 3, 3), {"pad": (1, 1, 1), "groups": 2}))
@example(problem=((1, 45, 4, 80, 83), (45, 1, 3, 3, 3), {"pad": (1, 1, 1), "groups": 45}))
def test_any_groups_are_exact(dtype, problem):
    """The examples are depthwise, sums of four chains, and images that are cut into bands of lines."""
    require_exact_tiles(core, dtype, *problem)


@every_dtype
@pytest.mark.parametrize(("groups", "channels"), [(1, 3), (4, 1), (4, 8), (48, 1), (48, 2), (24, 4), (6, 8)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 1, 2)])
@pytest.mark.parametrize(("k", "pad", "dilation"), [(2, 2**30 - 1, 2**31 - 1), (3, 2**30, 2**30)])
def test_windows_that_reach_as_far_as_they_may_are_exact(dtype, groups, channels, k, pad, dilation, stride):
    """All but the middle tap, if there is one, lie outside. What such a window spans is no Py_ssize_t."""
    rng = np.random.default_rng(k)
    x = rng.integers(-9, 10, (2, groups * channels, 3, 3, 3))
    w = rng.integers(-9, 10, (groups * channels, channels, k, k, k))
    attrs = {"pad": (pad,) * 3, "dilation": (dilation,) * 3, "groups": groups, "stride": stride}
    y, context = core.conv3d.forward(x.astype(dtype), w.astype(dtype), **attrs)
    dy = rng.integers(-9, 10, y.shape)
    dx, dw = core.conv3d.backward(dy.astype(dtype), context)
    expected = [np.zeros(y.shape), np.zeros(x.shape), np.zeros(w.shape)]
    if k == 3:
        middle, dw_of_middle = w[:, :, 1:2, 1:2, 1:2], expected[2][:, :, 1:2, 1:2, 1:2]
        expected[:2], dw_of_middle[...] = (
            (sums := shifted_sums(x, middle, dy, groups=groups, stride=stride))[:2],
            sums[2],
        )
    for name, ours, theirs in zip(("y", "dx", "dw"), (y, dx, dw), expected, strict=True):
        assert np.array_equal(ours, theirs), name


def require_exact_tiles(arithmetic, dtype, x, w, attrs):
    """Sums of whole numbers below 2 ** 24 are exact in every order."""
    rng = np.random.default_rng(0)
    xs, ws = rng.integers(-9, 10, x), rng.integers(-9, 10, w)
    y, context = arithmetic.conv3d.forward(xs.astype(dtype), ws.astype(dtype), **attrs)
    dy = rng.integers(-9, 10, y.shape)
    dx, dw = arithmetic.conv3d.backward(dy.astype(dtype), context)
    expected = shifted_sums(xs, ws, dy, **attrs)
    for name, ours, theirs in zip(("y", "dx", "dw"), (y, dx, dw), expected, strict=True):
        assert np.array_equal(ours, theirs), name


@pytest.mark.parametrize(
    ("x", "w", "attrs", "message"),
    [
        ((1, 4, 2, 2), (4, 4, 1, 1, 1), {}, "x has rank 4"),
        ((1, 4, 2, 0, 2), (4, 4, 1, 1, 1), {}, "x size H is 0"),
        ((1, 4, 2, 2, 2), (4, 3, 1, 1, 1), {}, "w size C is 3 .* expected 4"),
        ((1, 4, 2, 2, 2), (6, 2, 1, 1, 1), {"groups": 4}, "groups is 4: expected a divisor of 4 .* 6"),
        ((1, 4, 2, 2, 2), (4, 4, 3, 1, 1), {}, "input size T is 2.*needs at least 3"),
        ((1, 4, 2, 2, 2), (4, 4, 1, 1, 1), {"stride": (1, 0, 1)}, r"stride\[H\] is 0"),
        ((1, 4, 2, 2, 2), (4, 4, 1, 1, 1), {"pad": (0, 0, -1)}, r"pad\[W\] is -1"),
        ((1, 4, 2, 2, 2), (4, 4, 1, 1, 1), {"dilation": 2}, "dilation is 2: expected three"),
        ((1, 4, 2, 2, 2), (4, 4, 1, 1, 1), {"strides": (1, 1, 1)}, "strides"),
    ],
)
@every_arithmetic
def test_what_does_not_fit_is_refused(arithmetic, x, w, attrs, message):
    with pytest.raises(RefnetError, match=message):
        arithmetic.conv3d.forward(np.zeros(x), np.zeros(w), **attrs)
