"""Softmax of each row, y[n, k] = exp(x[n, k] - m[n]) / sum over j of exp(x[n, j] - m[n]).

m[n] is the largest value of row n: nothing overflows, and y does not depend on it. ONNX's `Softmax`
(opset 13) over the last axis of a matrix. Step by step: m; d = x - m; e = exp(d); the sum of e; e / sum.

Here exp is NumPy's, whose bits belong to one machine. `core` has its own, of + - * / alone, and computes
every step in double, so that its y is within 9 u of the exact one for any K (0.6 units in the last place in
float32).
"""

from typing import Any

import numpy as np

from refnet.arrays import Array
from refnet.op import OUTPUT, Case, Cost, InputGradients, Magnitude, Needs, Op, benchmark, everything, terms
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
    d = np.abs(x - x.max(axis=1, keepdims=True))
    return Magnitude(y * (1 + d + (y * d).sum(axis=1, keepdims=True)), terms(x.shape[1] + STEPS))


def cost(x: Shape, *, itemsize: int) -> Cost:
    """No multiply-adds."""
    return Cost(0, 2 * size(x) * itemsize)


OP = Op(
    name="softmax",
    family="activation",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
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
