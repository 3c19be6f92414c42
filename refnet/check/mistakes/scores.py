"""Of softmax and of losses: labels, the sum over classes, smoothing."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from refnet.arrays import Array
from refnet.check.mistakes.hypothesis import Hypothesis, of_right, with_input
from refnet.check.replay import Call
from refnet.op import OUTPUT


def softmax_of(x: Array) -> Array:
    """Softmax of each row."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def scores(call: Call) -> Iterator[Hypothesis]:
    """A loss without its labels, or of other ones; a softmax without its sum."""
    op = call.judge.op
    if op.family != "activation" or not op.smooth:
        return
    if not call.has("labels"):
        if call.kind != OUTPUT:
            yield Hypothesis(
                "sum term missing",
                "is y dy: it lacks the sum over classes",
                lambda call: softmax_of(call["x"]) * call["dy"],
                sizes=of_right,
            )
            yield Hypothesis(
                "softmax not applied",
                "is dy - the sum of dy y, not multiplied by y",
                lambda call: call["dy"] - (softmax_of(call["x"]) * call["dy"]).sum(axis=1, keepdims=True),
                sizes=lambda call: 2 * call.right / softmax_of(call["x"]),
            )
        return
    x, labels = call["x"], call["labels"]
    for by in (1, -1):
        rolled = np.roll(labels, by)
        if not np.array_equal(rolled, labels):
            yield Hypothesis(
                "labels rolled",
                f"is that of labels rolled by {by} sample",
                with_input("labels", partial(np.roll, shift=by)),
            )
        yield Hypothesis(
            "labels off by one",
            f"is that of labels {'one higher' if by > 0 else 'one lower'}",
            partial(other_labels, by),
        )
    if call.kind != OUTPUT:
        yield Hypothesis(
            "one-hot missing",
            "is the softmax: nothing is subtracted at the label",
            lambda call: softmax_of(call["x"]) * call["dy"] / len(x),
            sizes=of_right,
        )
        yield Hypothesis(
            "softmax missing",
            "is -1 at the label alone: the softmax is missing",
            lambda call: -one_hot(call) * call["dy"] / len(x),
            sizes=of_right,
        )
        yield from smoothing(call)


def other_labels(by: int, call: Call) -> Array:
    """The result for labels that are off by one, cyclically."""
    return call.of({"labels": (call["labels"] + by) % call["x"].shape[1]})


def one_hot(call: Call) -> Array:
    """1 at the label, 0 elsewhere."""
    hot = np.zeros(call["x"].shape)
    hot[np.arange(len(hot)), call["labels"]] = 1
    return hot


def smoothing(call: Call) -> Iterator[Hypothesis]:
    """Labels smoothed by the epsilon that fits best."""
    n, classes = call["x"].shape
    moved = (one_hot(call) - 1 / classes) * call["dy"] / n
    epsilon = float(((call.found - call.right) * moved).sum() / max(float(np.square(moved).sum()), 1e-300))
    if 0 < epsilon < 1 and call.found.size > 2:
        yield Hypothesis(
            "label smoothing",
            f"is that of labels smoothed by {epsilon:.3g}",
            lambda call: call.right + epsilon * moved,
            sizes=lambda call: call.right + np.abs(moved),
        )
