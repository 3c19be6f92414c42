"""The kernel of `refnet.ops.relu`."""

from typing import Any

from refnet._core import relu as kernels
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs


def forward(x: Array) -> tuple[Array, Any]:
    """Keep what is positive."""
    y = empty(x.shape, x.dtype)
    kernels.forward(x.reshape(-1), y.reshape(-1))
    return y, y


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy where y > 0, else zero."""
    if not needs[0]:
        return (None,)
    dx = empty(dy.shape, dy.dtype)
    kernels.input_gradient(dy.reshape(-1), context.reshape(-1), dx.reshape(-1))
    return (dx,)


KERNEL = Kernel(forward, backward)
