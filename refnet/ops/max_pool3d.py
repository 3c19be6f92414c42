"""Max pooling over a (T, H, W) window. Padding never wins.

Among equal values the first in C order of the window wins, and takes the whole gradient
(Caffe2, PyTorch); a NaN wins over every number.
"""

from typing import Any, Unpack

import numpy as np

from refnet import draws
from refnet.arrays import Array, rounded, with_room
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
from refnet.shapes import PoolAttributes, Shape, pooled, pooling, size, taps


def forward(x: Array, **attrs: Unpack[PoolAttributes]) -> tuple[Array, Any]:
    """Let each tap, in order, challenge the best value so far; remember the winner's position."""
    y = np.zeros(pooled(x.shape, **attrs), x.dtype)
    winner = np.full(y.shape, -1, np.intp)
    position = np.arange(size(x.shape[2:]), dtype=np.intp).reshape(x.shape[2:])
    for _, outputs, inputs in taps(x.shape, y.shape, pooling(x.shape, **attrs)):
        challenger, best, at = x[..., *inputs], y[..., *outputs], winner[..., *outputs]
        wins = (at < 0) | (challenger > best) | (np.isnan(challenger) & ~np.isnan(best))
        np.copyto(best, challenger, where=wins)
        np.copyto(at, position[inputs], where=wins)
    return y, (x.shape, winner)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each output's gradient goes to its winner; where windows share one, they add in C order, in float64."""
    shape, winner = context
    if not needs[0]:
        return (None,)

    def sums(dy: Array) -> Array:
        dx = np.zeros((size(shape[:2]), size(shape[2:])))
        planes = np.arange(dx.shape[0])[:, None]
        np.add.at(dx, (planes, winner.reshape(dx.shape[0], -1)), dy.reshape(dx.shape[0], -1))
        return rounded(dx.reshape(shape), dy.dtype)

    return (with_room(sums, dy),)


def magnitude(x: Array, **attrs: Any) -> Magnitude:
    """|y|: one term, so no rounding."""
    return Magnitude(np.abs(forward(x, **attrs)[0]), terms(1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs, **attrs: Any) -> GradientMagnitudes:
    """Sum of |dy| over the windows that a value wins, of as many terms."""
    _, context = forward(x, **attrs)
    (dx,), (wins,) = (backward(v, context, needs) for v in (np.abs(dy), np.ones(dy.shape)))
    return (None,) if wins is None else magnitudes((dx,), wins.astype(np.int64))


def cost(x: Shape, *, itemsize: int, **attrs: Any) -> Cost:
    """No multiply-adds."""
    return Cost(0, (size(x) + size(pooled(x, **attrs))) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any pool."""
    x, attrs = draws.pool(rng)
    return drawn_case(x, **attrs)


OP = Op(
    name="max_pool3d",
    family="pooling",
    infer=pooled,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case(
            "pool1",
            ((2, 3, 2, 9, 8),),
            {"kernel": (1, 3, 3), "stride": (1, 2, 2), "pad": (0, 1, 1)},
        ),
        Case("overlapping", ((1, 2, 4, 5, 6),), {"kernel": (3, 2, 3), "pad": (2, 1, 1)}),
        Case("subsample", ((1, 2, 2, 5, 6),), {"kernel": (1, 1, 1), "stride": (1, 2, 2)}),
    ),
    benchmarks=(
        benchmark("max pool", (1, 64, 8, 112, 112), kernel=(1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 1)),
    ),
    hands_on=True,
    window=pooling,
    keeps=(0, OUTPUT),
)
