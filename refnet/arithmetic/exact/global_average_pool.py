"""The kernel of `refnet.ops.global_average_pool`: each element rounded once."""

from typing import Any

import numpy as np

from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.exact import channels
from refnet.arithmetic.exact.rational import quotients
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.global_average_pool import infer
from refnet.shapes import size


def forward(x: Array, *, over_time: bool = False) -> tuple[Array, Any]:
    """RN(sum / count)."""
    shape = infer(x.shape, over_time=over_time)
    count = size(x.shape) // size(shape)
    return channels.sums("y", x.reshape(1, size(shape), count), count).reshape(shape), x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = RN(dy / count), everywhere."""
    if not needs[0]:
        return (None,)
    dx = empty(context, dy.dtype)
    np.copyto(dx, quotients(dy, size(context) // dy.size))
    return (dx,)


KERNEL = Kernel(forward, backward)
