"""What a run keeps for its backward pass, and what it computes again in place of keeping it.

A run of ``keep="outputs"`` keeps the blobs that the contexts of operators hold, but for those that mere
passes over memory make again from others that are kept: y = relu(s x + b) where x is kept. Which these are
follows from the net alone: it is planned once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from refnet.arithmetic import Arithmetic
from refnet.arithmetic.table import Context
from refnet.arrays import Array
from refnet.errors import ValueRangeError
from refnet.net import Net, Node
from refnet.op import OUTPUT
from refnet.ops import OPS
from refnet.shapes import size

Keep = Literal["all", "outputs"]


@dataclass(frozen=True)
class Plan:
    """What a walk over a net knows before it starts.

    Attributes
    ----------
    trainable, flow : frozenset of str
        What `Net.trainable` and `Net.gradient_flow` find.
    frees : tuple of tuple of str
        For each node, the blobs that are read for the last time there, and are no outputs.
    kept : frozenset of str
        Nodes whose blobs the contexts of a lean run hold.
    again : frozenset of str
        Nodes whose blobs those contexts would hold, and that are computed again.
    sources : frozenset of str
        Those of the kept from which others are computed again.
    """

    trainable: frozenset[str]
    flow: frozenset[str]
    frees: tuple[tuple[str, ...], ...]
    kept: frozenset[str]
    again: frozenset[str]
    sources: frozenset[str]


_plans: WeakKeyDictionary[Net, tuple[object, Plan]] = WeakKeyDictionary()


def planned(net: Net) -> Plan:
    """The plan of a net, made once, and again when the net has grown."""
    # A net is append-only: as long as it is of the same size, it is the same.
    state = len(net.nodes), len(net.inputs), len(net.params), tuple(net.outputs)
    found = _plans.get(net)
    if found is None or found[0] != state:
        found = _plans[net] = state, _plan(net)
    return found[1]


def _plan(net: Net) -> Plan:
    flow, last_use = frozenset(net.gradient_flow()), net.last_use()
    frees = tuple(
        tuple(name for name in {node.name, *node.inputs} - net.outputs.keys() if last_use.get(name) == index)
        for index, node in enumerate(net.nodes)
    )
    nodes = {node.name: node for node in net.nodes}
    read = {
        name if i == OUTPUT else nodes[name].inputs[i]
        for name in flow & nodes.keys()
        for i in OPS[nodes[name].op].keeps
    } & nodes.keys()
    again: dict[str, set[str]] = {}  # and from which sources
    for node in net.nodes:
        if node.name in read and node.name not in net.outputs:
            sources = _sources(node, nodes, read, again)
            if sources is not None:
                again[node.name] = sources
    return Plan(
        trainable=frozenset(net.trainable()),
        flow=flow,
        frees=frees,
        kept=frozenset(read - again.keys()),
        again=frozenset(again),
        sources=frozenset().union(*again.values()),
    )


def _sources(
    node: Node, nodes: Mapping[str, Node], read: set[str], again: Mapping[str, object]
) -> set[str] | None:
    """The kept blobs from which cheap operators compute a node's; None if it takes more."""
    if not OPS[node.op].cheap:
        return None
    found: set[str] = set()
    for name in node.inputs:
        if name in read:
            if name in again:
                return None
            found.add(name)
        elif name in nodes:
            behind = _sources(nodes[name], nodes, read, again)
            if behind is None:
                return None
            found |= behind
    return found


def blob_bytes(net: Net, itemsize: int, keep: Keep = "all") -> int:
    """Bytes of the blobs that a forward run holds at its largest.

    With ``keep="outputs"``, what backward will need is counted as kept.
    """
    if keep == "all":
        return sum(size(node.shape) for node in net.nodes) * itemsize
    plan = planned(net)
    held = largest = 0
    for node, frees in zip(net.nodes, plan.frees, strict=True):
        held += size(node.shape)
        largest = max(largest, held)
        held -= sum(size(net.shape(name)) for name in frees if name not in plan.kept)
    return largest * itemsize


def gradient_bytes(net: Net, itemsize: int) -> int:
    """Bytes that a backward run takes beside what it returns: about three of the largest blob.

    And what it returns: a gradient for each input and parameter that one reaches.
    """
    flow = planned(net).flow
    returned = sum(size(shape) for name, shape in {**net.params, **net.inputs}.items() if name in flow)
    return (returned + 3 * max((size(node.shape) for node in net.nodes), default=0)) * itemsize


class Tape:
    """The contexts of a run that keeps everything: backward may start anywhere, and any number of times."""

    def __init__(self) -> None:
        self._contexts: dict[str, Context] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a backward pass can go through the node."""
        return name in self._contexts

    def record(self, node: Node, context: Context, blobs: Mapping[str, Array]) -> None:
        """Keep the context of a node that has just been computed."""
        self._contexts[node.name] = context

    def start(self) -> None:
        """Begin a backward pass."""

    def context(self, node: Node) -> Context:
        """The context of a node."""
        return self._contexts[node.name]

    def done(self, node: Node) -> None:
        """The backward pass has left the node behind."""


class LeanTape(Tape):
    """The contexts of a run that keeps only outputs, as one backward pass takes them, the last node's first.

    They are freed when their node is done, and blobs that they do not hold are computed again, once: a
    blob's readers come before the node that makes it.

    Parameters
    ----------
    net : Net
    arithmetic : Arithmetic
    given : mapping of str to ndarray
        Inputs and parameters.
    """

    def __init__(self, net: Net, arithmetic: Arithmetic, given: Mapping[str, Array]) -> None:
        super().__init__()
        self._plan, self._arithmetic, self._given = planned(net), arithmetic, given
        self._nodes = {node.name: node for node in net.nodes}
        self._sources: dict[str, Array] = {}
        self._again: dict[str, Array] = {}
        self._used = False

    def record(self, node: Node, context: Context, blobs: Mapping[str, Array]) -> None:
        """Keep what backward needs of a node: its context, without the blobs that are computed again."""
        if node.name in self._plan.flow:
            made_again = self._plan.again & {node.name, *node.inputs}
            self._contexts[node.name] = _without(context, {name: blobs[name] for name in made_again})
        if node.name in self._plan.sources:
            self._sources[node.name] = blobs[node.name]

    def start(self) -> None:
        """Begin the only backward pass.

        Raises
        ------
        ValueRangeError
            If there has been one.
        """
        if self._used:
            raise ValueRangeError(
                "a backward pass has been through this run, which kept only outputs, and has freed what "
                'it used: expected a run that is new, or of keep="all"'
            )
        self._used = True

    def context(self, node: Node) -> Context:
        """The context of a node, with the blobs that were left out of it."""

        def restored(value: Any) -> Any:
            return self._blob(value.name) if isinstance(value, _Again) else value

        found: Context = _replaced(self._contexts[node.name], restored)
        return found

    def done(self, node: Node) -> None:
        """Free what only this node needed."""
        for kept in (self._contexts, self._sources, self._again):
            kept.pop(node.name, None)

    def _blob(self, name: str) -> Array:
        """What was given, is a source, or is computed again; kept if contexts held it."""
        for there in (self._given, self._sources, self._again):
            if name in there:
                return there[name]
        node = self._nodes[name]
        blob, _ = self._arithmetic[node.op].forward(*map(self._blob, node.inputs), **node.attrs)
        if name in self._plan.again:
            self._again[name] = blob
        return blob


class _Again(NamedTuple):
    """In a context, in place of a blob that is computed again."""

    name: str


def _replaced(context: Any, replace: Callable[[Any], Any]) -> Any:
    """A context, of tuples in tuples, with something else in place of some values."""
    if isinstance(context, tuple) and not isinstance(context, _Again):
        items = (_replaced(item, replace) for item in context)
        return type(context)(*items) if hasattr(context, "_fields") else tuple(items)
    return replace(context)


def _without(context: Any, blobs: Mapping[str, Array]) -> Any:
    """A context that holds none of some blobs."""

    def replace(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            for name, blob in blobs.items():
                if value.shape == blob.shape and np.may_share_memory(value, blob):
                    return _Again(name)
        return value

    return _replaced(context, replace)
