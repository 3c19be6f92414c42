"""PyTorch: convolution by ATen, operators and whole nets by its functions and autograd."""

from collections.abc import Mapping
from typing import Any

from refnet.arrays import Array
from refnet.bench.peer import Call, Calls, Peer
from refnet.bench.peers import torch_twins
from refnet.net import Net
from refnet.ops import OPS
from refnet.shapes import ONES, ZEROS


def conv3d(threads: int, x: Array, w: Array, dy: Array, attrs: Mapping[str, Any]) -> Calls:
    """Convolution; each gradient on its own."""
    import torch

    torch.set_num_threads(threads)
    stride, pad, dilation = attrs.get("stride", ONES), attrs.get("pad", ZEROS), attrs.get("dilation", ONES)
    groups = attrs.get("groups", 1)
    tx, tw, tdy = map(torch.from_numpy, (x, w, dy))

    def gradient(name: str, needs: list[bool]) -> dict[str, Array]:
        backward = torch.ops.aten.convolution_backward
        found = backward(tdy, tx, tw, None, stride, pad, dilation, False, ZEROS, groups, [*needs, False])
        return {name: found[needs.index(True)].numpy()}

    return {
        "forward": lambda: {"y": torch.conv3d(tx, tw, None, stride, pad, dilation, groups).numpy()},
        "dx": lambda: gradient("dx", [True, False]),
        "dw": lambda: gradient("dw", [False, True]),
    }


def operator(threads: int, op: str, inputs: list[Array], dy: Array, attrs: Mapping[str, Any]) -> Calls:
    """Any operator by its twin, and what autograd makes of it."""
    import torch

    torch.set_num_threads(threads)
    twin, functions = getattr(torch_twins, op), torch.nn.functional
    tensors = [torch.from_numpy(a).requires_grad_(OPS[op].domain(i).gradient) for i, a in enumerate(inputs)]
    y, tdy = twin(functions, *tensors, **attrs), torch.from_numpy(dy)
    learnt = {i: t for i, t in enumerate(tensors) if t.requires_grad}

    def forward() -> dict[str, Array]:
        with torch.no_grad():
            return {"y": twin(functions, *tensors, **attrs).numpy()}

    def backward() -> dict[str, Array]:
        found = torch.autograd.grad(y, list(learnt.values()), tdy, retain_graph=True)
        return {f"gradient of input {i}": g.contiguous().numpy() for i, g in zip(learnt, found, strict=True)}

    return {"forward": forward, "backward": backward}


def walk(net: Net, values: Mapping[str, Any], *, free: bool = False) -> dict[str, Any]:
    """The values of a net's nodes, each by its twin, from tensors for its inputs and parameters.

    With `free`, what no later node reads is dropped, but for the outputs.
    """
    import torch

    found = dict(values)
    last_use = net.last_use()
    for index, node in enumerate(net.nodes):
        inputs = [found[name] for name in node.inputs]
        found[node.name] = getattr(torch_twins, node.op)(torch.nn.functional, *inputs, **node.attrs)
        del inputs
        for name in {node.name, *node.inputs}:
            if free and last_use.get(name) == index and name not in net.outputs:
                del found[name]
    return found


def train(threads: int, net: Net, given: Mapping[str, Array], output_gradients: Mapping[str, Array]) -> Call:
    """A net forward and backward; gradients are asked for where refnet computes one, and nowhere else."""
    import torch

    torch.set_num_threads(threads)
    flow = net.gradient_flow()
    tensors = {name: torch.from_numpy(value).requires_grad_(name in flow) for name, value in given.items()}
    learnt = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
    dys = [torch.from_numpy(dy) for dy in output_gradients.values()]

    def call() -> dict[str, Array]:
        values = walk(net, tensors, free=True)
        outputs = {name: values[name].detach().numpy() for name in net.outputs}
        starts = [values.pop(name) for name in output_gradients]
        del values
        gradients = torch.autograd.grad(starts, list(learnt.values()), dys)
        named = zip(learnt, gradients, strict=True)
        return outputs | {f"gradient of {name}": gradient.numpy() for name, gradient in named}

    return call


PEER = Peer("torch", ("torch",), "torch.set_num_threads", conv3d, operator, train)
