"""The kernel of `refnet.ops.global_average_pool`."""

from typing import Any

import numpy as np

from refnet._core import average_pool3d as kernels
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.global_average_pool import infer
from refnet.shapes import size


def forward(x: Array, *, over_time: bool = False) -> tuple[Array, Any]:
    """Divide the sum by the count."""
    y = empty(infer(x.shape, over_time=over_time), x.dtype)
    kernels.whole(x.reshape(y.size, -1), y.reshape(-1))
    return y, x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy / count, everywhere."""
    if not needs[0]:
        return (None,)
    dx = empty(context, dy.dtype)
    np.copyto(dx, dy / dy.dtype.type(size(context) // dy.size))
    return (dx,)


KERNEL = Kernel(forward, backward)
