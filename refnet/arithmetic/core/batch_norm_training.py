"""The kernel of `refnet.ops.batch_norm_training`."""

from typing import Any

import numpy as np

from refnet._core import batch_norm as kernels
from refnet.arithmetic.core import channels
from refnet.arithmetic.core.buffers import empty, flat
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, rounded, wide
from refnet.op import InputGradients, Needs
from refnet.ops.batch_norm import EPSILON
from refnet.ops.batch_norm_training import Statistics, scaled, units


def forward(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> tuple[Array, Any]:
    """Normalise by the statistics of the batch; again, scaled, where sums or squares overflow."""
    y, context = _normalised(x, s, b, epsilon, np.ones(s.shape))
    overflown = ~np.isfinite(context[2].variance)
    if overflown.any():
        return _normalised(x, s, b, epsilon, np.where(overflown, units(x), 1.0))
    return y, context


def _normalised(x: Array, s: Array, b: Array, epsilon: float, unit: Array) -> tuple[Array, Any]:
    y, (high, low, variance, deviation) = empty(x.shape, x.dtype), np.empty((4, len(s)))
    statistics = (high, low, variance, deviation)
    kernels.train(flat(scaled(x, unit)), wide(s), wide(b), unit, *statistics, flat(y), epsilon)
    return y, (x, s, Statistics(unit, high, low, variance), deviation)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = scale (dy - db / n - z ds / n), ds = sum of dy z, db = sum of dy; z = (x - mean) / deviation."""
    x, s, (unit, high, low, _), deviation = context
    x = scaled(x, unit)
    if not (needs[0] or needs[1]):
        return None, None, channels.sums(dy) if needs[2] else None
    dx = None
    if needs[0]:
        dx, (ds, db) = empty(x.shape, x.dtype), np.empty((2, len(s)))
        kernels.train_gradients(flat(dy), flat(x), wide(s), unit, high, low, deviation, ds, db, flat(dx))
    else:
        products, db = channels.centred_products(dy, x, high, low)
        ds = products / deviation
    return dx, rounded(ds, s.dtype) if needs[1] else None, rounded(db, s.dtype) if needs[2] else None


KERNEL = Kernel(forward, backward)
