"""The kernel of `refnet.ops.batch_norm`."""

from typing import Any

import numpy as np

from refnet._core import batch_norm as kernels
from refnet.arithmetic.core import channels
from refnet.arithmetic.core.buffers import empty, flat
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, rounded, wide
from refnet.op import InputGradients, Needs
from refnet.ops.batch_norm import EPSILON, root


def forward(
    x: Array, s: Array, b: Array, mean: Array, variance: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Any]:
    """Compute (x - mean) scale + b."""
    y, deviation = empty(x.shape, x.dtype), root(variance, epsilon)
    kernels.normalise(flat(x), wide(mean), s / deviation, wide(b), flat(y))
    return y, (x, s, mean, deviation)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = scale dy; ds = sum of dy (x - mean) / deviation; db = sum of dy; statistics are given."""
    x, s, mean, deviation = context
    zero = np.zeros(mean.shape)
    dx = empty(x.shape, x.dtype) if needs[0] else None
    if dx is not None:
        kernels.normalise(flat(dy), zero, s / deviation, zero, flat(dx))
    if not needs[1]:
        return dx, None, channels.sums(dy) if needs[2] else None, None, None
    products, db = channels.centred_products(dy, x, wide(mean), zero)
    return dx, rounded(products / deviation, s.dtype), rounded(db, s.dtype) if needs[2] else None, None, None


KERNEL = Kernel(forward, backward)
