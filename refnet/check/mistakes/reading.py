"""In what a call reads and sums: channels permuted, frames shifted, axes left out; in its attributes."""

from collections.abc import Iterator
from functools import partial
from math import prod

import numpy as np

from refnet.arrays import Array
from refnet.check.locate import PLACES
from refnet.check.mistakes.changes import alone, flip, roll, shift, slab
from refnet.check.mistakes.hypothesis import Hypothesis, given, times, with_attribute, with_input
from refnet.check.mistakes.order import by_groups
from refnet.check.replay import Call
from refnet.op import OUTPUT
from refnet.shapes import size


def read(call: Call) -> Iterator[Hypothesis]:
    """Inputs, or dy, with channels permuted, frames shifted or flipped, the last index lost."""
    alone_there = call.judge.op.reach is None and call.window is None
    if alone_there and call.subject not in ("w", "s", "b"):
        return  # position by position: `order` and `slabs` say it of the result
    names = [name for name in ("x", "dy") if call.has(name) and name != call.subject]
    for name in names:
        for noun in ("channel", *PLACES, "feature"):
            yield Hypothesis(
                f"{name} {noun}s reversed",
                f"is that of {name} with its {noun}s in reverse order",
                given(name, flip(noun)),
            )
            for by in (1, -1):
                yield Hypothesis(
                    f"{name} {noun}s rolled",
                    f"is that of {name} with its {noun}s rolled by {by}",
                    given(name, roll(noun, by)),
                )
                if noun in PLACES:
                    yield Hypothesis(
                        f"{name} {noun}s shifted {by:+d}",
                        f"is that of {name} one {noun} {'later' if by > 0 else 'earlier'}, zeros coming in",
                        given(name, shift(noun, by)),
                    )
            for index, end in ((-1, "last"), (0, "first")):
                yield Hypothesis(
                    f"{name} {end} {noun} lost",
                    f"is that of {name} without its {end} {noun}",
                    given(name, slab(noun, index, 0.0)),
                )
        yield from by_groups(call, "channel", partial(given, name), f"is that of {name} with its")


def summed(call: Call) -> Iterator[Hypothesis]:
    """A parameter's gradient from one sample, frame, ... alone, or over the wrong axes; means for sums."""
    if call.kind != OUTPUT and call.subject != "x" and call.has("dy"):
        for noun in ("sample", *PLACES):
            for index, end in ((0, "first"), (-1, "last")):
                yield Hypothesis(
                    f"one {noun} alone",
                    f"is that of the {end} {noun} alone: not summed over {noun}s",
                    given("dy", alone(noun, index)),
                )
        if call.found.ndim == 1 and call["dy"].ndim > 1:
            yield from wrong_axes(call)
    x, y = call["x"] if call.has("x") else None, call.output_shape
    if x is None:
        return
    divisors = {
        len(x): "samples",
        size(y[2:]): "output positions",
        len(x) * size(y[2:]): "values that are summed",
        x.size // max(1, size(y)): "inputs for each output",
        size(y) // x.size: "outputs for each input",
        prod(call.window.kernel) if call.window else 1: "places of the window",
    }
    for count, what in divisors.items():
        if count > 1:
            yield Hypothesis("mean for sum", f"is divided by {count}, the number of {what}", times(1 / count))
            yield Hypothesis("sum for mean", f"is multiplied by {count}, the number of {what}", times(count))


def wrong_axes(call: Call) -> Iterator[Hypothesis]:
    """A vector's gradient that keeps another axis than the channels."""
    dy, channels = call["dy"], call.found.shape[0]
    said = "is summed over the wrong axes"
    for axis, noun in enumerate(call.axes_of("dy")):
        if axis != 1 and dy.shape[axis] == channels:
            others = tuple(i for i in range(dy.ndim) if i != axis)
            yield Hypothesis(
                "wrong axes",
                f"{said}: it keeps {noun}s",
                partial(kept_sum, others),
            )
    yield Hypothesis(
        "wrong axes",
        f"{said}: every {channels}th value counts as of one channel, as if channels came last",
        lambda call: call["dy"].reshape(-1, channels).sum(axis=0) if dy.ndim > 2 else None,
    )
    yield Hypothesis(
        "wrong axes",
        f"{said}: over channels, too",
        lambda call: np.full(channels, call["dy"].sum()),
    )


def kept_sum(axes: tuple[int, ...], call: Call) -> Array:
    """The sum of dy over these axes."""
    return np.asarray(call["dy"].sum(axis=axes))


def offset(call: Call) -> Iterator[Hypothesis]:
    """Of a convolution of few channels: x off by one number a channel, those that fit best."""
    if call.kind != OUTPUT or call.window is None or not call.has("x", "w") or call["x"].shape[1] > 4:
        return
    responses = []
    for channel in range(call["x"].shape[1]):
        one = np.zeros(call["x"].shape)
        one[:, channel] = 1
        moved = call.of({"x": one} | {name: np.zeros_like(call[name]) for name in ("b",) if call.has(name)})
        responses.append(moved)
    found, right = (call.cut(a, responses[0].shape) for a in (call.found, call.right))
    basis = np.stack([response.ravel() for response in responses], axis=1)
    means, *_ = np.linalg.lstsq(basis, (found - right).ravel(), rcond=None)
    said = ", ".join(f"{mean:+.4g}" for mean in means)
    by = means.reshape(1, -1, 1, 1, 1)
    yield Hypothesis(
        "x offset", f"is that of x with its channels off by {said}: a mean", with_input("x", lambda x: x + by)
    )


def attributes(call: Call) -> Iterator[Hypothesis]:
    """A switch the other way; an attribute left at its default; a momentum's complement."""
    if call.window is not None:
        return
    switches = {name: False for name in ("aligned",) if call.default(name) is False}
    for name, value in (switches | call.judge.attrs).items():
        default = call.default(name)
        if isinstance(value, bool) or (default is not None and default != value):
            other = (not value) if isinstance(value, bool) else default
            yield Hypothesis(
                f"{name} not {value}",
                f"is that of {name} {other} instead of {value}",
                with_attribute(name, other),
            )
    momentum = call.attribute("momentum")
    if momentum is not None:
        yield Hypothesis(
            "momentum swapped",
            "is that of 1 - momentum in place of momentum",
            with_attribute("momentum", 1 - momentum),
        )
        yield Hypothesis(
            "batch ignored", "is what it was before: the batch is not averaged in", kept_statistic
        )


def kept_statistic(call: Call) -> Array:
    """The statistic that was given."""
    return next(array for name, array in call.arrays.items() if name != "x")
