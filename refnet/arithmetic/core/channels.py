"""Sums over the values of each channel, those of N, T, H and W: biases, scales and statistics."""

import numpy as np

from refnet._core import affine, batch_norm
from refnet.arithmetic.core.buffers import flat
from refnet.arrays import Array
from refnet.ops.batch_norm_training import values_per_channel


def sums(x: Array) -> Array:
    """Sum of x, channel by channel: (C,)."""
    total = np.empty(x.shape[1], x.dtype)
    affine.bias_gradient(flat(x), total)
    return total


def products(dy: Array, x: Array, mean: Array) -> Array:
    """Sum of dy (x - mean), channel by channel: (C,)."""
    total = np.empty(x.shape[1], x.dtype)
    batch_norm.products(flat(dy), flat(x), mean, total)
    return total


def statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel, (C,) each; the variance is that of the population."""
    n = x.dtype.type(values_per_channel(x.shape))
    mean, squares = sums(x) / n, np.empty(x.shape[1], x.dtype)
    batch_norm.squares(flat(x), mean, squares)
    return mean, squares / n
