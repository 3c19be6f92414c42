"""Sums over the values of each channel, those of N, T, H and W, rounded once."""

import numpy as np

from refnet._core import exact_sums
from refnet.arithmetic.core.buffers import empty, flat
from refnet.arithmetic.exact import fallback
from refnet.arrays import Array


def sums(what: str, x: Array, count: int = 1) -> Array:
    """Sum of x over a count, channel by channel: (C,)."""
    found = np.empty(x.shape[1], x.dtype)
    fallback.note(what, found.size, exact_sums.channel_sums(flat(x), found, count))
    return found


def products(what: str, x: Array, y: Array, count: int = 1) -> Array:
    """Sum of x y over a count, channel by channel: (C,)."""
    found = np.empty(x.shape[1], x.dtype)
    fallback.note(what, found.size, exact_sums.channel_products(flat(x), flat(y), found, count))
    return found


def lines(x: Array, s: Array, b: Array) -> Array:
    """S x + b, channel by channel, rounded once."""
    y = empty(x.shape, x.dtype)
    exact_sums.line(flat(x), s, b, flat(y))
    return y


def multiply_added(x: Array, s: Array, g: Array) -> Array:
    """S x + g, s channel by channel, rounded once."""
    y = empty(x.shape, x.dtype)
    exact_sums.line_of_blobs(flat(x), s, flat(g), flat(y))
    return y


def scaled(x: Array, factor: Array) -> Array:
    """RN(x factor), for a factor (1,)."""
    y = empty(x.shape, x.dtype)
    exact_sums.line(x.reshape(1, 1, -1), factor, np.zeros_like(factor), y.reshape(1, 1, -1))
    return y
