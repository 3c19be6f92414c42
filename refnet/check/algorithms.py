"""Bounds of what is no direct sum of products: Winograd's and FFT convolutions, a variance in one pass.

Their errors are as large as norms of what a tile or a plane holds, whatever the size of the result:

- FFT: 8 log2(n) u times the norms of plane and filter, summed over channels; a transform of n values errs by
  log2(n) u times a small factor, normwise (Higham, *Accuracy and Stability of Numerical Algorithms*, chapter
  24), and there are three.
- Winograd (Lavin and Gray, arXiv:1509.09308): the transforms of a tile enlarge errors, and mix what the tile
  holds: at most 64 times the norm of the largest values within REACH, which F(2, 3) to F(6, 3) keep in tests.
- The mean of squares less the square of the mean errs by 1 + mean**2 / variance times what two passes do
  (Chan, Golub and LeVeque, *The American Statistician* 37(3), 1983).
"""

from math import log2
from typing import Any

import numpy as np

from refnet.arithmetic.core import core
from refnet.arrays import Array, wide
from refnet.op import OUTPUT, Op
from refnet.shapes import ONES, Shape, size

FFT, WINOGRAD, REACH = 8.0, 64.0, 5


def normwise(
    op: Op,
    subject: int,
    arrays: tuple[Array, ...],
    dy: Array | None,
    attrs: dict[str, Any],
    algorithm: str,
) -> Array | None:
    """What bounds the error of a convolution, in units of u; None where the algorithm is not for it.

    Parameters
    ----------
    op : Op
    subject : int
        OUTPUT, or which input's gradient.
    arrays : tuple of ndarray
    dy : ndarray, optional
    attrs : dict
    algorithm : {"winograd", "fft"}
    """
    if op.name != "conv3d" or subject not in (OUTPUT, 0, 1) or max(arrays[1].shape[3:]) < 2:
        return None
    x, w = wide(arrays[0]), wide(arrays[1])
    positions = size(x.shape[2:])
    if subject == 1:
        assert dy is not None and op.gradient_norms is not None, "a convolution has them"
        found = op.gradient_norms(wide(dy), x, w, needs=(False, True), **attrs)[1]
        assert found is not None, "it is needed"
        growth = FFT * log2(positions) if algorithm == "fft" else WINOGRAD
        return np.broadcast_to(growth * found.sum_abs, w.shape)
    reached = np.square(x if dy is None else wide(dy))
    if algorithm == "fft":
        reached = np.broadcast_to(reached.sum(axis=(2, 3, 4), keepdims=True), reached.shape)
    else:
        window = {"kernel": (1, 2 * REACH + 1, 2 * REACH + 1), "pad": (0, REACH, REACH)}
        reached, _ = core["max_pool3d"].forward(np.ascontiguousarray(reached), **window)
    reached = np.ascontiguousarray(reached)
    if dy is None:
        squares, _ = core["conv3d"].forward(reached, w * w, **attrs)
    else:
        _, context = core["conv3d"].forward(x, w * w, **attrs)
        gradient, _ = core["conv3d"].backward(reached, context, (True, False))
        assert gradient is not None, "it is needed"
        squares = gradient
    terms = w.shape[1] if dy is None else len(w) // attrs.get("groups", 1)
    growth = FFT * log2(positions) * np.sqrt(terms) if algorithm == "fft" else WINOGRAD
    return np.asarray(growth * np.sqrt(1 + terms * w.shape[2] / 6) * np.sqrt(squares))


def transforms(w: Shape, attrs: dict[str, Any], subject: int) -> bool:
    """Whether libraries transform such a convolution: y or dx, square, of stride and dilation 1."""
    plain = all(tuple(attrs.get(name, ONES)) == ONES for name in ("stride", "dilation"))
    return plain and subject in (OUTPUT, 0) and w[3] == w[4] >= 3


def one_pass(x: Array) -> Array:
    """By how much a variance in one pass errs more than in two, for each channel."""
    values = wide(x)
    mean, variance = values.mean(axis=(0, 2, 3, 4)), values.var(axis=(0, 2, 3, 4))
    return np.asarray(1 + np.square(mean) / np.maximum(variance, np.finfo(float).tiny))
