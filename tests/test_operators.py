"""Every operator of the table under every arithmetic, and literal values for each."""

import os
import signal
import time
import warnings

import numpy as np
import pytest
from loops import max_pool3d
from support import (
    LAYOUTS,
    assert_agree,
    assert_same_bits,
    every_arithmetic,
    every_case,
    every_dtype,
    gradient_bounds,
    integers,
    of_formulas,
    reals,
    rounding_bound,
    unit,
)

from refnet.arithmetic import ARITHMETICS, Kernel, core, reference
from refnet.errors import DTypeError, RefnetError, ShapeError, UnknownNameError
from refnet.op import OUTPUT
from refnet.ops import OPS
from refnet.shapes import size


def steps(arrays, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.choice([-1.0, 1.0], a.shape) for a in arrays]


def test_every_arithmetic_has_every_operator():
    for arithmetic in ARITHMETICS.values():
        assert set(arithmetic) == set(OPS)


@every_case
def test_core_equals_the_definition_on_integers(op, case):
    arrays = integers(op, case)
    y, context = reference[op.name].forward(*arrays, **case.attrs)
    dy = np.asarray(np.random.default_rng(2).integers(-4, 5, y.shape), "float64")
    z, other = core[op.name].forward(*arrays, **case.attrs)
    theirs = (y, *reference[op.name].backward(dy, context))
    assert_agree(op, case, arrays, dy, (z, *core[op.name].backward(dy, other)), theirs)


@every_arithmetic
@every_case
def test_gradients_are_difference_quotients(op, case, arithmetic):
    """f is affine in each input for such steps: f(a + e) - f(a) = <gradient, e>, exactly or up to rounding.

    Where f curves, central differences of three steps, extrapolated twice: each halving leaves a sixteenth
    of the error, so the two results are further apart than the second is from the derivative.
    """
    arrays = integers(op, case)
    kernel = arithmetic[op.name]
    y, context = kernel.forward(*arrays, **case.attrs)
    dy = np.asarray(np.random.default_rng(2).choice([-3.0, -1.0, 2.0, 4.0], y.shape))
    gradients = kernel.backward(dy, context)
    assert [g is not None for g in gradients] == [op.domain(i).gradient for i in range(len(arrays))]
    bounds = gradient_bounds(op, arrays, case.attrs, dy) if op.divides else [0] * len(arrays)

    def change(i, low, high):
        """(<dy, f(high) - f(low)>, how far rounding moves it), for what is added to input i."""
        moved = [[a + step if i == j else a for j, a in enumerate(arrays)] for step in (low, high)]
        before, after = (kernel.forward(*at, **case.attrs)[0] for at in moved)
        errors = sum(rounding_bound(op, at, case.attrs) for at in moved) if op.divides else 0 * y
        return np.vdot(dy, after - before), np.vdot(abs(dy), errors)

    for i, (gradient, step, bound) in enumerate(zip(gradients, steps(arrays), bounds, strict=True)):
        if gradient is None:
            continue
        if op.smooth:
            halvings = [2.0**-7, 2.0**-8, 2.0**-9]
            (a, _), (b, _), (c, error) = (change(i, -h * step, h * step) for h in halvings)
            wide, middle, narrow = (d / (2 * h) for d, h in zip((a, b, c), halvings, strict=True))
            expected, rough = (4 * narrow - middle) / 3, (4 * middle - wide) / 3
            # The narrowest quotient counts 4/3, the middle one, whose errors are half as large, 1/3.
            error = abs(expected - rough) + error * (4 + 1 / 2) / 3 / (2 * halvings[-1])
        else:
            expected, error = change(i, 0 * step, step)
        found = np.vdot(gradient, step)
        if op.divides:
            error += np.sum(bound) + gradient.size * unit("float64") * abs(gradient).sum()
        assert abs(expected - found) <= error


def run(arithmetic, op, case):
    y, context = arithmetic[op.name].forward(*integers(op, case), **case.attrs)
    return np.ones_like(y), context


@every_arithmetic
@every_case
def test_needs_are_met_and_nothing_else(op, case, arithmetic):
    dy, context = run(arithmetic, op, case)
    for wanted in range(len(case.shapes)):
        needs = tuple(i == wanted for i in range(len(case.shapes)))
        gradients = arithmetic[op.name].backward(dy, context, needs)
        found = [gradient is not None for gradient in gradients]
        assert found == [need and op.domain(i).gradient for i, need in enumerate(needs)]


@pytest.mark.parametrize("layout", LAYOUTS)
@every_dtype
@every_arithmetic
@every_case
def test_layout_does_not_matter(op, case, arithmetic, dtype, layout):
    rng = np.random.default_rng(3)
    arrays = reals(op, case, dtype, seed=3)
    odd = [LAYOUTS[layout](a) for a in arrays]
    y, context = arithmetic[op.name].forward(*arrays, **case.attrs)
    z, other = arithmetic[op.name].forward(*odd, **case.attrs)
    assert z.dtype == y.dtype == dtype
    assert y.tobytes() == z.tobytes()
    dy = np.asarray(rng.standard_normal(y.shape)).astype(dtype)
    odd_dy = LAYOUTS[layout](dy).reshape(y.shape)  # some layouts make a vector of a single number
    pairs = zip(
        arithmetic[op.name].backward(dy, context),
        arithmetic[op.name].backward(odd_dy, other),
        strict=True,
    )
    for ours, theirs in pairs:
        assert ours is None or ours.tobytes() == theirs.tobytes()
    for before, after in zip([*arrays, dy], [*odd, odd_dy], strict=True):
        assert np.array_equal(before, after), "an input was modified"


@every_case
def test_infer_and_magnitude_and_cost_fit_the_output(op, case):
    arrays = reals(op, case, seed=4)
    y, _ = reference[op.name].forward(*arrays, **case.attrs)
    assert op.infer(*case.shapes, **case.attrs) == y.shape
    magnitude = op.magnitude(*arrays, **case.attrs)
    assert magnitude.sum_abs.shape == y.shape
    # y and sum_abs are rounded, n times each.
    assert (np.abs(y) <= magnitude.sum_abs + 2 * rounding_bound(op, arrays, case.attrs)).all()
    assert np.broadcast_shapes(magnitude.terms.shape, y.shape) == y.shape
    cost = op.cost(*case.shapes, itemsize=8, **case.attrs)
    touched = sum(a.nbytes for a in arrays) + y.nbytes
    assert cost.bytes == (0 if op.name == "stop_gradient" else touched)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_what_costs_something_is_measured(op):
    costs = [op.cost(*case.shapes, itemsize=8, **case.attrs).bytes for case in op.cases]
    assert any(costs) == bool(op.benchmarks)
    for case in op.benchmarks:
        op.output_shape(case.shapes, case.attrs)


@every_arithmetic
@every_case
def test_magnitude_bounds_the_rounding_errors(op, case, arithmetic):
    """Each of the float32 and the float64 result is within its own bound of the exact one."""
    arrays = reals(op, case, "float32", seed=5)
    wide = [a if a.dtype == np.int64 else a.astype("float64") for a in arrays]
    y, _ = arithmetic[op.name].forward(*arrays, **case.attrs)
    right, _ = reference[op.name].forward(*wide, **case.attrs)
    bound = sum(rounding_bound(op, arrays, case.attrs, dtype) for dtype in ("float32", "float64"))
    assert (np.abs(y - right) <= bound).all()


@every_dtype
@every_case
def test_core_has_the_same_bits_for_any_number_of_threads(op, case, dtype):
    assert_same_bits(core[op.name], reals(op, case, dtype, seed=6), case.attrs)


@every_dtype
@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((1, 64, 4, 28, 28), (96, 64, 3, 3, 3), {"pad": (1, 1, 1)}),
        ((1, 200, 2, 28, 28), (64, 200, 1, 1, 1), {}),
        ((1, 3, 2, 112, 112), (64, 3, 1, 7, 7), {"stride": (1, 2, 2), "pad": (0, 3, 3)}),
        ((2, 64, 4, 14, 14), (64, 8, 3, 3, 3), {"pad": (1, 1, 1), "groups": 8}),
    ],
)
def test_core_convolution_has_the_same_bits_for_any_number_of_threads(x, w, attrs, dtype):
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in (x, w)]
    assert_same_bits(core.conv3d, arrays, attrs)


@every_dtype
def test_core_linear_has_the_same_bits_for_any_number_of_threads(dtype):
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in ((3, 700), (501, 700), (501,))]
    assert_same_bits(core.linear, arrays, {})


@every_dtype
def test_core_linear_is_a_convolution_and_a_row_does_not_depend_on_the_batch(dtype):
    """With the samples as samples or as positions; in a batch of one, of seven and of 300."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((300, 600)).astype(dtype), rng.standard_normal((1000, 600)).astype(dtype)
    dy, b = rng.standard_normal((300, 1000)).astype(dtype), rng.standard_normal(1000).astype(dtype)
    y, context = core.linear.forward(x, w, b)
    dx, dw, db = core.linear.backward(dy, context)
    for first, count in ((0, 1), (5, 1), (0, 7), (250, 50)):
        rows = slice(first, first + count)
        part, part_context = core.linear.forward(x[rows], w, b)
        assert part.tobytes() == y[rows].tobytes()
        assert core.linear.backward(dy[rows], part_context)[0].tobytes() == dx[rows].tobytes()
    kernel = w[:, :, None, None, None]
    image, context = core.conv3d.forward(x[:, :, None, None, None], kernel, b)
    assert image.tobytes() == y.tobytes()
    found = core.conv3d.backward(dy.reshape(image.shape), context)
    assert found[0].tobytes() == dx.tobytes() and found[2].tobytes() == db.tobytes()
    _, context = core.conv3d.forward(x.T[None, :, None, None], kernel, b)
    assert core.conv3d.backward(dy.T[None, :, None, None], context)[1].tobytes() == dw.tobytes()


# Literal values.


@every_arithmetic
def test_convolution_literally(arithmetic):
    """A kernel 1, 2, 3 along W over 1 .. 4, zeros beyond the ends: correlation, not convolution."""
    x, w = np.arange(1.0, 5.0).reshape(1, 1, 1, 1, 4), np.array([1.0, 2, 3]).reshape(1, 1, 1, 1, 3)
    y, context = arithmetic.conv3d.forward(x, w, np.array([100.0]), pad=(0, 0, 1))
    assert y.ravel().tolist() == [108.0, 114.0, 120.0, 111.0]
    dx, dw, db = arithmetic.conv3d.backward(np.array([1.0, 0, 0, 10]).reshape(y.shape), context)
    assert dx.ravel().tolist() == [2.0, 3.0, 10.0, 20.0]
    assert dw.ravel().tolist() == [30.0, 41.0, 2.0]
    assert db.tolist() == [11.0]


@every_arithmetic
def test_stop_gradient_literally(arithmetic):
    x = np.array([1.0, -2.0]).reshape(1, 1, 1, 1, 2)
    y, context = arithmetic.stop_gradient.forward(x)
    assert y.ravel().tolist() == [1.0, -2.0]
    assert arithmetic.stop_gradient.backward(y, context) == (None,)


@every_arithmetic
def test_affine_literally(arithmetic):
    x = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 1, 1, 2)
    y, context = arithmetic.affine.forward(x, np.array([10.0, -1.0]), np.array([0.5, 2.0]))
    assert y.ravel().tolist() == [10.5, 20.5, -1.0, -2.0]
    magnitude = OPS["affine"].magnitude(x, np.array([10.0, -1.0]), np.array([0.5, -2.0]))
    assert magnitude.sum_abs.ravel().tolist() == [10.5, 20.5, 5.0, 6.0] and magnitude.terms == 2
    assert OPS["affine"].cost(x.shape, (2,), (2,), itemsize=8) == (4, 8 * (4 + 4 + 2 + 2))
    dx, ds, db = arithmetic.affine.backward(np.array([1.0, 2, 3, 4]).reshape(y.shape), context)
    assert dx.ravel().tolist() == [10.0, 20.0, -3.0, -4.0]
    assert ds.tolist() == [5.0, 25.0]
    assert db.tolist() == [3.0, 7.0]


@of_formulas
def test_relu_literally(arithmetic):
    x = np.array([-2.0, -0.0, 0.0, 3.0, np.inf, -np.inf]).reshape(1, 1, 1, 1, 6)
    y, context = arithmetic.relu.forward(x)
    assert y.ravel().tolist() == [0.0, 0.0, 0.0, 3.0, np.inf, 0.0]
    assert not np.signbit(y).any()
    (dx,) = arithmetic.relu.backward(np.full(y.shape, 7.0), context)
    assert dx.ravel().tolist() == [0.0, 0.0, 0.0, 7.0, 7.0, 0.0]
    y, _ = arithmetic.relu.forward(np.full((1, 1, 1, 1, 1), np.nan))
    assert np.isnan(y).all()


@every_arithmetic
def test_add_literally(arithmetic):
    a, b = (np.array(v, "float32").reshape(1, 1, 1, 1, 2) for v in ([1.0, 2.0], [0.25, -2.0]))
    y, context = arithmetic.add.forward(a, b)
    assert y.ravel().tolist() == [1.25, 0.0]
    magnitude = OPS["add"].magnitude(a, b)
    assert magnitude.sum_abs.ravel().tolist() == [1.25, 4.0] and magnitude.terms == 2
    dy = np.array([3.0, 4.0], "float32").reshape(y.shape)
    assert [g.ravel().tolist() for g in arithmetic.add.backward(dy, context)] == [[3.0, 4.0]] * 2
    with pytest.raises(ShapeError, match="x1 has shape 1x1x1x1x2 and x2 1x1x1x1x1"):
        arithmetic.add.forward(a, b[..., :1])


@every_arithmetic
def test_max_pool_literally(arithmetic):
    x = np.array([[-5.0, -7, -7], [-9, -5, -6]]).reshape(1, 1, 1, 2, 3)
    attrs = {"kernel": (1, 3, 3), "stride": (1, 2, 2), "pad": (0, 1, 1)}
    y, context = arithmetic.max_pool3d.forward(x, **attrs)
    assert y.ravel().tolist() == [-5.0, -5.0], "padding must not win"
    (dx,) = arithmetic.max_pool3d.backward(np.array([1.0, 10.0]).reshape(y.shape), context)
    assert dx.ravel().tolist() == [1.0, 0, 0, 0, 10, 0], "the first of equal values wins"


@of_formulas
def test_max_pool_of_nan_and_infinity(arithmetic):
    x = np.array([1.0, np.nan, 5, -np.inf, -np.inf, -np.inf]).reshape(1, 1, 1, 1, 6)
    y, context = arithmetic.max_pool3d.forward(x, kernel=(1, 1, 3), stride=(1, 1, 3))
    assert np.isnan(y.ravel()[0])
    assert y.ravel()[1] == -np.inf
    (dx,) = arithmetic.max_pool3d.backward(np.array([1.0, 2.0]).reshape(y.shape), context)
    assert dx.ravel().tolist() == [0.0, 1, 0, 2, 0, 0]


@every_arithmetic
@pytest.mark.parametrize("case", OPS["max_pool3d"].cases, ids=lambda case: case.name)
def test_max_pool_against_loops_with_many_ties(case, arithmetic):
    rng = np.random.default_rng(9)
    x = rng.integers(-2, 3, case.shapes[0]).astype("float64")
    dy = rng.integers(-9, 10, OPS["max_pool3d"].infer(*case.shapes, **case.attrs)).astype("float64")
    y, context = arithmetic.max_pool3d.forward(x, **case.attrs)
    (dx,) = arithmetic.max_pool3d.backward(dy, context)
    expected_y, expected_dx = max_pool3d(x, dy, **case.attrs)
    assert np.array_equal(y, expected_y)
    assert np.array_equal(dx, expected_dx)


@pytest.mark.parametrize("case", OPS["max_pool3d"].cases, ids=lambda case: case.name)
def test_a_pool_whose_blobs_were_changed_writes_nowhere_else(case):
    """Without a winner each dy goes to the first value of its own window: as if all were equal."""
    (shape,) = case.shapes
    x = np.zeros(shape)
    y, context = core.max_pool3d.forward(x, **case.attrs)
    dy = np.random.default_rng(9).integers(1, 10, y.shape).astype("float64")
    expected = core.max_pool3d.backward(dy, context)[0]
    core.max_pool3d.backward(dy, core.max_pool3d.forward(reals(OPS["max_pool3d"], case)[0], **case.attrs)[1])
    y[...] = 7.0
    assert np.array_equal(core.max_pool3d.backward(dy, context)[0], expected)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"kernel": (1, 2, 2), "pad": (0, 2, 0)}, r"pad\[H\] is 2: expected less than the kernel's 2"),
        ({"kernel": (1, 9, 1)}, "input size H is 4.*needs at least 9"),
        ({"kernel": (0, 1, 1)}, r"kernel\[T\] is 0"),
        ({}, "kernel"),
    ],
)
@every_arithmetic
def test_pooling_windows_that_do_not_fit_are_refused(arithmetic, attrs, message):
    with pytest.raises(ShapeError, match=message):
        arithmetic.max_pool3d.forward(np.zeros((1, 1, 2, 4, 4)), **attrs)


def test_conv_terms_leave_out_padding():
    x, w = np.ones((1, 2, 1, 3, 3)), np.ones((1, 2, 1, 3, 3))
    magnitude = OPS["conv3d"].magnitude(x, w, pad=(0, 1, 1))
    assert magnitude.terms[0].tolist() == [[8, 12, 8], [12, 18, 12], [8, 12, 8]]
    assert OPS["conv3d"].cost(x.shape, w.shape, itemsize=4, pad=(0, 1, 1)) == (9 * 18, 4 * (18 + 18 + 9))


@every_arithmetic
def test_linear_literally(arithmetic):
    x, w, b = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0], [0.0, 1.0]]), np.array([1.0, 0, -1])
    y, context = arithmetic.linear.forward(x, w, b)
    assert y.tolist() == [[12.0, 17.0, 1.0]]
    dx, dw, db = arithmetic.linear.backward(np.array([[1.0, 10.0, 100.0]]), context)
    assert dx.tolist() == [[53.0, 164.0]]
    assert dw.tolist() == [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]
    assert db.tolist() == [1.0, 10.0, 100.0]
    with pytest.raises(ShapeError, match="w size D is 2: expected 3, the elements of a sample"):
        arithmetic.linear.forward(np.ones((1, 3)), w, b)
    with pytest.raises(ShapeError, match="b has shape 2: expected 3"):
        arithmetic.linear.forward(x, w, b[:2])


@every_arithmetic
def test_average_pool_literally(arithmetic):
    """ONNX operator specification, AveragePool with count_include_pad = 0."""
    x = np.arange(1.0, 5.0).reshape(1, 1, 1, 2, 2)
    attrs = {"kernel": (1, 2, 2), "pad": (0, 1, 1)}
    y, context = arithmetic.average_pool3d.forward(x, **attrs)
    assert y[0, 0, 0].tolist() == [[1.0, 1.5, 2.0], [2.0, 2.5, 3.0], [3.0, 3.5, 4.0]]
    (dx,) = arithmetic.average_pool3d.backward(np.ones_like(y), context)
    # A corner window alone, two edge windows of 2, the middle one of 4.
    assert dx[0, 0, 0].tolist() == [[2.25, 2.25], [2.25, 2.25]]
    with pytest.raises(ShapeError, match=r"pad\[W\] is 2"):
        arithmetic.average_pool3d.forward(x, kernel=(1, 2, 2), pad=(0, 0, 2))


@every_arithmetic
def test_global_average_pool_literally(arithmetic):
    x = np.arange(8.0).reshape(1, 1, 2, 2, 2)
    y, context = arithmetic.global_average_pool.forward(x)
    assert y.shape == (1, 1, 2, 1, 1) and y.ravel().tolist() == [1.5, 5.5]
    (dx,) = arithmetic.global_average_pool.backward(np.array([4.0, 8.0]).reshape(y.shape), context)
    assert dx.ravel().tolist() == [1.0] * 4 + [2.0] * 4
    y, context = arithmetic.global_average_pool.forward(x, over_time=True)
    assert y.shape == (1, 1, 1, 1, 1) and y.item() == 3.5
    (dx,) = arithmetic.global_average_pool.backward(np.full(y.shape, 8.0), context)
    assert (dx == 1.0).all() and dx.shape == x.shape


@every_arithmetic
def test_upsample_nearest_literally(arithmetic):
    x = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 1, 2, 2)
    y, context = arithmetic.upsample_nearest.forward(x)
    assert y[0, 0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    (dx,) = arithmetic.upsample_nearest.backward(np.arange(16.0).reshape(y.shape), context)
    assert dx[0, 0, 0].tolist() == [[10.0, 18.0], [42.0, 50.0]]


@every_arithmetic
def test_moves_of_time_literally(arithmetic):
    """x[n, c, t] = 100 n + 10 c + t says where every value came from."""
    n, c, t = np.ogrid[0:2, 0:3, 0:4]
    x = (100.0 * n + 10 * c + t).reshape(2, 3, 4, 1, 1)
    y, context = arithmetic.time_to_channels.forward(x)
    assert y.shape == (2, 12, 1, 1, 1)
    assert y[1].ravel().tolist() == [100, 110, 120, 101, 111, 121, 102, 112, 122, 103, 113, 123]
    assert np.array_equal(arithmetic.channels_to_time.forward(y, frames=4)[0], x)
    assert np.array_equal(arithmetic.time_to_channels.backward(y, context)[0], x)
    y, context = arithmetic.time_to_batch.forward(x)
    assert y.shape == (8, 3, 1, 1, 1)
    assert y[:, 0].ravel().tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert np.array_equal(arithmetic.batch_to_time.forward(y, frames=4)[0], x)
    assert np.array_equal(arithmetic.time_to_batch.backward(y, context)[0], x)
    y, context = arithmetic.slice_keyframe.forward(x)
    assert y[0].ravel().tolist() == [2, 12, 22]
    (dx,) = arithmetic.slice_keyframe.backward(y, context)
    assert dx[0, 1].ravel().tolist() == [0, 0, 12, 0]


@every_arithmetic
@pytest.mark.parametrize(
    ("op", "shape", "attrs", "message"),
    [
        (
            "channels_to_time",
            (1, 4, 1, 1, 1),
            {"frames": 3},
            "frames is 3: expected a divisor of the 4 channels",
        ),
        ("channels_to_time", (1, 4, 2, 1, 1), {"frames": 2}, "x size T is 2: expected 1"),
        ("batch_to_time", (4, 1, 1, 1, 1), {"frames": 3}, "frames is 3: expected a divisor of the 4 samples"),
        ("batch_to_time", (4, 1, 2, 1, 1), {"frames": 2}, "x size T is 2: expected 1"),
        ("upsample_nearest", (1, 1, 1, 1, 1), {"scale": 0}, "scale is 0"),
        ("time_to_batch", (1, 1, 1, 1), {}, "x has rank 4"),
        ("global_average_pool", (1, 1, 1, 1), {}, "x has rank 4"),
    ],
)
def test_moves_that_do_not_fit_are_refused(arithmetic, op, shape, attrs, message):
    with pytest.raises(ShapeError, match=message):
        arithmetic[op].forward(np.ones(shape), **attrs)


# The door.


@every_arithmetic
def test_other_dtypes_are_refused(arithmetic):
    x = np.zeros((1, 1, 1, 1, 1))
    for dtype in ("int64", "complex64", "complex128", "bool"):
        with pytest.raises(DTypeError, match=f"relu x is {dtype}: expected float32 or float64"):
            arithmetic.relu.forward(x.astype(dtype))
    with pytest.raises(DTypeError, match="float64, float32: expected one dtype"):
        arithmetic.add.forward(x, x.astype("float32"))


@every_arithmetic
def test_output_gradients_that_do_not_fit_are_refused(arithmetic):
    y, context = arithmetic.relu.forward(np.ones((1, 1, 1, 2, 2)))
    with pytest.raises(ShapeError, match="dy is float64 1x1x1x2x1: expected float64 1x1x1x2x2"):
        arithmetic.relu.backward(y[..., :1], context)
    with pytest.raises(ShapeError, match="dy is float32"):
        arithmetic.relu.backward(y.astype("float32"), context)


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
@every_arithmetic
def test_contexts_of_others_are_refused(arithmetic, op):
    """Of another operator, of another arithmetic, and what is none."""
    arrays = integers(op, op.cases[0])
    y, context = arithmetic[op.name].forward(*arrays, **op.cases[0].attrs)
    other = core if arithmetic is reference else reference
    for entry, found in (
        *((arithmetic[name], f"one of {op.name}") for name in OPS.keys() - {op.name}),
        (other[op.name], f"one of {arithmetic.name} {op.name}"),
    ):
        with pytest.raises(DTypeError, match=f" context is {found}: expected what .*forward returned"):
            entry.backward(y, context)
    with pytest.raises(DTypeError, match=f"{op.name} context is a tuple: expected what"):
        arithmetic[op.name].backward(y, tuple(context))


def test_an_entry_is_no_function():
    x = np.ones((1, 1, 1, 1, 1))
    with pytest.raises(DTypeError, match=r"conv3d is called itself: expected core\.conv3d\.forward\(x, w"):
        core.conv3d(x, x)


def test_a_kernel_under_test_is_called_and_caught():
    def forward(x):
        return x * 2, None

    double = core.replace(relu=Kernel(forward, lambda dy, context, needs: (dy * 2,)))
    x = np.full((1, 1, 1, 1, 1), -3.0)
    y, context = double.relu.forward(x)
    assert y.item() == -6.0
    assert double.relu.backward(x, context)[0].item() == -6.0
    assert core.relu.forward(x)[0].item() == 0.0, "the arithmetic itself is left as it was"

    wrong = core.replace(relu=Kernel(lambda x: (x[0], None), lambda *a: ()))
    with pytest.raises(ShapeError, match="replaced relu forward: y is float64 1x1x1x1: expected"):
        wrong.relu.forward(x)
    lists = core.replace(relu=Kernel(lambda x: (x.tolist(), None), lambda *a: ()))
    with pytest.raises(DTypeError, match="y is a list"):
        lists.relu.forward(x)
    forgets = core.replace(relu=Kernel(forward, lambda *a: (None,)))
    with pytest.raises(RefnetError, match="gradient of x is None"):
        forgets.relu.backward(*forgets.relu.forward(x))
    with pytest.raises(UnknownNameError, match="did you mean relu"):
        core.replace(rellu=Kernel(forward, forward))


def test_a_kernel_cannot_write_on_its_inputs():
    def in_place(x):
        x[x < 0] = 0
        return x, x

    def in_place_backward(dy, context, needs):
        dy *= 2
        return (dy,)

    x = np.full((1, 1, 1, 1, 1), -3.0)
    with pytest.raises(ValueError, match="read-only"):
        core.replace(relu=Kernel(in_place, lambda *a: a)).relu.forward(x)
    other = core.replace(relu=Kernel(core.kernels["relu"].forward, in_place_backward)).relu
    with pytest.raises(ValueError, match="read-only"):
        other.backward(x, other.forward(x)[1])
    assert x.item() == -3.0


@pytest.mark.parametrize("result", [None, 1, (1, 2, 3), np.zeros((1, 1, 1, 1, 1))])
def test_kernels_that_return_something_else_are_caught(result):
    odd = core.replace(relu=Kernel(lambda x: result, lambda *a: None)).relu
    with pytest.raises(
        DTypeError, match=r"replaced relu forward returned (None|an? .*): expected \(y, context\)"
    ):
        odd.forward(np.ones((1, 1, 1, 1, 1)))
    half = core.replace(relu=Kernel(core.kernels["relu"].forward, lambda *a: result)).relu
    y, context = half.forward(np.ones((1, 1, 1, 1, 1)))
    with pytest.raises(ShapeError, match="relu backward returned .*: expected 1 gradients"):
        half.backward(y, context)
    with pytest.raises(DTypeError, match="the relu of .* is a function: expected Kernel"):
        core.replace(relu=lambda x: x)


def test_a_forked_child_computes_too():
    arrays = [np.ones((1, 64, 4, 14, 14)), np.ones((64, 64, 3, 3, 3))]
    expected = core.conv3d.forward(*arrays, pad=(1, 1, 1))[0].sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking while threads exist is the point
        child = os.fork()
    if child == 0:
        try:
            os._exit(int(core.conv3d.forward(*arrays, pad=(1, 1, 1))[0].sum() != expected))
        finally:
            os._exit(99)
    for _ in range(300):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child waits for threads that it does not have")


def test_help_shows_the_definition():
    assert "ONNX's `Conv`" in core.conv3d.__doc__ and "floor" in core.upsample_nearest.__doc__


def test_an_operator_that_an_arithmetic_lacks_is_an_error():
    from refnet.arithmetic import Arithmetic

    little = Arithmetic("little", {"relu": core.kernels["relu"]})
    with pytest.raises(UnknownNameError, match="operator of arithmetic little 'add'"):
        little["add"]
    assert not hasattr(little, "add")


def arrays_in(context):
    if isinstance(context, tuple | list):
        for item in context:
            yield from arrays_in(item)
    elif isinstance(context, dict):
        yield from arrays_in(tuple(context.values()))
    elif isinstance(context, np.ndarray):
        yield context


@every_arithmetic
@every_case
def test_a_context_holds_no_input_or_output_but_those_that_the_record_names(arithmetic, op, case):
    """What a run keeps, and how much memory that takes, follows from the record."""
    arrays = reals(op, case)
    y, context = arithmetic[op.name].forward(*arrays, **case.attrs)
    blobs = {**dict(enumerate(arrays)), OUTPUT: y}
    held = {
        i
        for i, blob in blobs.items()
        if any(np.may_share_memory(array, blob) for array in arrays_in(context.kernel))
    }
    assert held <= set(op.keeps)


@every_dtype
@pytest.mark.parametrize(
    "op", [op for op in OPS.values() if op.benchmarks and op.window is None], ids=lambda o: o.name
)
def test_problems_of_many_tasks_have_the_same_bits_for_any_number_of_threads(op, dtype):
    """The small cases run on one thread; these are shared out, and nothing of one task is another's."""
    case = min(op.benchmarks, key=lambda case: sum(map(size, case.shapes)))
    assert_same_bits(core[op.name], reals(op, case, dtype), case.attrs)
