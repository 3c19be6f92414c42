"""Rectifier: y = 0 where x <= 0, else x. A NaN passes through, -0.0 becomes +0.0."""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array
from refnet.op import (
    OUTPUT,
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
from refnet.shapes import Shape, size, volume


def infer(x: Shape) -> Shape:
    """Shape of y, that of x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank.
    """
    return volume("x", x)


def forward(x: Array) -> tuple[Array, Any]:
    """Keep what is positive."""
    y = np.where(x <= 0, x.dtype.type(0), x)
    return y, y


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy where x > 0; at x = 0, zero."""
    y = context
    return (np.where(y <= 0, dy.dtype.type(0), dy) if needs[0] else None,)


def magnitude(x: Array) -> Magnitude:
    """|y|: one term, so no rounding."""
    return Magnitude(forward(x)[0], terms(1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs) -> GradientMagnitudes:
    """|dy| where x > 0: one term, so no rounding."""
    return magnitudes(backward(np.abs(dy), forward(x)[1], needs), terms(1))


def cost(x: Shape, *, itemsize: int) -> Cost:
    """No multiply-adds."""
    return Cost(0, 2 * size(x) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    return drawn_case(draws.blob(rng))


OP = Op(
    name="relu",
    family="activation",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 2, 4, 5),)),
        Case("one position", ((1, 1, 1, 1, 1),)),
    ),
    benchmarks=(
        benchmark("relu", (1, 64, 8, 112, 112)),
        benchmark("relu", (1, 512, 8, 28, 28)),
    ),
    sign="",
    hands_on=True,
    keeps=(OUTPUT,),
    cheap=True,
)
