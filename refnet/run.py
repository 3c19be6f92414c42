"""Forward and backward walks over a net, under one arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from refnet import memory
from refnet.arithmetic import Arithmetic, named
from refnet.arithmetic.exact.fallback import Count
from refnet.arithmetic.exact.fallback import counted as counting
from refnet.arrays import Array, read_only, require_mapping, shapes_of
from refnet.errors import (
    KernelError,
    NotFiniteError,
    RefnetError,
    UnknownNameError,
    ValueRangeError,
    at,
    one_line,
    require_kind,
    require_known,
)
from refnet.given import clean_gradient, clean_values, real_dtype
from refnet.net import Net, Node, ends, learns_from, require_net
from refnet.pieces import all_finite
from refnet.remat import Keep, LeanTape, Tape, blob_bytes, gradient_bytes, planned
from refnet.shown import Names, ShownMapping, Table, counted

if TYPE_CHECKING:
    from refnet.golden import Bundle

# What a kernel returned that is of no use to anybody, and what to do.
ONLY_NAN = (
    "nothing but NaN, though all that it read is finite: expected numbers "
    "(or allow_nonfinite, where sums may overflow)"
)
# Of a node, or of a value whose gradients met: what was counted of it.
Fallbacks = dict[str, dict[str, Count]]


@dataclass(frozen=True, repr=False, eq=False)
class Run(ShownMapping[Array]):
    """A finished forward pass: a mapping of the name of every input, parameter and node to its value.

    It can be pickled where its arithmetic can: refnet's, or one whose own kernels are functions of modules.

    Attributes
    ----------
    net : Net
    arithmetic : Arithmetic
    given : dict of str to ndarray
        Inputs and parameters: read-only views of the caller's arrays where those were as a kernel
        needs them, so whoever changes them before `backward` changes its result.
    blobs : dict of str to ndarray
        The value of every node, or, where only those were kept, of the outputs: read-only, for `backward`
        reads them; who wants to change one copies it. A plain dict: `run[name]` is the value too, and
        suggests a name where that is unknown.
    fallbacks : dict of str to dict of str to Count
        Of exact arithmetic, by node: of what it computed (``y``), how many elements, and how many of them
        needed integers.
    """

    net: Net
    arithmetic: Arithmetic
    given: dict[str, Array]
    blobs: dict[str, Array]
    _tape: Tape
    fallbacks: Fallbacks = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """The value of a node, input or parameter.

        Raises
        ------
        UnknownNameError
            If the run has no such value, or did not keep it.
        """
        require_known("value of the run", name, [*self])
        return self.blobs[name] if name in self.blobs else self.given[name]

    def __iter__(self) -> Iterator[str]:
        yield from (*self.given, *self.blobs)

    def __contains__(self, name: object) -> bool:
        return name in self.given or name in self.blobs

    def __len__(self) -> int:
        return len(self.given) + len(self.blobs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled or copied: of arrays, NumPy forgets that they are read-only."""
        self.__dict__.update(state)
        for part in ("given", "blobs"):
            self.__dict__[part] = {name: read_only(value) for name, value in state[part].items()}

    def _shown(self) -> Table:
        kept = memory.text(sum(blob.nbytes for blob in self.blobs.values()))
        title = f"run of {counted(len(self.net.nodes), 'node')} in {self.arithmetic.name}"
        rows = [
            *ends(self.net),
            ("dtype", str(real_dtype(self.given))),
            ("kept", f"{counted(len(self.blobs), 'blob')}, {kept}"),
        ]
        return Table(title, ("", ""), rows)

    def save(self, out: str | Path, gradients: Gradients | None = None, **options: Any) -> Bundle:
        """Write a golden bundle of this run: what it was given, its blobs, and gradients.

        Parameters
        ----------
        out : str or Path
            The folder to be written. It appears complete or not at all.
        gradients : Gradients, optional
            What `refnet.backward` found for this run.
        **options
            Those of `refnet.golden.save`: only, hashes_only, store, force.

        Returns
        -------
        refnet.golden.Bundle

        Raises
        ------
        RefnetError
            As `refnet.golden.save` raises it.
        """
        from refnet.golden import save  # the one look upward: taken when it is called

        return save(out, self, gradients, **options)


class Gradients(ShownMapping[Array]):
    """Gradients by name of input or parameter; absent means blocked, unconnected, or given and not learnt.

    Attributes
    ----------
    blocked : frozenset of str
        The inputs and parameters that the outputs depend on, but only through a gradient stop. What
        is given and not learnt (labels, boxes, masks, statistics) is none of them.
    fallbacks : dict of str to dict of str to Count
        Of exact arithmetic, by node, input or parameter: of what was computed (``dx``, ``dw``; ``sum``, where
        several gradients met), how many elements, and how many of them needed integers.
    output_gradients : dict of str to ndarray
        What backward started from, by node: the caller's own arrays.
    """

    def __init__(
        self,
        gradients: Mapping[str, Array],
        blocked: frozenset[str],
        fallbacks: Fallbacks | None = None,
        output_gradients: Mapping[str, Array] | None = None,
    ):
        self._gradients = dict(gradients)
        self.blocked, self.fallbacks = Names(blocked), fallbacks or {}
        self.output_gradients = dict(output_gradients or {})

    def __getitem__(self, name: str) -> Array:
        if name in self._gradients:
            return self._gradients[name]
        if name in self.blocked:
            raise KeyError(f"{name}: its gradient is blocked")
        raise UnknownNameError("gradient", name, self._gradients)

    def __contains__(self, name: object) -> bool:
        return name in self._gradients

    def __iter__(self) -> Iterator[str]:
        return iter(self._gradients)

    def __len__(self) -> int:
        return len(self._gradients)

    def _shown(self) -> Table:
        title = f"{counted(len(self), 'gradient')} computed, {len(self.blocked)} blocked"
        rows = shapes_of(self._gradients) + [(name, "", "blocked") for name in sorted(self.blocked)]
        return Table(title, ("name", "shape", "dtype"), rows)


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
        memory layout and byte order. They are never modified. The run is in their dtype; float16 and
        bfloat16 are taken as float32, which holds each of their values, and so is what is computed.
    arithmetic : str or Arithmetic
    keep : {"all", "outputs"}
        With "outputs", a blob is freed as soon as neither a later node nor `backward` needs it, or can
        compute it again by a mere pass over memory. `backward` can go through such a run once: it frees
        what it has used.
    allow_nonfinite : bool
        Accept NaN and infinity in `given`, and kernels that make only NaN of finite numbers.
    on_node : callable, optional
        Told each node once it has been computed.

    Returns
    -------
    Run

    Raises
    ------
    UnknownNameError, ShapeError, DTypeError, ValueRangeError
        If something is missing from `given`, unknown, or of the wrong shape, dtype or value. The message
        names the node, also where a kernel returned what does not fit.
    KernelError
        If a kernel raises an exception, or returns nothing but NaN.
    TooLargeError
        If the blobs would not fit into memory.
    """
    require_net(net)
    arithmetic = named(arithmetic)
    require_known("value of keep", keep, get_args(Keep))
    values = clean_values(net, given, allow_nonfinite)
    memory.require(blob_bytes(net, _itemsize(values), keep), "a forward run")

    tape = LeanTape(net, arithmetic, values) if keep == "outputs" else Tape()
    blobs, fallbacks = dict[str, Array](), Fallbacks()
    for node, frees in zip(net.nodes, planned(net).frees, strict=True):
        arrays = [values[name] if name in values else blobs[name] for name in node.inputs]
        call = f"{arithmetic.name} {node.op} forward"
        with _noting(fallbacks, f"{node.name} ({node.op})", call, node.name, node.inputs):
            y, context = arithmetic[node.op].forward(*arrays, **node.attrs)
            if not allow_nonfinite and _is_nan(y) and all(map(all_finite, arrays)):
                raise KernelError(f"{call} returned {ONLY_NAN}")
        blobs[node.name] = read_only(y)
        tape.record(node, context, blobs)
        del y, arrays, context  # or they would keep alive what is freed below
        if keep == "outputs":
            for name in frees:
                del blobs[name]
        if on_node is not None:
            on_node(node)
    return Run(net, arithmetic, values, blobs, tape, fallbacks)


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
        Accept NaN and infinity in `output_gradients`, and kernels that make only NaN of finite numbers.
    on_node : callable, optional
        Told each node once its input gradients have been computed.

    Returns
    -------
    Gradients

    Raises
    ------
    UnknownNameError, ShapeError, DTypeError, ValueRangeError
        If no gradient is given, or one for no node, or of the wrong shape, dtype or value, or the run keeps
        only outputs and a backward pass has been through it. The message names the node where a kernel
        returned what does not fit.
    KernelError
        If a kernel raises an exception, or returns nothing but NaN.
    TooLargeError
        If the gradients would not fit into memory.
    """
    require_kind("run", run, Run, "as refnet.forward returns one")
    net, tape = run.net, run._tape
    pending = _checked_gradients(run, output_gradients, allow_nonfinite)
    memory.require(gradient_bytes(net, _itemsize(run.given)), "a backward run")
    trainable = planned(net).trainable
    fallbacks: Fallbacks = {}
    tape.start()
    for node in reversed(net.nodes):
        learns = trainable.intersection(learns_from(node))
        if node.name in pending and learns:
            context = tape.context(node)
            needs = tuple(name in learns for name in node.inputs)
            call = f"{run.arithmetic.name} {node.op} backward"
            with _noting(fallbacks, f"{node.name} ({node.op})", call, node.name):
                dy = run.arithmetic.total(pending.pop(node.name))
                gradients = run.arithmetic[node.op].backward(dy, context, needs)
                empty = [] if allow_nonfinite else [i for i, g in enumerate(gradients) if _is_nan(g)]
                if empty and all_finite(dy) and _read_numbers(run, node):
                    of = node.inputs[empty[0]]
                    raise KernelError(f"{call} returned for the gradient of {of} {ONLY_NAN}")
            for name, gradient in zip(node.inputs, gradients, strict=True):
                if gradient is not None and name in learns:
                    pending.setdefault(name, []).append(gradient)
            del dy, gradients, context  # or they would keep alive what the next node takes
            if on_node is not None:
                on_node(node)
        tape.done(node)
    computed = {}
    for name in (*net.inputs, *net.params):
        if name in pending:
            with _noting(fallbacks, f"gradient of {name}", f"{run.arithmetic.name} add", name):
                computed[name] = run.arithmetic.total(pending[name])
    blocked = (net.learnt() & net.upstream(output_gradients)) - computed.keys()
    return Gradients(computed, frozenset(blocked), fallbacks, output_gradients)


@contextmanager
def _noting(
    fallbacks: Fallbacks, place: str, call: str, name: str, inputs: tuple[str, ...] = ()
) -> Iterator[None]:
    """Note what is counted of a node, and name it, or the blob that was refused, where its kernel fails."""
    with counting() as counts:
        try:
            yield
        except NotFiniteError as error:
            raise error.within(name, inputs) from None
        except RefnetError as error:
            raise at(place, error) from None
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:  # whatever somebody's kernel raises
            raise KernelError(f"{place}: {call} raised {type(error).__name__}: {one_line(error)}") from error
    if counts.of:
        fallbacks[name] = counts.of


def _is_nan(found: Array | None) -> bool:
    """Whether an array holds nothing but NaN: seldom more than a look at its first value."""
    return found is not None and found.size > 0 and bool(np.isnan(found.flat[0]) and np.isnan(found).all())


def _read_numbers(run: Run, node: Node) -> bool:
    """Whether what a node has read is finite; of what the run has not kept, what it was computed from."""
    known = run.given | run.blobs
    names = node.inputs if all(name in known for name in node.inputs) else (*run.given, *node.inputs)
    return all(all_finite(known[name]) for name in names if name in known)


def _checked_gradients(
    run: Run, output_gradients: Mapping[str, Array], allow_nonfinite: bool
) -> dict[str, list[Array]]:
    """The gradients that a backward pass starts from: for each node a list of one."""
    require_mapping("output_gradients", output_gradients)
    if not output_gradients:
        raise ValueRangeError(
            "output_gradients is empty, and there is nothing to start from: expected the gradient of "
            f"{' and '.join(run.net.outputs)}, or of other nodes"
        )
    shapes = {node.name: node.shape for node in run.net.nodes}
    dtype, pending = real_dtype(run.given), {}
    for name, dy in output_gradients.items():
        require_known("node to start backward from", name, shapes)
        if name not in run._tape and name not in run.net.outputs:
            raise ValueRangeError(
                f"backward cannot start from {name}: the run kept only what the outputs need; "
                'run forward with keep="all"'
            )
        pending[name] = [clean_gradient(name, dy, shapes[name], dtype, allow_nonfinite)]
    return pending


def _itemsize(values: Mapping[str, Array]) -> int:
    """Bytes of an element of what is computed."""
    dtype = real_dtype(values)
    return 0 if dtype is None else dtype.itemsize
