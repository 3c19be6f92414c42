"""The key frame of a clip: (N, C, T, H, W) to (N, C, 1, H, W).

y[n, c, 0, h, w] = x[n, c, T // 2, h, w], the middle frame; of an even number, the later one.

Detect-and-Track, `lib/modeling/detector.py`: the time link `slice-center`.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array
from refnet.op import (
    SAME,
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    Reach,
    Reaches,
    benchmark,
    drawn_case,
    magnitudes,
    terms,
)
from refnet.pieces import copied, fill
from refnet.shapes import Shape, size, volume


def infer(x: Shape) -> Shape:
    """Shape of y, (N, C, 1, H, W), for x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank.
    """
    n, c, _t, h, w = volume("x", x)
    return n, c, 1, h, w


def forward(x: Array) -> tuple[Array, Any]:
    """Copy the middle frame."""
    _n, _c, t, _h, _w = x.shape
    return copied(x[:, :, t // 2 : t // 2 + 1], x.dtype), x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dy goes to the middle frame, zeros to the others."""
    n, c, t, h, w = context
    if not needs[0]:
        return (None,)
    dx = np.zeros((n, c, t, h, w), dy.dtype)
    fill(dx[:, :, t // 2 : t // 2 + 1], lambda part: part, dy)
    return (dx,)


def magnitude(x: Array) -> Magnitude:
    """|y|: one term, so no rounding."""
    return Magnitude(np.abs(forward(x)[0]), terms(1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs) -> GradientMagnitudes:
    """|dx|: one term, so no rounding."""
    return magnitudes(backward(np.abs(dy), x.shape, needs), terms(1))


def cost(x: Shape, *, itemsize: int) -> Cost:
    """No multiply-adds."""
    return Cost(0, (size(x) + size(infer(x))) * itemsize)


def reach(x: Shape) -> Reaches:
    """The middle frame."""
    return Reach(offset=x[2] // 2), SAME, SAME


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    return drawn_case(draws.blob(rng))


OP = Op(
    name="slice_keyframe",
    family="move",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("even", ((2, 3, 4, 2, 5),)),
        Case("odd", ((2, 3, 3, 2, 5),)),
    ),
    benchmarks=(benchmark("key frame", (1, 512, 8, 28, 28)),),
    hands_on=True,
    reach=reach,
)
