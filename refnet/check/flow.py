"""Which values of a net have a gradient, found from its graph alone, and the net without its stops."""

from collections.abc import Iterable
from dataclasses import dataclass

from refnet.net import Net, Node, learns_from
from refnet.ops import OPS


@dataclass(frozen=True)
class Flow:
    """Where the gradients of some outputs should arrive.

    Attributes
    ----------
    reached : frozenset of str
        Inputs, parameters and nodes on a path from an output down to an input or parameter that is
        learnt, on which no stop lies.
    blocked : frozenset of str
        Learnt inputs and parameters of which all paths from an output lead through a stop.
    """

    reached: frozenset[str]
    blocked: frozenset[str]


def flow(net: Net, starts: Iterable[str]) -> Flow:
    """Search the paths from some nodes down to what is learnt.

    A step leads from a node to one of its inputs, if its operator has a gradient of that input. Two
    searches meet: down from the starts, and up from what is learnt.
    """
    above = [(node.name, name) for node in net.nodes for name in learns_from(node)]
    learnt = net.learnt()
    open_paths = _closure(learnt, above)
    reached = _closure(starts, [(name, source) for source, name in reversed(above)]) & open_paths
    connected = _closure(starts, [(name, node.name) for node in reversed(net.nodes) for name in node.inputs])
    return Flow(frozenset(reached), frozenset((learnt & connected) - reached))


def _closure(starts: Iterable[str], steps: Iterable[tuple[str, str]]) -> set[str]:
    """All that is reached from the starts by steps (to, from), which come in the order of a walk."""
    found = set(starts)
    for to, source in steps:
        if source in found:
            found.add(to)
    return found


def relevant(net: Net, tensors: Iterable[str]) -> set[str]:
    """The values whose gradients those of some inputs and parameters are made of, themselves included."""
    return _closure(tensors, [(node.name, name) for node in net.nodes for name in learns_from(node)])


def without_stops(net: Net) -> tuple[Net, dict[str, str]]:
    """The net in which every reader of a stop reads what the stop reads, and for each stop that value."""
    reads: dict[str, str] = {}
    twin = Net()
    for name, shape in net.inputs.items():
        twin.input(name, shape)
    for name, shape in net.params.items():
        twin.param(name, shape)
    for node in net.nodes:
        inputs = tuple(reads.get(name, name) for name in node.inputs)
        if _stops(node):
            reads[node.name] = inputs[0]
        else:
            twin.add(node.op, node.name, inputs, **node.attrs)
    return twin, reads


def readers_of_stops(net: Net) -> list[Node]:
    """Nodes that read a stop, and are none."""
    stops = {node.name for node in net.nodes if _stops(node)}
    return [n for n in net.nodes if n.name not in stops and not stops.isdisjoint(n.inputs)]


def _stops(node: Node) -> bool:
    return OPS[node.op].family == "stop"
