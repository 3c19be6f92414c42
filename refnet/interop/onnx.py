"""What an ONNX model computes under ONNX Runtime, by the names of a net's nodes.

onnx and onnxruntime are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np

from refnet.arrays import REAL, Array, at_the_door, require_mapping
from refnet.check.certification import certify
from refnet.check.report import Report
from refnet.errors import DTypeError, FileError, RefnetError, ValueRangeError, kind_of, require_known
from refnet.inputs.candidate import Candidate
from refnet.interop.fit import fitted
from refnet.modules import peer
from refnet.net import Net, require_net

# What ONNX Runtime calls the types of inputs that it takes as NumPy's arrays.
TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
# Its levels of optimization, by what ends their names there.
LEVELS = ("disable_all", "enable_basic", "enable_extended", "enable_all")


def capture(
    model: Any,
    inputs: Any,
    names: Mapping[str, str] | None = None,
    *,
    optimization: str = "enable_all",
) -> Candidate:
    """Run a model with every intermediate as an output, and keep those that have a name.

    It runs on the CPU. An operator whose value is an output is not fused with the next, so what is seen are
    the kernels of single operators, in what the runtime makes of the graph otherwise.

    Parameters
    ----------
    model : path or onnx.ModelProto
        Which is left as it is.
    inputs : array_like, sequence or mapping of str to array_like
        In the order of the graph's inputs, or by their names. They are rounded to the format that the graph
        says.
    names : mapping of str to str, optional
        From names of the graph's tensors to nodes, inputs and parameters of the net: what is not named is not
        kept. By default all of real numbers are, by their own names, with ``_`` for ``/`` and ``.``
    optimization : str
        ONNX Runtime's level: "disable_all", "enable_basic", "enable_extended", or "enable_all", its default.

    Returns
    -------
    Candidate
        Blobs, and what was given: inputs, initializers and constants. There are no gradients.

    Raises
    ------
    RefnetError
        If a tensor, an input or a level is unknown, or the runtime refuses the model or an input.
    """
    onnx = peer("onnx")
    onnxruntime = peer("onnxruntime")

    require_known("optimization", optimization, LEVELS)
    proto = _loaded(onnx, model)
    names = own_names(proto) if names is None else names
    require_mapping("names", names)
    _require_distinct(names)
    tensors = _tensors(proto.graph)
    for tensor in names:
        require_known("tensor in names", tensor, tensors)
    outputs = {output.name for output in proto.graph.output}
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=tensor) for tensor in _computed(proto.graph) if tensor not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_{optimization.upper()}"
    )
    options.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = _inputs(session, inputs)
        wanted = [o.name for o in session.get_outputs() if o.name in names and o.type.startswith("tensor")]
        found = dict(zip(wanted, session.run(wanted, given) if wanted else (), strict=True))
    except RefnetError:
        raise
    except Exception as error:  # its exceptions have no class of their own
        reason = str(error).strip().splitlines()[0]
        raise ValueRangeError(f"ONNX Runtime does not run the model: {reason}") from None
    constants = {name: value for name, value in _constants(onnx, proto.graph) if name in names}
    return Candidate(
        blobs={names[tensor]: _wide(value) for tensor, value in found.items() if value.dtype.kind == "f"},
        given={names[tensor]: _wide(v) for tensor, v in {**given, **constants}.items() if tensor in names},
    )


def compare(
    model: Any,
    net: Net,
    inputs: Any,
    *,
    names: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
    optimization: str = "enable_all",
    **claims: Any,
) -> Report:
    """Capture a model, and certify what it computes as a net.

    Parameters
    ----------
    model, inputs, optimization
        As `capture` takes them.
    net : Net
        What the model should be, for these inputs.
    names : mapping of str to str, optional
        From names of the graph's tensors to nodes, inputs and parameters of the net. Equal names need none,
        with ``_`` for ``/`` and ``.``; nor do inputs, which are the net's in order, nor initializers that an
        operator reads whose value is that of a node with as many parameters.
    given : mapping of str to array_like, optional
        Inputs and parameters to certify with, in place of the model's own.
    **claims
        What the model claims, and all else that `certify` takes.

    Returns
    -------
    Report

    Raises
    ------
    RefnetError
        As `capture` and `certify` say.
    """
    require_net(net)
    onnx = peer("onnx")

    proto = _loaded(onnx, model)
    known = {*net.inputs, *net.params, *(node.name for node in net.nodes)}
    constants = dict(_constants(onnx, proto.graph))
    feeds = [value.name for value in proto.graph.input if value.name not in constants]
    said = dict(zip(feeds, net.inputs, strict=False)) | dict(names or {})
    left = known - set(said.values())
    said |= {tensor: name for tensor, name in own_names(proto).items() if tensor not in said and name in left}
    read = _read_by_operators(proto.graph, net, said, constants)
    said |= {tensor: name for tensor, name in read.items() if name not in said.values()}
    found = fitted(net, capture(proto, inputs, said, optimization=optimization))
    return certify(net, {**found.given, **(given or {})}, found, **claims)


def own_names(model: Any) -> dict[str, str]:
    """Map each tensor of a model's graph to its own name, with ``_`` for ``/`` and ``.``."""
    return {tensor: tensor.strip("/").replace("/", "_").replace(".", "_") for tensor in _tensors(model.graph)}


def _loaded(onnx: Any, model: Any) -> Any:
    """A copy of the model."""
    if isinstance(model, str | PathLike):
        try:
            loaded = onnx.load(fspath(model))
        except OSError as error:
            raise FileError(f"{fspath(model)}: {error.strerror or error}") from None
        except Exception as error:  # protobuf's, which has no class of its own
            raise FileError(f"{fspath(model)} is no ONNX model: {error}") from None
        for name in _tensors(loaded.graph):
            if not isinstance(name, str):  # protobuf hands on what is no text as bytes
                raise FileError(f"{fspath(model)} has a tensor named {name!r}: expected UTF-8")
        return loaded
    if not isinstance(model, onnx.ModelProto):
        raise DTypeError(f"model is {kind_of(model)}: expected a path or an onnx.ModelProto")
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def _computed(graph: Any) -> Iterator[str]:
    """The tensors that operators write."""
    for node in graph.node:
        if node.op_type != "Constant":
            yield from filter(None, node.output)


def _constants(onnx: Any, graph: Any) -> Iterator[tuple[str, Array]]:
    """Initializers, and what nodes hold as a tensor."""
    for initializer in graph.initializer:
        yield initializer.name, onnx.numpy_helper.to_array(initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], onnx.numpy_helper.to_array(attribute.t)


def _tensors(graph: Any) -> list[str]:
    """The names of all tensors of a graph."""
    held = [initializer.name for initializer in graph.initializer]
    written = [name for node in graph.node for name in node.output if name]
    return list(dict.fromkeys([*(value.name for value in graph.input), *held, *written]))


def _read_by_operators(
    graph: Any, net: Net, names: Mapping[str, str], constants: Mapping[str, Array]
) -> dict[str, str]:
    """The parameters of nodes, by the constants that the operators read whose values they are."""
    nodes = {node.name: node for node in net.nodes}
    found: dict[str, str] = {}
    for operator in graph.node:
        node = nodes.get(names.get(operator.output[0], ""))
        held = [tensor for tensor in operator.input if tensor in constants]
        params = [] if node is None else [name for name in node.inputs if name in net.params]
        if len(held) == len(params):
            found |= {t: name for t, name in zip(held, params, strict=True) if t not in names}
    return found


def _require_distinct(names: Mapping[str, str]) -> None:
    owner: dict[str, str] = {}
    for tensor, name in names.items():
        if owner.setdefault(name, tensor) != tensor:
            raise ValueRangeError(
                f"{owner[name]} and {tensor} are both {name}: expected names={{tensor: node}}"
            )


def _inputs(session: Any, inputs: Any) -> dict[str, Array]:
    """Arrays by the graph's names, in its formats."""
    types = {value.name: value.type for value in session.get_inputs()}
    given = inputs
    if not isinstance(inputs, Mapping):
        arrays = inputs if isinstance(inputs, list | tuple) else [inputs]
        if len(arrays) != len(types):
            raise ValueRangeError(f"{len(arrays)} inputs are given: expected {', '.join(types)}")
        given = dict(zip(types, arrays, strict=True))
    found: dict[str, Array] = {}
    for name, array in given.items():
        require_known("input", name, types)
        require_known(f"type of the input {name}", types[name], TYPES)
        wanted = np.dtype(TYPES[types[name]])
        found[name] = at_the_door(name, array, integer=wanted.kind == "i").astype(wanted)
    return found


def _wide(value: Array) -> Array:
    """Narrower numbers as float32, integers as int64."""
    if value.dtype.kind in "iu":
        return value.astype(np.int64)
    return value if value.dtype in REAL else value.astype(np.float32)
