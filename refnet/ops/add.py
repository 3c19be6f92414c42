"""Sum of two blobs of equal shape, y = x1 + x2; nothing is broadcast."""

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
    benchmark,
    drawn_case,
    magnitudes,
    terms,
)
from refnet.shapes import Shape, size, text, volume


def infer(x1: Shape, x2: Shape) -> Shape:
    """Shape of y, that of x1 and x2 (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If the shapes differ.
    """
    x1, x2 = volume("x1", x1), volume("x2", x2)
    if x1 != x2:
        raise ShapeError(f"x1 has shape {text(x1)} and x2 {text(x2)}: expected equal shapes")
    return x1


def forward(x1: Array, x2: Array) -> tuple[Array, Any]:
    """Compute x1 + x2."""
    return x1 + x2, None


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Both inputs have the gradient dy itself."""
    return dy if needs[0] else None, dy if needs[1] else None


def magnitude(x1: Array, x2: Array) -> Magnitude:
    """|x1| + |x2|: two terms."""
    return Magnitude(np.abs(x1) + np.abs(x2), terms(2))


def gradient_magnitude(dy: Array, x1: Array, x2: Array, *, needs: Needs) -> GradientMagnitudes:
    """|dy|: one term, so no rounding."""
    return magnitudes(backward(np.abs(dy), None, needs), terms(1), terms(1))


def cost(x1: Shape, x2: Shape, *, itemsize: int) -> Cost:
    """No multiply-adds."""
    return Cost(0, 3 * size(x1) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any blob, twice."""
    x = draws.blob(rng)
    return drawn_case(x, x)


OP = Op(
    name="add",
    family="sum",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(Case("small", ((2, 3, 2, 4, 5), (2, 3, 2, 4, 5))),),
    benchmarks=(benchmark("add", (1, 256, 8, 56, 56), (1, 256, 8, 56, 56)),),
    sign="+",
    cheap=True,
)
