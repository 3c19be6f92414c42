"""Fully connected layer, y[n, k] = b[k] + sum over d of w[k, d] x[n, d]; x flattened behind N.

Caffe2's `FC`, PyTorch's `linear`; ONNX's `Gemm` with transB = 1. The products of matrices of `reference` are
NumPy's, whose bits belong to one machine; in `core` it is a convolution of one tap, and `exact` rounds each
sum once.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array, channel_sums, rounded
from refnet.arrays import norms as euclidean
from refnet.errors import ShapeError
from refnet.op import (
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    benchmark,
    drawn_case,
    everything,
    magnitudes,
    terms,
)
from refnet.shapes import Shape, size, text, volume


def infer(x: Shape, w: Shape, b: Shape | None = None) -> Shape:
    """Shape of y (N, K) for x (N, ...) with D elements a sample, w (K, D), b (K,).

    Raises
    ------
    ShapeError
        If w is no matrix of D columns, or b has not one entry for each of its rows.
    """
    n, *rest = volume("x", x, "NCTHW"[: len(x)])
    k, d = volume("w", w, "KD")
    if d != size(tuple(rest)):
        raise ShapeError(f"w size D is {d}: expected {size(tuple(rest))}, the elements of a sample of x")
    if b is not None and tuple(b) != (k,):
        raise ShapeError(f"b has shape {text(b)}: expected {k}, one entry for each row of w")
    return n, k


def forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, Any]:
    """Compute x w' + b."""
    y = np.matmul(x.reshape(len(x), -1), w.T)
    if b is not None:
        y += b
    return y, context(x, w, b)


def context(x: Array, w: Array, b: Array | None = None) -> tuple[Any, ...]:
    """The operands, and whether there is a bias."""
    return x, w, b is not None


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy w, dw = dy' x, db = sum of dy over samples."""
    x, w, has_bias = context
    dx = np.matmul(dy, w).reshape(x.shape) if needs[0] else None
    dw = np.matmul(dy.T, x.reshape(len(x), -1)) if needs[1] else None
    if not has_bias:
        return dx, dw
    return dx, dw, rounded(channel_sums(dy), dy.dtype) if needs[2] else None


def magnitude(x: Array, w: Array, b: Array | None = None) -> Magnitude:
    """Sum of |w x|, plus |b|; D terms and one for the bias."""
    sum_abs, _ = forward(np.abs(x), np.abs(w), None if b is None else np.abs(b))
    return Magnitude(sum_abs, terms(w.shape[1] + (b is not None)))


def gradient_magnitude(
    dy: Array, x: Array, w: Array, b: Array | None = None, *, needs: Needs
) -> GradientMagnitudes:
    """Sums of |dy w|, K terms; of |dy x| and |dy|, N terms."""
    n, k = dy.shape
    counts = (k, n) if b is None else (k, n, n)
    sums = backward(np.abs(dy), (np.abs(x), np.abs(w), b is not None), needs)
    return magnitudes(sums, *map(terms, counts))


def norms(x: Array, w: Array, b: Array | None = None) -> Magnitude:
    """|row of x| |row of w| + |b|; D terms and one for the bias."""
    sum_abs = _row_norms(x.reshape(len(x), -1))[:, None] * _row_norms(w)
    return Magnitude(sum_abs if b is None else sum_abs + np.abs(b), terms(w.shape[1] + (b is not None)))


def gradient_norms(
    dy: Array, x: Array, w: Array, b: Array | None = None, *, needs: Needs
) -> GradientMagnitudes:
    """Of dx, |row of dy| |column of w|; of dw, |column of dy| |column of x|; of db, sum of |dy|."""
    columns = _row_norms(x.reshape(len(x), -1).T)
    dx = Magnitude((_row_norms(dy)[:, None] * _row_norms(w.T)).reshape(x.shape), terms(len(w)))
    dw = Magnitude(_row_norms(dy.T)[:, None] * columns, terms(len(x)))
    if b is None:
        return dx if needs[0] else None, dw if needs[1] else None
    db = Magnitude(channel_sums(np.abs(dy)), terms(len(x)))
    return tuple(found if need else None for found, need in zip((dx, dw, db), needs, strict=True))


def _row_norms(x: Array) -> Array:
    return euclidean(x, lambda squares: squares.sum(axis=1))


def cost(x: Shape, w: Shape, b: Shape | None = None, *, itemsize: int) -> Cost:
    """D multiply-adds an element."""
    y = infer(x, w, b)
    read = size(x) + size(w) + (0 if b is None else size(b))
    return Cost(size(y) * w[1], (read + size(y)) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Samples that are rows or blobs, with a bias or without; a third of the weights are square."""
    n, c, t, h, w = draws.blob(rng)
    x: Shape = (n, c, t, h, w) if draws.chance(rng) else (n, c * h)
    k = size(x[1:]) if draws.pick(rng, range(3)) == 0 else draws.pick(rng, draws.CHANNELS)
    return drawn_case(x, (k, size(x[1:])), *([(k,)] if draws.chance(rng) else []))


OP = Op(
    name="linear",
    family="product",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    norms=norms,
    gradient_norms=gradient_norms,
    cost=cost,
    cases=(
        Case("matrix", ((3, 8), (5, 8), (5,))),
        Case("as many rows as columns", ((3, 6), (6, 6))),
        Case("without bias", ((1, 8), (5, 8))),
        Case("flattened", ((2, 3, 1, 2, 2), (4, 12), (4,))),
    ),
    sums=Case("sums of 300", ((20, 300), (24, 300))),
    benchmarks=tuple(benchmark("linear", (n, 2048), (1000, 2048), (1000,)) for n in (1, 32)),
    roles=("kernel", "bias"),
    context=context,
    reach=everything,
    keeps=(0, 1),
)
