"""Batch norm by given statistics, y = (x - mean[c]) s[c] / sqrt(variance[c] + epsilon) + b[c].

Ioffe and Szegedy, arXiv:1502.03167, Algorithm 2; ONNX's `BatchNormalization` (opset 15, training_mode
0); Caffe2's `SpatialBN` with is_test. Step by step, in float64 for both dtypes: scale = s / sqrt(variance +
epsilon), a number a channel; d = x - mean; d scale; + b; rounded to the dtype.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array, channel_sums, per_channel, rounded, wide
from refnet.errors import ShapeError, ValueRangeError, require_fraction
from refnet.op import (
    ANYTHING,
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    benchmark,
    constant,
    drawn_case,
    magnitudes,
    terms,
)
from refnet.shapes import Shape, size, text, volume

EPSILON = 1e-5


def infer(x: Shape, s: Shape, b: Shape, mean: Shape, variance: Shape, *, epsilon: float = EPSILON) -> Shape:
    """Shape of y, that of x (N, C, T, H, W); s, b, mean, variance are (C,).

    Raises
    ------
    ShapeError
        If x has another rank, or one of the others has not one entry for each channel.
    ValueRangeError
        If epsilon is not a number above 0 and below 1.
    """
    require_fraction("epsilon", epsilon)
    x = volume("x", x)
    for name, shape in (("s", s), ("b", b), ("mean", mean), ("variance", variance)):
        require_per_channel(name, shape, x)
    return x


def require_per_channel(name: str, shape: Shape, x: Shape) -> None:
    """Refuse what has not one entry for each channel of x."""
    if tuple(shape) != x[1:2]:
        raise ShapeError(f"{name} has shape {text(shape)}: expected {x[1]}, one entry for each channel of x")


def root(variance: Array, epsilon: float) -> Array:
    """Compute sqrt(variance + epsilon), in float64."""
    deviation: Array = np.sqrt(variance.astype(np.float64) + epsilon)
    return deviation


def forward(
    x: Array, s: Array, b: Array, mean: Array, variance: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Any]:
    """Compute (x - mean) scale + b."""
    deviation = root(variance, epsilon)
    y = _centred(x, mean) * per_channel(s / deviation) + per_channel(b)
    return rounded(y, x.dtype), (x, s, mean, deviation)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = scale dy; ds = sum of dy (x - mean) / deviation; db = sum of dy; statistics are given.

    In float64, rounded to the dtype.
    """
    x, s, mean, deviation = context
    return (
        rounded(dy * per_channel(s / deviation), dy.dtype) if needs[0] else None,
        rounded(channel_sums(dy * _centred(x, mean)) / deviation, dy.dtype) if needs[1] else None,
        rounded(channel_sums(dy), dy.dtype) if needs[2] else None,
        None,
        None,
    )


def _centred(x: Array, mean: Array) -> Array:
    """Compute x - mean in float64."""
    return np.subtract(x, per_channel(mean), dtype=np.float64)


def magnitude(
    x: Array, s: Array, b: Array, mean: Array, variance: Array, *, epsilon: float = EPSILON
) -> Magnitude:
    """|x - mean| |scale| + |b|; seven roundings: three of the scale, four of an element."""
    scale = np.abs(s) / root(variance, epsilon)
    sum_abs = np.abs(_centred(x, mean)) * per_channel(scale) + per_channel(np.abs(b))
    return Magnitude(sum_abs, terms(7))


def gradient_magnitude(
    dy: Array,
    x: Array,
    s: Array,
    b: Array,
    mean: Array,
    variance: Array,
    *,
    needs: Needs,
    epsilon: float = EPSILON,
) -> GradientMagnitudes:
    """|scale dy|; sums of |dy (x - mean)| / deviation and of |dy|, of the n values of a channel.

    A deviation in the dtype has two and a half roundings (the variance's under a root counts half), a
    reciprocal of it three and a half; so five for dx, and beside the n of a sum of products that of x - mean
    and four of the reciprocal and its product.
    """
    n = size(x.shape) // len(s)
    dy, deviation = np.abs(wide(dy)), root(variance, epsilon)
    sums = (
        dy * per_channel(np.abs(s) / deviation) if needs[0] else None,
        channel_sums(dy * np.abs(_centred(x, mean))) / deviation if needs[1] else None,
        channel_sums(dy) if needs[2] else None,
    )
    return magnitudes((*sums, None, None), terms(5), terms(n + 5), terms(n), terms(0), terms(0))


def cost(
    x: Shape, s: Shape, b: Shape, mean: Shape, variance: Shape, *, itemsize: int, epsilon: float = EPSILON
) -> Cost:
    """One multiply-add an element."""
    return Cost(size(x), (2 * size(x) + 4 * size(s)) * itemsize)


def check(x: Array, s: Array, b: Array, mean: Array, variance: Array, *, epsilon: float = EPSILON) -> None:
    """Refuse a negative variance.

    Raises
    ------
    ValueRangeError
        Naming the channel.
    """
    require_variance(variance)


def require_variance(variance: Array) -> None:
    """Refuse a negative variance."""
    if (variance < 0).any():
        c = int(np.argmax(variance < 0))
        raise ValueRangeError(f"variance of channel {c} is {variance[c]}: expected none below 0")


def draw_mean(uniform: Array, *shapes: Shape, **attrs: Any) -> Array:
    """Draw U(-1, 1) / 8, as a bias is."""
    return uniform / 8


def draw_variance(uniform: Array, *shapes: Shape, **attrs: Any) -> Array:
    """Draw 1 + U(-1, 1) / 8, as a scale is."""
    return 1 + uniform / 8


MEAN, VARIANCE = constant(draw_mean), constant(draw_variance)


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    x = draws.blob(rng)
    return drawn_case(x, *[x[1:2]] * 4, epsilon=10.0 ** -draws.pick(rng, range(1, 6)))


OP = Op(
    name="batch_norm",
    family="norm",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 2, 4, 5), (3,), (3,), (3,), (3,))),
        Case("one position", ((3, 4, 1, 1, 1), (4,), (4,), (4,), (4,)), {"epsilon": 0.25}),
    ),
    benchmarks=(
        benchmark("batch norm", (1, 64, 8, 112, 112), (64,), (64,), (64,), (64,)),
        benchmark("batch norm", (1, 256, 8, 56, 56), (256,), (256,), (256,), (256,)),
    ),
    domains=(ANYTHING, ANYTHING, ANYTHING, MEAN, VARIANCE),
    check=check,
    divides=True,
    keeps=(0, 1, 3),
    cheap=True,
)
