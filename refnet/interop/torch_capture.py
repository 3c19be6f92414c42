"""What a PyTorch module computes in one forward and one backward pass, by the names of a net's nodes.

PyTorch is imported where it is used. Tensors on other devices are taken by ``.cpu()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from refnet.arrays import Array, at_the_door, require_mapping
from refnet.check.certification import certify
from refnet.check.flow import flow
from refnet.check.report import Report
from refnet.errors import DTypeError, ShapeError, ValueRangeError, kind_of, require_known
from refnet.inputs import fill
from refnet.inputs.candidate import Candidate
from refnet.interop.fit import fits, fitted
from refnet.interop.torch_names import layer_of, match, tensors_of
from refnet.modules import peer
from refnet.net import Net, require_net
from refnet.shapes import text

# From paths of submodules to nodes, or of tensors to parameters.
Names = Mapping[str, str | Sequence[str]]

# How the builders' parameters end, by what PyTorch calls them.
ENDINGS = {"bias": "_b", "running_mean": "_rm", "running_var": "_riv"}
COMPILED = "_orig_mod"


def capture(
    module: Any,
    inputs: Any,
    names: Names,
    *,
    output_gradients: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Candidate:
    """Run a module forward and backward once, and keep the values and gradients that have a name.

    The modules run as they are: in the caller's autocast, in their mode, in the formats of their weights.
    Values are copied as they are returned, so that what is written in place afterwards changes none. The
    gradient of a value is the whole one, the sum of what all its readers hand back. The module's gradients
    (``.grad``), hooks, buffers and mode are left as they were, also where it raises.

    A module that `torch.compile` has compiled as a whole is compiled anew with a break at every named
    submodule, and what this process has compiled is forgotten (`torch.compiler.reset`). One that returns its
    blobs needs no break: ``names={"": [node, ...]}``; the gradients of blobs are then not known. Submodules
    that are compiled one by one run as they are.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : tensor or mapping of str to tensor
        What the module is called with, by the net's names, in the order in which it takes them; one tensor is
        `data`. A gradient is computed of those that require one.
    names : mapping of str to str
        From paths of submodules to nodes, whose values they return. Of one that is called several times, the
        nodes of its calls in order. ``""`` is the module itself: the node, or nodes, that it returns where
        they are the value of no submodule that is named. Paths of parameters and buffers may be named too, as
        parameters of the net; by default those of a node's module are its ``_w`` (one number a channel:
        ``_s``), ``_b``, ``_rm`` and ``_riv``.
    output_gradients : mapping of str to array_like, optional
        dy by node, in the shape of the value. By default those of what the module returns, drawn as
        `fill.output_gradients` draws them: U(-1, 1), or 1 of the losses alone. Empty: no backward pass.
    seed : int
        Of what is drawn.

    Returns
    -------
    Candidate
        In float32 or float64; values in float16 or bfloat16 are those numbers in float32.

    Raises
    ------
    RefnetError
        If a path is unknown, a module is not called as often as nodes are named, or an output has no name.
    """
    torch = peer("torch")

    if not isinstance(module, torch.nn.Module):
        raise DTypeError(f"module is {kind_of(module)}: expected a torch.nn.Module")
    nodes, params = _sorted_out(module, names)
    recorder = _Recorder(nodes)
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        tensors = {
            name: tensor.detach().clone().requires_grad_(tensor.requires_grad)
            for name, tensor in _inputs(inputs).items()
        }
        given = {name: values(tensor) for name, tensor in (tensors | params).items()}
        stack.enter_context(buffers_kept(module))
        stack.enter_context(_compiled_anew(module))
        stack.enter_context(recorder.listening(module))
        returned = recorder.named(module(*tensors.values()))
        recorder.require_all()
        dy = _starts(recorder, returned, output_gradients, seed)
        learnt = {name: t for name, t in (tensors | params).items() if t.requires_grad}
        gradients = _backward(recorder, dy, {**learnt, **_unnamed(module, learnt)})
    return Candidate(
        blobs=recorder.values,
        gradients={name: gradient for name, gradient in gradients.items() if name in learnt},
        blob_gradients=recorder.gradients,
        output_gradients={name: values(tensor) for name, tensor in dy.items()},
        given=given,
    )


def compare(
    module: Any,
    net: Net,
    inputs: Any,
    *,
    names: Names | None = None,
    given: Mapping[str, Any] | None = None,
    output_gradients: Mapping[str, Any] | None = None,
    seed: int = 0,
    **claims: Any,
) -> Report:
    """Capture a module, and certify what it computes as a net.

    Parameters
    ----------
    module : torch.nn.Module
    net : Net
        What the module should be, for these inputs.
    inputs : tensor, sequence of tensors, or mapping of str to tensor
        What the module is called with, in the order of the net's inputs. Gradients are computed of those that
        one arrives at in the net.
    names : mapping of str to str, optional
        As `capture` takes them. Layers that are not named are known by equal names (``_`` for ``.``), else by
        their order; what the module returns and no submodule does is the net's outputs, in order.
    given : mapping of str to array_like, optional
        Inputs and parameters to certify with, in place of the module's own.
    output_gradients, seed
        As `capture` takes them.
    **claims
        What the module claims, and all else that `certify` takes: `store`, `operands`, `axes`, ...

    Returns
    -------
    Report

    Raises
    ------
    RefnetError
        If a layer is none of the net's, or as `capture` and `certify` say.
    """
    require_net(net)
    torch = peer("torch")

    if not isinstance(module, torch.nn.Module):
        raise DTypeError(f"module is {kind_of(module)}: expected a torch.nn.Module")
    paths = names_in(module, net, {} if names is None else names)
    wanted = flow(net, net.outputs).reached
    tensors = {
        name: tensor.detach().requires_grad_(tensor.is_floating_point() and name in wanted)
        for name, tensor in _inputs(inputs, list(net.inputs)).items()
    }
    candidate = capture(module, tensors, paths, output_gradients=output_gradients, seed=seed)
    found = fitted(net, candidate)
    return certify(net, {**found.given, **(given or {})}, found, **claims)


def load_weights(module: Any, params: Mapping[str, Any], names: Names) -> None:
    """Write parameters of a net into a module's layers.

    Parameters
    ----------
    module : torch.nn.Module
    params : mapping of str to array_like
        By the net's names: what `fill.params` draws, or a bundle holds. Each is rounded to the format of
        its tensor.
    names : mapping of str to str
        As `capture` takes them. Parameters and buffers of layers that are not named are left as they are.

    Raises
    ------
    RefnetError
        If a parameter has no layer, a layer no parameter, or a shape does not fit; nothing is then written.
    """
    torch = peer("torch")

    require_mapping("params", params)
    _, tensors = _sorted_out(module, names)
    for name in params:
        require_known("parameter among the layers that names name", name, tensors)
    given: dict[str, Any] = {}
    for name, tensor in tensors.items():
        require_known("parameter", name, params)
        given[name] = value = torch.from_numpy(at_the_door(name, params[name]).copy())
        if not fits(tuple(tensor.shape), tuple(value.shape)):
            raise ShapeError(
                f"{name} has shape {text(tuple(value.shape))}: expected {text(tuple(tensor.shape))}, "
                "that of its tensor"
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(given[name].reshape(tensor.shape))


def names_in(module: Any, net: Net, names: Names) -> dict[str, str | Sequence[str]]:
    """Complete names: every layer, every tensor, and what the module returns.

    Parameters
    ----------
    module : torch.nn.Module
    net : Net
    names : mapping of str to str
        As `capture` takes them.

    Returns
    -------
    dict of str to str

    Raises
    ------
    UnknownNameError, ShapeError, ValueRangeError
        If a layer is none of the net's.
    """
    require_mapping("names", names)
    bare = getattr(module, COMPILED, module)
    parts = {_bare(path): (path, part) for path, part in bare.named_modules() if path}
    nodes = {node.name for node in net.nodes}
    said = {name for entry in names.values() for name in ([entry] if isinstance(entry, str) else entry)}
    once = {path: name for path, name in names.items() if path in parts and isinstance(name, str)}
    for path in parts:
        name = path.replace(".", "_")
        if path not in names and name in nodes - said:
            once[path] = name
    layers = match(net, bare, {parts[path][0]: name for path, name in once.items()})
    tensors = {f"{path}.{own}": param for param, (path, own, _) in tensors_of(net, bare, layers).items()}
    recorded = {path: name for path, name in layers.items() if name not in said}
    found: dict[str, str | Sequence[str]] = {
        _bare(path): name for path, name in (tensors | recorded | dict(names)).items()
    }
    found.setdefault("", [name for name in net.outputs if name not in {*recorded.values(), *said}])
    return found


def values(tensor: Any) -> Array:
    """A tensor's values in memory of their own: narrower ones in float32, integers in int64."""
    torch = peer("torch")

    found = tensor.detach().cpu()
    if found.dtype not in (torch.float32, torch.float64):
        found = found.float() if found.is_floating_point() else found.long()
    return np.array(found.numpy(), order="C")


@contextmanager
def buffers_kept(module: Any) -> Iterator[None]:
    """Write back the buffers that a forward pass changes: running statistics, counters."""
    torch = peer("torch")

    before = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in before and not torch.equal(buffer, before[name]):
                    buffer.copy_(before[name])


class _Recorder:
    """Hooks that record what modules return, and the gradients that arrive there.

    Attributes
    ----------
    values : dict of str to ndarray
        By node.
    tensors : dict of str to tensor
    gradients : dict of str to ndarray
    """

    def __init__(self, nodes: Mapping[str, list[str]]):
        self._nodes = nodes
        self._calls = dict.fromkeys(nodes, 0)
        self._versions: dict[str, int] = {}
        self.values: dict[str, Array] = {}
        self.tensors: dict[str, Any] = {}
        self.gradients: dict[str, Array] = {}

    @contextmanager
    def listening(self, module: Any) -> Iterator[None]:
        """Hooks on the modules that are named, but for the module itself."""
        torch = peer("torch")

        parts, handles = _parts(module), []
        uncompiled = torch.compiler.disable if _is_compiled(module) else lambda hook: hook
        try:
            for path in filter(None, self._nodes):
                handles.append(parts[path].register_forward_hook(uncompiled(self._hook(path))))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def named(self, returned: Any) -> list[str]:
        """The nodes that a module returned: values that are recorded, the others under its own names."""
        torch = peer("torch")

        tensors = list(returned.values()) if isinstance(returned, Mapping) else returned
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else tensors
        if not isinstance(tensors, list | tuple) or not all(isinstance(t, torch.Tensor) for t in tensors):
            raise DTypeError(f"the module returned {kind_of(returned)}: expected a tensor or several")
        found, own = [], list(self._nodes.get("", []))
        for index, tensor in enumerate(tensors):
            known = [n for n, t in self.tensors.items() if t is tensor and t._version == self._versions[n]]
            if known:
                found.append(known[-1])
                continue
            if not own:
                raise ValueRangeError(
                    f"output {index} of the module, {text(tuple(tensor.shape))}, is the value of no named "
                    'submodule: name the module itself, names={"": node}, or nodes where it returns several'
                )
            found.append(own.pop(0))
            self._record(found[-1], tensor)
        return found

    def require_all(self) -> None:
        """Refuse modules that were called less often than names say."""
        for path, nodes in self._nodes.items():
            if path and self._calls[path] < len(nodes):
                raise ValueRangeError(
                    f"{path} was called {self._calls[path]} times: expected {len(nodes)}, "
                    f"as names say {', '.join(nodes)}"
                )

    def require_unchanged(self, name: str) -> None:
        """Refuse to start a backward pass from a value that something has been written over."""
        if self.tensors[name]._version != self._versions[name]:
            raise ValueRangeError(f"{name} is written over in place later: expected a value that is kept")

    def _hook(self, path: str) -> Callable[[Any, Any, Any], None]:
        torch = peer("torch")

        def hook(part: Any, args: Any, y: Any) -> None:
            nodes, call = self._nodes[path], self._calls[path]
            self._calls[path] += 1
            if call == len(nodes):
                raise ValueRangeError(
                    f"{path} is called more often than nodes are named, {', '.join(nodes)}: "
                    f"expected names={{{path!r}: [node, ...]}}, one for each call"
                )
            if not isinstance(y, torch.Tensor):
                raise DTypeError(f"{path} returned {kind_of(y)}: expected a tensor, {nodes[call]}")
            self._record(nodes[call], y)

        return hook

    def _record(self, name: str, y: Any) -> None:
        self.values[name], self.tensors[name], self._versions[name] = values(y), y, y._version

        def arrived(gradient: Any) -> None:
            if gradient is not None:  # as it is of an output of compiled code that nothing reads
                self.gradients[name] = values(gradient)

        if y.requires_grad:
            y.register_hook(arrived)


def _parts(module: Any) -> dict[str, Any]:
    """Submodules by path, those of a compiled module by the paths that they had before."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        found.setdefault(_bare(path), part)
    return found


def _bare(path: str) -> str:
    return ".".join(word for word in path.split(".") if word != COMPILED)


def _is_compiled(module: Any) -> bool:
    return any(
        hasattr(part, COMPILED) or getattr(part, "_compiled_call_impl", None) is not None
        for part in module.modules()
    )


@contextmanager
def _compiled_anew(module: Any) -> Iterator[None]:
    """Let compiled modules see hooks, and forget them afterwards: both need that they are compiled again."""
    torch = peer("torch")

    if not _is_compiled(module):
        yield
        return
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()


def _sorted_out(module: Any, names: Names) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The nodes of each module that is named, and the tensor of each parameter."""
    require_mapping("names", names)
    parts = _parts(module)
    tensors = {_bare(p): t for p, t in (*module.named_parameters(), *module.named_buffers())}
    nodes: dict[str, list[str]] = {}
    params: dict[str, Any] = {}
    by_name: dict[str, str] = {}
    for path, said in names.items():
        require_known("path of a submodule or tensor in names", path, (*parts, *tensors))
        entries = [said] if isinstance(said, str) else list(said)
        for name in entries:
            if by_name.setdefault(name, path) != path or entries.count(name) > 1:
                raise ValueRangeError(
                    f"names say that {by_name[name]} and {path} are {name}: expected one of them"
                )
        if path in parts:
            nodes[path] = entries
        else:
            params[entries[0]] = tensors[path]
    for path, entries in nodes.items():
        layer = layer_of(path, getattr(parts[path], COMPILED, parts[path]))
        for own, tensor in layer.tensors.items() if len(entries) == 1 else ():
            ending = ("_w" if tensor.ndim > 1 else "_s") if own == "weight" else ENDINGS.get(own)
            if ending and not any(tensor is named for named in params.values()):
                params[entries[0] + ending] = tensor
    return nodes, params


def _inputs(inputs: Any, order: Sequence[str] = ("data",)) -> dict[str, Any]:
    """Tensors by name."""
    torch = peer("torch")

    found = [inputs] if isinstance(inputs, torch.Tensor) else inputs
    if isinstance(found, list | tuple) and found:
        if len(found) > len(order):
            raise ValueRangeError(f"{len(found)} inputs are given: expected {', '.join(order)}")
        found = dict(zip(order, found, strict=False))
    if not isinstance(found, Mapping) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise DTypeError(f"inputs is {kind_of(inputs)}: expected a tensor, or tensors by name")
    return dict(found)


def _starts(
    recorder: _Recorder, returned: list[str], output_gradients: Mapping[str, Any] | None, seed: int
) -> dict[str, Any]:
    """The gradients that a backward pass starts from, tensors like the values."""
    torch = peer("torch")

    if output_gradients is None:
        found = fill.gradients_of({name: recorder.values[name].shape for name in returned}, seed)
    else:
        require_mapping("output_gradients", output_gradients)
        found = {}
        for name, dy in output_gradients.items():
            require_known("node to start backward from", name, recorder.values)
            found[name] = at_the_door(f"gradient of {name}", dy)
    tensors: dict[str, Any] = {}
    for name, dy in found.items():
        recorder.require_unchanged(name)
        y = recorder.tensors[name]
        shape = tuple(y.shape)
        if not (fits(shape, dy.shape) or fits(dy.shape, shape)):
            raise ShapeError(
                f"gradient of {name} has shape {text(dy.shape)}: expected {text(shape)}, that of its value"
            )
        tensors[name] = torch.from_numpy(dy.copy()).reshape(y.shape).to(device=y.device, dtype=y.dtype)
    return tensors


def _unnamed(module: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """What a module learns beside: a gradient flows to it, too."""
    known = {id(tensor) for tensor in named.values()}
    return {
        f"unnamed {path}": parameter
        for path, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in known
    }


def _backward(recorder: _Recorder, dy: Mapping[str, Any], learnt: Mapping[str, Any]) -> dict[str, Array]:
    """The gradients of what is learnt, those that there are."""
    torch = peer("torch")

    starts = [name for name in dy if recorder.tensors[name].requires_grad]
    if not starts or not learnt:
        return {}
    found = torch.autograd.grad(
        [recorder.tensors[name] for name in starts],
        list(learnt.values()),
        [dy[name] for name in starts],
        allow_unused=True,
    )
    return {name: values(g) for name, g in zip(learnt, found, strict=True) if g is not None}
