"""Frozen batch norm: a scale and a bias for each channel, y[n, c] = s[c] * x[n, c] + b[c].

Caffe2's `AffineChannelNd`, which had neither a CPU kernel nor gradients for s and b.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array, channel_sums, per_channel, rounded
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
    magnitudes,
    terms,
)
from refnet.shapes import Shape, size, text, volume


def infer(x: Shape, s: Shape, b: Shape) -> Shape:
    """Shape of y, that of x (N, C, T, H, W); s and b are (C,).

    Raises
    ------
    ShapeError
        If x has another rank, or s or b has not one entry for each channel.
    """
    x = volume("x", x)
    for name, shape in (("s", s), ("b", b)):
        if tuple(shape) != x[1:2]:
            raise ShapeError(
                f"{name} has shape {text(shape)}: expected {x[1]}, one entry for each channel of x"
            )
    return x


def forward(x: Array, s: Array, b: Array) -> tuple[Array, Any]:
    """Compute s x + b, channel by channel."""
    return per_channel(s) * x + per_channel(b), (x, s)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = s dy; ds = sum of dy x and db = sum of dy over N, T, H, W, both added up in float64."""
    x, s = context
    return (
        per_channel(s) * dy if needs[0] else None,
        rounded(channel_sums(np.multiply(dy, x, dtype=np.float64)), dy.dtype) if needs[1] else None,
        rounded(channel_sums(dy), dy.dtype) if needs[2] else None,
    )


def magnitude(x: Array, s: Array, b: Array) -> Magnitude:
    """|s x| + |b|: two terms."""
    return Magnitude(np.abs(per_channel(s) * x) + np.abs(per_channel(b)), terms(2))


def gradient_magnitude(dy: Array, x: Array, s: Array, b: Array, *, needs: Needs) -> GradientMagnitudes:
    """|s dy|: one term; sums of |dy x| and |dy|, of a term for each value of the channel."""
    n = size(x.shape) // len(s)
    return magnitudes(backward(np.abs(dy), (np.abs(x), np.abs(s)), needs), terms(1), terms(n), terms(n))


def cost(x: Shape, s: Shape, b: Shape, *, itemsize: int) -> Cost:
    """One multiply-add an element."""
    return Cost(size(x), (2 * size(x) + size(s) + size(b)) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    x = draws.blob(rng)
    return drawn_case(x, x[1:2], x[1:2])


OP = Op(
    name="affine",
    family="norm",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 2, 4, 5), (3,), (3,))),
        Case("one position", ((3, 4, 1, 1, 1), (4,), (4,))),
    ),
    benchmarks=(
        benchmark("affine", (1, 64, 8, 112, 112), (64,), (64,)),
        benchmark("affine", (1, 256, 8, 56, 56), (256,), (256,)),
    ),
    sign="",
    keeps=(0, 1),
    cheap=True,
)
