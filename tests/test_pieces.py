"""Passes of NumPy over memory in pieces: nothing is left out, and no call takes more than a piece."""

import sys
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import pytest

import refnet
from refnet import pieces
from refnet._core import interrupt
from refnet._core import roi_align as kernels
from refnet.arithmetic import core
from refnet.arrays import with_one_nan
from refnet.golden.bundle import sha
from refnet.inputs import fill
from refnet.net import Net

MOST = 64


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", MOST)


@pytest.mark.parametrize(
    "shape", [(), (1,), (1000,), (3, 5), (2, 1, 70, 9), (1, 2, 3, 4, 5), (90, 1, 1, 7), (0, 3)]
)
def test_every_element_is_in_one_box_in_order(short, shape):
    order = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    found = [np.ravel(order[box]) for box in pieces.boxes(shape)]
    assert all(len(part) <= MOST for part in found)
    assert np.concatenate([*found, np.empty(0, int)]).tolist() == list(range(order.size))


@pytest.mark.parametrize("shape", [(1,), (1000,), (3, 500), (130, 9), (0, 3)])
def test_every_row_is_in_one_piece_in_order(short, shape):
    found = list(pieces.rows(shape))
    assert [i for some in found for i in range(some.start, some.stop)] == list(range(shape[0]))
    assert all(
        (some.stop - some.start) * np.prod(shape[1:]) <= max(MOST, np.prod(shape[1:])) for some in found
    )


@pytest.mark.parametrize(
    "layout", [lambda a: a, lambda a: a.T, lambda a: a[::2, ::-3], lambda a: a.astype(">f8")]
)
def test_what_is_converted_has_the_values_of_one_call(short, layout):
    given = layout(np.random.default_rng(0).standard_normal((40, 30)))
    for dtype in (np.float32, np.float64):
        for found in (pieces.converted(given, dtype), pieces.copied(given, dtype)):
            assert found.dtype == dtype and found.tobytes() == given.astype(dtype).tobytes()
        assert pieces.copied(given, dtype).flags.c_contiguous
    assert pieces.converted(given.astype(np.float32), np.float32).dtype == np.float32
    own = np.zeros(1000)
    assert pieces.converted(own, np.float64) is own and pieces.copied(own, np.float64) is not own


def test_one_element_that_is_not_finite_is_seen(short):
    values = np.zeros((7, 11, 13))
    assert pieces.all_finite(values)
    for at in (0, 500, values.size - 1):
        for special in (np.inf, -np.inf, np.nan):
            values.flat[at] = special
            assert not pieces.all_finite(values)
            values.flat[at] = 0


def net_of_one_rectifier():
    net = Net()
    net.output(net.add("relu", "y", (net.input("x", (1, 4, 2, 30, 30)),)))
    return net


def through(op, *arrays, **attrs):
    """Forward and backward of an operator."""
    y, context = core[op].forward(*arrays, **attrs)
    core[op].backward(np.full_like(y, 1), context)


def overflowing(op, x, dy, **attrs):
    """Backward of an operator whose sums overflow."""
    _, context = core[op].forward(x, **attrs)
    with np.errstate(over="ignore"):
        core[op].backward(dy, context)


POOL = {"kernel": (1, 3, 3), "pad": (0, 1, 1)}
BLOB = np.random.default_rng(1).standard_normal((2, 4, 2, 30, 30))
HUGE = np.full((1, 2, 1, 30, 30), 1e308)
TUBES = np.tile([0.0, 1, 1, 20, 20, 2, 2, 9, 9], (200, 1))
# What passes over how many elements.
PASSES = {
    "a bias of a convolution": (
        lambda: core.conv3d.forward(BLOB, np.ones((3, 4, 1, 1, 1)), np.ones(3)),
        BLOB.size // 4 * 3,
    ),
    "a bias of a layer": (
        lambda: core.linear.forward(np.ones((90, 5)), np.ones((40, 5)), np.ones(40)),
        90 * 40,
    ),
    "the gradient of a global average": (lambda: through("global_average_pool", BLOB), BLOB.size),
    "the same over time": (lambda: through("global_average_pool", BLOB, over_time=True), BLOB.size),
    "averages again, with room": (lambda: core.average_pool3d.forward(HUGE, **POOL), 4 * HUGE.size),
    "max pooling's gradient again, with room": (
        lambda: overflowing(
            "max_pool3d", np.ones(HUGE.shape, np.float32), np.full(HUGE.shape, 3e38, np.float32), **POOL
        ),
        4 * HUGE.size,
    ),
    "large values of batch norm": (
        lambda: core.batch_norm_training.forward(BLOB * 1e300, np.ones(4), np.ones(4)),
        2 * BLOB.size,
    ),
    "a mask": (lambda: core.dropout.forward(BLOB, np.ones(BLOB.shape)), BLOB.size),
    "labels": (lambda: core.cross_entropy.forward(np.ones((900, 2)), np.ones(900, int)), 900),
    "boxes and the weights of taps": (
        lambda: core.roi_align.forward(BLOB.astype(np.float32), TUBES.astype(np.float32), output=(3, 3)),
        200 * 2 * 6 * 2,
    ),
    "a keyframe": (lambda: through("slice_keyframe", BLOB), BLOB.size),
    "values that are not contiguous": (lambda: core.relu.forward(BLOB[..., ::-1]), BLOB.size),
    "values of another byte order": (lambda: core.relu.forward(BLOB.astype(">f8")), BLOB.size),
    "values of a narrower format": (lambda: core.relu.forward(BLOB.astype(np.float16)), BLOB.size),
    "what is given to a run": (
        lambda: refnet.forward(net_of_one_rectifier(), {"x": BLOB[:1]}),
        BLOB.size // 2,
    ),
    "a hash": (lambda: sha(BLOB), 2 * BLOB.size),
    "values of which one is NaN": (lambda: with_one_nan(np.append(np.zeros(5000), np.nan)), 10_000),
    "seeded values": (lambda: fill.uniform("x", (5000,), 0), 5000),
}


@contextmanager
def counted():
    """How many pieces are taken, within."""
    codes, found = {pieces.boxes.__code__, pieces.rows.__code__}, [0]

    def look(frame, event, argument):
        found[0] += event == "call" and frame.f_code in codes

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("what", PASSES)
def test_no_call_of_numpy_takes_more_than_a_piece(short, what):
    call, elements = PASSES[what]
    with counted() as found:
        call()
    assert found[0] >= elements // MOST


def test_bits_do_not_depend_on_pieces(monkeypatch):
    """Those of seeded values and of a bias, whose passes do more than to move."""

    def bits():
        x, w = fill.normal("x", (2, 4, 1, 9, 9), 0), fill.uniform("w", (3, 4, 1, 1, 1), 0)
        return core.conv3d.forward(x, w, np.arange(3.0))[0].tobytes(), sha(x)

    whole = bits()
    for most in (1, 7, 64):
        monkeypatch.setattr(pieces, "PIECE", most)
        assert bits() == whole


def test_taps_are_checked_some_at_a_time():
    """By the kernel, before it computes anything: here no tube is of a sample that there is."""
    x, (shape, taps) = BLOB, core.roi_align.forward(BLOB, TUBES, output=(3, 3))[1].kernel
    rows = import_module("refnet.arithmetic.core.roi_align")._rows(shape)
    interrupt.look_every(0, 0)
    try:
        before = interrupt.looks()
        kernels.forward(x, np.full(200, 7), *taps[1:], np.empty((200, 4, 2, 3, 3)), rows)
        assert interrupt.looks() - before >= 200 * 2 * 6
    finally:
        interrupt.look_every(interrupt.EVERY, interrupt.INTERVAL)
