"""The kernel of `refnet.ops.batch_norm_training`, in steps, each correctly rounded in the dtype of x.

Forward, over the n = N T H W values of each channel::

    mean     = RN((sum of x) / n)
    d        = RN(x - mean)
    variance = RN((sum of d^2) / n)
    r        = RN(1 / sqrt(variance + epsilon))       epsilon is the float64 number that was given
    scale    = RN(s r)
    y        = RN(scale d + b)

Backward, with the same r, scale and d::

    p  = RN(sum of dy d)
    ds = RN(p r)
    db = RN(sum of dy)
    m  = RN(db / n)
    k  = RN(r ds / n)
    g  = RN(dy - m)
    h  = RN(g - k d)
    dx = RN(scale h)

A step that is beyond the largest number is refused by name.
"""

from typing import Any

import numpy as np

from refnet.arithmetic.exact import channels
from refnet.arithmetic.exact.batch_norm import centred, reciprocal_roots, scale_gradient
from refnet.arithmetic.exact.door import require_finite
from refnet.arithmetic.exact.rational import nearest, products, quotients, rational
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, per_channel
from refnet.environment import errstate
from refnet.op import InputGradients, Needs
from refnet.ops.batch_norm import EPSILON
from refnet.ops.batch_norm_training import values_per_channel


def forward(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> tuple[Array, Any]:
    """RN(scale d + b)."""
    n = values_per_channel(x.shape)
    d = centred(x, channels.sums("mean", x, n))
    variance = channels.products("variance", d, d, n)
    require_finite("batch_norm_training variance", variance)
    r = reciprocal_roots(variance, epsilon)
    scale = products(s, r)
    require_finite("batch_norm_training scale", scale)
    return channels.lines(d, scale, b), (d, r, scale)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """RN(scale h), RN(p r) and RN(sum of dy)."""
    d, r, scale = context
    ds = scale_gradient(dy, d, r) if needs[0] or needs[1] else None
    db = channels.sums("db", dy) if needs[0] or needs[2] else None
    dx = _input_gradient(dy, d, r, scale, ds, db) if needs[0] else None
    return dx, ds if needs[1] else None, db if needs[2] else None


def _input_gradient(dy: Array, d: Array, r: Array, scale: Array, ds: Any, db: Any) -> Array:
    n = values_per_channel(dy.shape)
    require_finite("batch_norm_training ds", ds)
    require_finite("batch_norm_training db", db)
    k = np.array(
        [nearest(rational(a) * rational(b) / n, dy.dtype) for a, b in zip(r, ds, strict=True)], dy.dtype
    )
    require_finite("batch_norm_training r ds / n", k)
    with errstate(over="ignore"):
        g = dy - per_channel(quotients(db, n))
    require_finite("batch_norm_training dy - db / n", g)
    h = channels.multiply_added(d, -k, g)
    require_finite("batch_norm_training dy - db / n - k d", h)
    return channels.lines(h, scale, np.zeros_like(scale))


KERNEL = Kernel(forward, backward)
