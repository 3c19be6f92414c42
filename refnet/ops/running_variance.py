"""The variance that training keeps, y[c] = momentum variance[c] + (1 - momentum) v[c].

v is the unbiased variance of the batch, (sum over N, T, H, W of (x - mean)**2) / (n - 1): what Caffe2's
`SpatialBN` and PyTorch keep, while they normalise by the population's (ONNX keeps the population's).
PyTorch calls 1 - momentum the momentum. It is kept, not learnt: nothing has a gradient.
"""

from typing import Any

import numpy as np

from refnet.arrays import Array
from refnet.errors import ShapeError, require_fraction
from refnet.op import STOPPED, Case, Cost, InputGradients, Magnitude, Needs, Op, benchmark, everything, terms
from refnet.ops.batch_norm import VARIANCE, VOLUME, require_per_channel, require_variance
from refnet.ops.batch_norm_training import statistics, values_per_channel
from refnet.ops.running_mean import MOMENTUM, average
from refnet.shapes import Shape, size, volume


def infer(x: Shape, variance: Shape, *, momentum: float = MOMENTUM) -> Shape:
    """Shape of y, (C,), for x (N, C, T, H, W) and variance (C,).

    Raises
    ------
    ShapeError
        If x has another rank, or a channel has a single value, or variance has not one entry for
        each channel.
    ValueRangeError
        If momentum is not a number above 0 and below 1.
    """
    require_fraction("momentum", momentum)
    x = volume("x", x)
    require_per_channel("variance", variance, x)
    if values_per_channel(x) == 1:
        raise ShapeError("x has one value a channel: expected at least two, or there is no variance")
    return tuple(variance)


def unbiased(variance: Array, n: int) -> Array:
    """Turn the variance of a population of n into the unbiased one: times n / (n - 1)."""
    of = variance.dtype.type
    widened: Array = variance * of(n) / of(n - 1)
    return widened


def forward(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """Average the old variance and the batch's."""
    return average(variance, unbiased(statistics(x)[1], values_per_channel(x.shape)), momentum), None


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """No gradient."""
    return None, None


def magnitude(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> Magnitude:
    """Momentum variance + (1 - momentum) v (1 + 4 rms(x) / deviation); n terms and eight roundings.

    See `refnet.ops.batch_norm_training.magnitude` for what the mean's error does to v.
    """
    n = values_per_channel(x.shape)
    batch = unbiased(statistics(x)[1], n)
    rms = np.sqrt(np.square(x).mean(axis=VOLUME))
    widened = batch + 4 * rms * np.sqrt(batch)
    return Magnitude(average(variance, widened, momentum), terms(n + 8))


def check(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> None:
    """Refuse a negative variance.

    Raises
    ------
    ValueRangeError
        Naming the channel.
    """
    require_variance(variance)


def cost(x: Shape, variance: Shape, *, itemsize: int, momentum: float = MOMENTUM) -> Cost:
    """One multiply-add an element."""
    return Cost(size(x), (size(x) + 2 * size(variance)) * itemsize)


OP = Op(
    name="running_variance",
    family="other",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 2, 4, 5), (3,))),
        Case("slower", ((1, 2, 1, 2, 2), (2,)), {"momentum": 0.75}),
    ),
    benchmarks=(benchmark("running variance", (1, 256, 8, 56, 56), (256,)),),
    domains=(STOPPED, VARIANCE),
    check=check,
    divides=True,
    reach=everything,
)
