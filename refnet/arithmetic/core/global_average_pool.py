"""The kernel of `refnet.ops.global_average_pool`."""

from typing import Any

import numpy as np

from refnet._core import average_pool3d as kernels
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, again_with_room
from refnet.op import InputGradients, Needs
from refnet.ops.global_average_pool import infer
from refnet.pieces import boxes, fill
from refnet.shapes import Shape, size


def forward(x: Array, *, over_time: bool = False) -> tuple[Array, Any]:
    """Divide the sum by the count."""
    shape = infer(x.shape, over_time=over_time)
    y, is_finite = _means(x, shape)
    if not is_finite:
        y = again_with_room(lambda x: _means(x, shape)[0], x, y)
    return y, x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy / count, everywhere."""
    if not needs[0]:
        return (None,)
    dx = empty(context, dy.dtype)
    count = size(context) // dy.size
    averaged = dx.reshape(dy.size, count)
    shares = fill(np.empty_like(dy), lambda part: part / dy.dtype.type(count), dy).reshape(-1, 1)
    for box in boxes(averaged.shape):
        averaged[box] = shares[box[0]]
    return (dx,)


def _means(x: Array, shape: Shape) -> tuple[Array, bool]:
    y = empty(shape, x.dtype)
    return y, kernels.whole(x.reshape(y.size, -1), y.reshape(-1))


KERNEL = Kernel(forward, backward)
