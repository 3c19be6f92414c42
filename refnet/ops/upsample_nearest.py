"""Nearest-neighbour upsampling of H and W by a whole factor; time is left alone.

y[n, c, t, h, w] = x[n, c, t, h // scale, w // scale], as ONNX's `Resize` in mode nearest with
coordinates asymmetric and rounding floor.

Detect-and-Track, `lib/modeling/detector.py`: the top-down path of its FPN.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array, rounded, wide, with_room
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
from refnet.shapes import Shape, size, volume, whole


def infer(x: Shape, *, scale: int = 2) -> Shape:
    """Shape of y, (N, C, T, scale * H, scale * W), for x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank, or scale is no whole number of at least 1.
    """
    n, c, t, h, w = volume("x", x)
    scale = whole("scale", scale, 1)
    return n, c, t, scale * h, scale * w


def forward(x: Array, *, scale: int = 2) -> tuple[Array, Any]:
    """Repeat every line and every column."""
    _n, _c, _t, _h, _w = x.shape
    return x.repeat(scale, axis=3).repeat(scale, axis=4), x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = sum of dy over each scale x scale square, in float64."""
    n, c, t, h, w = context
    if not needs[0]:
        return (None,)
    scale = dy.shape[3] // h

    def sums(dy: Array) -> Array:
        squares = dy.reshape(n, c, t, h, scale, w, scale)
        # Each square becomes a row, which NumPy adds up pairwise.
        rows = np.ascontiguousarray(wide(squares).swapaxes(4, 5)).reshape(*context, scale * scale)
        return rounded(rows.sum(axis=5), dy.dtype)

    return (with_room(sums, dy),)


def magnitude(x: Array, *, scale: int = 2) -> Magnitude:
    """|y|: one term, so no rounding."""
    return Magnitude(np.abs(forward(x, scale=scale)[0]), terms(1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs, scale: int = 2) -> GradientMagnitudes:
    """Sum of |dy| over each square, of scale**2 terms."""
    return magnitudes(backward(np.abs(dy), x.shape, needs), terms(scale**2))


def cost(x: Shape, *, itemsize: int, scale: int = 2) -> Cost:
    """No multiply-adds."""
    return Cost(0, size(x) * (1 + scale**2) * itemsize)


def reach(x: Shape, *, scale: int = 2) -> Reaches:
    """Each `scale` lines, and columns, read the same one."""
    return SAME, Reach(step=Fraction(1, scale)), Reach(step=Fraction(1, scale))


def propose(rng: draws.Rng) -> Case:
    """One to four times."""
    return drawn_case(draws.blob(rng), scale=draws.pick(rng, (1, 2, 2, 3, 4)))


OP = Op(
    name="upsample_nearest",
    family="move",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("twice", ((2, 3, 2, 4, 3),)),
        Case("three times", ((1, 2, 1, 2, 2),), {"scale": 3}),
    ),
    benchmarks=(benchmark("upsample", (1, 256, 8, 28, 28)),),
    hands_on=True,
    reach=reach,
)
