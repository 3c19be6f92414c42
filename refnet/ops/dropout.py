"""Dropout with a given mask, y = x mask / (1 - ratio); the mask holds 0 (dropped) and 1 (kept).

Srivastava et al., JMLR 15 (2014), scaled in training; ONNX's `Dropout` (opset 13) with its mask as an
input, so that a run can be repeated. What is dropped is multiplied by 0: a NaN stays one. Step by step:
keep = 1 / (1 - ratio); x mask; times keep.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array
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
from refnet.pieces import boxes
from refnet.shapes import Shape, size, text, volume

RATIO = 0.5


def infer(x: Shape, mask: Shape, *, ratio: float = RATIO) -> Shape:
    """Shape of y, that of x and of the mask, of any rank.

    Raises
    ------
    ShapeError
        If the two differ.
    ValueRangeError
        If ratio is not a number above 0 and below 1.
    """
    require_fraction("ratio", ratio)
    x = volume("x", x, "NCTHW"[: len(x)])
    if tuple(mask) != x:
        raise ShapeError(f"mask has shape {text(mask)}: expected {text(x)}, that of x")
    return x


def forward(x: Array, mask: Array, *, ratio: float = RATIO) -> tuple[Array, Any]:
    """Compute x mask keep."""
    keep = x.dtype.type(1 / (1 - ratio))
    return x * mask * keep, (mask, keep)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy mask keep; the mask is given."""
    mask, keep = context
    return dy * mask * keep if needs[0] else None, None


def magnitude(x: Array, mask: Array, *, ratio: float = RATIO) -> Magnitude:
    """|y|; two roundings, of keep and of the product."""
    return Magnitude(np.abs(forward(x, mask, ratio=ratio)[0]), terms(2))


def gradient_magnitude(
    dy: Array, x: Array, mask: Array, *, needs: Needs, ratio: float = RATIO
) -> GradientMagnitudes:
    """|dx|; three roundings, two of keep and one of the product."""
    _, context = forward(x, mask, ratio=ratio)
    return magnitudes(backward(np.abs(dy), context, needs), terms(3), terms(0))


def cost(x: Shape, mask: Shape, *, itemsize: int, ratio: float = RATIO) -> Cost:
    """No multiply-adds."""
    return Cost(0, 3 * size(x) * itemsize)


def check(x: Array, mask: Array, *, ratio: float = RATIO) -> None:
    """Refuse a mask that holds anything but 0 and 1.

    Raises
    ------
    ValueRangeError
        With the first such value.
    """
    for box in boxes(mask.shape):
        others = mask[box][(mask[box] != 0) & (mask[box] != 1)]
        if others.size:
            raise ValueRangeError(f"mask holds {others[0]}: expected 0 (dropped) and 1 (kept)")


def draw_mask(uniform: Array, *shapes: Shape, ratio: float = RATIO) -> Array:
    """Drop with probability `ratio`."""
    return ((uniform + 1) / 2 >= ratio).astype(uniform.dtype)


def propose(rng: draws.Rng) -> Case:
    """A blob, or the first axes of one."""
    x = draws.blob(rng)[: draws.pick(rng, (2, 5, 5))]
    return drawn_case(x, x, ratio=draws.pick(rng, range(1, 16)) / 16)


OP = Op(
    name="dropout",
    family="activation",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("volume", ((2, 3, 2, 2, 2), (2, 3, 2, 2, 2))),
        Case("matrix, few dropped", ((3, 7), (3, 7)), {"ratio": 0.25}),
    ),
    benchmarks=(
        benchmark("dropout", (32, 2048), (32, 2048)),
        benchmark("dropout", (1, 512, 8, 28, 28), (1, 512, 8, 28, 28)),
    ),
    domains=(ANYTHING, constant(draw_mask)),
    check=check,
    divides=True,
    keeps=(1,),
    cheap=True,
)
