"""The kernel of `refnet.ops.affine`."""

from typing import Any

from refnet._core import affine as kernels
from refnet.arithmetic.core import channels
from refnet.arithmetic.core.buffers import empty, flat
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, rounded
from refnet.op import InputGradients, Needs


def forward(x: Array, s: Array, b: Array) -> tuple[Array, Any]:
    """Compute s x + b, channel by channel."""
    y = empty(x.shape, x.dtype)
    kernels.forward(flat(x), s, b, flat(y))
    return y, (x, s)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = s dy; ds = sum of dy x and db = sum of dy over N, T, H, W."""
    x, s = context
    dx = empty(x.shape, x.dtype) if needs[0] else None
    if dx is not None:
        kernels.input_gradient(flat(dy), s, flat(dx))
    if not needs[1]:
        return dx, None, channels.sums(dy) if needs[2] else None
    ds, db = channels.products(dy, x)
    return dx, rounded(ds, s.dtype), rounded(db, s.dtype) if needs[2] else None


KERNEL = Kernel(forward, backward)
