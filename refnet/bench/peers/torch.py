"""PyTorch: operators and whole nets by its functions and autograd."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from refnet.arrays import Array
from refnet.bench.peer import Call, Calls, Peer
from refnet.bench.peers import torch_twins
from refnet.bench.problem import Problem
from refnet.net import Net
from refnet.ops import OPS


def operator(threads: int, problem: Problem, inputs: Sequence[Array], dy: Array) -> Calls:
    """Any operator by its twin, and what autograd makes of it."""
    import torch

    torch.set_num_threads(threads)
    twin, functions = getattr(torch_twins, problem.op), torch.nn.functional
    learnt = [OPS[problem.op].domain(i).gradient for i in range(len(inputs))]
    tensors = [torch.from_numpy(a).requires_grad_(learns) for a, learns in zip(inputs, learnt, strict=True)]
    by_gradient = dict(zip(problem.gradients, tensors, strict=True))
    y, tdy = twin(functions, *tensors, **problem.case.attrs), torch.from_numpy(dy)

    def forward() -> dict[str, Array]:
        with torch.no_grad():
            return {"y": twin(functions, *tensors, **problem.case.attrs).numpy()}

    def backward(names: Sequence[str]) -> dict[str, Array]:
        found = torch.autograd.grad(y, [by_gradient[name] for name in names], tdy, retain_graph=True)
        return {name: g.contiguous().numpy() for name, g in zip(names, found, strict=True)}

    backwards = {direction: partial(backward, names) for direction, names in problem.backward.items()}
    return {"forward": forward} | backwards


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


PEER = Peer("torch", ("torch",), "torch.set_num_threads", operator, train)
