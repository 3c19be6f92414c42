"""The kernel of `refnet.ops.max_pool3d`: core's, but for gradients that meet."""

from math import prod
from typing import Any

import numpy as np

from refnet._core import exact_sums
from refnet.arithmetic.core.buffers import CACHE_LINE, empty, planes, workspace
from refnet.arithmetic.core.max_pool3d import forward
from refnet.arithmetic.exact import fallback
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each dy goes to the first of its window's values that equals y; where some meet, RN(their sum)."""
    x, y, window = context
    if not needs[0]:
        return (None,)
    dx = empty(x.shape, dy.dtype)
    sums = workspace(3 * prod(x.shape[2:]) + CACHE_LINE, np.dtype(np.float64))
    undecided = exact_sums.winner_sums(planes(dy), planes(x), planes(y), planes(dx), sums, *window)
    fallback.note("dx", dx.size, undecided)
    return (dx,)


KERNEL = Kernel(forward, backward)
