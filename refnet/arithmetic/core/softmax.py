"""The kernel of `refnet.ops.softmax`."""

from typing import Any

from refnet._core import softmax as kernels
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs


def forward(x: Array) -> tuple[Array, Any]:
    """Compute exp(x - m) over its sum, row by row, in double."""
    y = empty(x.shape, x.dtype)
    kernels.forward(x, y)
    return y, y


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = y (dy - sum of dy y over the row)."""
    if not needs[0]:
        return (None,)
    dx = empty(dy.shape, dy.dtype)
    kernels.input_gradient(dy, context, dx)
    return (dx,)


KERNEL = Kernel(forward, backward)
