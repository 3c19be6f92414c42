"""A network: an append-only list of named nodes. Everything else is a walk over that list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from refnet.errors import (
    DTypeError,
    RefnetError,
    ShapeError,
    ValueRangeError,
    at,
    kind_of,
    require_kind,
    require_known,
)
from refnet.op import ANYTHING, Domain
from refnet.ops import OPS
from refnet.shapes import LARGEST_SIZE, Shape, plain, size, text, whole
from refnet.shown import Shown, Table, counted


class Node(NamedTuple):
    """One value of a network and where it comes from.

    Attributes
    ----------
    name : str
        The blob's name; no other value has it.
    op : str
        The operator, a name in `refnet.ops.OPS`.
    inputs : tuple of str
        Names of nodes, inputs and parameters, in the operator's order.
    attrs : dict
    shape : tuple of int
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: dict[str, Any]
    shape: Shape


def require_net(net: object, what: str = "net") -> None:
    """Refuse what is no net: the name of an architecture, parameters.

    Raises
    ------
    DTypeError
    """
    require_kind(what, net, Net, "as refnet.build makes one")


def learns_from(node: Node) -> list[str]:
    """The inputs of a node that its backward computes a gradient of."""
    return [name for index, name in enumerate(node.inputs) if OPS[node.op].domain(index).gradient]


class Nodes(Shown, list[Node]):
    """Nodes in order: a list that shows their operators and shapes."""

    def _shown(self) -> Table:
        rows = [(node.name, node.op, text(node.shape)) for node in self]
        return Table(counted(len(self), "node"), ("node", "operator", "output"), rows)


class Net(Shown):
    """A network under construction, or complete; builders append, nobody takes away.

    Attributes
    ----------
    nodes : list of Node
        In an order in which they can be computed.
    inputs, params, outputs : dict of str to shape
        Parameters in build order.

    Examples
    --------
    >>> net = Net()
    >>> x = net.input("data", (1, 3, 2, 8, 8))
    >>> w = net.param("conv1_w", (4, 3, 1, 3, 3))
    >>> y = net.add("conv3d", "conv1", (x, w), pad=(0, 1, 1))
    >>> net.output(net.add("relu", "conv1_relu", (y,)))
    >>> net.outputs
    {'conv1_relu': (1, 4, 2, 8, 8)}
    """

    def __init__(self) -> None:
        self.nodes = Nodes()
        self.inputs: dict[str, Shape] = {}
        self.params: dict[str, Shape] = {}
        self.outputs: dict[str, Shape] = {}
        self._shapes: dict[str, Shape] = {}
        self._first_readers: dict[str, tuple[Node, int]] = {}

    def input(self, name: str, shape: Iterable[int]) -> str:
        """Declare an input blob and return its name."""
        self.inputs[name] = self._write(name, self._sizes(name, shape))
        return name

    def param(self, name: str, shape: Iterable[int]) -> str:
        """Declare a parameter and return its name."""
        self.params[name] = self._write(name, self._sizes(name, shape))
        return name

    def add(self, op: str, name: str, inputs: Iterable[str], **attrs: Any) -> str:
        """Append a node, infer its shape, and return its name.

        Raises
        ------
        UnknownNameError
            If the operator or an input does not exist.
        ShapeError
            If the operator's inputs do not fit; the message names the node.
        ValueRangeError
            If the name is taken, or integers meet an operator of real numbers.
        """
        require_known("operator", op, OPS)
        if isinstance(inputs, str) or not isinstance(inputs, Iterable):
            raise DTypeError(f"inputs of {name} is {kind_of(inputs)}: expected names of blobs, in a tuple")
        inputs = tuple(inputs)
        try:
            shape = OPS[op].output_shape(tuple(self.shape(i) for i in inputs), attrs)
        except RefnetError as error:
            raise at(f"{name} ({op})", error) from None
        self._require_integers(op, name, inputs)
        attrs = {key: plain(value) for key, value in attrs.items()}
        node = Node(name, op, inputs, attrs, self._write(name, shape))
        self.nodes.append(node)
        for index, read in enumerate(inputs):
            self._first_readers.setdefault(read, (node, index))
        return name

    def output(self, name: str) -> None:
        """Declare a node to be one of the network's results.

        Raises
        ------
        UnknownNameError
            If there is no such node.
        """
        self.outputs[name] = self[name].shape

    def shape(self, name: str) -> Shape:
        """Return the shape of an input, parameter or node.

        Raises
        ------
        UnknownNameError
            If there is nothing of that name.
        """
        require_known("blob", name, self._shapes)
        return self._shapes[name]

    def __getitem__(self, name: str) -> Node:
        """The node of that name.

        Raises
        ------
        UnknownNameError
            If there is none.
        """
        require_known("node", name, [*self])
        return next(node for node in self.nodes if node.name == name)

    def __iter__(self) -> Iterator[str]:
        """The names of its nodes, in order."""
        return (node.name for node in self.nodes)

    def _ipython_key_completions_(self) -> list[str]:
        return [*self]

    def first_reader(self, name: str) -> tuple[Node, int] | None:
        """The first node that reads the blob, and at which of its inputs."""
        return self._first_readers.get(name)

    def domain(self, name: str) -> Domain:
        """What an input or parameter may hold: what the first operator that reads it says."""
        reader = self.first_reader(name)
        return ANYTHING if reader is None else OPS[reader[0].op].domain(reader[1])

    def copy(self) -> Net:
        """Return a net of the same nodes, to which others can be appended."""
        twin = Net()
        twin.nodes, twin._shapes = Nodes(self.nodes), dict(self._shapes)
        twin._first_readers = dict(self._first_readers)
        twin.inputs, twin.params, twin.outputs = dict(self.inputs), dict(self.params), dict(self.outputs)
        return twin

    def learnt(self) -> set[str]:
        """Names of the inputs and parameters that are learnt, not given as labels or statistics are."""
        return {name for name in (*self.inputs, *self.params) if self.domain(name).draw is None}

    def trainable(self) -> set[str]:
        """Names of the values that depend on an input or parameter without a gradient stop between.

        What is given and not learnt (labels, boxes, masks, statistics) is none of them.
        """
        names = self.learnt()
        for node in self.nodes:
            if not names.isdisjoint(learns_from(node)):
                names.add(node.name)
        return names

    def gradient_flow(self) -> set[str]:
        """Names of the values whose gradient a backward pass from all outputs computes."""
        trainable = self.trainable()
        reached = {*self.outputs}
        for node in reversed(self.nodes):
            if node.name in reached:
                reached.update(trainable.intersection(learns_from(node)))
        return reached & trainable

    def upstream(self, names: Iterable[str]) -> set[str]:
        """Everything that the named values are computed from, themselves included."""
        found = set(names)
        for node in reversed(self.nodes):
            if node.name in found:
                found.update(node.inputs)
        return found

    def last_use(self) -> dict[str, int]:
        """For each node, the index of the last node that reads it, or its own if none does."""
        last: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            last[node.name] = index
            for name in node.inputs:
                if name in last:
                    last[name] = index
        return last

    def _require_integers(self, op: str, name: str, inputs: tuple[str, ...]) -> None:
        """Only inputs of the net hold whole numbers, and only where all that read them want such."""
        for index, read in enumerate(inputs):
            wanted = OPS[op].domain(index).integer
            undecided = read in self.inputs and self.first_reader(read) is None
            if not undecided and self.domain(read).integer != wanted:
                expected = "an input of the net that holds integers" if wanted else "real numbers"
                raise ValueRangeError(f"{name} ({op}) reads {read} at input {index}: expected {expected}")

    def _sizes(self, name: str, shape: Iterable[int]) -> Shape:
        if isinstance(shape, str) or not isinstance(shape, Iterable):
            raise ShapeError(f"{name} has shape {kind_of(shape)}: expected whole numbers, in a tuple")
        sizes = tuple(shape)
        if not sizes:
            raise ShapeError(f"{name} has no axes: expected at least one size")
        return tuple(whole(f"{name} size of axis {i}", n, 1, LARGEST_SIZE) for i, n in enumerate(sizes))

    def _write(self, name: str, shape: Shape) -> Shape:
        if not isinstance(name, str) or not name:
            found = repr(name) if isinstance(name, str) else kind_of(name)
            raise ValueRangeError(f"blob name is {found}: expected a non-empty string")
        if name in self._shapes:
            raise ValueRangeError(f"blob {name!r} is written twice: expected a name of its own")
        self._shapes[name] = shape
        return shape

    def _shown(self) -> Table:
        elements = sum(map(size, self.params.values()))
        title = f"net of {counted(len(self.nodes), 'node')}, {counted(len(self.params), 'parameter')}"
        operators = Counter(node.op for node in self.nodes)
        rows = [
            *ends(self),
            ("parameters", counted(elements, "element")),
            ("nodes", ", ".join(f"{number} {op}" for op, number in operators.most_common()) or "none"),
        ]
        return Table(title, ("", ""), rows)


def ends(net: Net) -> list[tuple[str, str]]:
    """Rows of a table: the inputs and outputs of a net."""
    sides = (("input", net.inputs), ("output", net.outputs))
    return [(side, f"{name} {text(shape)}") for side, shapes in sides for name, shape in shapes.items()]
