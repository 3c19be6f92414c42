"""The variance that training keeps, y[c] = momentum variance[c] + (1 - momentum) v[c].

v is the unbiased variance of the batch, (sum over N, T, H, W of (x - mean)**2) / (n - 1): what Caffe2's
`SpatialBN` and PyTorch keep, while they normalise by the population's (ONNX keeps the population's).
PyTorch calls 1 - momentum the momentum. It is kept, not learnt: nothing has a gradient.
"""

from typing import Any

from refnet import draws
from refnet.arrays import Array
from refnet.environment import errstate
from refnet.errors import ShapeError, require_fraction
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
from refnet.ops.batch_norm import VARIANCE, require_per_channel, require_variance
from refnet.ops.batch_norm_training import Statistics, statistics, values_per_channel
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


def unbiased(of_batch: Statistics, n: int) -> Array:
    """Turn the variance of a population of n into the unbiased one: times n / (n - 1)."""
    with errstate(over="ignore"):
        widened: Array = of_batch.variance * (n / (n - 1)) / of_batch.unit / of_batch.unit
    return widened


def forward(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """Average the old variance and the batch's."""
    return average(variance, unbiased(statistics(x), values_per_channel(x.shape)), momentum), None


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """No gradient."""
    return None, None


def magnitude(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> Magnitude:
    """|y|; 80 roundings: 72 of the batch's variance (`_core/sums.h`), three of v, four here."""
    return Magnitude(forward(x, variance, momentum=momentum)[0], terms(80))


def check(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> None:
    """Refuse a negative variance.

    Raises
    ------
    ValueRangeError
        Naming the channel.
    """
    require_variance(variance)


def gradient_magnitude(
    dy: Array, x: Array, variance: Array, *, needs: Needs, momentum: float = MOMENTUM
) -> GradientMagnitudes:
    """No gradient."""
    return None, None


def cost(x: Shape, variance: Shape, *, itemsize: int, momentum: float = MOMENTUM) -> Cost:
    """One multiply-add an element."""
    return Cost(size(x), (size(x) + 2 * size(variance)) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any blob with two values a channel."""
    x = draws.blob(rng)
    x = x if values_per_channel(x) > 1 else (2, *x[1:])
    return drawn_case(x, x[1:2], momentum=draws.pick(rng, range(1, 16)) / 16)


OP = Op(
    name="running_variance",
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
    benchmarks=(benchmark("running variance", (1, 256, 8, 56, 56), (256,)),),
    domains=(STOPPED, VARIANCE),
    check=check,
    divides=True,
    reach=everything,
)
