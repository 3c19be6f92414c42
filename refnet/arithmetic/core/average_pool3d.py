"""The kernel of `refnet.ops.average_pool3d`."""

from math import prod
from typing import Any

from refnet._core import average_pool3d as kernels
from refnet.arithmetic.core.buffers import CACHE_LINE, empty, planes, workspace
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, again_with_room
from refnet.op import InputGradients, Needs
from refnet.shapes import ONES, ZEROS, Shape, Triple, pooled


def forward(x: Array, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS) -> tuple[Array, Any]:
    """Divide the sum of each window's values by their count."""
    shape = pooled(x.shape, kernel=kernel, stride=stride, pad=pad)
    window = (x.shape[2:], (kernel, stride, pad, ONES, shape[2:]))
    y, is_finite = _means(x, shape, window)
    if not is_finite:
        y = again_with_room(lambda x: _means(x, shape, window)[0], x, y)
    return y, (x.shape, window)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each value of a window has the gradient dy / count; where windows overlap, they add."""
    shape, window = context
    if not needs[0]:
        return (None,)
    dx, is_finite = _shared_out(dy, shape, window)
    if not is_finite:
        dx = again_with_room(lambda dy: _shared_out(dy, shape, window)[0], dy, dx)
    return (dx,)


def _means(x: Array, shape: Shape, window: Any) -> tuple[Array, bool]:
    y = empty(shape, x.dtype)
    return y, kernels.forward(planes(x), planes(y), *window)


def _shared_out(dy: Array, shape: Shape, window: Any) -> tuple[Array, bool]:
    dx, shares = empty(shape, dy.dtype), workspace(prod(dy.shape[2:]) + CACHE_LINE, dy.dtype)
    return dx, kernels.input_gradient(planes(dy), planes(dx), shares, *window)


KERNEL = Kernel(forward, backward)
