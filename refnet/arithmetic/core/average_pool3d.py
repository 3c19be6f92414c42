"""The kernel of `refnet.ops.average_pool3d`."""

from math import prod
from typing import Any

from refnet._core import average_pool3d as kernels
from refnet.arithmetic.core.buffers import CACHE_LINE, empty, planes, workspace
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.shapes import ONES, ZEROS, Triple, pooled


def forward(x: Array, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS) -> tuple[Array, Any]:
    """Divide the sum of each window's values by their count."""
    shape = pooled(x.shape, kernel=kernel, stride=stride, pad=pad)
    y, window = empty(shape, x.dtype), (x.shape[2:], (kernel, stride, pad, ONES, shape[2:]))
    kernels.forward(planes(x), planes(y), *window)
    return y, (x.shape, window)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each value of a window has the gradient dy / count; where windows overlap, they add."""
    shape, window = context
    if not needs[0]:
        return (None,)
    dx = empty(shape, dy.dtype)
    shares = workspace(prod(dy.shape[2:]) + CACHE_LINE, dy.dtype)
    kernels.input_gradient(planes(dy), planes(dx), shares, *window)
    return (dx,)


KERNEL = Kernel(forward, backward)
