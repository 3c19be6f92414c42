"""The identity forward, y = x; backward nothing passes, not even zeros.

Caffe2's `StopGradient`. A walk over a net never calls `backward` here: what lies behind a stop is
*absent* from the gradients.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array
from refnet.op import (
    STOPPED,
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    drawn_case,
    terms,
)
from refnet.shapes import Shape, volume


def infer(x: Shape) -> Shape:
    """Shape of y, that of x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank.
    """
    return volume("x", x)


def forward(x: Array) -> tuple[Array, Any]:
    """Hand on x itself."""
    return x, None


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """No gradient."""
    return (None,)


def magnitude(x: Array) -> Magnitude:
    """|x|: one term, so no rounding."""
    return Magnitude(np.abs(x), terms(1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs) -> GradientMagnitudes:
    """No gradient."""
    return (None,)


def cost(x: Shape, *, itemsize: int) -> Cost:
    """Nothing is computed or moved."""
    return Cost(0, 0)


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    return drawn_case(draws.blob(rng))


OP = Op(
    name="stop_gradient",
    family="stop",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(Case("small", ((2, 3, 2, 4, 5),)),),
    sign="stop",
    hands_on=True,
    domains=(STOPPED,),
)
