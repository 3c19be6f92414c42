"""The kernel of `refnet.ops.upsample_nearest`."""

from typing import Any

from refnet._core import upsample_nearest as kernels
from refnet.arithmetic.core.buffers import empty, images
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, again_with_room
from refnet.op import InputGradients, Needs
from refnet.ops.upsample_nearest import infer
from refnet.shapes import Shape


def forward(x: Array, *, scale: int = 2) -> tuple[Array, Any]:
    """Repeat every line and every column."""
    y = empty(infer(x.shape, scale=scale), x.dtype)
    kernels.forward(images(x), images(y), scale)
    return y, x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = sum of dy over each scale x scale square, line by line."""
    if not needs[0]:
        return (None,)
    dx, is_finite = _sums(dy, context)
    if not is_finite:
        dx = again_with_room(lambda dy: _sums(dy, context)[0], dy, dx)
    return (dx,)


def _sums(dy: Array, shape: Shape) -> tuple[Array, bool]:
    dx = empty(shape, dy.dtype)
    return dx, kernels.input_gradient(images(dy), images(dx), dy.shape[3] // dx.shape[3])


KERNEL = Kernel(forward, backward)
