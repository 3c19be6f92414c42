"""Mean over H and W, or over T, H and W; the axes stay, with size 1.

y[n, c, t] = sum over h, w of x[n, c, t, h, w] / (H W), and likewise over t where `over_time`.
ONNX's `GlobalAveragePool` is the second.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array, channel_sums, rounded, with_room
from refnet.errors import ValueRangeError, brief
from refnet.op import (
    SAME,
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    Reaches,
    benchmark,
    drawn_case,
    magnitudes,
    terms,
)
from refnet.shapes import Shape, size, volume


def infer(x: Shape, *, over_time: bool = False) -> Shape:
    """Shape of y (N, C, T, 1, 1), or (N, C, 1, 1, 1) over time, for x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank.
    ValueRangeError
        If over_time is neither True nor False.
    """
    if not isinstance(over_time, bool):
        raise ValueRangeError(f"over_time is {brief(over_time)}: expected True or False")
    n, c, t, _, _ = volume("x", x)
    return n, c, 1 if over_time else t, 1, 1


def forward(x: Array, *, over_time: bool = False) -> tuple[Array, Any]:
    """Divide the sum by the count, in float64; round it to the dtype."""
    shape = infer(x.shape, over_time=over_time)
    count = size(x.shape) // size(shape)

    def means(x: Array) -> Array:
        return rounded(channel_sums(x.reshape(1, size(shape), count)) / count, x.dtype).reshape(shape)

    return with_room(means, x), x.shape


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy / count, everywhere."""
    if not needs[0]:
        return (None,)
    count = size(context) // dy.size
    return (np.broadcast_to(dy / dy.dtype.type(count), context).copy(),)


def magnitude(x: Array, *, over_time: bool = False) -> Magnitude:
    """Mean of |x|; as many terms as are averaged, and the division."""
    sum_abs, _ = forward(np.abs(x), over_time=over_time)
    return Magnitude(sum_abs, terms(x.size // sum_abs.size + 1))


def gradient_magnitude(dy: Array, x: Array, *, needs: Needs, over_time: bool = False) -> GradientMagnitudes:
    """|dy| / count; two roundings, of a reciprocal and a product."""
    return magnitudes(backward(np.abs(dy), x.shape, needs), terms(2))


def cost(x: Shape, *, itemsize: int, over_time: bool = False) -> Cost:
    """No multiply-adds."""
    return Cost(0, (size(x) + size(infer(x, over_time=over_time))) * itemsize)


def reach(x: Shape, *, over_time: bool = False) -> Reaches:
    """All of H and W, and of T over time."""
    return None if over_time else SAME, None, None


def propose(rng: draws.Rng) -> Case:
    """Any blob, over time or not."""
    return drawn_case(draws.blob(rng), over_time=draws.chance(rng))


OP = Op(
    name="global_average_pool",
    family="pooling",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("over H, W", ((2, 3, 4, 2, 4),)),
        Case("over T, H, W", ((2, 3, 4, 2, 2),), {"over_time": True}),
    ),
    sums=Case("sums of 256", ((2, 6, 4, 8, 8),), {"over_time": True}),
    benchmarks=(
        benchmark("global average pool", (100, 2048, 1, 7, 7)),
        benchmark("global average pool", (32, 2048, 1, 7, 7), over_time=True),
    ),
    reach=reach,
)
