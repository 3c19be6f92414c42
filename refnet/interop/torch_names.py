"""Which of a PyTorch module's layers is which node of a net, and of which net.

A layer is a module with tensors of its own: parameters, or the buffers of a norm that is frozen.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from refnet.errors import DTypeError, RefnetError, ShapeError, ValueRangeError, brief, require_known
from refnet.interop.fit import fits
from refnet.net import Net, Node
from refnet.networks.catalog import ARCHITECTURES, Architecture
from refnet.ops.batch_norm import EPSILON
from refnet.shapes import Shape, text

Names = Mapping[str, str] | Callable[[str], str | None]

# What modules call their tensors, in the order of refnet's operators; others come as they were registered.
ROLES = ("weight", "bias", "running_mean", "running_var")
NO_LAYERS = ("running_mean", "running_variance")


class Layer(NamedTuple):
    """A module with tensors of its own.

    Attributes
    ----------
    path : str
        Where it is in the module that is checked.
    module : torch.nn.Module
    tensors : dict of str to tensor
        Parameters and buffers by their names in it, in the order of refnet's operators.
    """

    path: str
    module: Any
    tensors: dict[str, Any]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {text(tuple(t.shape))}" for name, t in self.tensors.items())
        return f"{self.path or 'the module itself'} ({type(self.module).__name__}: {sizes})"


def layers(module: Any) -> list[Layer]:
    """The layers of a module, in the order in which they were registered.

    Raises
    ------
    ValueRangeError
        If two share a tensor, or one computes its weights from others.
    """
    found = [layer for path, part in module.named_modules() if (layer := layer_of(path, part)).tensors]
    owner: dict[int, str] = {}
    for layer in found:
        where, _, parametrized = layer.path.partition(".parametrizations.")
        if parametrized:
            raise ValueRangeError(
                f"{where} computes its {parametrized} anew at each call: expected a parameter "
                "(torch.nn.utils.parametrize.remove_parametrizations)"
            )
        for name, tensor in layer.tensors.items():
            path = f"{layer.path}.{name}"
            if owner.setdefault(id(tensor), path) != path:
                raise ValueRangeError(
                    f"{path} is {owner[id(tensor)]}: expected parameters of its own, as every node has"
                )
    return found


def layer_of(path: str, part: Any) -> Layer:
    """One module as a layer."""
    own = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
    own.pop("num_batches_tracked", None)
    ordered = {name: own[name] for name in ROLES if name in own}
    return Layer(path, part, ordered | own)


def learning(net: Net) -> list[Node]:
    """The nodes that layers are: those with parameters."""
    return [n for n in net.nodes if n.op not in NO_LAYERS and any(i in net.params for i in n.inputs)]


def params_of(net: Net, node: Node) -> list[str]:
    """The names of a node's parameters, running statistics beside a batch norm in training included."""
    found = [name for name in node.inputs if name in net.params]
    if node.op == "batch_norm_training":
        beside = {n.name: n for n in net.nodes}
        found += [
            beside[f"{node.name}_{kind}"].inputs[1] for kind in NO_LAYERS if f"{node.name}_{kind}" in beside
        ]
    return found


def tensors_of(net: Net, module: Any, names: Mapping[str, str]) -> dict[str, tuple[str, str, Any]]:
    """Of each parameter of a net, the path of the layer, the tensor's name in it, the tensor."""
    nodes = {node.name: node for node in net.nodes}
    found: dict[str, tuple[str, str, Any]] = {}
    for path, name in names.items():
        part, node = module.get_submodule(path), nodes[name]
        layer, params = layer_of(path, part), params_of(net, node)
        if len(params) != len(layer.tensors):
            raise ShapeError(f"{layer}: expected {len(params)} tensors, those of {name} ({node.op})")
        said, wanted = getattr(part, "eps", None), node.attrs.get("epsilon", EPSILON)
        if node.op.startswith("batch_norm") and said not in (None, wanted):
            raise ValueRangeError(f"{path} has eps {said}: expected {wanted}, the epsilon of {name}")
        for param, (own, tensor) in zip(params, layer.tensors.items(), strict=True):
            found[param] = (path, own, tensor)
    return found


def misfit(net: Net, layer: Layer, node: Node) -> str | None:
    """Why a layer is not that node; None where its tensors fit."""
    expected = [net.params[name] for name in params_of(net, node)]
    found = [tuple(tensor.shape) for tensor in layer.tensors.values()]
    if len(found) == len(expected) and all(map(fits, found, expected)):
        return None
    sizes = ", ".join(
        f"{name} {text(shape)}" for name, shape in zip(params_of(net, node), expected, strict=True)
    )
    advice = ""
    if node.op == "affine" and len(found) == 4:
        advice = "; a batch norm with statistics is a node of a net that is built with batch_norm=True"
    if node.op == "conv3d" and len(found) == len(expected) + 1:
        advice = "; that convolution has no bias"
    return f"{layer}: expected {node.name} ({node.op}: {sizes}){advice}"


def match(net: Net, module: Any, names: Names | None = None) -> dict[str, str]:
    """Map paths of submodules to nodes: as named, by equal names, and the others by their order.

    Parameters
    ----------
    net : Net
    module : torch.nn.Module
    names : mapping of str to str, or callable, optional
        From path to node; by default layers have the nodes' names, with ``_`` for ``.``.

    Returns
    -------
    dict of str to str
        Every node with parameters is in it.

    Raises
    ------
    UnknownNameError, ShapeError, ValueRangeError
        If a name is unknown or said twice, or the others do not fit in their order: which layer, its shapes,
        what was expected, and what to pass.
    """
    paths, nodes = dict(module.named_modules()), {node.name: node for node in net.nodes}
    named = _named(paths, nodes, names)
    for path, name in named.items():
        reason = misfit(net, layer_of(path, paths[path]), nodes[name])
        if reason:
            raise ShapeError(f"{reason}, which names say that it is")
    left = [layer for layer in layers(module) if layer.path not in named]
    taken = set(named.values())
    open_nodes = [node for node in learning(net) if node.name not in taken]
    best = (-1, "")
    for order in (open_nodes, _shortcuts_first(open_nodes)):
        fitting, reason = _in_order(net, left, order)
        if reason is None:
            return named | {layer.path: node.name for layer, node in zip(left, order, strict=True)}
        best = max(best, (fitting, reason), key=lambda found: found[0])
    said = "of the layers that are not named" if named else "layers"
    raise ShapeError(
        f"{best[1]}; {best[0]} {said} fit in their order before it: "
        "name what stands elsewhere, names={path of a submodule: node}"
    )


def _named(paths: Mapping[str, Any], nodes: Mapping[str, Node], names: Names | None) -> dict[str, str]:
    """What is named, checked."""
    if names is None:
        learnt = {path for path, part in paths.items() if layer_of(path, part).tensors}
        found = {path: path.replace(".", "_") for path in paths if path in learnt}
        return {path: name for path, name in found.items() if name in nodes}
    if isinstance(names, Mapping):
        found = dict(names)
    elif not callable(names):
        raise DTypeError(f"names is {brief(names)}: expected a mapping of paths to nodes, or a function")
    else:
        found = {path: name for path in paths if (name := names(path)) is not None}
    by_node: dict[str, str] = {}
    for path, name in found.items():
        require_known("path of a submodule in names", path, paths)
        require_known("node in names", name, nodes)
        if name in by_node:
            raise ValueRangeError(
                f"names say that {by_node[name]} and {path} are {name}: expected one of them"
            )
        by_node[name] = path
    return found


def _in_order(net: Net, left: list[Layer], nodes: list[Node]) -> tuple[int, str | None]:
    """How many layers fit nodes one by one, and why the next one does not."""
    for place, (layer, node) in enumerate(zip(left, nodes, strict=False)):
        reason = misfit(net, layer, node)
        if reason:
            return place, reason
    if len(left) > len(nodes):
        extra = left[len(nodes)]
        return len(
            nodes
        ), f"{extra} is no node: expected {len(nodes)} layers, found {len(left)}; pass another net"
    if len(nodes) > len(left):
        lacking = nodes[len(left)]
        return len(left), (
            f"no layer is {lacking.name} ({lacking.op}): expected {len(nodes)} layers, found {len(left)}; "
            "parameters that a function reads must belong to a module of their own"
        )
    return len(nodes), None


def _shortcuts_first(nodes: list[Node]) -> list[Node]:
    """In the order of who writes a block's shortcut before its branch."""
    place: dict[str, int] = {}
    for index, node in enumerate(nodes):
        place.setdefault(node.name.partition("_branch")[0], index)
    return sorted(nodes, key=lambda n: (place[n.name.partition("_branch")[0]], "_branch2" in n.name))


def recognised(module: Any, shapes: list[Shape]) -> tuple[str, Net]:
    """The architecture of the catalog that a module is, by the shapes and strides of its layers in order.

    A stage is frozen where the module learns none of the convolutions up to its end; where it learns all, the
    gradient stops where it does by default.

    Parameters
    ----------
    module : torch.nn.Module
    shapes : list of tuple of int
        Of the inputs.

    Returns
    -------
    name : str
        The architecture, and the options that differ from its defaults.
    net : Net

    Raises
    ------
    ShapeError
        If there is none; the message names the nearest one, and what does not fit it.
    """
    found = layers(module)
    nearest, furthest = "", -1
    for architecture, options in _candidates(found, shapes):
        try:
            net = _built(architecture, options, shapes)
        except RefnetError:  # an option that changes nothing there
            continue
        if len(shapes) > len(net.inputs):
            continue
        title = _title(architecture, options)
        for order in (learning(net), _shortcuts_first(learning(net))):
            fitting, reason = _in_order(net, found, order)
            if reason is None and (reason := _misplaced(found, order)) is None:
                frozen = _frozen(architecture, found, order)
                if frozen is None or frozen == options.get("freeze_at", architecture.options["freeze_at"]):
                    return title, net
                options = options | {"freeze_at": frozen}
                return _title(architecture, options), _built(architecture, options, shapes)
            if fitting > furthest:
                nearest, furthest = f"{title}: {reason}", fitting
    raise ShapeError(
        f"the module is no architecture of the catalog; the nearest is {nearest or 'none'}. "
        "Pass net=, and names= for layers that stand in another order"
    )


def _built(architecture: Architecture, options: Mapping[str, Any], shapes: list[Shape]) -> Net:
    n, c, *rest = shapes[0]
    return architecture.build((n, c, *(rest if len(rest) == 3 else (1, *rest))), **options)


def _title(architecture: Architecture, options: Mapping[str, Any]) -> str:
    said = [f"{name}={value!r}" for name, value in options.items() if value != architecture.options[name]]
    return f"{architecture.name} with {', '.join(said)}" if said else architecture.name


def _candidates(
    found: list[Layer], shapes_of_inputs: list[Shape]
) -> Iterator[tuple[Architecture, dict[str, Any]]]:
    """Architectures and options that the kernels of the layers allow."""
    kernels = [layer for layer in found if len(next(iter(layer.tensors.values())).shape) > 2]
    if len(kernels) < 2:
        return
    shapes = [tuple(next(iter(layer.tensors.values())).shape) for layer in kernels]
    groups = max(int(getattr(layer.module, "groups", 1)) for layer in kernels)
    middle = next((shape for shape in shapes[1:] if shape[-1] > 1), shapes[1])
    dilations = [getattr(layer.module, "dilation", 1) for layer in kernels]
    norms = [layer for layer in found if len(layer.tensors) == 4]
    seen = {
        "time_kernel": max((shape[-3] for shape in shapes if len(shape) == 5), default=1),
        "groups": groups,
        "width_per_group": middle[0] // groups,
        "dilation": max(d[-1] if isinstance(d, tuple) else d for d in dilations),
        "batch_norm": bool(norms),
        "training": any(layer.module.training and "BatchNorm" in _kinds(layer.module) for layer in norms),
        "classes": len(next(iter(found[-1].tensors.values()))),
        "rois": shapes_of_inputs[-1][0],
    }
    for architecture, kind, striding, time in product(
        ARCHITECTURES.values(), ("bottleneck", "basic"), (True, False), (False, True)
    ):
        options = seen | {"transformation": kind, "stride_1x1": striding, "time_stride": time}
        yield architecture, {name: v for name, v in options.items() if name in architecture.options}


def _kinds(module: Any) -> str:
    """The names of a module's classes; a frozen norm of somebody's own is no batch norm of PyTorch's."""
    own = " ".join(kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn"))
    return own.replace("_BatchNorm", "BatchNorm")


def _misplaced(found: list[Layer], order: list[Node]) -> str | None:
    """Which convolution strides, is dilated or grouped otherwise than its node, where its module says so."""
    for layer, node in zip(found, order, strict=True):
        if node.op != "conv3d":
            continue
        for name, attr in (("stride", "stride"), ("dilation", "dilation"), ("groups", "groups")):
            said = getattr(layer.module, name, None)
            wanted = node.attrs.get(attr, 1 if attr == "groups" else (1, 1, 1))
            if isinstance(said, tuple) and isinstance(wanted, tuple):
                said = (*(1,) * (3 - len(said)), *said)
            if isinstance(said, int | tuple) and isinstance(said, type(wanted)) and said != wanted:
                return f"{layer.path} has {name} {said}, {node.name} {wanted}"
    return None


def _frozen(architecture: Architecture, found: list[Layer], order: list[Node]) -> int | None:
    """The stage up to whose end no convolution is learnt; None where all are."""
    learnt = [
        (node.name, next(iter(layer.tensors.values())).requires_grad)
        for layer, node in zip(found, order, strict=True)
        if node.op == "conv3d"
    ]
    if all(learns for _, learns in learnt):
        return None
    first = next((name for name, learns in learnt if learns), "res9")
    stage = int(first[3]) - 1 if first.startswith("res") else 0
    return min(stage, max(int(name[3]) for name, _ in learnt if name.startswith("res"))) if stage > 1 else 0
