"""Forward and backward walks over a net, under one arithmetic."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from refnet import memory
from refnet.arithmetic import Arithmetic, core, named
from refnet.arithmetic.table import Context
from refnet.arrays import Array, at_the_door
from refnet.errors import DTypeError, ShapeError, ValueRangeError, require_known
from refnet.net import Net, Node, learns_from
from refnet.ops import OPS
from refnet.saved import Again, Saved, replaced, saved, without
from refnet.shapes import size, text

Keep = Literal["all", "outputs"]


@dataclass(frozen=True)
class Run:
    """A finished forward pass.

    Attributes
    ----------
    net : Net
    arithmetic : Arithmetic
    given : dict of str to ndarray
        Inputs and parameters: read-only views of the caller's arrays where those were as a kernel
        needs them, so whoever changes them before `backward` changes its result.
    blobs : dict of str to ndarray
        The value of every node, or, where only those were kept, of the outputs.
    """

    net: Net
    arithmetic: Arithmetic
    given: dict[str, Array]
    blobs: dict[str, Array]
    _contexts: dict[str, Context] = field(repr=False)
    _lean: "_Lean | None" = field(default=None, repr=False)


@dataclass
class _Lean:
    """What a run that keeps only outputs saved for one backward pass.

    Attributes
    ----------
    saved : Saved
    sources : dict of str to ndarray
        The blobs from which others are computed again.
    used : bool
        Whether a backward pass has begun.
    """

    saved: Saved
    sources: dict[str, Array] = field(default_factory=dict)
    used: bool = False


class Gradients(Mapping[str, Array]):
    """Gradients by name of input or parameter; absent means blocked, unconnected, or given and not learnt.

    Attributes
    ----------
    blocked : frozenset of str
        The inputs and parameters that the outputs depend on, but only through a gradient stop. What
        is given and not learnt (labels, boxes, masks, statistics) is none of them.
    """

    def __init__(self, gradients: Mapping[str, Array], blocked: frozenset[str]):
        self._gradients = dict(gradients)
        self.blocked = blocked

    def __getitem__(self, name: str) -> Array:
        if name in self.blocked:
            raise KeyError(f"{name}: its gradient is blocked")
        return self._gradients[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._gradients)

    def __len__(self) -> int:
        return len(self._gradients)

    def __repr__(self) -> str:
        return f"<gradients: {len(self)} computed, {len(self.blocked)} blocked>"


def forward(
    net: Net,
    given: Mapping[str, Array],
    arithmetic: str | Arithmetic = "core",
    *,
    keep: Keep = "all",
    allow_nonfinite: bool = False,
    on_node: Callable[[Node], None] | None = None,
) -> Run:
    """Compute every node of a net.

    Parameters
    ----------
    net : Net
    given : mapping of str to ndarray
        Every input and parameter of the net, all float32 or all float64, labels integers, of any
        memory layout and byte order. They are never modified.
    arithmetic : str or Arithmetic
    keep : {"all", "outputs"}
        With "outputs", a blob is freed as soon as neither a later node nor `backward` needs it, or can
        compute it again by a mere pass over memory. `backward` can go through such a run once: it frees
        what it has used.
    allow_nonfinite : bool
        Accept NaN and infinity in `given`.
    on_node : callable, optional
        Told each node once it has been computed.

    Returns
    -------
    Run

    Raises
    ------
    UnknownNameError, ShapeError, DTypeError, ValueRangeError
        If something is missing from `given`, unknown, or of the wrong shape, dtype or value.
    TooLargeError
        If the blobs would not fit into memory.
    """
    arithmetic = named(arithmetic)
    require_known("value of keep", keep, ("all", "outputs"))
    values = _clean(net, given, allow_nonfinite)
    _check_given(net, values)
    memory.require(blob_bytes(net, _itemsize(values), keep), "a forward run")

    last_use = net.last_use()
    lean = _Lean(saved(net)) if keep == "outputs" else None
    wanted = net.gradient_flow() if lean else {node.name for node in net.nodes}
    kept = net.outputs if lean else wanted
    blobs: dict[str, Array] = {}
    contexts: dict[str, Context] = {}
    for index, node in enumerate(net.nodes):
        arrays = [values[name] if name in values else blobs[name] for name in node.inputs]
        blobs[node.name], context = arithmetic[node.op].forward(*arrays, **node.attrs)
        if node.name in wanted:
            if lean:
                made_again = lean.saved.again & {node.name, *node.inputs}
                context = without(context, {name: blobs[name] for name in made_again})
            contexts[node.name] = context
        if lean and node.name in lean.saved.sources:
            lean.sources[node.name] = blobs[node.name]
        del arrays, context  # or they would keep alive what is freed below
        for name in {node.name, *node.inputs}:
            if last_use.get(name) == index and name not in kept:
                del blobs[name]
        if on_node is not None:
            on_node(node)
    return Run(net, arithmetic, values, blobs, contexts, lean)


def backward(
    run: Run,
    output_gradients: Mapping[str, Array],
    *,
    allow_nonfinite: bool = False,
    on_node: Callable[[Node], None] | None = None,
) -> Gradients:
    """Compute the gradients of sum over outputs of sum(dy * y), for every input and parameter.

    Nothing is computed upstream of a gradient stop.

    Parameters
    ----------
    run : Run
        From `forward`.
    output_gradients : mapping of str to ndarray
        dy by node name, of that node's shape and dtype; nodes that are not outputs may be named too.
    allow_nonfinite : bool
        Accept NaN and infinity in `output_gradients`.
    on_node : callable, optional
        Told each node once its input gradients have been computed.

    Returns
    -------
    Gradients

    Raises
    ------
    UnknownNameError, ShapeError, DTypeError, ValueRangeError
        If a gradient is given for no node, or has the wrong shape, dtype or value, or the run keeps only
        outputs and a backward pass has been through it.
    TooLargeError
        If the gradients would not fit into memory.
    """
    net = run.net
    pending: dict[str, list[Array]] = {}
    for name, dy in output_gradients.items():
        pending[name] = [_clean_gradient(run, name, dy, allow_nonfinite)]
    memory.require(gradient_bytes(net, _itemsize(run.given)), "a backward run")
    contexts = _Contexts(run)
    trainable = net.trainable()
    for node in reversed(net.nodes):
        learns = trainable.intersection(learns_from(node))
        if node.name in pending and learns:
            dy = _total(pending.pop(node.name))
            needs = tuple(name in learns for name in node.inputs)
            gradients = run.arithmetic[node.op].backward(dy, contexts.of(node), needs)
            for name, gradient in zip(node.inputs, gradients, strict=True):
                if gradient is not None and name in learns:
                    pending.setdefault(name, []).append(gradient)
            del dy, gradients  # or they would keep alive what the next node takes
            if on_node is not None:
                on_node(node)
        contexts.done(node)
    computed = {name: _total(pending[name]) for name in (*net.inputs, *net.params) if name in pending}
    connected = net.upstream(output_gradients)
    learnt = {name for name in (*net.inputs, *net.params) if net.domain(name).draw is None}
    blocked = (learnt & connected) - computed.keys()
    return Gradients(computed, frozenset(blocked))


def blob_bytes(net: Net, itemsize: int, keep: Keep = "all") -> int:
    """Bytes of the blobs that a forward run holds at its largest.

    With ``keep="outputs"``, what backward will need is counted as kept.
    """
    if keep == "all":
        return sum(size(node.shape) for node in net.nodes) * itemsize
    last_use, kept = net.last_use(), saved(net).kept | net.outputs.keys()
    held = largest = 0
    for index, node in enumerate(net.nodes):
        held += size(node.shape)
        largest = max(largest, held)
        for name in {node.name, *node.inputs}:
            if last_use.get(name) == index and name not in kept:
                held -= size(net.shape(name))
    return largest * itemsize


def gradient_bytes(net: Net, itemsize: int) -> int:
    """Bytes that a backward run takes beside what it returns: about three of the largest blob.

    And what it returns: a gradient for each input and parameter that one reaches.
    """
    flow = net.gradient_flow()
    returned = sum(size(shape) for name, shape in {**net.params, **net.inputs}.items() if name in flow)
    return (returned + 3 * max((size(node.shape) for node in net.nodes), default=0)) * itemsize


def _itemsize(values: Mapping[str, Array]) -> int:
    """Bytes of an element; a net without inputs and parameters computes nothing."""
    return next((value.itemsize for value in values.values() if value.dtype.kind == "f"), 0)


def _clean(net: Net, given: Mapping[str, Array], allow_nonfinite: bool) -> dict[str, Array]:
    """The inputs and parameters of a net, checked, contiguous and native."""
    shapes = {**net.inputs, **net.params}
    for name in given:
        require_known("input or parameter", name, shapes)
    missing = [name for name in shapes if name not in given]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueRangeError(
            f"no value is given for {', '.join(missing[:5])}{more}: "
            "expected one for every input and parameter of the net"
        )
    integer = {name: net.domain(name).integer for name in shapes}
    values = {name: at_the_door(name, given[name], integer=integer[name]) for name in shapes}
    first = next((name for name in values if not integer[name]), None)
    for name, value in values.items():
        if value.shape != shapes[name]:
            raise ShapeError(f"{name} has shape {text(value.shape)}: expected {text(shapes[name])}")
        if first is not None and not integer[name] and value.dtype != values[first].dtype:
            raise DTypeError(f"{name} is {value.dtype}: expected {values[first].dtype}, the dtype of {first}")
        _require_finite(name, value, allow_nonfinite)
    return values


def _check_given(net: Net, values: Mapping[str, Array]) -> None:
    """Refuse labels, boxes, masks, statistics that an operator would refuse, before anything is computed."""
    for node in net.nodes:
        check = OPS[node.op].check
        if check is None:
            continue
        # In place of what is not there yet, zeros that take no memory: no check looks at them.
        zero = np.zeros((), np.float64)
        arrays = [
            values[name] if name in values else np.broadcast_to(zero, net.shape(name)) for name in node.inputs
        ]
        try:
            check(*arrays, **node.attrs)
        except ValueRangeError as error:
            raise ValueRangeError(f"{node.name} ({node.op}): {error}") from None


def _clean_gradient(run: Run, name: str, dy: Array, allow_nonfinite: bool) -> Array:
    shapes = {node.name: node.shape for node in run.net.nodes}
    require_known("node to start backward from", name, shapes)
    if name not in run._contexts and name not in run.net.outputs:
        raise ValueRangeError(
            f"backward cannot start from {name}: the run kept only what the outputs need; "
            'run forward with keep="all"'
        )
    dy = at_the_door(f"gradient of {name}", dy)
    if dy.shape != shapes[name]:
        raise ShapeError(f"gradient of {name} has shape {text(dy.shape)}: expected {text(shapes[name])}")
    dtypes = {value.dtype for value in run.given.values() if value.dtype.kind == "f"}
    if dtypes and dy.dtype not in dtypes:
        raise DTypeError(f"gradient of {name} is {dy.dtype}: expected {dtypes.pop()}, the run's dtype")
    _require_finite(f"gradient of {name}", dy, allow_nonfinite)
    return dy.copy()  # what is computed from it may be it: nothing of the caller's is handed out


def _require_finite(name: str, value: Array, allow_nonfinite: bool) -> None:
    if allow_nonfinite:
        return
    finite = np.isfinite(value)
    if not finite.all():
        index = tuple(int(i) for i in np.unravel_index(np.argmin(finite), value.shape))
        count = prod(value.shape) - int(finite.sum())
        raise ValueRangeError(
            f"{name} has {count} non-finite value{'s' if count > 1 else ''}, the first is "
            f"{value[index]} at {list(index)}: expected finite numbers (or allow_nonfinite)"
        )


def _total(contributions: list[Array]) -> Array:
    """The sum of a value's gradients, in the order in which they arrived; none of them is changed."""
    total = contributions[0]
    for gradient in contributions[1:]:
        total, _ = core["add"].forward(total, gradient)
    return total


class _Contexts:
    """The contexts of a run, as a backward pass takes them, the last node's first.

    Those of a lean run are freed when their node is done, and blobs that it does not have are computed
    again, once: a blob's readers come before the node that makes it.
    """

    def __init__(self, run: Run):
        if run._lean is not None:
            if run._lean.used:
                raise ValueRangeError(
                    "a backward pass has been through this run, which kept only outputs, and has freed what "
                    'it used: expected a run that is new, or of keep="all"'
                )
            run._lean.used = True
        self._run, self._lean = run, run._lean
        self._nodes = {node.name: node for node in run.net.nodes}
        self._again: dict[str, Array] = {}

    def of(self, node: Node) -> Context:
        context = self._run._contexts[node.name]
        if self._lean is None:
            return context

        def restored(value: Any) -> Any:
            return self._blob(value.name) if isinstance(value, Again) else value

        found: Context = replaced(context, restored)
        return found

    def done(self, node: Node) -> None:
        if self._lean is not None:
            self._run._contexts.pop(node.name, None)
            self._lean.sources.pop(node.name, None)
            self._again.pop(node.name, None)

    def _blob(self, name: str) -> Array:
        """What was given, is a source, or is computed again; kept if contexts held it."""
        assert self._lean is not None
        for there in (self._run.given, self._lean.sources, self._again):
            if name in there:
                return there[name]
        node = self._nodes[name]
        blob, _ = self._run.arithmetic[node.op].forward(*map(self._blob, node.inputs), **node.attrs)
        if name in self._lean.saved.again:
            self._again[name] = blob
        return blob
