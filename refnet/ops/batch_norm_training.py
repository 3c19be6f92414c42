"""Batch norm by the batch's own statistics, y = (x - mean[c]) s[c] / sqrt(variance[c] + epsilon) + b[c].

Over the n = N T H W values of a channel, mean = (sum of x) / n, variance = (sum of (x - mean)**2) / n:
Ioffe and Szegedy, arXiv:1502.03167, Algorithm 1; ONNX's `BatchNormalization` (opset 15, training_mode
1). What training keeps for later is `running_mean` and `running_variance`.

Step by step, in float64 for both dtypes: the mean; d = x - mean, with as many digits as x allows, for which
the mean is kept as the sum of two numbers; the mean of d**2, the variance; scale = s / sqrt(variance +
epsilon); d scale; + b; rounded to the dtype. The error of d scale is at most 48 2**-53 (|d scale| + |s|),
however many values there are and however large the mean is beside the deviation: Chan, Golub and LeVeque,
*The American Statistician* 37(3), 1983, have the variance by two passes and what its mean's rounding costs.
Of float32, `core` takes mean and variance in one pass, about the first value or the mean of a few; that
adds at most 57 2**-53 (1 + max(n / 32, 520)) (|d scale| + |s|), 7 roundings of float32 for 2**31 values a
channel. A channel whose squares would overflow is taken times 2**-540 first, which is exact and leaves y
as it is.
"""

from typing import Any, NamedTuple

import numpy as np

from refnet import draws
from refnet.arrays import Array, channel_sums, per_channel, rounded, wide
from refnet.errors import require_fraction
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
    everything,
    magnitudes,
    terms,
)
from refnet.ops.batch_norm import EPSILON, require_per_channel
from refnet.pieces import boxes, fill
from refnet.shapes import Shape, size, volume

# Of a channel with values this large, the squares are those of its values times SMALL.
LARGE, SMALL = np.float64(2.0**480), 2.0**-540


def infer(x: Shape, s: Shape, b: Shape, *, epsilon: float = EPSILON) -> Shape:
    """Shape of y, that of x (N, C, T, H, W); s and b are (C,).

    Raises
    ------
    ShapeError
        If x has another rank, or s or b has not one entry for each channel.
    ValueRangeError
        If epsilon is not a number above 0 and below 1.
    """
    require_fraction("epsilon", epsilon)
    x = volume("x", x)
    require_per_channel("s", s, x)
    require_per_channel("b", b, x)
    return x


def values_per_channel(x: Shape) -> int:
    """How many values a channel has, N T H W."""
    return size(x) // x[1]


class Statistics(NamedTuple):
    """What a batch says of each channel, (C,) each, in float64, of its values times `unit`.

    Attributes
    ----------
    unit : ndarray
        1, or SMALL where squares would overflow.
    high, low : ndarray
        The mean is their sum; high is it, rounded.
    variance : ndarray
        That of the population.
    """

    unit: Array
    high: Array
    low: Array
    variance: Array

    def mean(self) -> Array:
        """The mean of x itself."""
        return self.high / self.unit

    def deviation(self, epsilon: float) -> Array:
        """Compute sqrt(variance + epsilon), times the unit; not less than sqrt(epsilon) however small."""
        least = np.sqrt(epsilon) * self.unit
        found: Array = np.maximum(np.sqrt(self.variance + epsilon * self.unit**2), least)
        return found


def units(x: Array) -> Array:
    """By what each channel is multiplied, lest its squares overflow: 1, or SMALL for large, finite ones."""
    largest = np.zeros(x.shape[1], x.dtype)
    for box in boxes(x.shape):
        here = largest[box[1]]
        np.maximum(here, np.abs(x[box]).max(axis=(0, 2, 3, 4)), out=here)
    return np.where((largest >= LARGE) & np.isfinite(largest), SMALL, 1.0)


def scaled(x: Array, unit: Array) -> Array:
    """Multiply each channel by its unit; x itself where all are 1."""
    if (unit == 1).all():
        return x
    return fill(np.empty(x.shape), np.multiply, x, np.broadcast_to(per_channel(unit), x.shape))


def statistics(x: Array) -> Statistics:
    """Take the mean, then the mean of x - mean, which is what rounding took from it, then the variance."""
    unit, n = units(x), values_per_channel(x.shape)
    x = scaled(x, unit)
    high = channel_sums(x) / n
    low = channel_sums(x - per_channel(high)) / n
    return Statistics(unit, high, low, channel_sums(np.square(_centred(x, high, low))) / n)


def _centred(x: Array, high: Array, low: Array) -> Array:
    """Compute x - mean in float64."""
    return (x - per_channel(high)) - per_channel(low)


def forward(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> tuple[Array, Any]:
    """Compute (x - mean) scale + b."""
    unit, high, low, _ = of_batch = statistics(x)
    deviation = of_batch.deviation(epsilon)
    y = _centred(scaled(x, unit), high, low) * per_channel(s / deviation) + per_channel(b)
    return rounded(y, x.dtype), (x, s, of_batch, deviation)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = scale (dy - db / n - z ds / n), ds = sum of dy z, db = sum of dy; z = (x - mean) / deviation.

    In float64, rounded to the dtype.
    """
    x, s, (unit, high, low, _), deviation = context
    n = values_per_channel(x.shape)
    z = _centred(scaled(x, unit), high, low) / per_channel(deviation)
    ds, db = channel_sums(dy * z), channel_sums(dy)
    dx = per_channel(s / deviation * unit) * (dy - per_channel(db / n) - z * per_channel(ds / n))
    gradients = zip((dx, ds, db), needs, strict=True)
    return tuple(rounded(gradient, x.dtype) if need else None for gradient, need in gradients)


def magnitude(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> Magnitude:
    """|s| (|z| + 1) + |b|, z = (x - mean) / deviation; 48 roundings.

    The mean of d is off by 44 u deviation at most (`refnet.arrays.channel_sums`, for 2**31 values a channel),
    or much less where sums are compensated; two roundings of d itself follow. The deviation is off by half of
    what the variance is, 72 u at most, and 2 u; then there are a quotient, a product and a sum.
    """
    y, _ = forward(x, np.abs(s), 0 * b, epsilon=epsilon)
    return Magnitude(np.abs(y) + per_channel(np.abs(s) + np.abs(b)), terms(48))


def gradient_magnitude(
    dy: Array, x: Array, s: Array, b: Array, *, needs: Needs, epsilon: float = EPSILON
) -> GradientMagnitudes:
    """What any order of the sums over n values, in the dtype, makes of the mean, the deviation, ds and db.

    Let M be the mean of |x|, A that of |dy| and P that of |dy z|, M over the deviation; in units of u:

    - The mean is off by n times the mean of |x|, so z by n M, and two roundings and the deviation's of z.
    - The variance is off by n + 3 of itself in two passes, the deviation by half as much and two and a half;
      updated value by value (Welford), by n (1 + M) at most.
    - ds / n is off by (n + 2) P, by P for what the deviation is off, and by n M A; db / n by n A.
    - dx = scale (dy - db / n - z ds / n) has eight roundings more. Its last term has three deviations.

    With all that, (n + 24) times |scale| ((1 + M) (|dy| + 2 A + 3 |z| P) + M (P + |z| A)) bounds dx, and
    (n + 8) times n ((2 + M) P + M A) bounds ds. Statistics of a single pass (the mean of squares less the
    square of the mean) are not bounded here.
    """
    of_batch, n = statistics(x), values_per_channel(x.shape)
    unit, high, low, _ = of_batch
    deviation = of_batch.deviation(epsilon)
    z = np.abs(_centred(scaled(x, unit), high, low)) / per_channel(deviation)
    dy = np.abs(wide(dy))
    m, a, p = (channel_sums(v) / n for v in (np.abs(scaled(x, unit)), dy, dy * z))
    m = m / deviation
    of_x = (1 + per_channel(m)) * (dy + per_channel(2 * a) + 3 * z * per_channel(p))
    of_x += per_channel(m) * (per_channel(p) + z * per_channel(a))
    sums = per_channel(np.abs(s) / deviation * unit) * of_x, n * ((2 + m) * p + m * a), n * a
    needed = tuple(v if need else None for v, need in zip(sums, needs, strict=True))
    return magnitudes(needed, terms(n + 24), terms(n + 8), terms(n))


def cost(x: Shape, s: Shape, b: Shape, *, itemsize: int, epsilon: float = EPSILON) -> Cost:
    """One multiply-add an element for the variance, one for y."""
    return Cost(2 * size(x), 2 * (size(x) + size(s)) * itemsize)


def propose(rng: draws.Rng) -> Case:
    """Any blob."""
    x = draws.blob(rng)
    return drawn_case(x, x[1:2], x[1:2], epsilon=10.0 ** -draws.pick(rng, range(1, 6)))


OP = Op(
    name="batch_norm_training",
    family="norm",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((2, 3, 2, 4, 5), (3,), (3,))),
        Case("one sample", ((1, 2, 1, 3, 3), (2,), (2,)), {"epsilon": 0.01}),
    ),
    benchmarks=(
        benchmark("batch norm, training", (1, 64, 8, 112, 112), (64,), (64,)),
        benchmark("batch norm, training", (1, 2048, 8, 7, 7), (2048,), (2048,)),
    ),
    smooth=True,
    divides=True,
    reach=everything,
    keeps=(0, 1),
)
