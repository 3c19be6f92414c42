"""The kernel of `refnet.ops.batch_norm`, in steps, each correctly rounded in the dtype of x.

Forward, channel by channel, with the mean and the variance that are given::

    r     = RN(1 / sqrt(variance + epsilon))          epsilon is the float64 number that was given
    scale = RN(s r)
    d     = RN(x - mean)
    y     = RN(scale d + b)

Backward, with the same r, scale and d::

    dx = RN(scale dy)
    ds = RN(p r)        p = RN(sum of dy d)
    db = RN(sum of dy)

A step that is beyond the largest number is refused by name.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.exact import channels
from refnet.arithmetic.exact.door import require_finite
from refnet.arithmetic.exact.rational import products, rational, reciprocal_root
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, per_channel
from refnet.environment import errstate
from refnet.op import InputGradients, Needs
from refnet.ops.batch_norm import EPSILON


def forward(
    x: Array, s: Array, b: Array, mean: Array, variance: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Any]:
    """RN(scale d + b)."""
    r = reciprocal_roots(variance, epsilon)
    scale, d = products(s, r), centred(x, mean)
    require_finite("batch_norm scale", scale)
    return channels.lines(d, scale, b), (d, r, scale)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """RN(scale dy), RN(p r) and RN(sum of dy); statistics are given."""
    d, r, scale = context
    return (
        channels.lines(dy, scale, np.zeros_like(scale)) if needs[0] else None,
        scale_gradient(dy, d, r) if needs[1] else None,
        channels.sums("db", dy) if needs[2] else None,
        None,
        None,
    )


def reciprocal_roots(variance: Array, epsilon: float) -> Array:
    """RN(1 / sqrt(variance + epsilon))."""
    return np.array(
        [reciprocal_root(rational(v) + Fraction(epsilon), variance.dtype) for v in variance], variance.dtype
    )


def centred(x: Array, mean: Array) -> Array:
    """RN(x - mean)."""
    d = empty(x.shape, x.dtype)
    with errstate(over="ignore"):
        np.subtract(x, per_channel(mean), out=d)
    require_finite("batch norm x - mean", d)
    return d


def scale_gradient(dy: Array, d: Array, r: Array) -> Array:
    """RN(p r) with p = RN(sum of dy d)."""
    p = channels.products("ds", dy, d)
    require_finite("batch norm sum of dy (x - mean)", p)
    return products(p, r)


KERNEL = Kernel(forward, backward)
