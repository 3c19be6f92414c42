"""The kernel of `refnet.ops.upsample_nearest`: core's, but for the sums of its gradient."""

from typing import Any

from refnet._core import exact_sums
from refnet.arithmetic.core.buffers import empty, planes
from refnet.arithmetic.core.upsample_nearest import forward
from refnet.arithmetic.exact import fallback
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.shapes import ONES, ZEROS


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = RN(sum of dy over each scale x scale square)."""
    if not needs[0]:
        return (None,)
    dx, scale = empty(context, dy.dtype), dy.shape[3] // context[3]
    square = (1, scale, scale)
    window = (dy.shape[2:], (square, square, ZEROS, ONES, context[2:]))
    fallback.note("dx", dx.size, exact_sums.window_sums(planes(dy), planes(dx), *window, False))
    return (dx,)


KERNEL = Kernel(forward, backward)
