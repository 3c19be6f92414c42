"""Blobs of more than 2**31 values. Those that need gigabytes are marked `large`: nox -s large runs them.

Each has a small twin, which is always run.
"""

import numpy as np
import pytest
from support import every_dtype, unit

from refnet._core import max_pool3d
from refnet.arithmetic import core
from refnet.arithmetic.table import Context
from refnet.ops.conv3d import context as conv3d_context

HALF = 2**15, 2**16  # an image of 2**31 pixels


@every_dtype
def test_offsets_of_both_types_find_the_same_winners(dtype):
    """A window whose last value is 2**31 values behind its first cannot be tried; its type of offsets can."""
    x = np.random.default_rng(0).integers(-3, 3, (2, 2 * 9 * 8)).astype(dtype)
    window = (2, 9, 8), ((2, 3, 3), (1, 2, 1), (1, 1, 2), (1, 1, 1), (3, 5, 10))
    y, dy = np.empty((2, 150), dtype), np.random.default_rng(1).random((2, 150)).astype(dtype)
    max_pool3d.forward(x, y, *window)
    found = []
    for offset in (np.intc, np.intp):
        dx = np.empty_like(x)
        max_pool3d.input_gradient(dy, x, y, dx, np.empty((64, 150), offset), *window)
        found.append(dx)
    assert np.array_equal(*found) and found[0].any()


@pytest.mark.large
def test_max_pool_of_a_plane_of_more_values_than_an_int_counts():
    x = np.zeros((1, 1, 1, *HALF), "float32")
    y, context = core.max_pool3d.forward(x, kernel=(1, 8, 8), stride=(1, 8, 8))
    (dx,) = core.max_pool3d.backward(np.ones_like(y), context)
    assert (dx[..., ::8, ::8] == 1).all()
    assert sum(np.count_nonzero(row) for row in dx[0, 0, 0]) == y.size


def whole_numbers(shape, dtype):
    """Whole numbers of 20 binades, mostly positive; their sum, and those of their magnitudes and squares."""
    rng, x = np.random.default_rng(0), np.empty(shape, dtype)
    total = squares = size = 0
    for line in x.reshape(-1, 1 << 15):
        values = rng.integers(-(1 << 19), 1 << 20, line.size) >> rng.integers(0, 20)
        line[:] = values
        total += int(values.sum())
        size += int(np.abs(values).sum())
        squares += int((values * values).sum())
    return x, total, size, squares


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", (1, 1, 1, 3, 32768)),
        ("float64", (1, 1, 1, 3, 32768)),
        pytest.param("float32", (1, 1, 1, 65537, 32768), marks=pytest.mark.large),
        pytest.param("float64", (1, 1, 1, 32769, 32768), marks=pytest.mark.large),
    ],
)
def test_sums_of_the_largest_planes_are_within_their_bounds(dtype, shape):
    """A plane of more than 2^31 float32 values, or 8 GiB of float64, in every operator that sums one."""
    x, total, size, squares = whole_numbers(shape, dtype)
    n, u, one = x.size, unit(dtype), np.ones(1, dtype)
    off = (36 + 2.0**-61 * n) * 2.0**-53 * size  # sums.h
    chains = (256 + 8 + n / 2048 + 1) * u * squares  # the docstring of conv3d.pyx
    found = {}
    context = Context("core", "affine", (x, one), (x.shape, (1,), (1,)), x.shape, x.dtype)
    _, ds, db = core.affine.backward(x, context, (False, True, True))
    found["db"] = abs(int(db[0]) - total), u * abs(total) + off
    found["ds"] = abs(int(ds[0]) - squares), u * squares + 70 * 2.0**-53 * squares
    w = np.ones((1, 1, 1, 1, 1), dtype)
    context = Context("core", "conv3d", conv3d_context(x, w, None), (x.shape, w.shape), x.shape, x.dtype)
    _, dw = core.conv3d.backward(x, context, (False, True))
    found["dw"] = abs(int(dw.item()) - squares), chains
    y, _ = core.linear.forward(x.reshape(1, -1), x.reshape(1, -1))
    found["linear"] = abs(int(y.item()) - squares), chains
    y, _ = core.global_average_pool.forward(x, over_time=True)
    found["global average"] = abs(y.item() - total / n), 2 * u * abs(total / n) + off / n
    y, _ = core.average_pool3d.forward(x, kernel=x.shape[2:])
    found["average"] = abs(y.item() - total / n), (u + 19 * 2.0**-53) * size / n
    y, _ = core.running_mean.forward(x, 0 * one, momentum=0.5)
    found["running mean"] = abs(y[0] - total / n / 2), 4 * u * abs(total / n) + off / n
    y, _ = core.running_variance.forward(x, 0 * one, momentum=0.5)
    variance = (squares * n - total * total) / (n * (n - 1)) / 2
    found["running variance"] = abs(y[0] - variance), (2 * u + 80 * 2.0**-53) * variance
    print(found)
    assert all(error <= bound for error, bound in found.values()), found


# One axis of more than 2**31 elements: zeros, which take no memory until they are written, and a last value.
LONG = 2**31 + 64


def ending(shape, *last):
    """Float32 zeros whose last values are these; of one number, a line of as many."""
    x = np.zeros((1, 1, 1, 1, shape) if isinstance(shape, int) else shape, "float32")
    x.reshape(-1)[x.size - len(last) :] = last
    return x


ONE_CHANNEL = np.ones(1, "float32")
ALONG = {"kernel": (1, 1, 8), "stride": (1, 1, 8)}


def long_problems(n):
    """By operator: inputs along an axis of n, attributes, the last value of y and one that is not near it."""
    return {
        "relu": (lambda: (ending(n, -1, 3),), {}, 3, 0),
        "add": (lambda: (ending(n, 3), ending(n, 4)), {}, 7, 0),
        "affine": (lambda: (ending(n, 3), 2 * ONE_CHANNEL, 5 * ONE_CHANNEL), {}, 11, 5),
        "batch_norm": (
            lambda: (
                ending(n, 3),
                2 * ONE_CHANNEL,
                5 * ONE_CHANNEL,
                0 * ONE_CHANNEL,
                (1 - 0.25) * ONE_CHANNEL,
            ),
            {"epsilon": 0.25},
            11,
            5,
        ),
        "dropout": (lambda: (ending(n, 3), ending(n, 1)), {"ratio": 0.5}, 6, 0),
        "max_pool3d": (lambda: (ending(n, 3, -1),), ALONG, 3, 0),
        "average_pool3d": (lambda: (ending(n, 3, 5),), ALONG, 1, 0),
        "global_average_pool": (lambda: (ending(n, n),), {"over_time": True}, 1, 1),
        "conv3d": (lambda: (ending(n, 3), np.full((1, 1, 1, 1, 1), 2, "float32")), {}, 6, 0),
        "linear": (lambda: (ending((1, n), 3), ending((1, n), 2)), {}, 6, 6),
        "softmax": (lambda: (ending((1, n), 60),), {}, 1, np.float32(np.exp(-60))),
        "cross_entropy": (
            lambda: (ending((1, n), 60), np.array([n - 1])),
            {},
            np.float32(np.exp(-60) * (n - 1)),
            np.float32(np.exp(-60) * (n - 1)),
        ),
        "time_to_channels": (lambda: (ending((1, 1, 2, 1, n // 2), 3),), {}, 3, 0),
        "time_to_batch": (lambda: (ending((1, 1, 2, 1, n // 2), 3),), {}, 3, 0),
        "upsample_nearest": (lambda: (ending((1, 1, 1, 2, n // 8), 3),), {}, 3, 0),
    }


every_length = pytest.mark.parametrize("n", [4160, pytest.param(LONG, marks=pytest.mark.large)])


@every_length
@pytest.mark.parametrize("op", long_problems(1))
def test_an_axis_of_more_elements_than_an_int_counts(op, n):
    make, attrs, last, other = long_problems(n)[op]
    y, _ = core[op].forward(*make(), **attrs)
    assert np.allclose(y.reshape(-1)[-1], last, rtol=4 * unit("float32"), atol=0)
    assert np.allclose(y.reshape(-1)[y.size // 3], other, rtol=4 * unit("float32"), atol=0)


@every_length
@pytest.mark.parametrize("op", ["relu", "affine", "conv3d", "linear", "softmax", "add"])
def test_gradients_along_an_axis_of_more_elements_than_an_int_counts(op, n):
    """Of the first input; dy ends with 5, or is that where y is one number. Softmax: y (dy - sum of dy y)."""
    make, attrs, _, _ = long_problems(n)[op]
    y, context = core[op].forward(*make(), **attrs)
    expected = {"relu": 5, "affine": 10, "conv3d": 10, "linear": 10, "softmax": 0, "add": 5}[op]
    other = np.float32(-5 * np.exp(-60)) if op == "softmax" else 0
    shape, needs = y.shape, (True, *(False for _ in context.inputs[1:]))
    if op not in ("relu", "softmax"):  # whose gradients are read off y
        del y
    dx = core[op].backward(ending(shape, 5), context, needs)[0]
    assert dx.reshape(-1)[-1] == expected
    assert np.allclose(dx.reshape(-1)[dx.size // 3], other, rtol=8 * unit("float32"), atol=0)
