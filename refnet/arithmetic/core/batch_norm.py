"""The kernel of `refnet.ops.batch_norm`."""

from typing import Any

from refnet._core import affine as affine_kernels
from refnet._core import batch_norm as kernels
from refnet.arithmetic.core import channels
from refnet.arithmetic.core.buffers import empty, flat
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.batch_norm import EPSILON, root


def forward(
    x: Array, s: Array, b: Array, mean: Array, variance: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Any]:
    """Compute (x - mean) scale + b."""
    y, deviation = empty(x.shape, x.dtype), root(variance, epsilon)
    kernels.normalise(flat(x), mean, s / deviation, b, flat(y))
    return y, (x, s, mean, deviation)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = scale dy; ds = sum of dy (x - mean) / deviation; db = sum of dy; statistics are given."""
    x, s, mean, deviation = context
    dx = empty(x.shape, x.dtype) if needs[0] else None
    if dx is not None:
        affine_kernels.input_gradient(flat(dy), s / deviation, flat(dx))
    ds = channels.products(dy, x, mean) / deviation if needs[1] else None
    return dx, ds, channels.sums(dy) if needs[2] else None, None, None


KERNEL = Kernel(forward, backward)
