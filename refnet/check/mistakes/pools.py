"""Of pools: ties, overlaps, maximum and average taken for one another, what an average is divided by."""

from collections.abc import Iterator

import numpy as np

from refnet.arrays import Array
from refnet.check.mistakes.hypothesis import Hypothesis, with_window
from refnet.check.mistakes.sliding import chooses, counts, inside
from refnet.check.replay import Call
from refnet.op import OUTPUT
from refnet.shapes import size, taps


def pools(call: Call) -> Iterator[Hypothesis]:
    """Ties, overlaps, maximum and average taken for one another; what an average is divided by."""
    if call.judge.op.family != "pooling" or call.window is None:
        return
    if not chooses(call):
        yield Hypothesis(
            "padding counted",
            "is divided by the size of the window, padding included",
            with_window(counts_padding=True),
        )
        yield Hypothesis("not divided", "is not divided by how many values are averaged", undivided)
        if call.kind == OUTPUT:
            yield Hypothesis(
                "maximum for average", "is the maximum, not the average", lambda call: extreme(call, 1)
            )
        return
    if call.kind == OUTPUT:
        yield Hypothesis("average for maximum", "is the average, not the maximum", averaged)
        yield Hypothesis(
            "average for maximum",
            "is the average, not the maximum, padding included",
            lambda call: averaged(call) * counts(call) / size(call.window.kernel) if call.window else None,
        )
        yield Hypothesis(
            "minimum for maximum", "is the minimum, not the maximum", lambda call: extreme(call, -1)
        )
        yield Hypothesis(
            "padding wins", "is the maximum with the zeros of the padding among the values", padding_wins
        )
        return
    yield Hypothesis(
        "every tie", "goes to every one of equal values, not the first", lambda call: ties(call, "every")
    )
    yield Hypothesis("split ties", "is split among equal values", lambda call: ties(call, "split"))
    yield Hypothesis(
        "last tie", "goes to the last of equal values, not the first", lambda call: ties(call, "last")
    )
    yield Hypothesis("average for maximum", "is that of an average", averaged)
    yield Hypothesis(
        "overlaps overwritten",
        "has the last window's gradient where windows overlap, not the sum",
        overwritten,
    )


def undivided(call: Call) -> Array:
    """The gradient or the sum, times the count of each window."""
    if call.kind == OUTPUT:
        return call.right * counts(call)
    return call.of({"dy": call["dy"] * counts(call)})


def averaged(call: Call) -> Array:
    """An average over the window, or its gradient, added up tap by tap."""
    assert call.window is not None, "no window slides here"
    x = np.abs(call["x"]) if call.measures else call["x"]
    y, share = np.zeros(call.output_shape), 1 / counts(call)
    dx = np.zeros(x.shape)
    for _, outputs, inputs in taps(x.shape, y.shape, call.window):
        if call.kind == OUTPUT:
            y[..., *outputs] += x[..., *inputs] * share[outputs]
        else:
            dx[..., *inputs] += (call["dy"] * share)[..., *outputs]
    return y if call.kind == OUTPUT else dx


def extreme(call: Call, sign: int) -> Array:
    """The maximum over the window; with sign -1 the minimum."""
    assert call.window is not None, "no window slides here"
    x, y = sign * call["x"], np.full(call.output_shape, -np.inf)
    for _, outputs, inputs in taps(x.shape, y.shape, call.window):
        np.maximum(y[..., *outputs], x[..., *inputs], out=y[..., *outputs])
    return sign * y


def padding_wins(call: Call) -> Array:
    """The maximum, at least 0 where the window reaches into the padding."""
    return np.where(inside(call) == 1, call.right, call.right.clip(0))


def ties(call: Call, who: str) -> Array:
    """The gradient of a maximum that goes to every tie, is split among them, or goes to the last."""
    assert call.window is not None, "no window slides here"
    x, y, dx = call["x"], extreme(call, 1), np.zeros(call["x"].shape)
    every = [
        (outputs, inputs, x[..., *inputs] == y[..., *outputs])
        for _, outputs, inputs in taps(x.shape, y.shape, call.window)
    ]
    share = np.zeros(y.shape)
    for outputs, _, wins in every:
        share[..., *outputs] += wins
    free = np.ones(y.shape, bool)
    for outputs, inputs, wins in reversed(every):
        if who == "last":
            wins = wins & free[..., *outputs]
            free[..., *outputs] &= ~wins
        part = (1 / share if who == "split" else np.ones(y.shape))[..., *outputs]
        dx[..., *inputs] += call["dy"][..., *outputs] * wins * part
    return dx


def overwritten(call: Call) -> Array:
    """The gradient of a maximum of which each input keeps that of its last window, in C order."""
    assert call.window is not None, "no window slides here"
    x, y, dx = call["x"], extreme(call, 1), np.zeros(call["x"].shape)
    latest = np.full(x.shape, -1)
    number = np.arange(size(y.shape[2:])).reshape(y.shape[2:])
    free = np.ones(y.shape, bool)
    for _, outputs, inputs in taps(x.shape, y.shape, call.window):
        wins = (x[..., *inputs] == y[..., *outputs]) & free[..., *outputs]
        free[..., *outputs] &= ~wins
        later = wins & (number[outputs] > latest[..., *inputs])
        np.copyto(latest[..., *inputs], number[outputs], where=later)
        np.copyto(dx[..., *inputs], call["dy"][..., *outputs], where=later)
    return dx
