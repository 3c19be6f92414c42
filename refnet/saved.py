"""What backward reads of a forward pass: which blobs, and which of them need not be kept.

A lean run, ``keep="outputs"``, keeps the blobs that the contexts of operators hold, but for those that a
mere pass over memory makes again from others that are kept: y = relu(s x + b) where x is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.net import Net
from refnet.op import OUTPUT
from refnet.ops import OPS


class Again(NamedTuple):
    """In a context, in place of a blob that is computed again."""

    name: str


class Saved(NamedTuple):
    """What a lean run saves for backward.

    Attributes
    ----------
    kept : frozenset of str
        Nodes whose blobs contexts hold.
    again : frozenset of str
        Nodes whose blobs contexts would hold, and that are computed again.
    sources : frozenset of str
        Those of the kept from which others are computed again.
    """

    kept: frozenset[str]
    again: frozenset[str]
    sources: frozenset[str]


def saved(net: Net) -> Saved:
    """What a lean run of a net saves for a backward pass from its outputs."""
    nodes, flow = {node.name: node for node in net.nodes}, net.gradient_flow()
    read = set()
    for name in flow & nodes.keys():
        node = nodes[name]
        read |= {name if i == OUTPUT else node.inputs[i] for i in OPS[node.op].keeps}
    read &= nodes.keys()
    again: set[str] = set()

    def sources(name: str) -> set[str] | None:
        """The kept blobs from which cheap operators compute a blob; None if it takes more."""
        if name not in nodes:
            return set()
        if name in read:
            return None if name in again else {name}
        return sources_of_inputs(name)

    def sources_of_inputs(name: str) -> set[str] | None:
        if not OPS[nodes[name].op].cheap:
            return None
        found: set[str] = set()
        for source in nodes[name].inputs:
            more = sources(source)
            if more is None:
                return None
            found |= more
        return found

    needed: set[str] = set()
    for node in net.nodes:
        if node.name in read and node.name not in net.outputs:
            found = sources_of_inputs(node.name)
            if found is not None:
                again.add(node.name)
                needed |= found
    return Saved(frozenset(read - again), frozenset(again), frozenset(needed))


def replaced(context: Any, replace: Callable[[Any], Any]) -> Any:
    """A context, of tuples in tuples, with something else in place of some values."""
    if isinstance(context, tuple) and not isinstance(context, Again):
        items = (replaced(item, replace) for item in context)
        return type(context)(*items) if hasattr(context, "_fields") else tuple(items)
    return replace(context)


def without(context: Any, blobs: dict[str, Array]) -> Any:
    """A context that holds none of some blobs."""

    def replace(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            for name, blob in blobs.items():
                if value.shape == blob.shape and np.may_share_memory(value, blob):
                    return Again(name)
        return value

    return replaced(context, replace)
