"""What one node does with its tensors: windows, padding, the matrix product, cost, gradients.

From integers alone; nothing is run. `refnet.render` draws it.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from refnet.errors import require_known
from refnet.net import Net, Node, require_net
from refnet.op import Op
from refnet.ops import OPS
from refnet.shapes import Shape, size
from refnet.trace.receptive import Fields, fields_as_json, receptive_fields

ITEMSIZE = 8  # bytes are those of float64, as in a trace


@dataclass(frozen=True)
class SlidingAxis:
    """A sliding window along one axis: output o reads o stride + tap dilation - pad.

    Attributes
    ----------
    axis : {"T", "H", "W"}
    source, output : int
        Sizes.
    kernel, stride, pad, dilation : int
    padded_outputs : int
        Outputs that read padding at least once.
    padded_taps : int
        Reads of padding, among the output x kernel reads there are.
    unread : int
        Input positions that no output reads.
    """

    axis: str
    source: int
    output: int
    kernel: int
    stride: int
    pad: int
    dilation: int
    padded_outputs: int
    padded_taps: int
    unread: int

    @property
    def extent(self) -> int:
        """Input positions from a window's first to its last."""
        return self.dilation * (self.kernel - 1) + 1

    def reads(self, output: int) -> list[int]:
        """The input positions that an output reads; below 0, or from `source` on, is padding."""
        start = output * self.stride - self.pad
        return [start + tap * self.dilation for tap in range(self.kernel)]

    def is_padding(self, position: int) -> bool:
        """Whether a position lies outside the input."""
        return not 0 <= position < self.source


def window(
    axis: str, source: int, output: int, kernel: int, stride: int, pad: int, dilation: int
) -> SlidingAxis:
    """Count what a window meets along one axis."""
    bare = SlidingAxis(axis, source, output, kernel, stride, pad, dilation, 0, 0, 0)
    outside = [sum(map(bare.is_padding, bare.reads(o))) for o in range(output)]
    read = {i for o in range(output) for i in bare.reads(o) if not bare.is_padding(i)}
    counts = {"padded_outputs": sum(map(bool, outside)), "padded_taps": sum(outside)}
    return SlidingAxis(
        axis, source, output, kernel, stride, pad, dilation, **counts, unread=source - len(read)
    )


def sliding_axes(op: Op, *shapes: Shape, **attrs: Any) -> tuple[SlidingAxis, ...]:
    """Along T, H and W, the windows of an operator; none where it slides none."""
    if op.window is None:
        return ()
    geometry, outputs = op.window(*shapes, **attrs), op.infer(*shapes, **attrs)[2:]
    return tuple(window(*axis) for axis in zip("THW", shapes[0][2:], outputs, *geometry, strict=True))


def useful_multiply_adds(op: Op, *shapes: Shape, **attrs: Any) -> int:
    """Of the multiply-adds of a call's cost, those that read no padding."""
    useful = op.cost(*shapes, itemsize=1, **attrs).multiply_adds
    axes = sliding_axes(op, *shapes, **attrs)  # along each, the share of taps that meet the input
    useful *= prod(axis.output * axis.kernel - axis.padded_taps for axis in axes)
    return useful // prod(axis.output * axis.kernel for axis in axes)


@dataclass(frozen=True)
class Product:
    """A convolution as a matrix product, for each sample and group: Y = W X, with X the patches.

    Attributes
    ----------
    samples, groups : int
        How many products there are: one for each pair.
    K : int
        Rows of W and of Y: output channels of a group.
    R : int
        Columns of W and rows of X: C / groups x kT x kH x kW.
    P : int
        Columns of X and Y: oT x oH x oW.
    row_strides : tuple of int
        Row r of X is c, kt, kh, kw times these, added up.
    column_strides : tuple of int
        Column p of X is t, h, w times these, added up.
    """

    samples: int
    groups: int
    K: int
    R: int
    P: int
    row_strides: tuple[int, int, int, int]
    column_strides: tuple[int, int, int]


@dataclass(frozen=True)
class Explanation:
    """What one node does with its tensors.

    Attributes
    ----------
    name, op : str
    definition : str
        What the operator computes, in its own words.
    derivative : str
        What its backward computes.
    inputs, params : dict of str to shape
        What it reads.
    output : shape
    attrs : dict
    windows : tuple of SlidingAxis
        Along T, H and W; empty where the operator has none.
    product : Product or None
        Of a convolution.
    padded_share : float
        Outputs that see padding, as a share of all.
    multiply_adds, useful_multiply_adds : int
        All of them; those that do not meet padding.
    bytes_read, bytes_written : int
        In float64: everything that it reads, once, and its output.
    intensity : float
        Multiply-adds a byte.
    field : (T, H, W) or None
        Its receptive field in the input.
    gradient : bool
        Whether a backward pass from the outputs computes the gradient of its output.
    gradients : dict of str to bool
        Whether it computes that of each input and parameter.
    stops : tuple of str
        Gradient stops between it and the outputs.
    """

    name: str
    op: str
    definition: str
    derivative: str
    inputs: dict[str, Shape]
    params: dict[str, Shape]
    output: Shape
    attrs: dict[str, Any]
    windows: tuple[SlidingAxis, ...]
    product: Product | None
    padded_share: float
    multiply_adds: int
    useful_multiply_adds: int
    bytes_read: int
    bytes_written: int
    intensity: float
    field: Fields | None
    gradient: bool
    gradients: dict[str, bool]
    stops: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, in what JSON has."""
        return asdict(self) | {"field": fields_as_json(self.field)}


def explain(net: Net, name: str) -> Explanation:
    """Explain one node of a net.

    Raises
    ------
    UnknownNameError
        If there is no such node.
    """
    require_net(net)
    require_known("node", name, [node.name for node in net.nodes])
    return next(found for found in explain_all(net) if found.name == name)


def explain_all(net: Net) -> list[Explanation]:
    """Explain every node of a net, in order."""
    require_net(net)
    flow = net.gradient_flow()
    fields = receptive_fields(net, next(iter(net.inputs))) if net.inputs else {}
    stops = _stops_downstream(net)
    return [_explain(net, node, node.name in flow, flow, fields.get(node.name), stops) for node in net.nodes]


def _explain(
    net: Net, node: Node, gradient: bool, flow: set[str], field: Fields | None, stops: dict[str, set[str]]
) -> Explanation:
    op, shapes = OPS[node.op], [net.shape(name) for name in node.inputs]
    cost = op.cost(*shapes, itemsize=ITEMSIZE, **node.attrs)
    windows = sliding_axes(op, *shapes, **node.attrs)
    clean = prod(axis.output - axis.padded_outputs for axis in windows)
    written = min(size(node.shape) * ITEMSIZE, cost.bytes)
    learns = {name for i, name in enumerate(node.inputs) if op.domain(i).gradient}
    return Explanation(
        node.name,
        node.op,
        inspect.getdoc(inspect.getmodule(op.forward)) or "",
        inspect.getdoc(op.backward) or "",
        {name: net.shape(name) for name in node.inputs if name not in net.params},
        {name: net.shape(name) for name in node.inputs if name in net.params},
        node.shape,
        node.attrs,
        windows,
        _product(node, shapes) if windows and op.family == "product" else None,
        1 - clean / prod(axis.output for axis in windows) if windows else 0.0,
        cost.multiply_adds,
        useful_multiply_adds(op, *shapes, **node.attrs),
        cost.bytes - written,
        written,
        cost.multiply_adds / cost.bytes if cost.bytes else 0.0,
        field,
        gradient,
        {name: gradient and name in flow and name in learns for name in node.inputs},
        tuple(sorted(stops[node.name])),
    )


def _product(node: Node, shapes: list[Shape]) -> Product:
    (_, depth, kt, kh, kw), (samples, channels, t, h, w) = shapes[1], node.shape
    groups = node.attrs.get("groups", 1)
    rows, columns = (kt * kh * kw, kh * kw, kw, 1), (h * w, w, 1)
    return Product(samples, groups, channels // groups, depth * rows[0], t * columns[0], rows, columns)


def _stops_downstream(net: Net) -> dict[str, set[str]]:
    """For each value, the gradient stops between it and the outputs, itself included."""
    ahead: dict[str, set[str]] = {}
    for node in reversed(net.nodes):
        found = ahead.setdefault(node.name, set())
        if OPS[node.op].family == "stop":
            found.add(node.name)
        for name in node.inputs:
            ahead.setdefault(name, set()).update(found)
    return ahead
