"""Moves time into the batch: (N, C, T, H, W) to (N * T, C, 1, H, W).

y[n * T + t, c, 0, h, w] = x[n, c, t, h, w]: every frame becomes a sample.

Detect-and-Track, `lib/modeling/detector.py`: `MoveTimeToBatchDim`.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array
from refnet.op import (
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    all_time,
    benchmark,
    drawn_case,
    magnitudes,
    terms,
)
from refnet.shapes import Shape, size, volume


def infer(x: Shape) -> Shape:
    """Shape of y, (N * T, C, 1, H, W), for x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank.
    """
    n, c, t, h, w = volume("x", x)
    return n * t, c, 1, h, w


def forward(x: Array) -> tuple[Array, Any]:
    """Make every frame a sample."""
    n, c, t, h, w = x.shape
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3, 4)).reshape(n * t, c, 1, h, w), x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """The inverse move."""
    n, c, t, h, w = context
    if not needs[0]:
        return (None,)
    return (np.ascontiguousarray(dy.reshape(n, t, c, h, w).transpose(0, 2, 1, 3, 4)),)


def magnitude(x: Array) -> Magnitude:
    """|y|: one term, so no rounding."""
    return Magnitude(np.abs(forward(x)[0]), terms(1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs) -> GradientMagnitudes:
    """|dx|: one term, so no rounding."""
    return magnitudes(backward(np.abs(dy), x.shape, needs), terms(1))


def cost(x: Shape, *, itemsize: int) -> Cost:
    """No multiply-adds."""
    return Cost(0, 2 * size(x) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    return drawn_case(draws.blob(rng))


OP = Op(
    name="time_to_batch",
    family="move",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 4, 2, 5),)),
        Case("one frame", ((2, 3, 1, 2, 2),)),
    ),
    benchmarks=(benchmark("time to batch", (1, 512, 8, 28, 28)),),
    hands_on=True,
    reach=all_time,
)
