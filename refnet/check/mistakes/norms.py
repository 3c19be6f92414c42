"""Of norms by statistics: epsilon, the mean, the variance, what goes through them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from refnet.arrays import Array, channel_sums, per_channel
from refnet.check.mistakes.hypothesis import Hypothesis, of_right, with_attribute
from refnet.check.replay import Call
from refnet.op import OUTPUT

# What frameworks and papers take.
EPSILONS = (1e-3, 1e-5, 1e-6, 1e-2, 1.001e-5, 2e-5, 1e-4, 1e-8)


class Normal(NamedTuple):
    """What a norm by statistics computes on the way.

    Attributes
    ----------
    centred : ndarray
        x - mean.
    variance : ndarray
    deviation : ndarray
        sqrt(variance + epsilon).
    values : int
        Of a channel.
    """

    centred: Array
    variance: Array
    deviation: Array
    values: int

    @classmethod
    def of(cls, call: Call) -> "Normal":
        """By the statistics that are given, or those of the batch."""
        x = call["x"]
        n = x.size // x.shape[1]
        mean = call["mean"] if call.has("mean") else channel_sums(x) / n
        centred = x - per_channel(mean)
        variance = call["variance"] if call.has("variance") else channel_sums(centred**2) / n
        return cls(centred, variance, np.sqrt(variance + call.attribute("epsilon")), n)


def norms(call: Call) -> Iterator[Hypothesis]:
    """Epsilon missing or misplaced, the variance for the deviation, no mean; in training, terms missing."""
    epsilon = call.attribute("epsilon")
    if epsilon is None:
        return
    training = not call.has("variance")
    yield Hypothesis("epsilon missing", "is that of an epsilon of 0", with_attribute("epsilon", 1e-300))
    for other in EPSILONS:
        if other != epsilon:
            yield Hypothesis(
                f"epsilon {other:g}",
                f"is that of an epsilon of {other:g} instead of {epsilon:g}",
                with_attribute("epsilon", other),
            )
    others: tuple[tuple[str, str, Callable[[Normal], Array]], ...] = (
        (
            "epsilon misplaced",
            "has epsilon added to the deviation, not to the variance",
            lambda normal: np.sqrt(normal.variance) + epsilon,
        ),
        ("variance for deviation", "is divided by the variance, not the deviation", lambda n: n.deviation**2),
        ("deviation missing", "is not divided by the deviation", lambda n: np.ones_like(n.deviation)),
        (
            "unbiased variance",
            "is that of the unbiased variance",
            lambda normal: np.sqrt(normal.variance * normal.values / (normal.values - 1) + epsilon),
        ),
    )
    for name, said, deviation in others if training else others[:3]:
        yield Hypothesis(
            name, said, partial(with_deviation, deviation), sizes=partial(deviation_sizes, deviation)
        )
    if call.kind == OUTPUT or call.subject == "s":
        yield Hypothesis("mean missing", "lacks the mean: x is not centred", uncentred, sizes=uncentred_size)
    if training and call.subject == "x":
        for name, mean, variance in (
            ("statistics constant", False, False),
            ("mean term missing", False, True),
            ("variance term missing", True, False),
        ):
            absent = " and ".join(
                what for what, has in (("the mean", mean), ("the variance", variance)) if not has
            )
            yield Hypothesis(
                name,
                f"lacks the terms through {absent}",
                partial(through, mean, variance),
                sizes=of_right,
            )


def with_deviation(deviation: Callable[[Normal], Array], call: Call) -> Array | None:
    """The result with something else for the deviation, wherever the formula has it."""
    found = Normal.of(call)
    other = deviation(found)
    if call.subject == "b":
        return None
    if call.subject == "s":
        return channel_sums(call["dy"] * found.centred) / other
    if call.kind == OUTPUT:
        return found.centred * per_channel(call["s"] / other) + per_channel(call["b"])
    if call.has("variance"):
        return call["dy"] * per_channel(call["s"] / other)
    return through(True, True, call, found._replace(deviation=other))


def deviation_sizes(deviation: Callable[[Normal], Array], call: Call) -> Array:
    """Its magnitude: that of the right one, times the ratio of deviations, up to its cube."""
    found = Normal.of(call)
    ratio = np.maximum(found.deviation / deviation(found), 1.0)
    cube = ratio**3
    return np.asarray(call.right * (cube if call.found.ndim == 1 else per_channel(cube)))


def uncentred(call: Call) -> Array:
    """The result of x in place of x - mean."""
    found = Normal.of(call)
    if call.subject == "s":
        return channel_sums(call["dy"] * call["x"]) / found.deviation
    return call["x"] * per_channel(call["s"] / found.deviation) + per_channel(call["b"])


def uncentred_size(call: Call) -> Array:
    """Its magnitude."""
    found = Normal.of(call)
    if call.subject == "s":
        return channel_sums(call["dy"] * np.abs(call["x"])) / found.deviation + call.right
    return np.abs(call["x"]) * per_channel(np.abs(call["s"]) / found.deviation) + call.right


def through(mean: bool, variance: bool, call: Call, normal: Normal | None = None) -> Array:
    """Dx with the terms through the mean, and through the variance, or without."""
    found, dy = normal or Normal.of(call), call["dy"]
    z = found.centred / per_channel(found.deviation)
    dx = dy
    if mean:
        dx = dx - per_channel(channel_sums(dy) / found.values)
    if variance:
        dx = dx - z * per_channel(channel_sums(dy * z) / found.values)
    return np.asarray(dx * per_channel(call["s"] / found.deviation))


def statistics(call: Call) -> Iterator[Hypothesis]:
    """The population's variance for the unbiased one."""
    momentum = call.attribute("momentum")
    if momentum is None or not call.has("variance"):
        return
    n = call["x"].size // call["x"].shape[1]

    def population(call: Call) -> Array:
        old = momentum * call["variance"]
        return np.asarray(old + (call.right - old) * ((n - 1) / n))

    yield Hypothesis("population variance", "is that of the population's variance", population)
