"""Explanations, against nested loops over every output, tap and channel."""

import json
from itertools import product

import numpy as np
import pytest
from loops import inside, source
from support import unit

import refnet
from refnet.errors import UnknownNameError
from refnet.networks import ARCHITECTURES
from refnet.ops import OPS, conv3d, max_pool3d
from refnet.render.gather import LEGEND, corner_and_middle, planes, strip
from refnet.trace.explanation import explain, explain_all

CONVOLUTIONS = [pytest.param(case, id=case.name) for case in conv3d.OP.cases]
WINDOWED = [
    *(pytest.param("conv3d", case, id=f"conv3d: {case.name}") for case in conv3d.OP.cases),
    *(pytest.param("max_pool3d", case, id=f"max_pool3d: {case.name}") for case in max_pool3d.OP.cases),
]


def net_of(op, case):
    """A net of one node, `y`."""
    net = refnet.Net()
    first, *others = case.shapes
    names = [net.input("data", first), *(net.param(f"p{i}", shape) for i, shape in enumerate(others))]
    net.output(net.add(op, "y", names, **case.attrs))
    return net


@pytest.mark.parametrize(("op", "case"), WINDOWED)
def test_padding_is_what_loops_count(op, case):
    found = explain(net_of(op, case), "y")
    kernel, stride, pad, dilation = (
        [getattr(axis, name) for axis in found.windows] for name in ("kernel", "stride", "pad", "dilation")
    )
    volume, outputs = case.shapes[0][2:], found.output[2:]
    taps = list(product(*map(range, kernel)))
    useful, seeing, read = 0, 0, set()
    for o in product(*map(range, outputs)):
        at = [source(o, tap, stride, pad, dilation) for tap in taps]
        within = [position for position in at if inside(position, volume)]
        useful, seeing = useful + len(within), seeing + (len(within) < len(at))
        read.update(within)
    # Two divisions, each of a result of at most 1, and a difference from 1.
    assert abs(found.padded_share - seeing / np.prod(outputs)) <= 3 * unit("float64")
    for axis, n in enumerate(volume):
        window = found.windows[axis]
        along = [[o * window.stride + k * window.dilation - window.pad for k in range(window.kernel)]
                 for o in range(window.output)]  # fmt: skip
        outside = [sum(not 0 <= i < n for i in positions) for positions in along]
        assert along == [window.reads(o) for o in range(window.output)]
        assert (window.padded_outputs, window.padded_taps) == (sum(map(bool, outside)), sum(outside))
        assert window.unread == n - len({i for positions in along for i in positions if 0 <= i < n})
    if op == "conv3d":
        w = case.shapes[1]
        each = found.output[0] * found.output[1] * w[1]
        assert found.multiply_adds == each * len(taps) * np.prod(outputs)
        assert found.useful_multiply_adds == each * useful
        assert found.intensity == found.multiply_adds / (found.bytes_read + found.bytes_written)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_the_stated_product_is_the_convolution(case):
    """Patches gathered by the stated rows and columns, times the kernel: the operator's own output."""
    found = explain(net_of("conv3d", case), "y")
    rng = np.random.default_rng(0)
    x, w, *b = (rng.integers(-4, 5, shape).astype(float) for shape in case.shapes)
    stated = found.product
    y = np.zeros((stated.samples, stated.groups, stated.K, stated.P))
    for n, g in np.ndindex(stated.samples, stated.groups):
        X = np.full((stated.R, stated.P), np.nan)
        depth = stated.R // stated.row_strides[0]
        for c, *tap in product(range(depth), *(range(axis.kernel) for axis in found.windows)):
            r = sum(i * s for i, s in zip((c, *tap), stated.row_strides, strict=True))
            for o in product(*(range(axis.output) for axis in found.windows)):
                p = sum(i * s for i, s in zip(o, stated.column_strides, strict=True))
                at = [axis.reads(i)[k] for axis, i, k in zip(found.windows, o, tap, strict=True)]
                padding = any(axis.is_padding(i) for axis, i in zip(found.windows, at, strict=True))
                assert np.isnan(X[r, p])
                X[r, p] = 0 if padding else x[(n, g * depth + c, *at)]
        y[n, g] = w.reshape(stated.groups, stated.K, stated.R)[g] @ X
    y = y.reshape(found.output)
    if b:
        y += b[0][:, None, None, None]
    expected, _ = conv3d.forward(x, w, *b, **case.attrs)
    assert (y == expected).all()


@pytest.mark.parametrize(("op", "case"), WINDOWED)
def test_what_is_drawn_is_what_is_read(op, case):
    """Every marked position is one that loops find, padding marked as such, and none is missing."""
    windows = explain(net_of(op, case), "y").windows
    for window in windows:
        grid = strip(window)
        for label, marks in grid.rows:
            if label != "⋮":
                reads = window.reads(int(label.removeprefix("out ")))
                check(grid.columns, marks, reads, 0, window.source)
    time, height, width = windows
    for t, h, w in corner_and_middle(windows).values():
        drawn = planes(windows, (t, h, w))
        assert [grid.title.startswith(f"t = {f}") for grid, f in zip(drawn, time.reads(t), strict=True)]
        for grid, frame in zip(drawn, time.reads(t), strict=True):
            assert grid.title.endswith("padding") == time.is_padding(frame)
            lines = {int(label): marks for label, marks in grid.rows if label != "⋮"}
            assert set(height.reads(h)) <= set(lines)
            for line, marks in lines.items():
                outside = time.is_padding(frame) or height.is_padding(line)
                reads = width.reads(w) if line in height.reads(h) else []
                check(grid.columns, marks, reads, 0, 0 if outside else width.source)


def check(columns, marks, reads, low, high):
    assert len(columns) == len(marks) and set(reads) <= set(columns)
    for position, mark in zip(columns, marks, strict=True):
        if position is None:
            assert mark == " "
            continue
        inside = low <= position < high
        assert (
            mark
            == {(True, True): "●", (True, False): "○", (False, True): "·", (False, False): "░"}[
                position in reads, inside
            ]
        )


def test_long_axes_and_wide_windows_are_drawn_with_gaps():
    net = refnet.Net()
    x = net.input("data", (1, 1, 1, 200, 300))
    w = net.param("w", (1, 1, 1, 5, 31))
    net.add("conv3d", "y", (x, w), dilation=(1, 20, 1), stride=(1, 3, 2), pad=(0, 40, 15))
    windows = explain(net, "y").windows
    tall, wide = strip(windows[1]), strip(windows[2])
    assert None in tall.columns and tall.columns[0] == -40 and len(tall.columns) < 40
    assert [label for label, _ in wide.rows] == ["out 0", "out 1", "⋮", "out 149"]
    corner, *_ = planes(windows, (0, 0, 0))
    assert [label for label, _ in corner.rows if label != "⋮"] == ["-40", "-20", "0", "20", "40"]
    assert len(corner.columns) < 30
    assert all(mark in LEGEND for mark in "●○·░")


def test_a_convolution_of_the_headline_network():
    net = refnet.build("resnet18_conv4")
    found = explain(net, "res3_0_branch2b")
    p = found.product
    assert (p.samples, p.groups, p.K, p.R, p.P) == (1, 1, 128, 128 * 27, 8 * 28 * 28)
    assert (p.row_strides, p.column_strides) == ((27, 9, 3, 1), (784, 28, 1))
    assert [axis.padded_outputs for axis in found.windows] == [2, 2, 2]
    assert found.padded_share == 1 - 6 * 26 * 26 / (8 * 28 * 28)
    assert found.useful_multiply_adds == 128 * 128 * (8 * 3 - 2) * (28 * 3 - 2) ** 2
    assert found.gradient and all(found.gradients.values()) and found.stops == ()
    first = explain(net, "res3_0_branch2a")
    assert [axis.unread for axis in first.windows] == [0, 28, 28], "a 1x1x1 with stride 2 skips lines"
    assert first.gradients == {"res2_1_stop": False, "res3_0_branch2a_w": True}
    stem = explain(net, "conv1")
    assert not stem.gradient and stem.stops == ("res2_1_stop",) and not any(stem.gradients.values())


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_operator_is_explained(op):
    for case in op.cases:
        net = refnet.Net()
        names = [net.input(f"x{i}", shape) for i, shape in enumerate(case.shapes)]
        net.output(net.add(op.name, "y", names, **case.attrs))
        found = explain(net, "y")
        assert found.definition and found.derivative and found.op == op.name
        assert found.bytes_read >= 0 and found.useful_multiply_adds <= found.multiply_adds
        assert json.loads(json.dumps(found.as_json()))["output"] == list(found.output)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_node_of_every_architecture_is_explained(name):
    net = refnet.build(name)
    found = explain_all(net)
    assert [node.name for node in net.nodes] == [explanation.name for explanation in found]
    flow = net.gradient_flow()
    assert all(explanation.gradient == (explanation.name in flow) for explanation in found)
    assert all(explanation.field for explanation in found)


def test_an_unknown_node_is_refused():
    with pytest.raises(UnknownNameError, match="unknown node 'res3_0_branch2': did you mean res3_0_branch2"):
        explain(refnet.build("resnet18_conv4"), "res3_0_branch2")
