"""Sums over the values of each channel, those of N, T, H and W: biases, scales and statistics; in float64."""

import numpy as np

from refnet._core import affine, batch_norm
from refnet.arithmetic.core.buffers import flat
from refnet.arrays import Array, rounded
from refnet.ops.batch_norm_training import Statistics, scaled, units, values_per_channel


def totals(x: Array) -> Array:
    """Sum of x, channel by channel: (C,), in float64."""
    found = np.empty(x.shape[1])
    affine.bias_gradient(flat(x), found)
    return found


def sums(x: Array) -> Array:
    """Sum of x, channel by channel: (C,), rounded to the dtype of x."""
    return rounded(totals(x), x.dtype)


def products(dy: Array, x: Array) -> tuple[Array, Array]:
    """Sums of dy x and of dy, channel by channel: (C,) each, in float64."""
    zero = np.zeros(x.shape[1])
    return centred_products(dy, x, zero, zero)


def centred_products(dy: Array, x: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Sums of dy (x - mean) and of dy, channel by channel: (C,) each, in float64; the mean is high + low."""
    found, of_dy = np.empty((2, x.shape[1]))
    batch_norm.products(flat(dy), flat(x), high, low, found, of_dy)
    return found, of_dy


def means(x: Array) -> Array:
    """Mean of each channel, (C,), in float64; by `statistics` where a sum overflows."""
    found = totals(x) / values_per_channel(x.shape)
    return found if np.isfinite(found).all() else statistics(x).mean()


def statistics(x: Array) -> Statistics:
    """Mean and variance of each channel, in two passes; again, scaled, where sums or squares overflow."""
    found = _statistics(x, np.ones(x.shape[1]))
    overflown = ~np.isfinite(found.variance)
    return _statistics(x, np.where(overflown, units(x), 1.0)) if overflown.any() else found


def _statistics(x: Array, unit: Array) -> Statistics:
    high, low, variance = (np.empty(x.shape[1]) for _ in range(3))
    batch_norm.statistics(flat(scaled(x, unit)), high, low, variance)
    return Statistics(unit, high, low, variance)
