"""The kernel of `refnet.ops.dropout`."""

from typing import Any

from refnet._core import dropout as kernels
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.dropout import RATIO


def forward(x: Array, mask: Array, *, ratio: float = RATIO) -> tuple[Array, Any]:
    """Compute x mask keep."""
    y, keep = empty(x.shape, x.dtype), x.dtype.type(1 / (1 - ratio))
    kernels.apply(x.reshape(-1), mask.reshape(-1), y.reshape(-1), keep)
    return y, (mask, keep)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy mask keep; the mask is given."""
    mask, keep = context
    if not needs[0]:
        return None, None
    dx = empty(dy.shape, dy.dtype)
    kernels.apply(dy.reshape(-1), mask.reshape(-1), dx.reshape(-1), keep)
    return dx, None


KERNEL = Kernel(forward, backward)
