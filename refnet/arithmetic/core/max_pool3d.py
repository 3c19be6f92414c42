"""The kernel of `refnet.ops.max_pool3d`."""

from math import prod
from typing import Any

import numpy as np

from refnet._core import max_pool3d as kernels
from refnet.arithmetic.core.buffers import CACHE_LINE, empty, planes, workspace
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, again_with_room
from refnet.op import InputGradients, Needs
from refnet.pieces import converted
from refnet.shapes import ONES, ZEROS, Triple, pooled


def forward(x: Array, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS) -> tuple[Array, Any]:
    """Take the largest value of each window."""
    shape = pooled(x.shape, kernel=kernel, stride=stride, pad=pad)
    y, window = empty(shape, x.dtype), (x.shape[2:], (kernel, stride, pad, ONES, shape[2:]))
    kernels.forward(planes(x), planes(y), *window)
    return y, (x, y, window)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each dy goes to the first of its window's values that equals y."""
    if not needs[0]:
        return (None,)
    dx, is_finite = _sums(dy, *context)
    if not is_finite:
        dx = again_with_room(lambda dy: _sums(dy, *context)[0], dy, dx)
    return (dx,)


def _sums(dy: Array, x: Array, y: Array, window: Any) -> tuple[Array, bool]:
    dx = empty(x.shape, dy.dtype)
    (_, height, width), ((t, h, w), *_) = window
    furthest = ((t - 1) * height + h - 1) * width + w - 1
    offset = np.dtype(np.intc if furthest <= np.iinfo(np.intc).max else np.intp)
    found = workspace(prod(dy.shape[2:]) + CACHE_LINE, offset)
    x, y = (converted(a, dy.dtype) for a in (x, y))
    return dx, kernels.input_gradient(planes(dy), planes(x), planes(y), planes(dx), found, *window)


KERNEL = Kernel(forward, backward)
