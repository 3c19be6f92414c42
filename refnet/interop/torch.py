"""A PyTorch module that is one of the architectures: captured, compared, its gradients checked.

PyTorch is imported where it is used. Tensors on other devices are taken by ``.cpu()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refnet.arithmetic import core
from refnet.arrays import Array, at_the_door, require_one_dtype, require_wide
from refnet.check.bounds import plain
from refnet.check.captured import Call, Capture, judge_capture
from refnet.check.flow import flow
from refnet.check.formulas import FOLDED
from refnet.check.report import Report
from refnet.errors import DTypeError, ShapeError, ValueRangeError, kind_of
from refnet.inputs import fill
from refnet.interop.fit import fits
from refnet.interop.torch_capture import buffers_kept, capture, compare, load_weights
from refnet.interop.torch_names import Names, match, recognised, tensors_of
from refnet.modules import peer
from refnet.net import Net, Node, require_net
from refnet.ops import OPS
from refnet.pieces import all_finite
from refnet.shapes import Shape, text

__all__ = ["capture", "check_torch", "compare", "load_weights", "training_step", "weights"]


def check_torch(
    module: Any,
    inputs: Any,
    *,
    net: Net | None = None,
    names: Names | None = None,
    seed: int = 0,
) -> Report:
    """Judge every element of every gradient of a PyTorch module that is one of the architectures.

    One forward and one backward pass of the module run with hooks on its layers. Each layer is judged on what
    it read and on the gradient that arrived at it, in float64 by `core`, within the bound that follows from
    the tensors' dtype: its value and all that it handed back. What the module does between its layers
    (rectifiers, sums, pools, a stop, a loss) is judged by the gradients at both ends. Gradients that are
    missing are compared with the stops of the net.

    Parameters
    ----------
    module : torch.nn.Module
        Of float32 or float64, in evaluation or training mode, which it keeps. Its gradients (``.grad``),
        hooks and buffers are left as they were. A layer is a module with parameters, or a frozen norm's
        buffers, of its own: 3D, or 2D where T is 1.
    inputs : tensor or sequence of tensors
        What the module is called with: `data`, and where it takes them the labels or the boxes. A gradient of
        `data` is computed where the net says that one arrives.
    net : Net, optional
        What the module should be, for these inputs; by default the architecture of the catalog whose
        parameters its layers have.
    names : mapping of str to str, or callable, optional
        From paths of submodules to nodes. By default layers are known by equal names (``_`` for ``.``);
        those that are not named by their order.
    seed : int
        Of the gradients of the outputs: U(-1, 1), or 1 of a loss.

    Returns
    -------
    Report

    Raises
    ------
    RefnetError
        If the module is not that net: which layer, input or output does not fit, and what was expected.
    """
    if net is not None:
        require_net(net)
    torch = peer("torch")

    if not isinstance(module, torch.nn.Module):
        raise DTypeError(f"module is {kind_of(module)}: expected a torch.nn.Module")
    tensors = _as_tensors(inputs)
    title = "the net"
    if net is None:
        title, net = recognised(module, [tuple(tensor.shape) for tensor in tensors])
    nodes = match(net, module, names)
    captured = training_step(module, tensors, net, nodes, seed=seed)
    dtype = next(y.dtype for y in captured.outputs.values()).name
    verdicts = judge_capture(net, captured, plain(dtype), FOLDED)
    line = f"check_torch(module, inputs, net=net, names=names, seed={seed}).verdicts[{{tensor!r}}]"
    return Report(
        title=f"gradients of {type(module).__name__} as {title}, {dtype}",
        verdicts={
            name: replace(v, reproduce=line.format(tensor=name)) if v.verdict == "wrong" else v
            for name, v in verdicts.items()
        },
        facts={
            "module": type(module).__name__,
            "net": title,
            "names": nodes,
            "oracle": core.name,
            "dtype": dtype,
            "seed": seed,
            "elements": sum(verdict.elements for verdict in verdicts.values()),
        },
    )


def weights(module: Any, net: Net, names: Mapping[str, str]) -> dict[str, Array]:
    """The parameters of a net, from a module's layers: views of them where they are in main memory.

    Parameters
    ----------
    module : torch.nn.Module
    net : Net
    names : mapping of str to str
        From paths of layers to nodes.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ShapeError, DTypeError, ValueRangeError
        If a layer does not fit its node.
    """
    require_net(net)
    given: dict[str, Array] = {}
    for param, (path, name, tensor) in tensors_of(net, module, names).items():
        given[param] = _array(f"{path}.{name}", tensor, net.params[param])
    return given


def training_step(module: Any, inputs: Any, net: Net, names: Mapping[str, str], *, seed: int = 0) -> Capture:
    """Take one training step of a module and record what its layers read, return and hand back.

    Each layer reads its input through a view, whose gradient is what this layer alone hands back. The
    module's gradients, hooks and buffers are left as they were, also where it raises.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : tensor or sequence of tensors
    net : Net
    names : mapping of str to str
        From paths of submodules to nodes, every node with parameters among them.
    seed : int
        Of the gradients of the outputs.

    Returns
    -------
    Capture

    Raises
    ------
    RefnetError
        If a layer is called twice or never, or an input or output does not fit the net.
    """
    require_net(net)
    torch = peer("torch")

    given: dict[str, Array] = weights(module, net, names)
    tensors = _as_tensors(inputs)
    if len(tensors) > len(net.inputs):
        raise ValueRangeError(f"{len(tensors)} inputs are given: expected {', '.join(net.inputs)}")
    wanted = flow(net, net.outputs).reached
    learnt: dict[str, Any] = {}
    for index, (name, shape) in enumerate(zip(net.inputs, net.inputs.values(), strict=True)):
        if index == len(tensors):
            break
        integer = net.domain(name).integer
        given[name] = _array(name, tensors[index], shape, integer=integer)
        if name in wanted:
            learnt[name] = tensors[index] = tensors[index].detach().requires_grad_()
    constant: dict[str, str] = {}
    of_norms = {name for node in net.nodes if OPS[node.op].family == "norm" for name in node.inputs}
    for param, (path, name, tensor) in tensors_of(net, module, names).items():
        if tensor.requires_grad:
            learnt[param] = tensor
        elif not isinstance(tensor, torch.nn.Parameter):
            constant[param] = f"{path}.{name} is a buffer of the module, which it does not learn"
        elif param in of_norms:
            constant[param] = f"{path}.{name} is not learnt by the module: requires_grad is False"
    _require_alike(given)
    recorder, device = _Recorder(module, net, names), tensors[0].device.type
    with torch.inference_mode(False), torch.enable_grad(), buffers_kept(module), recorder:
        with torch.autocast(device, enabled=False):
            returned = module(*tensors)
        recorder.listening = False
        outputs = _outputs(net, returned, recorder)
        losses = [name for name in outputs if net.shape(name) == ()]
        dy = {name: _output_gradient(net, name, outputs[name], seed) for name in losses or outputs}
        starts = [name for name in dy if outputs[name].requires_grad]
        sources = [tensor for tensor in learnt.values() if tensor.requires_grad]
        found: Sequence[Any] = [None] * len(sources)
        if starts and sources:
            found = torch.autograd.grad(
                [outputs[name] for name in starts],
                sources,
                [_like(outputs[name], dy[name]) for name in starts],
                allow_unused=True,
            )
    return Capture(
        calls=recorder.calls(),
        given=given,
        outputs={n: _array(f"the output {n}", y, net.shape(n)) for n, y in outputs.items()},
        dy=dy,
        gradients={
            name: _array(f"gradient of {name}", gradient, net.shape(name))
            for name, gradient in zip(learnt, found, strict=True)
            if gradient is not None
        },
        constant=constant,
    )


@dataclass
class _Record:
    """What hooks have seen of one layer."""

    arrays: list[Array] = field(default_factory=list)
    y: Any = None
    value: Array | None = None
    dy: Any = None
    gradients: list[Any] = field(default_factory=list)
    handed: list[tuple[Any, int]] = field(default_factory=list)


class _Recorder:
    """Hooks on the layers of a module, which last as long as the context."""

    def __init__(self, module: Any, net: Net, names: Mapping[str, str]):
        self._net, self._module = net, module
        self._nodes = {node.name: node for node in net.nodes}
        self._names = names
        self._handles: list[Any] = []
        self._records: dict[str, _Record] = {}
        self.listening = True

    def __enter__(self) -> _Recorder:
        try:
            for path, name in self._names.items():
                part = self._module.get_submodule(path)
                before, after = self._hooks(path, self._nodes[name])
                self._handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
                self._handles.append(part.register_forward_hook(after, with_kwargs=True))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        for handle in self._handles:
            handle.remove()

    def is_value_of(self, tensor: Any) -> str | None:
        """The node whose layer returned this very tensor."""
        return next((name for name, record in self._records.items() if record.y is tensor), None)

    def _hooks(self, path: str, node: Node) -> tuple[Callable[..., Any], Callable[..., Any]]:
        torch = peer("torch")

        read = [name for name in node.inputs if name not in self._net.params]

        def before(part: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self.listening:
                return None
            if node.name in self._records:
                raise ValueRangeError(
                    f"{path} is called twice: expected one call, as {node.name} has parameters of its own"
                )
            record = self._records[node.name] = _Record()

            def seen(value: Any) -> Any:
                if not isinstance(value, torch.Tensor) or len(record.arrays) == len(read):
                    return value
                index = len(record.arrays)
                name = read[index]
                integer = self._net.domain(name).integer if name in self._net.inputs else False
                what = f"input {index} of {path}, {name},"
                record.arrays.append(_copy(what, value, self._net.shape(name), integer=integer))
                record.gradients.append(None)
                if not value.requires_grad:
                    return value
                # A layer that writes into its input has no other reader of what it reads.
                handed = value if getattr(part, "inplace", False) else value.view_as(value)
                handed.register_hook(lambda gradient: record.gradients.__setitem__(index, gradient))
                record.handed.append((handed, handed._version))
                return handed

            return tuple(map(seen, args)), {key: seen(value) for key, value in kwargs.items()}

        def after(part: Any, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> None:
            if not self.listening:
                return
            record = self._records[node.name]
            if not isinstance(y, torch.Tensor):
                raise DTypeError(f"{path} returned {kind_of(y)}: expected a tensor, {node.name}")
            if len(record.arrays) < len(read):
                raise ShapeError(f"{path} read {len(record.arrays)} tensors: expected {', '.join(read)}")
            inplace = getattr(part, "inplace", False)
            if not inplace and any(value._version != version for value, version in record.handed):
                raise ValueRangeError(
                    f"{path} writes into what it reads: expected a layer that leaves it as it is"
                )
            record.y, record.value = y, _copy(f"what {path} returned", y, node.shape, as_what=node.name)
            if y.requires_grad:
                y.register_hook(lambda gradient: setattr(record, "dy", gradient))

        return before, after

    def calls(self) -> dict[str, Call]:
        """What was recorded, by node.

        Raises
        ------
        ValueRangeError
            If a layer was not called.
        """
        found: dict[str, Call] = {}
        for path, name in self._names.items():
            record, node = self._records.get(name), self._nodes[name]
            if record is None or record.value is None:
                raise ValueRangeError(
                    f"{path} was not called: expected one call, that of {name}; "
                    "a function that reads its parameters cannot be judged"
                )
            dy = None if record.dy is None else _array(f"gradient of {name}", record.dy, node.shape)
            shapes = [array.shape for array in record.arrays]
            gradients = [
                None if g is None else _array(f"what {path} handed back", g, shape)
                for g, shape in zip(record.gradients, shapes, strict=True)
            ]
            found[name] = Call(record.arrays, record.value, dy, gradients)
        return found


def _require_alike(given: Mapping[str, Array]) -> None:
    """Refuse inputs and parameters of two dtypes, or that hold NaN or infinity."""
    require_one_dtype(given, given)
    for name, value in given.items():
        if not all_finite(value):
            raise ValueRangeError(f"{name} holds NaN or infinity: expected finite numbers")


def _as_tensors(inputs: Any) -> list[Any]:
    torch = peer("torch")

    found = [inputs] if isinstance(inputs, torch.Tensor) else inputs
    if (
        not isinstance(found, list | tuple)
        or not all(isinstance(t, torch.Tensor) for t in found)
        or not found
    ):
        raise DTypeError(f"inputs is {kind_of(inputs)}: expected a tensor or a sequence of tensors")
    return list(found)


def _array(name: str, tensor: Any, shape: Shape, *, integer: bool = False, as_what: str = "") -> Array:
    """A tensor as refnet reads it, in the shape of the net."""
    found = tuple(tensor.shape)
    if not fits(found, shape):
        wanted = f", that of {as_what}" if as_what else ""
        raise ShapeError(f"{name} has shape {text(found)}: expected {text(shape)}{wanted}")
    require_wide(name, tensor)
    return at_the_door(name, tensor.detach().cpu(), integer=integer).reshape(shape)


def _copy(name: str, tensor: Any, shape: Shape, *, integer: bool = False, as_what: str = "") -> Array:
    """The same, in memory of its own: modules may write in place later."""
    return _array(name, tensor, shape, integer=integer, as_what=as_what).copy()


def _outputs(net: Net, returned: Any, recorder: _Recorder) -> dict[str, Any]:
    """The tensors that a module returned, by node: a layer's own, else the outputs of the net by shape."""
    torch = peer("torch")

    tensors = [returned] if isinstance(returned, torch.Tensor) else returned
    if isinstance(tensors, Mapping):
        tensors = list(tensors.values())
    if not isinstance(tensors, list | tuple) or not all(isinstance(t, torch.Tensor) for t in tensors):
        raise DTypeError(f"the module returned {kind_of(returned)}: expected a tensor or several")
    found: dict[str, Any] = {}
    for tensor in tensors:
        shape = tuple(tensor.shape)
        of_layer = recorder.is_value_of(tensor)
        open_outputs = [n for n, wanted in net.outputs.items() if n not in found and fits(shape, wanted)]
        if of_layer is None and not open_outputs:
            wanted = ", ".join(f"{name} {text(size)}" for name, size in net.outputs.items())
            raise ShapeError(f"the module returned a tensor of shape {text(shape)}: expected {wanted}")
        found[of_layer or open_outputs[0]] = tensor
    return found


def _output_gradient(net: Net, name: str, y: Any, seed: int) -> Array:
    """Draw dy of an output; of a loss it is 1."""
    dtype = str(y.dtype).removeprefix("torch.")
    if net.shape(name) == ():
        return np.ones((), dtype)
    return fill.uniform(f"gradient of {name}", net.shape(name), seed).astype(dtype)


def _like(y: Any, dy: Array) -> Any:
    """Dy as a tensor like y."""
    torch = peer("torch")

    return torch.from_numpy(dy.copy()).reshape(y.shape).to(y.device)
