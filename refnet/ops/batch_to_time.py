"""Moves time back out of the batch: (N * T, C, 1, H, W) to (N, C, T, H, W).

y[n, c, t, h, w] = x[n * T + t, c, 0, h, w], the inverse of `time_to_batch`.

Detect-and-Track, `lib/modeling/detector.py`: the inverse of `MoveTimeToBatchDim`.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array
from refnet.errors import ShapeError
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
from refnet.shapes import Shape, size, volume, whole


def infer(x: Shape, *, frames: int) -> Shape:
    """Shape of y, (N / frames, C, frames, H, W), for x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank or more than one frame, or `frames` does not divide its batch.
    """
    n, c, t, h, w = volume("x", x)
    frames = whole("frames", frames, 1)
    if t != 1:
        raise ShapeError(f"x size T is {t}: expected 1, the frames are in the batch")
    if n % frames:
        raise ShapeError(f"frames is {frames}: expected a divisor of the {n} samples of x")
    return n // frames, c, frames, h, w


def forward(x: Array, *, frames: int) -> tuple[Array, Any]:
    """Gather the samples of a clip."""
    n, c, _t, h, w = x.shape
    y = x.reshape(n // frames, frames, c, h, w).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(y), x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """The inverse move."""
    n, c, t, h, w = context
    if not needs[0]:
        return (None,)
    return (np.ascontiguousarray(dy.transpose(0, 2, 1, 3, 4)).reshape(n, c, t, h, w),)


def magnitude(x: Array, *, frames: int) -> Magnitude:
    """|y|: one term, so no rounding."""
    return Magnitude(np.abs(forward(x, frames=frames)[0]), terms(1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs, frames: int) -> GradientMagnitudes:
    """|dx|: one term, so no rounding."""
    return magnitudes(backward(np.abs(dy), x.shape, needs), terms(1))


def cost(x: Shape, *, itemsize: int, frames: int) -> Cost:
    """No multiply-adds."""
    return Cost(0, 2 * size(x) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """One to five frames of a batch."""
    n, c, frames, h, w = draws.blob(rng)
    return drawn_case((n * frames, c, 1, h, w), frames=frames)


OP = Op(
    name="batch_to_time",
    family="move",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(Case("small", ((6, 3, 1, 2, 5),), {"frames": 3}),),
    benchmarks=(benchmark("batch to time", (8, 512, 1, 28, 28), frames=8),),
    hands_on=True,
    reach=all_time,
)
