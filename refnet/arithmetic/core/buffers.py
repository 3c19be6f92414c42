"""The arrays that a kernel is handed: memory for results and workspace, and views of fewer axes."""

from math import prod
from typing import Any

import numpy as np

from refnet._core import blocks
from refnet.arithmetic.core import runtime
from refnet.arrays import Array
from refnet.shapes import Shape

# Elements between the short rows of two threads, so that none waits for a cache line that another writes.
CACHE_LINE = 16


def empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array with anything in it; a large one takes the memory of one that is gone."""
    count = prod(shape) * dtype.itemsize
    if count < blocks.GRAIN:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, blocks.Block(count))


def workspace(size: int, dtype: np.dtype[Any]) -> Array:
    """A row of `size` elements for each thread."""
    return empty((runtime.threads(), size), dtype)


def flat(blob: Array) -> Array:
    """View (N, C, T, H, W) as (N, C, T * H * W)."""
    return blob.reshape(*blob.shape[:2], -1)


def planes(blob: Array) -> Array:
    """View (N, C, T, H, W) as (N * C, T * H * W)."""
    return blob.reshape(prod(blob.shape[:2]), -1)


def images(blob: Array) -> Array:
    """View (N, C, T, H, W) as (N * C * T, H, W)."""
    return blob.reshape(prod(blob.shape[:3]), *blob.shape[3:])


def rows(blob: Array) -> Array:
    """View (N, ...) as (N, D): samples of x, or the filters (C_out, C/groups, kT, kH, kW) of w."""
    return blob.reshape(len(blob), -1)
