"""Receptive fields, against what changes when an input changes, and against the closed formula."""

from fractions import Fraction
from math import prod

import numpy as np
import pytest

import refnet
from refnet.arithmetic import reference
from refnet.errors import UnknownNameError
from refnet.networks import ARCHITECTURES
from refnet.ops import OPS
from refnet.trace.receptive import ITSELF, receptive_fields, text

CASES = [pytest.param(op, case, id=f"{op.name}: {case.name}") for op in OPS.values() for case in op.cases]


def hull(reads):
    return (min(reads), max(reads)) if reads else None


def clipped(window, size):
    first, last = max(window[0], 0), min(window[1], size - 1)
    return (first, last) if first <= last else None


def agrees(found, window, size):
    """Inside the input exactly the window; at its border, where taps fall away, within it."""
    expected = clipped(window, size)
    if window == expected:
        return found == expected
    return found is None or (expected[0] <= found[0] and found[1] <= expected[1])


@pytest.mark.parametrize(("op", "case"), CASES)
def test_every_operator_reads_what_it_states(op, case):
    """One slab of an input moved after the other: what changes is what reads it.

    An operator without `reach` states that it reads the same position and nothing else.
    """
    rng = np.random.default_rng(0)
    arrays = []
    for i, shape in enumerate(case.shapes):
        draw = op.domain(i).draw
        uniform = rng.uniform(-1, 1, shape)
        arrays.append(np.abs(uniform) + 1 if draw is None else draw(uniform, *case.shapes, **case.attrs))
    reaches = op.reaches(*case.shapes, **case.attrs)
    y, _ = reference[op.name].forward(*arrays, **case.attrs)
    volumes = [i for i, a in enumerate(arrays) if a.ndim == 5 and not (op.name == "conv3d" and i)]
    volumes = [i for i in volumes if op.domain(i).draw is None]
    if y.ndim != 5 or not volumes:
        if op.reach is not None:
            assert reaches == (None, None, None)
        else:
            assert y.shape == arrays[0].shape, "an elementwise operator keeps the shape"
        return
    for which in volumes:
        for axis, reach in zip((2, 3, 4), reaches, strict=True):
            size = arrays[which].shape[axis]
            reads = [[] for _ in range(y.shape[axis])]
            for i in range(size):
                moved = [a.copy() for a in arrays]
                slab = np.moveaxis(moved[which], axis, 0)[i]
                slab += 1000 * (1 + rng.random(slab.shape))
                changed = reference[op.name].forward(*moved, **case.attrs)[0] != y
                for o in np.flatnonzero(np.moveaxis(changed, axis, 0).reshape(y.shape[axis], -1).any(axis=1)):
                    reads[o].append(i)
            for o, found in enumerate(reads):
                whole = (0, size - 1)
                window = whole if reach is None else ITSELF.behind(reach).at(o)
                place = (which, "NCTHW"[axis], o, found, window)
                if any(op.domain(i).draw for i in range(len(arrays))):  # boxes or masks may read less
                    assert all(window[0] <= i <= window[1] for i in found), place
                else:
                    assert agrees(hull(found), window, size), place


def small_net(rng):
    """Layers drawn at random: two paths that stride alike, dilation, pooling, upsampling, a sum."""
    net = refnet.Net()
    x = net.input("data", (1, 1, *(int(n) for n in rng.integers(14, 20, 3))))
    count = 0

    def conv(x, kernel, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1)):
        nonlocal count
        count += 1
        w = net.param(f"w{count}", (1, 1, *kernel))
        return net.add("conv3d", f"y{count}", (x, w), stride=stride, pad=pad, dilation=dilation)

    def triple(low, high):
        return tuple(int(n) for n in rng.integers(low, high, 3))

    stride = triple(1, 3)
    x = conv(x, triple(1, 4), pad=(1, 1, 1), dilation=triple(1, 3))
    wide, narrow = conv(x, (3, 3, 3), stride, (1, 1, 1)), conv(x, (1, 1, 1), stride)
    x = net.add("add", "sum", (wide, narrow))
    pool = {"kernel": (1, 2, 2), "stride": (1, 2, 2)}
    if rng.random() < 0.5:
        x = net.add("average_pool3d", "pool", (x,), **pool)
    x = net.add("upsample_nearest", "up", (x,), scale=int(rng.integers(2, 4)))
    x = conv(x, (3, 3, 3), triple(1, 4), (1, 1, 1))
    net.output(net.add("average_pool3d", "end", (x,), **pool))
    return net


@pytest.mark.parametrize("seed", range(25))
def test_fields_of_random_nets_by_the_support_of_gradients(seed):
    """With positive weights, dy at one position has a gradient exactly where that position reads."""
    rng = np.random.default_rng(seed)
    net = small_net(rng)
    given = {name: rng.uniform(1, 2, shape) for name, shape in (net.inputs | net.params).items()}
    run = refnet.forward(net, given, "reference")
    fields = receptive_fields(net)
    for node in net.nodes:
        corner, middle = (0, 0, 0), tuple(n // 2 for n in node.shape[2:])
        for position in (corner, middle, tuple(n - 1 for n in node.shape[2:])):
            dy = np.zeros(node.shape)
            dy[(0, 0, *position)] = 1
            support = np.nonzero(refnet.backward(run, {node.name: dy})["data"])[2:]
            windows = [field.at(o) for field, o in zip(fields[node.name], position, strict=True)]
            sizes = net.inputs["data"][2:]
            if not support[0].size:  # padding alone, along one axis at least
                assert any(clipped(*pair) != pair[0] for pair in zip(windows, sizes, strict=True))
                continue
            for along, window, size in zip(support, windows, sizes, strict=True):
                assert agrees((along.min(), along.max()), window, size), (node.name, position, window)


def closed_formula(layers):
    """Size = 1 + sum over layers of (kernel - 1) x the product of the strides before."""
    return 1 + sum((k - 1) * prod(s for _, s in layers[:i]) for i, (k, _) in enumerate(layers))


@pytest.mark.parametrize(("depth", "blocks", "size"), [(50, (3, 4, 6, 3), 483), (101, (3, 4, 23, 3), 1027)])
def test_fields_of_resnets_are_those_of_the_closed_formula(depth, blocks, size):
    """A path's layers, along H: (kernel, stride); 483 and 1027 are what is printed of both networks.

    Araujo, Norris, Sim, *Computing Receptive Fields of Convolutional Neural Networks*, Distill 2019.
    """
    along_h, along_t = [(7, 2), (3, 2)], []
    for stage, count in enumerate(blocks):
        for i in range(count):
            along_h += [(1, 2 if stage and i == 0 else 1), (3, 1)]
            along_t += [(3 if stage else 1, 1)]
    net = refnet.build(f"resnet{depth}_conv5")
    (output,) = net.outputs
    t, h, w = receptive_fields(net)[output]
    assert h == w and (h.size, h.step) == (closed_formula(along_h), 32) and h.size == size
    assert (t.size, t.step, t.offset) == (closed_formula(along_t), 1, -(t.size // 2))


def test_fields_of_the_headline_network():
    net = refnet.build("resnet18_conv4")
    fields = receptive_fields(net)
    assert [f.as_json() for f in fields["conv1"]] == [
        {"size": 1, "step": 1, "offset": 0},
        {"size": 7, "step": 2, "offset": -3},
        {"size": 7, "step": 2, "offset": -3},
    ]
    assert text(fields["pool1"]) == "1x11x11" and text(fields["res4_1_relu"]) == "9x123x123"
    assert fields["pool1"][1].at(1) == (-1, 9)
    strided = refnet.build("resnet18_conv4", time_stride=True)
    assert receptive_fields(strided)["res4_1_relu"][0].step == 4


def test_upsampling_divides_the_step_and_windows_repeat():
    net = refnet.Net()
    x = net.input("data", (1, 2, 4, 6, 6))
    x = net.add("upsample_nearest", "up", (x,))
    w = net.param("w", (1, 2, 1, 3, 1))
    net.add("conv3d", "y", (x, w), pad=(0, 1, 0))
    fields = receptive_fields(net)
    assert fields["up"][1].step == Fraction(1, 2) and fields["up"][1].as_json()["step"] == "1/2"
    assert [fields["y"][1].at(o) for o in range(4)] == [(-1, 0), (0, 1), (0, 1), (1, 2)]
    assert text(fields["y"]) == "1x2x1"


def test_all_is_all():
    net = refnet.Net()
    x = net.input("data", (1, 2, 4, 6, 6))
    frames = net.add("time_to_channels", "frames", (x,))
    pooled = net.add("global_average_pool", "pooled", (x,))
    net.add("slice_keyframe", "key", (x,))
    strided = net.add("max_pool3d", "strided", (x,), kernel=(1, 1, 1), stride=(4, 1, 1))
    narrow = net.add("slice_keyframe", "one", (strided,))
    net.add("add", "met", (net.add("average_pool3d", "mean", (x,), kernel=(4, 1, 1)), narrow))
    net.add("linear", "scores", (pooled, net.param("w", (3, 8))))
    fields = receptive_fields(net)
    assert text(fields[frames]) == "all x 1 x 1" and text(fields[pooled]) == "1 x all x all"
    assert fields["key"][0].at(0) == (2, 2) and fields["scores"] == (None, None, None)
    assert text(fields["scores"]) == "all"
    assert fields["met"][0] is None, "two steps have no common window"


def test_what_does_not_depend_on_the_input_has_no_field():
    net = refnet.Net()
    x, other = net.input("data", (1, 1, 1, 2, 2)), net.input("other", (1, 1, 1, 2, 2))
    net.add("relu", "a", (x,))
    net.add("relu", "b", (other,))
    assert set(receptive_fields(net)) == {"data", "a"}
    assert set(receptive_fields(net, "other")) == {"other", "b"}
    with pytest.raises(UnknownNameError, match="unknown input 'dat'"):
        receptive_fields(net, "dat")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_node_of_every_architecture_has_a_field(name):
    net = refnet.build(name)
    fields = receptive_fields(net)
    assert set(fields) == {"data"} | {node.name for node in net.nodes}
