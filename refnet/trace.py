"""Shapes, costs and gradient flow of a net, node by node."""

from dataclasses import dataclass

from refnet.net import Net
from refnet.ops import OPS
from refnet.shapes import Shape, size


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
    """

    name: str
    op: str
    inputs: tuple[Shape, ...]
    output: Shape
    params: int
    multiply_adds: int
    bytes: int
    gradient: bool


def trace(net: Net) -> list[Row]:
    """Describe every node of a net, in order.

    Parameters
    ----------
    net : Net

    Returns
    -------
    list of Row
    """
    flow = net.gradient_flow()
    rows = []
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
            )
        )
    return rows
