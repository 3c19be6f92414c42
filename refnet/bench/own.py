"""What is timed of refnet: operators and whole nets, in any arithmetic."""

from collections.abc import Mapping, Sequence
from functools import partial

from refnet.arithmetic import Arithmetic
from refnet.arrays import Array
from refnet.bench.peer import Call
from refnet.bench.problem import Problem
from refnet.net import Net
from refnet.run import backward, forward


def operator(arithmetic: Arithmetic, problem: Problem, inputs: Sequence[Array], dy: Array) -> dict[str, Call]:
    """An operator in each of its directions."""
    door, attrs = arithmetic[problem.op], problem.case.attrs
    _, context = door.forward(*inputs, **attrs)

    def gradients(names: Sequence[str]) -> dict[str, Array]:
        needs = tuple(name in names for name in problem.gradients)
        found = zip(problem.gradients, door.backward(dy, context, needs), strict=True)
        return {name: gradient for name, gradient in found if gradient is not None}

    calls: dict[str, Call] = {"forward": lambda: {"y": door.forward(*inputs, **attrs)[0]}}
    return calls | {direction: partial(gradients, names) for direction, names in problem.backward.items()}


def train(
    net: Net,
    given: Mapping[str, Array],
    output_gradients: Mapping[str, Array],
    arithmetic: str | Arithmetic = "core",
) -> Call:
    """A net forward, only outputs and what backward needs kept, and backward."""

    def call() -> dict[str, Array]:
        run = forward(net, given, arithmetic, keep="outputs")
        found = backward(run, output_gradients)
        return run.blobs | {f"gradient of {name}": gradient for name, gradient in found.items()}

    return call
