"""A network as plain values, as a manifest holds it: its nodes in order, and which of them are outputs."""

from collections.abc import Iterator, Mapping
from inspect import signature
from itertools import zip_longest
from typing import Any

import numpy as np

from refnet.errors import FileError, require_known
from refnet.net import Net, Node
from refnet.ops import OPS
from refnet.shapes import Shape, plain, text

Graph = dict[str, Any]


def record(net: Net) -> Graph:
    """Write a network down.

    Parameters
    ----------
    net : Net

    Returns
    -------
    dict
        "nodes", for each its "name", "operator", "inputs" and "attributes", those at their default included,
        and "outputs". Shapes are not in it: they follow.
    """
    nodes = [
        {"name": node.name, "operator": node.op, "inputs": [*node.inputs], "attributes": attributes(node)}
        for node in net.nodes
    ]
    return {"nodes": nodes, "outputs": [*net.outputs]}


def attributes(node: Node) -> dict[str, Any]:
    """All attributes of a node, as JSON has them."""
    return {name: _plain(value) for name, value in (_defaults(node.op) | node.attrs).items()}


def checked(found: Any) -> Graph:
    """A graph that somebody wrote, refused where it is none.

    Raises
    ------
    FileError
    """
    match found:
        case {"nodes": [*nodes], "outputs": [*outputs]} if len(found) == 2 and _are_names(outputs):
            pass
        case _:
            raise FileError("graph has no nodes and outputs: expected a list of each")
    for index, node in enumerate(nodes):
        match node:
            case {"name": str(name), "operator": op, "inputs": [*inputs], "attributes": dict(given)} if len(
                node
            ) == 4 and _are_names(inputs):
                pass
            case _:
                raise FileError(
                    f"node {index} of the graph is another thing than expected: "
                    "a name, operator, inputs, attributes"
                )
        require_known(f"operator of {name}", op, OPS)
        for attribute, value in given.items():
            usual = _plain(_defaults(op).get(attribute))
            if type(value) is not type(usual) and usual is not None:
                raise FileError(f"{attribute} of {name} is {value!r}: expected such as {usual!r}")
    return {"nodes": nodes, "outputs": outputs}


def build(graph: Graph, inputs: Mapping[str, Shape], params: Mapping[str, Shape]) -> Net:
    """Build the network that a graph describes.

    Parameters
    ----------
    graph : dict
        From `checked`.
    inputs, params : mapping of str to shape

    Returns
    -------
    Net

    Raises
    ------
    RefnetError
        If there is no such network.
    """
    net = Net()
    for name, shape in inputs.items():
        net.input(name, shape)
    for name, shape in params.items():
        net.param(name, shape)
    for node in graph["nodes"]:
        given = {name: plain(value) for name, value in node["attributes"].items()}
        net.add(node["operator"], node["name"], node["inputs"], **given)
    for name in graph["outputs"]:
        net.output(name)
    return net


def differences(a: Graph, b: Graph) -> Iterator[tuple[str, str, str]]:
    """Where two graphs differ: the node's name in `a`, or where it has none in `b`, and what each has there.

    What only follows from it is not left out: one node more moves all that come after it.
    """
    for ours, theirs in zip_longest(a["nodes"], b["nodes"]):
        if ours != theirs:
            yield (ours or theirs)["name"], said(ours), said(theirs)
    if a["outputs"] != b["outputs"]:
        yield "outputs", ", ".join(a["outputs"]), ", ".join(b["outputs"])


def said(node: Mapping[str, Any] | None) -> str:
    """A node for people: ``conv1 = conv3d(data, conv1_w; stride 1x2x2)``, but for what is at its default."""
    if node is None:
        return "nothing"
    usual = _defaults(node["operator"])
    given = (
        f"{name} {text(value) if isinstance(value, list) else value}"
        for name, value in node["attributes"].items()
        if value != _plain(usual.get(name))
    )
    rest = ", ".join(given)
    return f"{node['name']} = {node['operator']}({', '.join(node['inputs'])}{'; ' if rest else ''}{rest})"


def _defaults(op: str) -> dict[str, Any]:
    """The attributes of an operator that need not be given."""
    parameters = signature(OPS[op].infer).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def _plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _are_names(found: list[Any]) -> bool:
    return all(isinstance(name, str) for name in found)
