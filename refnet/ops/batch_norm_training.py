"""Batch norm by the batch's own statistics, y = (x - mean[c]) s[c] / sqrt(variance[c] + epsilon) + b[c].

Over the n = N T H W values of a channel, mean = (sum of x) / n, variance = (sum of (x - mean)**2) / n:
Ioffe and Szegedy, arXiv:1502.03167, Algorithm 1; ONNX's `BatchNormalization` (opset 15, training_mode
1). Step by step: mean; d = x - mean; variance; then as `batch_norm`. What training keeps for later is
`running_mean` and `running_variance`.
"""

from typing import Any

import numpy as np

from refnet.arrays import Array
from refnet.errors import require_fraction
from refnet.op import Case, Cost, InputGradients, Magnitude, Needs, Op, benchmark, everything, terms
from refnet.ops.batch_norm import EPSILON, VOLUME, per_channel, require_per_channel, root
from refnet.shapes import Shape, size, volume


def infer(x: Shape, s: Shape, b: Shape, *, epsilon: float = EPSILON) -> Shape:
    """Shape of y, that of x (N, C, T, H, W); s and b are (C,).

    Raises
    ------
    ShapeError
        If x has another rank, or s or b has not one entry for each channel.
    ValueRangeError
        If epsilon is not a number above 0 and below 1.
    """
    require_fraction("epsilon", epsilon)
    x = volume("x", x)
    require_per_channel("s", s, x)
    require_per_channel("b", b, x)
    return x


def values_per_channel(x: Shape) -> int:
    """How many values a channel has, N T H W."""
    return size(x) // x[1]


def statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel, (C,) each; the variance is that of the population."""
    n = x.dtype.type(values_per_channel(x.shape))
    mean = x.sum(axis=VOLUME) / n
    return mean, np.square(x - per_channel(mean)).sum(axis=VOLUME) / n


def forward(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> tuple[Array, Any]:
    """Compute (x - mean) scale + b."""
    mean, variance = statistics(x)
    deviation = root(variance, epsilon)
    y = (x - per_channel(mean)) * per_channel(s / deviation) + per_channel(b)
    return y, (x, s, mean, deviation)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = scale (dy - db / n - z ds / n), ds = sum of dy z, db = sum of dy; z = (x - mean) / deviation."""
    x, s, mean, deviation = context
    n = x.dtype.type(values_per_channel(x.shape))
    z = (x - per_channel(mean)) / per_channel(deviation)
    ds, db = (dy * z).sum(axis=VOLUME), dy.sum(axis=VOLUME)
    dx = per_channel(s / deviation) * (dy - per_channel(db / n) - z * per_channel(ds / n))
    return dx if needs[0] else None, ds if needs[1] else None, db if needs[2] else None


def magnitude(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> Magnitude:
    """(|x| + mean of |x|) |scale| + |z s| (1 + 2 rms(x) / deviation) + |b|; n + 10 terms.

    The first part is the error of x - mean. The second is that of the deviation: its n squares are
    each of a difference whose error is at most gamma_n (|x| + mean of |x|), and by Cauchy and Schwarz
    those move the variance by at most 4 gamma_n rms(x) deviation.
    """
    mean, variance = statistics(x)
    deviation = root(variance, epsilon)
    scale = per_channel(np.abs(s) / deviation)
    size_of = np.abs(x) + per_channel(np.abs(x).mean(axis=VOLUME))
    rms = np.sqrt(np.square(x).mean(axis=VOLUME))
    drift = np.abs(x - per_channel(mean)) * scale * per_channel(1 + 2 * rms / deviation)
    return Magnitude(
        size_of * scale + drift + per_channel(np.abs(b)), terms(values_per_channel(x.shape) + 10)
    )


def cost(x: Shape, s: Shape, b: Shape, *, itemsize: int, epsilon: float = EPSILON) -> Cost:
    """One multiply-add an element for the variance, one for y."""
    return Cost(2 * size(x), 2 * (size(x) + size(s)) * itemsize)


OP = Op(
    name="batch_norm_training",
    family="norm",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 2, 4, 5), (3,), (3,))),
        Case("one sample", ((1, 2, 1, 3, 3), (2,), (2,)), {"epsilon": 0.01}),
    ),
    benchmarks=(
        benchmark("batch norm, training", (1, 64, 8, 112, 112), (64,), (64,)),
        benchmark("batch norm, training", (1, 2048, 8, 7, 7), (2048,), (2048,)),
    ),
    smooth=True,
    divides=True,
    reach=everything,
    keeps=(0, 1),
)
