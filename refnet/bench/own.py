"""What is timed of refnet: convolutions, operators, whole nets, in any arithmetic."""

from collections.abc import Mapping
from typing import Any

from refnet.arithmetic import Arithmetic
from refnet.arrays import Array
from refnet.bench.peer import Call
from refnet.net import Net
from refnet.run import backward, forward


def conv3d(
    arithmetic: Arithmetic, x: Array, w: Array, dy: Array, attrs: Mapping[str, Any]
) -> dict[str, Call]:
    """Convolution forward, for dx and for dw."""
    door = arithmetic.conv3d
    _, context = door.forward(x, w, **attrs)

    def gradient(name: str, needs: tuple[bool, bool]) -> dict[str, Array]:
        (found,) = (g for g in door.backward(dy, context, needs) if g is not None)
        return {name: found}

    return {
        "forward": lambda: {"y": door.forward(x, w, **attrs)[0]},
        "dx": lambda: gradient("dx", (True, False)),
        "dw": lambda: gradient("dw", (False, True)),
    }


def operator(
    arithmetic: Arithmetic, op: str, inputs: list[Array], dy: Array, attrs: Mapping[str, Any]
) -> dict[str, Call]:
    """An operator forward and, where it has a gradient, backward."""
    door = arithmetic[op]
    _, context = door.forward(*inputs, **attrs)

    def gradients() -> dict[str, Array]:
        found = door.backward(dy, context)
        return {f"gradient of input {i}": g for i, g in enumerate(found) if g is not None}

    calls: dict[str, Call] = {"forward": lambda: {"y": door.forward(*inputs, **attrs)[0]}}
    return calls | ({"backward": gradients} if gradients() else {})


def train(net: Net, given: Mapping[str, Array], output_gradients: Mapping[str, Array]) -> Call:
    """A net forward, only outputs and what backward needs kept, and backward."""

    def call() -> dict[str, Array]:
        run = forward(net, given, keep="outputs")
        found = backward(run, output_gradients)
        return run.blobs | {f"gradient of {name}": gradient for name, gradient in found.items()}

    return call
