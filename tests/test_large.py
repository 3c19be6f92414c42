"""Blobs of more than 2**31 values. Those that need gigabytes are marked `large`: nox -s large runs them."""

import numpy as np
import pytest
from refnet._core import max_pool3d
from support import every_dtype

from refnet.arithmetic import core

HALF = 2**15, 2**16  # an image of 2**31 pixels


@every_dtype
def test_offsets_of_both_types_find_the_same_winners(dtype):
    """A window whose last value is 2**31 values behind its first cannot be tried; its type of offsets can."""
    x = np.random.default_rng(0).integers(-3, 3, (2, 2 * 9 * 8)).astype(dtype)
    window = (2, 9, 8), ((2, 3, 3), (1, 2, 1), (1, 1, 2), (1, 1, 1), (3, 5, 10))
    y, dy = np.empty((2, 150), dtype), np.random.default_rng(1).random((2, 150)).astype(dtype)
    max_pool3d.forward(x, y, *window)
    found = []
    for offset in (np.intc, np.intp):
        dx = np.empty_like(x)
        max_pool3d.input_gradient(dy, x, y, dx, np.empty((64, 150), offset), *window)
        found.append(dx)
    assert np.array_equal(*found) and found[0].any()


@pytest.mark.large
def test_max_pool_of_a_plane_of_more_values_than_an_int_counts():
    x = np.zeros((1, 1, 1, *HALF), "float32")
    y, context = core.max_pool3d.forward(x, kernel=(1, 8, 8), stride=(1, 8, 8))
    (dx,) = core.max_pool3d.backward(np.ones_like(y), context)
    assert (dx[..., ::8, ::8] == 1).all()
    assert sum(np.count_nonzero(row) for row in dx[0, 0, 0]) == y.size
