"""Softmax of each row, y[n, k] = exp(x[n, k] - m[n]) / sum over j of exp(x[n, j] - m[n]).

m[n] is the largest value of row n: nothing overflows, and y does not depend on it. ONNX's `Softmax`
(opset 13) over the last axis of a matrix. Step by step: m; d = x - m; e = exp(d); the sum of e; e / sum.

The exp of `reference` is NumPy's, whose bits belong to one machine. `core` has its own, of + - * / alone, and
computes every step in double, so that its y is within 9 u of the exact one for any K (0.6 units in the last
place in float32).
"""

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
    everything,
    magnitudes,
    terms,
)
from refnet.shapes import Shape, size, volume


def infer(x: Shape) -> Shape:
    """Shape of y, that of x (N, K).

    Raises
    ------
    ShapeError
        If x is no matrix.
    """
    return volume("x", x, "NK")


def forward(x: Array) -> tuple[Array, Any]:
    """Compute exp(x - m) over its sum, row by row."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, y


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = y (dy - sum of dy y over the row)."""
    y = context
    return (y * (dy - (dy * y).sum(axis=1, keepdims=True)) if needs[0] else None,)


# Roundings of y beside those of the sum over K: exp to within 2.6 units in the last place (NumPy's, in
# float32; core's within 0.7), so within 5.2 u, twice; the division; second-order terms.
STEPS = 12


def magnitude(x: Array) -> Magnitude:
    """Relative errors are those of d, which exp hands on, and of K + 12 steps: y (1 + |d| + sum of |d| y)."""
    y, _ = forward(x)
    return Magnitude(y * sensitivity(x, y), terms(x.shape[1] + STEPS))


def sensitivity(x: Array, y: Array) -> Array:
    """1 + |d| + sum of |d| y: in units of what each value of d is off by, relative, how far y is off."""
    d = np.abs(x - x.max(axis=1, keepdims=True))
    of_row: Array = 1 + d + (y * d).sum(axis=1, keepdims=True)
    return of_row


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs) -> GradientMagnitudes:
    """Y (A (|dy| + sum of |dy| y) + sum of |dy| y A), A = 1 + |d| + sum of |d| y; 3/2 K + 15 terms.

    Each of two factors y is off by K + 12 units of u y A, as `magnitude` has it; the sum of dy y by K of its
    own, half of which each of the two sums here counts; then there are a difference and a product.
    """
    if not needs[0]:
        return (None,)
    y = forward(x)[0]
    a, weighted = sensitivity(x, y), np.abs(dy) * y
    of_sum, of_factors = (v.sum(axis=1, keepdims=True) for v in (weighted, weighted * a))
    count = terms(x.shape[1] * 3 // 2 + STEPS + 3)
    return magnitudes((y * (a * (np.abs(dy) + of_sum) + of_factors),), count)


def cost(x: Shape, *, itemsize: int) -> Cost:
    """No multiply-adds."""
    return Cost(0, 2 * size(x) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Rows of a few scores."""
    return drawn_case((draws.pick(rng, draws.SIZES), draws.pick(rng, draws.CHANNELS)))


OP = Op(
    name="softmax",
    family="activation",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((3, 5),)),
        Case("one class", ((2, 1),)),
    ),
    benchmarks=(benchmark("softmax", (32, 1000)),),
    smooth=True,
    divides=True,
    reach=everything,
    keeps=(OUTPUT,),
)
