"""The kernel of `refnet.ops.upsample_nearest`."""

from typing import Any

from refnet._core import upsample_nearest as kernels
from refnet.arithmetic.core.buffers import empty, images
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.upsample_nearest import infer


def forward(x: Array, *, scale: int = 2) -> tuple[Array, Any]:
    """Repeat every line and every column."""
    y = empty(infer(x.shape, scale=scale), x.dtype)
    kernels.forward(images(x), images(y), scale)
    return y, x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = sum of dy over each scale x scale square, line by line."""
    if not needs[0]:
        return (None,)
    dx = empty(context, dy.dtype)
    kernels.input_gradient(images(dy), images(dx), dy.shape[3] // dx.shape[3])
    return (dx,)


KERNEL = Kernel(forward, backward)
