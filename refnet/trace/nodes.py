"""Shapes, costs and gradient flow of a net, node by node."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from refnet.net import Net, require_net
from refnet.ops import OPS
from refnet.shapes import Shape, size, text
from refnet.shown import Shown, Table, counted
from refnet.trace.receptive import Fields, fields_as_json, receptive_fields


@dataclass(frozen=True)
class Row:
    """One node of a net.

    Attributes
    ----------
    name, op : str
    inputs : tuple of shapes
        Of the blobs that it reads, parameters left out.
    output : shape
    params : int
        Elements of the parameters that it reads.
    multiply_adds : int
    bytes : int
        Of everything that it reads and writes, in float64.
    gradient : bool
        Whether a backward pass from the outputs computes this node's gradient.
    field : (T, H, W) or None
        Its receptive field in the net's first input; None where it does not depend on that.
    """

    name: str
    op: str
    inputs: tuple[Shape, ...]
    output: Shape
    params: int
    multiply_adds: int
    bytes: int
    gradient: bool
    field: Fields | None

    def as_json(self) -> dict[str, Any]:
        """Everything, in what JSON has."""
        return asdict(self) | {"field": fields_as_json(self.field)}


class Rows(Shown, list[Row]):
    """Rows in order: a list that shows shapes and costs."""

    def _shown(self) -> Table:
        work = sum(row.multiply_adds for row in self)
        rows = [
            (row.name, row.op, text(row.output), f"{row.params:,}", f"{row.multiply_adds:,}") for row in self
        ]
        columns = ("node", "operator", "output", "parameters", "multiply-adds")
        return Table(f"{counted(len(self), 'node')}, {work:,} multiply-adds", columns, rows)


def trace(net: Net) -> Rows:
    """Describe every node of a net, in order.

    Parameters
    ----------
    net : Net

    Returns
    -------
    list of Row
        It shows itself as a table.
    """
    require_net(net)
    flow = net.gradient_flow()
    fields = receptive_fields(net, next(iter(net.inputs))) if net.inputs else {}
    rows = Rows()
    for node in net.nodes:
        shapes = [net.shape(name) for name in node.inputs]
        cost = OPS[node.op].cost(*shapes, itemsize=8, **node.attrs)
        rows.append(
            Row(
                node.name,
                node.op,
                tuple(net.shape(name) for name in node.inputs if name not in net.params),
                node.shape,
                sum(size(net.params[name]) for name in node.inputs if name in net.params),
                cost.multiply_adds,
                cost.bytes,
                node.name in flow,
                fields.get(node.name),
            )
        )
    return rows


def backward_multiply_adds(net: Net) -> int:
    """Multiply-adds of a backward pass from all outputs.

    A product's input gradient and its weight gradient each take as many as its forward pass; a
    bias's gradient takes none.
    """
    require_net(net)
    flow, trainable = net.gradient_flow(), net.trainable()
    total = 0
    for node in net.nodes:
        if node.name in flow:
            cost = OPS[node.op].cost(*map(net.shape, node.inputs), itemsize=8, **node.attrs)
            total += cost.multiply_adds * sum(name in trainable for name in node.inputs[:2])
    return total
