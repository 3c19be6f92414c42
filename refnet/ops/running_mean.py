"""The mean that training keeps, y[c] = momentum mean[c] + (1 - momentum) (mean of x over N, T, H, W)[c].

ONNX's `BatchNormalization` (opset 15) and Caffe2's `SpatialBN`; PyTorch calls 1 - momentum the
momentum. It is kept, not learnt: nothing has a gradient.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array, channel_sums, rounded
from refnet.errors import require_fraction
from refnet.op import (
    STOPPED,
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
    terms,
)
from refnet.ops.batch_norm import MEAN, require_per_channel
from refnet.ops.batch_norm_training import statistics, values_per_channel
from refnet.shapes import Shape, size, volume

MOMENTUM = 0.9


def infer(x: Shape, mean: Shape, *, momentum: float = MOMENTUM) -> Shape:
    """Shape of y, (C,), for x (N, C, T, H, W) and mean (C,).

    Raises
    ------
    ShapeError
        If x has another rank, or mean has not one entry for each channel.
    ValueRangeError
        If momentum is not a number above 0 and below 1.
    """
    require_fraction("momentum", momentum)
    require_per_channel("mean", mean, volume("x", x))
    return tuple(mean)


def average(old: Array, new: Array, momentum: float) -> Array:
    """Compute momentum old + (1 - momentum) new in float64; round it to the dtype of the old."""
    return rounded(momentum * old.astype(np.float64) + (1 - momentum) * new, old.dtype)


def forward(x: Array, mean: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """Average the old mean and the batch's."""
    return average(mean, statistics(x).mean(), momentum), None


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """No gradient."""
    return None, None


def magnitude(x: Array, mean: Array, *, momentum: float = MOMENTUM) -> Magnitude:
    """Momentum |mean| + (1 - momentum) mean of |x|; 48 roundings.

    44 of the batch's mean (`refnet.arrays.channel_sums`, for 2**31 values a channel), four here.
    """
    mean_abs = channel_sums(np.abs(x)) / values_per_channel(x.shape)
    return Magnitude(average(np.abs(mean), mean_abs, momentum), terms(48))


def gradient_magnitude(
    dy: Array, x: Array, mean: Array, *, needs: Needs, momentum: float = MOMENTUM
) -> GradientMagnitudes:
    """No gradient."""
    return None, None


def cost(x: Shape, mean: Shape, *, itemsize: int, momentum: float = MOMENTUM) -> Cost:
    """No multiply-adds."""
    return Cost(0, (size(x) + 2 * size(mean)) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    x = draws.blob(rng)
    return drawn_case(x, x[1:2], momentum=draws.pick(rng, range(1, 16)) / 16)


OP = Op(
    name="running_mean",
    family="other",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 2, 4, 5), (3,))),
        Case("slower", ((1, 2, 1, 2, 2), (2,)), {"momentum": 0.75}),
    ),
    benchmarks=(benchmark("running mean", (1, 256, 8, 56, 56), (256,)),),
    domains=(STOPPED, MEAN),
    divides=True,
    reach=everything,
)
