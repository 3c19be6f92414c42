"""Shapes and windows are sequences of whole numbers, whatever holds them; what is none is told what is."""

import numpy as np
import pytest

import refnet
from refnet import fill, golden
from refnet.arithmetic import Kernel, core
from refnet.errors import ShapeError, ValueRangeError
from refnet.shapes import plain

SHAPE = (1, 3, 1, 32, 32)
HOLDERS = {
    "tuple": tuple,
    "list": list,
    "array": np.array,
    "array of int32": lambda sizes: np.array(sizes, np.int32),
    "NumPy's integers": lambda sizes: tuple(map(np.int64, sizes)),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_shape_may_be_any_sequence_of_whole_numbers(hold, tmp_path):
    net = refnet.build("resnet18_conv4", input=hold(SHAPE), width_per_group=4, time_kernel=1)
    assert net.inputs == {"data": SHAPE} and type(net.inputs["data"][0]) is int
    options = {"width_per_group": 4, "time_kernel": 1}
    recipe = golden.Recipe("resnet18_conv4", hold(SHAPE), options)
    made = golden.make(tmp_path / "b", recipe, hashes_only=True)
    assert golden.Bundle(made.path).recipe.input == SHAPE
    assert np.array_equal(fill.uniform("a", hold((2, 3)), 0), fill.uniform("a", (2, 3), 0))


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_window_may_be_any_sequence_of_whole_numbers(hold):
    x, w, pads = np.ones((1, 1, 2, 4, 4)), np.ones((1, 1, 1, 3, 3)), []
    expected = core.conv3d.forward(x, w, pad=(0, 1, 1), stride=(1, 2, 2))[0]
    assert np.array_equal(core.conv3d.forward(x, w, pad=hold((0, 1, 1)), stride=hold((1, 2, 2)))[0], expected)

    def forward(x, w, *, pad, **others):
        pads.append(pad)
        return core.conv3d.forward(x, w, pad=pad, **others)

    mine = core.replace(conv3d=Kernel(forward, core.kernels["conv3d"].backward))
    mine.conv3d.forward(x, w, pad=hold((0, 1, 1)))
    net = refnet.Net()
    net.add("conv3d", "y", (net.input("x", x.shape), net.param("w", w.shape)), pad=hold((0, 1, 1)))
    assert pads == [(0, 1, 1)] and net.nodes[0].attrs == {"pad": (0, 1, 1)}


@pytest.mark.parametrize(
    ("pad", "words"),
    [
        (3, r"pad is 3: expected three whole numbers \(T, H, W\), as \(3, 3, 3\)"),
        ((2, 3), r"pad is \(2, 3\): .*, as \(0, 2, 3\)"),
        (-3, r"as \(0, 0, 0\)"),
        (True, r"pad is True: .*, as \(1, 1, 1\)"),
        ("same", r"pad is 'same': .*, as \(1, 1, 1\)"),
        (np.zeros((3, 1), int), "pad is an ndarray: expected three"),
        (np.zeros(3, bool), r"pad\[T\] is False: expected a whole number"),
        (np.zeros(3), r"pad\[T\] is 0.0: expected a whole number"),
        ((0, 1, 2, 3), r"pad is \(0, 1, 2, 3\): .*, as \(1, 1, 1\)"),
    ],
)
def test_what_is_no_triple_is_shown_one(pad, words):
    with pytest.raises(ShapeError, match=words):
        core.conv3d.forward(np.ones((1, 1, 2, 4, 4)), np.ones((1, 1, 1, 3, 3)), pad=pad)


def test_what_is_no_sequence_stays_what_it_is():
    for value in (3, "133", b"133", None, np.int64(3), {1: 2}):
        assert plain(value) is value
    assert plain(np.zeros((2, 2))).shape == (2, 2)


def test_a_stage_may_be_an_integer_of_numpy():
    net = refnet.build("resnet18_conv4", freeze_at=np.int64(3))
    assert "res3_1_stop" in [node.name for node in net.nodes]
    with pytest.raises(ValueRangeError, match="freeze_at is True: expected 0 or a stage"):
        refnet.build("resnet18_conv4", freeze_at=True)
