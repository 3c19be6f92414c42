"""Average pooling over a (T, H, W) window; padding is neither added nor counted.

y = (sum of the window's values inside x) / (how many there are): ONNX's `AveragePool` with
count_include_pad = 0 (opset 11).
"""

from typing import Any, Unpack

import numpy as np

from refnet import draws
from refnet.arrays import Array, Sums, rounded, with_room
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
)
from refnet.shapes import PoolAttributes, Shape, pooled, pooling, size, taps


def forward(x: Array, **attrs: Unpack[PoolAttributes]) -> tuple[Array, Any]:
    """Add up tap by tap, and divide by the count."""

    def means(x: Array) -> Array:
        y = Sums(pooled(x.shape, **attrs))
        for _, outputs, inputs in taps(x.shape, y.shape, pooling(x.shape, **attrs)):
            y.add(outputs, x[..., *inputs])
        return rounded(y.total() / _counts(x.shape, y.shape, {**attrs}), x.dtype)

    return with_room(means, x), (x.shape, attrs)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each value of a window has the gradient dy / count; where windows overlap, they add."""
    shape, attrs = context
    if not needs[0]:
        return (None,)

    def shared_out(dy: Array) -> Array:
        dx = Sums(shape)
        share = dy / _counts(shape, dy.shape, attrs).astype(dy.dtype)
        for _, outputs, inputs in taps(shape, dy.shape, pooling(shape, **attrs)):
            dx.add(inputs, share[..., *outputs])
        return rounded(dx.total(), dy.dtype)

    return (with_room(shared_out, dy),)


def magnitude(x: Array, **attrs: Any) -> Magnitude:
    """Mean of |x|; as many terms as are averaged, and the division."""
    sum_abs, _ = forward(np.abs(x), **attrs)
    return Magnitude(sum_abs, _counts(x.shape, sum_abs.shape, attrs) + 1)


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs, **attrs: Any) -> GradientMagnitudes:
    """Sum of |dy| / count over the windows that a value is in; as many terms, and the division's.

    One term more than windows is enough for a division by way of the reciprocal, which rounds twice.
    """
    windows = np.zeros(x.shape[2:], np.int64)
    for _, _, inputs in taps(x.shape, dy.shape, pooling(x.shape, **attrs)):
        windows[inputs] += 1
    return magnitudes(backward(np.abs(dy), (x.shape, attrs), needs), windows + 1)


def cost(x: Shape, *, itemsize: int, **attrs: Any) -> Cost:
    """No multiply-adds."""
    return Cost(0, (size(x) + size(pooled(x, **attrs))) * itemsize)


def _counts(x: Shape, y: Shape, attrs: dict[str, Any]) -> Array:
    """How many values of each window lie inside x, (oT, oH, oW)."""
    counts = np.zeros(y[2:], np.int64)
    for _, outputs, _ in taps(x, y, pooling(x, **attrs)):
        counts[outputs] += 1
    return counts


def propose(rng: draws.Rng) -> Case:
    """Any pool."""
    x, attrs = draws.pool(rng)
    return drawn_case(x, **attrs)


OP = Op(
    name="average_pool3d",
    family="pooling",
    infer=pooled,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("over time", ((2, 3, 4, 3, 3),), {"kernel": (4, 1, 1)}),
        Case("strided", ((1, 2, 4, 6, 6),), {"kernel": (2, 2, 2), "stride": (2, 2, 2)}),
        Case("overlapping, padded", ((1, 2, 2, 5, 4),), {"kernel": (1, 2, 2), "pad": (0, 1, 1)}),
    ),
    sums=Case("sums of 256", ((2, 4, 5, 9, 9),), {"kernel": (4, 8, 8)}),
    benchmarks=(benchmark("average pool over time", (1, 1024, 8, 14, 14), kernel=(8, 1, 1)),),
    window=pooling,
)
