"""The Cython functions themselves: sizes that do not fit are refused before any memory is touched."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from refnet._core import (
    add,
    affine,
    average_pool3d,
    batch_norm,
    blocks,
    compare,
    conv3d,
    dropout,
    exact_sums,
    linear,
    max_pool3d,
    relu,
    roi_align,
    softmax,
    swap_axes,
    upsample_nearest,
)

WINDOW = ((1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), (2, 4, 5))
POOL = ((2, 4, 5), WINDOW)


def calls():
    """For each function the shapes that fit; then the other arguments."""
    x, w, y, work = (1, 4, 2, 4, 5), (6, 36), (1, 6, 40), ("uint8", (8, conv3d.workspace_bytes(8)))
    yield conv3d.forward, [x, w, y, work], (WINDOW, 1)
    yield conv3d.backward_data, [y, w, x, work], (WINDOW, 1)
    yield conv3d.backward_weights, [y, x, w, work, (2, 6, 36)], (WINDOW, 1)
    yield affine.forward, [(2, 3, 7), (3,), (3,), (2, 3, 7)], ()
    yield affine.input_gradient, [(2, 3, 7), (3,), (2, 3, 7)], ()
    yield affine.bias_gradient, [(2, 3, 7), (3,)], ()
    yield relu.forward, [(7,), (7,)], ()
    yield relu.input_gradient, [(7,), (7,), (7,)], ()
    yield add.forward, [(7,), (7,), (7,)], ()
    yield linear.forward, [(2, 5), (7, 5), (2, 7)], ()
    yield linear.input_gradient, [(2, 7), (7, 5), (2, 5)], ()
    yield linear.weight_gradient, [(2, 7), (2, 5), (7, 5)], ()
    yield max_pool3d.forward, [(6, 40), (6, 40)], POOL
    yield max_pool3d.input_gradient, [*[(6, 40)] * 4, ("intc", (8, 40))], POOL
    yield max_pool3d.input_gradient, [*[(6, 40)] * 4, ("intp", (8, 40))], POOL
    yield average_pool3d.forward, [(6, 40), (6, 40)], POOL
    yield average_pool3d.input_gradient, [(6, 40), (6, 40), (8, 40)], POOL
    yield average_pool3d.whole, [(6, 40), (6,)], ()
    yield upsample_nearest.forward, [(6, 2, 3), (6, 4, 6)], (2,)
    yield upsample_nearest.input_gradient, [(6, 4, 6), (6, 2, 3)], (2,)
    yield softmax.forward, [(2, 5), (2, 5)], ()
    yield softmax.input_gradient, [(2, 5), (2, 5), (2, 5)], ()
    yield softmax.cross_entropy, [(6, 5), ("int64", (6,)), (6,), (1,)], ()
    yield softmax.cross_entropy_input_gradient, [(6, 5), ("int64", (6,)), (6, 5)], (1.0,)
    yield softmax.exponential, [(7,), (7,)], ()
    yield softmax.logarithm, [(7,), (7,)], ()
    yield swap_axes.forward, [(2, 3, 4, 5), (2, 4, 3, 5)], ()
    yield batch_norm.statistics, [(2, 3, 7), (3,), (3,), (3,)], ()
    yield batch_norm.products, [(2, 3, 7), (2, 3, 7), *[(3,)] * 4], ()
    yield batch_norm.normalise, [(2, 3, 7), *[(3,)] * 3, (2, 3, 7)], ()
    yield batch_norm.train, [(2, 3, 7), *[(3,)] * 7, (2, 3, 7)], (1e-5,)
    yield batch_norm.train_gradients, [(2, 3, 7), (2, 3, 7), *[(3,)] * 7, (2, 3, 7)], ()
    yield compare.compare, [(7,), (7,), (7,), (1,), ("intp", (1,)), ("intp", (1,))], (0.5,)
    yield dropout.apply, [(7,), (7,), (7,)], (2.0,)
    yield exact_sums.line, [(2, 3, 7), (3,), (3,), (2, 3, 7)], ()
    yield exact_sums.line_of_blobs, [(2, 3, 7), (3,), (2, 3, 7), (2, 3, 7)], ()
    yield exact_sums.channel_sums, [(2, 3, 7), (3,)], (1,)
    yield exact_sums.channel_products, [(2, 3, 7), (2, 3, 7), (3,)], (2,)
    yield exact_sums.window_sums, [(6, 40), (6, 40)], (*POOL, True)
    yield exact_sums.winner_sums, [*[(6, 40)] * 4, (8, 120)], POOL
    whole = ("int64", (3, 2, 2))
    taps = [("int64", (3, 2, 9, 4)), (3, 2, 9, 4), ("int64", (3, 2, 9)), ("int64", (3, 2, 2))]
    yield roi_align.taps, [(3, 2, 2), (3, 2, 2), whole, *taps], (6, 7, 4)
    x, y, batch = (2, 3, 2, 6, 7), (3, 3, 2, 4, 5), ("int64", (3,))
    yield roi_align.forward, [x, batch, *taps, y, (8, 7)], ()
    yield roi_align.input_gradient, [y, batch, *taps, x, (8, 14), (8, 21), ("int64", (8, 1))], ()


# A smaller volume is another problem with the same outputs, fewer samples are another sum, eight
# rows of workspace are more than there are threads, fewer partial sums are added up more often; a
# box's cells are its own.
HARMLESS = {
    *((conv3d.forward, 0, axis) for axis in (2, 3, 4)),
    *((conv3d.backward_data, 2, axis) for axis in (2, 3, 4)),
    *((conv3d.backward_weights, 1, axis) for axis in (2, 3, 4)),
    *((function, 3, 0) for function in (conv3d.forward, conv3d.backward_data, conv3d.backward_weights)),
    *((affine.bias_gradient, 0, axis) for axis in (0, 2)),
    *((exact_sums.channel_sums, 0, axis) for axis in (0, 2)),
    (exact_sums.winner_sums, 4, 0),
    (conv3d.backward_weights, 4, 0),
    (average_pool3d.input_gradient, 2, 0),
    (average_pool3d.whole, 0, 1),
    (max_pool3d.input_gradient, 4, 0),
    (softmax.cross_entropy, 0, 1),
    *((batch_norm.statistics, 0, axis) for axis in (0, 2)),
    *((roi_align.forward, i, axis) for i, axis in ((0, 0), (0, 3), (0, 4), (7, 0))),
    *((roi_align.input_gradient, i, axis) for i, axis in ((6, 0), (6, 3), (6, 4), (7, 0), (8, 0), (9, 0))),
}
CALLS = [pytest.param(*call, id=f"{call[0].__module__}.{call[0].__name__}") for call in calls()]


def arrays(shapes):
    """Zeros of float64, or of the dtype that stands before a shape."""
    return [np.zeros(s[1], s[0]) if isinstance(s[0], str) else np.zeros(s) for s in shapes]


@pytest.mark.parametrize(("function", "shapes", "rest"), CALLS)
def test_sizes_that_fit_are_taken(function, shapes, rest):
    function(*arrays(shapes), *rest)


@pytest.mark.parametrize("threads", (1, 3))
@pytest.mark.parametrize(("function", "shapes", "rest"), CALLS)
def test_any_array_that_is_too_small_is_refused(function, shapes, rest, threads):
    """Whichever way a kernel goes, which may depend on how many threads there are."""
    refused = 0
    for i, array in enumerate(arrays(shapes)):
        for axis in range(array.ndim):
            smaller = arrays(shapes)
            smaller[i] = np.ascontiguousarray(np.delete(array, 0, axis))
            if (function, i, axis) in HARMLESS:
                continue
            with (
                threadpool_limits(threads, user_api="openmp"),
                pytest.raises(ValueError, match="the sizes of the arrays do not fit together"),
            ):
                function(*smaller, *rest)
            refused += 1
    assert refused


def test_exact_sums_of_arrays_that_do_not_fit_are_refused():
    x, y = np.zeros(5), np.zeros(4)
    exact_sums.array_sums([x, x, x], x.copy())
    for arrays in ([x, y], [y, x, x], []):
        with pytest.raises(ValueError, match="do not fit together"):
            exact_sums.array_sums(arrays, np.zeros(5))
    for count in (0, -1, 2**53 + 1):
        with pytest.raises(ValueError, match="do not fit together"):
            exact_sums.channel_sums(np.zeros((1, 2, 3)), np.zeros(2), count)


@pytest.mark.parametrize(
    ("starts", "index", "weights", "count", "rows", "marks"),
    [
        ([0, 2, 3], [0, 1, 4], 3, 1, 2, (2, 6)),
        ([0, 2, 3], [0, 1, -1], 3, 1, 2, (2, 6)),
        ([0, 2, 3], [0, 1, 2], 2, 1, 2, (2, 6)),
        ([0, 2, 3], [0, 1, 2], 3, 0, 2, (2, 6)),
        ([0, 2, 3], [0, 1, 2], 3, 1, 3, (3, 6)),
        ([0, 2, 3], [0, 1, 2], 3, 1, 2, (2, 5)),
        ([0, 2, 4], [0, 1, 2], 3, 1, 2, (2, 6)),
        ([1, 2, 3], [0, 1, 2], 3, 1, 2, (2, 6)),
        ([0, 4, 3], [0, 1, 2], 3, 1, 2, (2, 6)),
    ],
)
def test_weighted_sums_of_rows_that_are_none_are_refused(starts, index, weights, count, rows, marks):
    def call(starts, index, weights, count, rows, marks):
        entries = np.array(starts, np.intp), np.array(index, np.intp), np.ones((weights, 3))
        exact_sums.weighted_sums(
            np.ones((4, 6)), *entries, count, np.zeros((rows, 6)), np.zeros(marks, np.uint8)
        )

    call([0, 2, 3], [0, 1, 2], 3, 1, 2, (2, 6))
    with pytest.raises(ValueError, match="do not fit together"):
        call(starts, index, weights, count, rows, marks)


def test_more_samples_than_there_is_room_for_are_refused():
    shapes = [(1, 1, 2), (1, 1, 2), ("int64", (1, 1, 2)), ("int64", (1, 1, 2, 5)), (1, 1, 2, 5)]
    box = [*arrays(shapes), np.zeros((1, 1, 2), np.int64), np.zeros((1, 1, 2), np.int64)]
    box[2][...] = 3
    roi_align.taps(*box, 5, 5, 1)
    with pytest.raises(ValueError, match="do not fit together"):
        roi_align.taps(*box, 5, 6, 1)


def volumes(*windows, planes=2):
    """What a pool's functions are given of 4 x 4 x 4 values and 1 x 1 x n outputs, window by window."""
    for kernel, stride, pad, outputs in windows:
        window = ((1, 1, kernel), (1, 1, stride), (0, 0, pad), (1, 1, 1), (4, 4, outputs))
        yield (planes, 64), (planes, 16 * outputs), ((4, 4, 4), window)


# Windows that hold nothing before and behind the values; of no size, of strides that divide by 0 or overflow.
NO_WINDOWS = [
    *((2, 1, 2, 5), (2, 1, 7, 16), (1, 1, -3, 4), (1, 5, 0, 2), (2, 1, 1, 7), (2, 2**40, 0, 2)),
    *((0, 1, 0, 4), (2, 0, 0, 4), (-1, 1, 0, 4), (2, -1, 0, 2), (2**40, 1, 2**39, 4), (2**63 - 1, 1, 0, 4)),
]


@pytest.mark.parametrize(("x", "y", "rest"), list(volumes(*NO_WINDOWS)))
def test_windows_that_hold_nothing_are_refused(x, y, rest):
    """Of a window without values no place is the largest: what is handed back would be written beside dx."""
    for offset in ("intc", "intp"):
        given = arrays([y, x, y, x, (offset, (8, y[1]))])
        with pytest.raises(ValueError, match="do not fit together"):
            max_pool3d.input_gradient(*given, *rest)
    calls = ((max_pool3d.forward, (x, y)), (average_pool3d.forward, (x, y)))
    for function, shapes in (*calls, (average_pool3d.input_gradient, (y, x, (8, y[1])))):
        with pytest.raises(ValueError, match="do not fit together"):
            function(*arrays(shapes), *rest)


@pytest.mark.parametrize("entry", ["kernel", "stride", "pad", "dilation", "output"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 2**62, -(2**62)])
def test_windows_of_a_convolution_are_positive_and_do_not_overflow(entry, value):
    """Strides divide, and sizes are multiplied: 2**62 x 4 is 0."""
    index = ("kernel", "stride", "pad", "dilation", "output").index(entry)
    if entry == "pad" and value in (0, -1):
        return
    window = list(map(list, WINDOW))
    window[index][2] = value
    x, w, y, work = (1, 4, 2, 4, 5), (6, 36), (1, 6, 40), ("uint8", (8, conv3d.workspace_bytes(8)))
    for function, shapes in (
        (conv3d.forward, [x, w, y, work]),
        (conv3d.backward_data, [y, w, x, work]),
        (conv3d.backward_weights, [y, x, w, work, (2, 6, 36)]),
    ):
        with pytest.raises(ValueError, match="do not fit together"):
            function(*arrays(shapes), window, 1)


def test_sizes_whose_product_overflows_are_refused():
    """4 x 2**62 is 0 in 64 bits: empty arrays would seem to fit, and 2**62 outputs be written to them."""
    large = 1 << 62
    window = ((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), (4, large, 1))
    for function in (max_pool3d.forward, average_pool3d.forward):
        with pytest.raises(ValueError, match="do not fit together"):
            function(np.zeros((1, 0)), np.zeros((1, 0)), (4, large, 1), window)
    for function, shapes in (
        (upsample_nearest.forward, [(1, 4, 4), (1, 0, 0)]),
        (upsample_nearest.input_gradient, [(1, 0, 0), (1, 4, 4)]),
    ):
        with pytest.raises(ValueError, match="do not fit together"):
            function(*arrays(shapes), large)


def boxes():
    """Taps of one box of 2 x 2 bins in 3 x 3 cells, each bin its own cell; x, y, and what else there is."""
    cells, weights = np.zeros((1, 1, 4, 2), np.intp), np.ones((1, 1, 4, 2))
    counts, extents = np.ones((1, 1, 4), np.intp), np.array([[[0, 3]]], np.intp)
    return np.zeros(1, np.intp), cells, weights, counts, extents


@pytest.mark.parametrize(
    ("array", "at", "value"),
    [
        *((1, at, value) for at in ((0, 0, 0, 0), (0, 0, 3, 0)) for value in (-1, 3, 2**60, -(2**60))),
        *((3, at, value) for at in ((0, 0, 0), (0, 0, 3)) for value in (-1, 3, 2**60)),
        *((4, at, value) for at in ((0, 0, 0), (0, 0, 1)) for value in (-1, 4, 2**60)),
    ],
)
def test_taps_outside_of_the_volume_are_refused(array, at, value):
    x, y, rows = np.zeros((1, 1, 1, 3, 3)), np.zeros((1, 1, 1, 2, 2)), np.zeros((8, 6))
    gradient = (np.zeros((8, 27)), np.zeros((8, 3), np.intp))
    roi_align.forward(x, *boxes(), y, rows)
    roi_align.input_gradient(y, *boxes(), x, rows, *gradient)
    wrong = boxes()
    wrong[array][at] = value
    with pytest.raises(ValueError, match="do not fit together"):
        roi_align.forward(x, *wrong, y, rows)
    with pytest.raises(ValueError, match="do not fit together"):
        roi_align.input_gradient(y, *wrong, x, rows, *gradient)


@pytest.mark.parametrize("size", [-1, -(2**63), 2**63 - 1, 2**63 - blocks.GRAIN])
def test_blocks_of_no_size_are_refused(size):
    """Rounded up, 2**63 - 1 bytes were none: one mebibyte was held."""
    with pytest.raises(MemoryError):
        blocks.Block(size)
