"""The kernel of `refnet.ops.average_pool3d`: each element rounded once."""

from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from refnet._core import exact_sums
from refnet.arithmetic.core.buffers import empty, planes
from refnet.arithmetic.exact import fallback, weighted
from refnet.arithmetic.exact.rational import quotients
from refnet.arithmetic.exact.weighted import Entries
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.shapes import ONES, ZEROS, Geometry, Shape, Triple, pooled, size, taps

# The largest count that sums are divided by: all up to it are doubles.
MOST = 2**53


def forward(x: Array, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS) -> tuple[Array, Any]:
    """RN(sum of each window's values / their count)."""
    y = empty(pooled(x.shape, kernel=kernel, stride=stride, pad=pad), x.dtype)
    window = (x.shape[2:], (kernel, stride, pad, ONES, y.shape[2:]))
    fallback.note("y", y.size, exact_sums.window_sums(planes(x), planes(y), *window, True))
    return y, (x.shape, Geometry(kernel, stride, pad))


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = RN(sum of dy / count over the windows that a value is in)."""
    shape, window = context
    if not needs[0]:
        return (None,)
    counts = np.zeros(dy.shape[2:], np.int64)
    for _, outputs, _ in taps(shape, dy.shape, window):
        counts[outputs] += 1
    axes = zip(window.stride, window.kernel, dy.shape[2:], strict=True)
    if all(stride >= kernel or outputs == 1 for stride, kernel, outputs in axes):
        return (_alone(dy, counts, shape, window),)
    return (_meeting(dy, counts, shape, window),)


def _alone(dy: Array, counts: Array, shape: Shape, window: Geometry) -> Array:
    """No value is in two windows: each has a quotient of its own."""
    dx, different = empty(shape, dy.dtype), np.unique(counts)
    dx.fill(0)
    shares = np.empty_like(dy) if len(different) > 1 else quotients(dy, int(different[0]))
    for count in different if len(different) > 1 else ():
        shares[..., counts == count] = quotients(dy[..., counts == count], int(count))
    for _, outputs, inputs in taps(shape, dy.shape, window):
        dx[..., *inputs] = shares[..., *outputs]
    return dx


def _meeting(dy: Array, counts: Array, shape: Shape, window: Geometry) -> Array:
    """The sum over a common multiple of the counts, of which each weight is a whole part."""
    here = np.arange(size(shape[2:]), dtype=np.intp).reshape(shape[2:])
    there = np.arange(counts.size, dtype=np.intp).reshape(counts.shape)
    pairs = [
        (here[inputs].ravel(), there[outputs].ravel()) for _, outputs, inputs in taps(shape, dy.shape, window)
    ]
    result, value = (np.concatenate(side) for side in zip(*pairs, strict=True))
    of_window, kinds = np.unique(counts.reshape(-1), return_inverse=True)
    common = lcm(*map(int, of_window))
    multiple = common if common <= MOST else 1
    exact = [Fraction(multiple, int(count)) for count in of_window]
    kind = kinds.reshape(-1)[value]
    split = np.array([weighted.split(multiple, int(count)) for count in of_window])
    entries = Entries(result, value, split[kind], lambda entry: exact[kind[entry]])
    values = np.ascontiguousarray(planes(dy).T)
    dx = weighted.sums("dx", values, entries, here.size, multiple)
    return np.ascontiguousarray(dx.T).reshape(shape)


KERNEL = Kernel(forward, backward)
