"""RoIAlign: literal values, the standard's own test data, the definition in fractions, what is refused."""

from importlib import import_module
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import roi_align
from support import (
    assert_both_within,
    assert_same_bits,
    every_arithmetic,
    every_dtype,
    of_formulas,
    rounding_bound,
)

import refnet
from refnet.arithmetic import core, reference
from refnet.errors import ShapeError, ValueRangeError
from refnet.inputs.fill import uniform
from refnet.ops import OPS
from refnet.ops.roi_align import MOST_SAMPLES

OP = OPS["roi_align"]


def plane(*rows):
    return np.array(rows, "float64").reshape(1, 1, 1, len(rows), -1)


def tube(*numbers):
    return np.array([numbers], "float64")


@every_arithmetic
def test_roi_align_literally(arithmetic):
    """On x = 10 h + w + 100 t, a mean of samples is the value at the bin's centre."""
    t, h, w = np.ogrid[0:2, 0:6, 0:7]
    x = (10.0 * h + w + 100 * t)[None, None]
    rois = tube(0, 2, 4, 10, 8, 4, 2, 8, 10)  # a 4 x 2 box at (1, 2) in frame 0, 2 x 4 at (2, 1) in 1
    for ratio in (0, 1, 2, 4):
        attrs = {"output": (2, 2), "spatial_scale": 0.5, "sampling_ratio": ratio}
        y, _ = arithmetic.roi_align.forward(x, rois, **attrs)
        assert y[0, 0].tolist() == [[[27, 29], [37, 39]], [[122.5, 123.5], [142.5, 143.5]]]
        y, _ = arithmetic.roi_align.forward(x, rois, **attrs, aligned=True)
        assert y[0, 0].tolist() == [[[21.5, 23.5], [31.5, 33.5]], [[117, 118], [137, 138]]]


@every_arithmetic
@pytest.mark.parametrize(
    ("position", "value", "weights"),
    [
        (-1.0, 1.0, [1, 0, 0]),
        (-1.0 - 2**-40, 0.0, [0, 0, 0]),
        (-0.5, 1.0, [1, 0, 0]),
        (0.25, 1.25, [0.75, 0.25, 0]),
        (1.5, 3.0, [0, 0.5, 0.5]),
        (2.5, 4.0, [0, 0, 1]),
        (3.0, 4.0, [0, 0, 1]),
        (3.0 + 2**-40, 0.0, [0, 0, 0]),
    ],
)
def test_border_literally(arithmetic, position, value, weights):
    """One sample of 1, 2, 4: from -1 to W it is moved inside, beyond it is 0, along W as along H."""
    x = plane([1, 2, 4])
    for turned in (False, True):
        corners = [position + 0.5, 0.5, position + 0.5, 0.5]
        rois = tube(0, *(corners[::-1] if turned else corners))
        data = x.mT if turned else x
        y, context = arithmetic.roi_align.forward(data, rois, output=(1, 1), sampling_ratio=1, aligned=True)
        assert y.item() == value
        dx, nothing = arithmetic.roi_align.backward(np.ones_like(y), context)
        assert dx.ravel().tolist() == weights and nothing is None


@every_arithmetic
def test_samples_outside_are_counted(arithmetic):
    """Samples at -1.5, -0.5, 0.5, 1.5 of 2, 4: (0 + 2 + 3 + 4) / 4."""
    y, _ = arithmetic.roi_align.forward(plane([2, 4]), tube(0, -2, 0, 2, 1), output=(1, 1))
    assert y.item() == 9 / 4


@every_arithmetic
def test_boxes_that_are_none_are_those_of_the_originals(arithmetic):
    x = plane(range(8))

    def line(x1, x2, y2=1.0, **attrs):
        rois = tube(0, x1, 0, x2, y2)
        y, context = arithmetic.roi_align.forward(x, rois, output=(1, 2), **attrs)
        return y.ravel().tolist(), arithmetic.roi_align.backward(np.ones_like(y), context)[0]

    assert line(4, 4)[0] == line(4, 1)[0] == [4.25, 4.75], "of width 1"
    mean, dx = line(4, 4, aligned=True)
    assert mean == [0, 0] and not dx.any(), "no samples"
    mean, dx = line(4, 2, y2=-3, aligned=True)
    assert mean == [0, 0] and not dx.any(), "no samples, along neither axis"
    assert line(4, 4, aligned=True, sampling_ratio=2)[0] == [3.5, 3.5], "all at one point"
    assert line(2, 6, aligned=True, sampling_ratio=2)[0] == [2.5, 4.5]
    assert line(6, 2, aligned=True, sampling_ratio=2)[0] == [4.5, 2.5], "mirrored"


@of_formulas
def test_only_what_has_a_weight_is_read(arithmetic):
    """Bins of 2 with samples at their centres 1, 3, 5: the NaN at 2 and the infinity at 4 lie between."""
    x = plane([0, 1, nan, 3, inf, 5, 6])
    rois = tube(0, 0, 0, 6, 1)
    y, context = arithmetic.roi_align.forward(x, rois, output=(1, 3), sampling_ratio=1)
    assert y.ravel().tolist() == [1, 3, 5]
    (dx, _) = arithmetic.roi_align.backward(plane([nan, 1, inf]), context)
    assert np.array_equal(dx.ravel(), [0, nan, 0, 1, 0, inf, 0], equal_nan=True)
    y, _ = arithmetic.roi_align.forward(x, tube(0, 0, 0, 8, 1), output=(1, 4), sampling_ratio=2)
    assert np.isnan(y.ravel()[:2]).all() and y.ravel()[2] == inf


# From onnx 1.23.2, onnx.backend.test.case.node.roialign (Apache License 2.0): the input, 10 x 10, of its
# test_roialign_aligned_false and _true, and what they expect of three boxes, 5 x 5 each; four digits of each.
ONNX_X = """
.2764 .7150 .1958 .3416 .4638 .0259 .2963 .6518 .4856 .7250
.9637 .0895 .2919 .6753 .0234 .6132 .8085 .5324 .8992 .4467
.3265 .8479 .9698 .2471 .9336 .1878 .4766 .4308 .3400 .2162
.0206 .1720 .2155 .4394 .0653 .3406 .7724 .3921 .2541 .5799
.4062 .2194 .4473 .4687 .7109 .9327 .9815 .6320 .1728 .6119
.3097 .1283 .4984 .5068 .4279 .0173 .4388 .0430 .4671 .7119
.1011 .8477 .4726 .1777 .9923 .4042 .1869 .7795 .9946 .9689
.1366 .3671 .7011 .6234 .9867 .5585 .6985 .5609 .8788 .9928
.5697 .8511 .6711 .9406 .8751 .7496 .1650 .1049 .1559 .2514
.7012 .4056 .7879 .3461 .0415 .2998 .5094 .3727 .5482 .0502
"""
ONNX_OUTPUT_HALF_PIXEL = """
.4664 .4466 .3405 .5688 .6068
.3714 .4296 .3835 .5562 .3510
.2768 .4883 .5222 .5528 .4171
.4713 .4844 .6904 .4920 .8774
.6239 .7125 .6289 .3355 .3495
.3022 .4305 .4696 .3978 .5423
.3656 .7050 .5165 .3172 .7015
.2912 .5059 .6476 .6235 .8299
.5916 .7389 .7048 .8372 .8893
.6227 .6153 .7097 .6154 .4585
.2384 .3379 .3717 .6100 .7601
.3767 .3785 .7147 .9243 .9727
.5749 .5826 .5709 .7619 .8770
.5355 .2566 .2141 .2796 .3600
.4365 .3504 .2887 .3661 .2349
"""
ONNX_HALF_PIXEL = """
.5178 .3434 .3229 .4474 .6344
.4031 .5366 .4428 .4861 .4023
.2512 .4002 .5155 .6954 .3465
.3350 .4601 .5881 .3439 .6849
.4932 .7141 .8217 .4719 .4039
.3070 .2187 .3337 .4880 .4870
.1871 .4914 .5561 .4192 .3686
.1433 .4608 .5971 .5310 .4982
.2788 .4386 .6022 .7000 .7524
.5774 .7024 .7251 .7338 .8163
.2393 .4075 .3379 .2525 .4743
.3671 .2702 .4105 .6419 .8308
.5556 .4543 .5564 .7502 .9300
.6626 .5617 .4813 .4954 .6663
.6636 .3721 .2056 .1928 .2478
"""


@every_arithmetic
@every_dtype
@pytest.mark.parametrize(("aligned", "expected"), [(False, ONNX_OUTPUT_HALF_PIXEL), (True, ONNX_HALF_PIXEL)])
def test_the_test_data_of_onnx(arithmetic, dtype, aligned, expected):
    x = np.array(ONNX_X.split(), dtype).reshape(1, 1, 1, 10, 10)
    rois = np.array([[0, 0, 0, 9, 9], [0, 0, 5, 4, 9], [0, 5, 5, 9, 9]], dtype)
    y, _ = arithmetic.roi_align.forward(x, rois, output=(5, 5), sampling_ratio=2, aligned=aligned)
    # Half a unit of the fourth digit of x and of y each, and the rounding of 16 products of numbers below 1.
    assert np.abs(y.ravel() - np.array(expected.split(), "float64")).max() <= 1e-4 + 21 * 2**-24


@st.composite
def problems(draw):
    """Tubes that start and end anywhere near the image, borders included, on a dyadic grid."""
    n, c, t, h, w = (draw(st.integers(1, most)) for most in (2, 2, 2, 5, 5))
    corner = st.integers(-3 * max(h, w), 6 * max(h, w)).map(lambda k: k / 2)
    r = draw(st.integers(1, 3))
    batch = draw(st.lists(st.integers(0, n - 1), min_size=r, max_size=r))
    corners = draw(st.lists(corner, min_size=4 * t * r, max_size=4 * t * r))
    rois = np.column_stack([batch, np.reshape(corners, (r, -1))])
    attrs = {
        "output": draw(st.tuples(*[st.sampled_from([1, 2, 4])] * 2)),
        "spatial_scale": draw(st.sampled_from([0.5, 1.0])),
        "sampling_ratio": draw(st.sampled_from([0, 1, 2, 4])),
        "aligned": draw(st.booleans()),
    }
    return (n, c, t, h, w), rois, attrs, draw(st.integers(0, 99))


@every_arithmetic
@given(problem=problems())
@settings(deadline=None)
def test_equals_the_definition_in_fractions(arithmetic, problem):
    """Exactly, where the numbers of samples are powers of two; else up to the rounding of positions."""
    shape, rois, attrs, seed = problem
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, shape).astype("float64")
    dy = rng.integers(-9, 10, OP.infer(shape, rois.shape, **attrs)).astype("float64")
    y, context = arithmetic.roi_align.forward(x, rois, **attrs)
    dx, _ = arithmetic.roi_align.backward(dy, context)
    expected_y, expected_dx = roi_align(x, rois, dy, **attrs)
    if attrs["sampling_ratio"]:
        assert np.array_equal(y, expected_y) and np.array_equal(dx, expected_dx)
        assert np.vdot(y, dy) == np.vdot(x, dx), "one is the transpose of the other"
        return
    # Positions up to 8, of three roundings; a bin reads at most 6 cells along each axis, values up to 9.
    off = 2**-53 * (3 * 8 * 2 + 6 * 6 + 5) * 9
    assert np.abs(y - expected_y).max() <= off
    assert np.abs(dx - expected_dx).max() <= off * dy[:, 0, 0].size
    scale = np.abs(dy).sum() * 9
    assert abs(np.vdot(y, dy) - np.vdot(x, dx)) <= 2**-53 * (dy.size + x.size + 2 * 41) * scale


@every_dtype
def test_core_has_the_same_bits_for_any_number_of_threads_on_many_tubes(dtype):
    x, rois = (3, 20, 4, 14, 13), (30, 17)
    for attrs in ({"sampling_ratio": 2}, {"aligned": True}):
        attrs |= {"output": (7, 6), "spatial_scale": 1 / 16}
        boxes = OP.domain(1).draw(uniform("rois", rois, 0), x, rois, **attrs).astype(dtype)
        arrays = [uniform("x", x, 0).astype(dtype), boxes]
        assert_same_bits(core.roi_align, arrays, attrs)
        y, _ = core.roi_align.forward(*arrays, **attrs)
        expected, _ = reference.roi_align.forward(*arrays, **attrs)
        assert_both_within(y, expected, rounding_bound(OP, arrays, attrs, dtype))


def test_both_dtypes_sample_the_same_places():
    """A corner of the image at scale 1/3 is 1/3 of a pixel off the border in one dtype as in the other."""
    x, rois = np.ones((1, 1, 1, 4, 4)), tube(0, -3 - 2**-22, 0, 1, 1)
    attrs = {"output": (1, 1), "spatial_scale": 1 / 3, "sampling_ratio": 1, "aligned": True}
    for arithmetic in (reference, core):
        wide, _ = arithmetic.roi_align.forward(x, rois, **attrs)
        narrow, _ = arithmetic.roi_align.forward(x.astype("float32"), rois.astype("float32"), **attrs)
        assert wide == narrow


def test_terms_are_the_cells_that_are_read():
    """Two samples a bin: at 0.5 and 1.5, two cells each, and at 2.5 and 3.5, of which a 3 is the last."""
    magnitude = OP.magnitude(plane([1, -2, 4]), tube(0, 0, 0, 4, 1), output=(1, 2), sampling_ratio=2)
    # Along H both samples read the only cell.
    assert (magnitude.terms.ravel() - 5).tolist() == [2 * 4, 2 * 1]
    assert magnitude.sum_abs.ravel().tolist() == [(1.5 + 3) / 2, 4 / 2]


def test_cost_counts_four_multiply_adds_a_sample():
    x, rois, y = (2, 3, 2, 9, 8), (5, 9), 5 * 3 * 2 * 2 * 3
    moved = 4 * (2 * 3 * 2 * 9 * 8 + 45 + y)
    assert OP.cost(x, rois, itemsize=4, output=(2, 3), sampling_ratio=2) == (4 * 4 * y, moved)
    assert OP.cost(x, rois, itemsize=4, output=(2, 3)) == (4 * 5 * 3 * y, moved), "boxes as large as x"


@every_arithmetic
@pytest.mark.parametrize(
    ("rois", "attrs", "error", "message"),
    [
        (np.zeros((1, 9)), {}, ShapeError, "rois size D is 9: expected 5, a batch index and x1, y1, x2, y2"),
        (np.zeros(5), {}, ShapeError, r"rois has rank 1 \(shape 5\): expected rank 2"),
        (np.zeros((0, 5)), {}, ShapeError, "rois size R is 0: expected"),
        (tube(0, 0, 0, 1, 1), {"output": 7}, ShapeError, r"output is 7: expected two whole numbers \(H, W\)"),
        (tube(0, 0, 0, 1, 1), {"output": (2, 0)}, ShapeError, r"output\[W\] is 0"),
        (tube(0, 0, 0, 1, 1), {"sampling_ratio": -1}, ShapeError, "sampling_ratio is -1"),
        (tube(0, 0, 0, 1, 1), {"sampling_ratio": 1025}, ValueRangeError, "is 1025: expected at most 1024"),
        (tube(0, 0, 0, 1, 1), {"spatial_scale": 0}, ValueRangeError, "spatial_scale is 0: expected a finite"),
        (tube(0, 0, 0, 1, 1), {"spatial_scale": nan}, ValueRangeError, "spatial_scale is nan"),
        (tube(0, 0, 0, 1, 1), {"spatial_scale": True}, ValueRangeError, "spatial_scale is True"),
        (tube(0, 0, 0, 1, 1), {"aligned": 1}, ValueRangeError, "aligned is 1: expected True or False"),
        (tube(0.5, 0, 0, 1, 1), {}, ValueRangeError, "batch index of roi 0 is 0.5: expected a whole number"),
        (tube(2, 0, 0, 1, 1), {}, ValueRangeError, "batch index of roi 0 is 2.0: .* from 0 to 1"),
        (tube(-1, 0, 0, 1, 1), {}, ValueRangeError, "batch index of roi 0 is -1.0"),
        (tube(nan, 0, 0, 1, 1), {}, ValueRangeError, "batch index of roi 0 is nan"),
        (tube(0, 0, nan, 1, 1), {}, ValueRangeError, "roi 0 has y1 nan in frame 0: expected a finite number"),
        (tube(0, 0, 0, -inf, 1), {}, ValueRangeError, "roi 0 has x2 -inf in frame 0"),
        (
            tube(0, 0, 0, 1, 5e9),
            {},
            ValueRangeError,
            "roi 0 has y2 5000000000.0 in frame 0: .* 2.147.* from 0",
        ),
        (
            tube(0, 0, 0, 1, 2050),
            {},
            ValueRangeError,
            f"roi 0 in frame 0 needs 1025 samples a bin along H: expected at most {MOST_SAMPLES}",
        ),
    ],
)
def test_tubes_and_options_that_cannot_be_are_refused(arithmetic, rois, attrs, error, message):
    with pytest.raises(error, match=message):
        arithmetic.roi_align.forward(np.ones((2, 1, 1, 4, 4)), rois, **({"output": (2, 2)} | attrs))


@every_dtype
@every_arithmetic
def test_corners_are_finite_however_small_the_scale(arithmetic, dtype):
    x, rois = np.ones((2, 1, 1, 4, 4), dtype), tube(0, inf, 0, inf, 1).astype(dtype)
    with pytest.raises(
        ValueRangeError, match="roi 0 has x1 inf .*: expected a finite number, at most 1.79769e"
    ):
        arithmetic.roi_align.forward(x, rois, output=(2, 2), spatial_scale=1e-300)


@every_arithmetic
def test_the_largest_boxes_that_are_taken(arithmetic):
    """All samples of the first bin but the first lie in x or beyond: 2 of 1024 are in the plane of ones."""
    y, _ = arithmetic.roi_align.forward(np.ones((1, 1, 1, 1, 1)), tube(0, 0, 0, 2048, 1), output=(1, 2))
    assert y.ravel().tolist() == [1 / 1024, 0]


def test_a_net_draws_tubes_and_gives_them_no_gradient():
    net = refnet.Net()
    x, rois = net.input("data", (2, 3, 4, 14, 14)), net.input("rois", (5, 17))
    attrs = {"output": (7, 7), "spatial_scale": 1 / 16}
    net.output(net.add("roi_align", "pooled", (x, rois), **attrs))
    given = refnet.fill.inputs(net)
    index, corners = given["rois"][:, 0], given["rois"][:, 1:].reshape(-1, 2, 2)
    assert set(index) == {0, 1}
    assert (corners[:, 0] < corners[:, 1]).all()
    assert corners.min() < 0 and corners.max() > 224, "some reach beyond the image"
    run = refnet.forward(net, given)
    assert run.blobs["pooled"].shape == (5, 3, 4, 7, 7)
    grads = refnet.backward(run, refnet.fill.output_gradients(net))
    assert set(grads) == {"data"} and not grads.blocked, "tubes are given, not blocked"


@every_dtype
def test_as_many_rows_as_are_added_up_at_a_time_give_the_same_bits(dtype, monkeypatch):
    """Bands of 1, 2, 6 and all 22 rows of a channel; rows of dx with more terms than a chain."""
    x = uniform("x", (2, 3, 2, 11, 9), 1).astype(dtype)
    corners = 10 * np.abs(uniform("rois", (70, 8), 2))
    rois = np.concatenate([np.arange(70)[:, None] % 2, corners], 1).astype(dtype)
    y, context = core.roi_align.forward(x, rois, output=(5, 4), sampling_ratio=2)
    dy = uniform("dy", y.shape, 3).astype(dtype)
    whole, _ = core.roi_align.backward(dy, context)
    for rows in (1, 2, 6):
        monkeypatch.setattr(import_module("refnet.arithmetic.core.roi_align"), "BAND", rows * 9)
        assert core.roi_align.backward(dy, context)[0].tobytes() == whole.tobytes()
