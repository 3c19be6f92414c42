"""The operators as other implementations compute them, whose formulas round more than the definitions."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from refnet.arrays import Array, channel_sums, per_channel, wide
from refnet.check import algorithms
from refnet.check.bounds import unit
from refnet.op import Magnitude, Op, terms
from refnet.ops import OPS
from refnet.ops.batch_norm import EPSILON
from refnet.ops.batch_norm_training import statistics, values_per_channel


def _folded(op_name: str, mean_and_variance: Callable[..., tuple[Array, Array]]) -> Op:
    """A batch norm whose mean is folded into its shift, as PyTorch does on a CPU: scale x + (b - mean scale).

    Both terms are rounded at their own size before they cancel.
    """
    op = OPS[op_name]

    def magnitude(x: Array, s: Array, b: Array, *rest: Array, epsilon: float = EPSILON) -> Magnitude:
        apart = op.magnitude(x, s, b, *rest, epsilon=epsilon)
        mean, variance = mean_and_variance(x, *rest)
        scale = per_channel(np.abs(s) / np.sqrt(variance + epsilon))
        return Magnitude(apart.sum_abs + (np.abs(x) + per_channel(np.abs(mean))) * scale, apart.terms)

    return replace(op, magnitude=magnitude)


def _of_batch(x: Array) -> tuple[Array, Array]:
    found = statistics(x)
    return found.mean(), found.variance / found.unit**2


# With statistics in float64, as PyTorch's are on a CPU.
FOLDED = dict(OPS) | {
    "batch_norm": _folded("batch_norm", lambda x, mean, variance: (mean, variance)),
    "batch_norm_training": _folded("batch_norm_training", _of_batch),
}


def _summed_statistics() -> Op:
    """Batch norm in training, the statistics summed in the claimed format, in any order.

    Let M be the mean of |x| over the deviation. The mean is off by n M u of the deviation, n the values of a
    channel; the variance by n + 3 of itself in two passes, n (1 + M) updated value by value (Welford), so z
    by half as much; twelve roundings more, at the sizes of the folded formula.
    """
    folded = FOLDED["batch_norm_training"]

    def magnitude(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> Magnitude:
        mean, variance = _of_batch(x)
        deviation, n = np.sqrt(variance + epsilon), values_per_channel(x.shape)
        m = per_channel(channel_sums(np.abs(wide(x))) / n / deviation)
        z = np.abs(wide(x) - per_channel(mean)) / per_channel(deviation)
        at_elements = folded.magnitude(x, s, b, epsilon=epsilon).sum_abs
        return Magnitude(at_elements + per_channel(np.abs(s)) * (1 + m) * (1 + z), terms(n + 12))

    return replace(folded, magnitude=magnitude)


def _summed_running(name: str) -> Op:
    """Running statistics whose sums over n values are made in the claimed format."""
    op = OPS[name]

    def magnitude(x: Array, kept: Array, **attrs: float) -> Magnitude:
        own = op.magnitude(x, kept, **attrs)
        _, variance = _of_batch(x)
        n = values_per_channel(x.shape)
        size = channel_sums(np.abs(wide(x))) / n
        if name == "running_variance":
            # Updated value by value, the variance errs by n (1 + mean of |x| / deviation) of itself.
            size = variance + np.sqrt(variance) * size
        return Magnitude(own.sum_abs + size * (n / max(n - 1, 1)), own.terms + n)

    return replace(op, magnitude=magnitude)


FOREIGN = FOLDED | {
    "batch_norm_training": _summed_statistics(),
    "running_mean": _summed_running("running_mean"),
    "running_variance": _summed_running("running_variance"),
}


def of_one_pass(x: Array, s: Array, *, epsilon: float = EPSILON) -> Array:
    """By how much batch norm in training errs more, the variance in one pass: |s z| mean**2 / variance."""
    mean, variance = _of_batch(x)
    z = np.abs(wide(x) - per_channel(mean)) / per_channel(np.sqrt(variance + epsilon))
    return np.asarray(z * per_channel(np.abs(s) * (algorithms.one_pass(x) - 1)))


def training_variance(x: Array, s: Array, accumulate: str, *, epsilon: float = EPSILON) -> Array:
    """The expected squared error of batch norm in training, the statistics summed in plain chains.

    Of a plain chain the mean's variance is (u**2 / 3) (n / 3 mean**2 + mean of x**2 / 6), that of the sum of
    squares, all of one sign, (u**2 / 3) (n / 3 + 1) of its square, half of which (in the error) reaches z.
    """
    mean, variance = _of_batch(x)
    n, deviation = values_per_channel(x.shape), np.sqrt(variance + epsilon)
    of_mean = (n / 3 * np.square(mean) + (variance + np.square(mean)) / 6) / np.square(deviation)
    z = (wide(x) - per_channel(mean)) / per_channel(deviation)
    of_elements = per_channel(of_mean) + np.square(z) * ((n / 3 + 1) / 4) + 4 * (1 + np.square(z))
    found: Array = np.square(per_channel(s)) * of_elements * (unit(accumulate) ** 2 / 3)
    return found
