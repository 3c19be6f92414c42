"""In inputs of one role: a bias, a scale or a term missing, a mask of the wrong side, values misplaced."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from refnet.arrays import Array, per_channel
from refnet.check.mistakes.hypothesis import Hypothesis, times, with_input
from refnet.check.replay import Call
from refnet.op import OUTPUT

# A slope is known to the digits of what was stored, not to those of the replay.
LEAST_DIGITS = 4


def roles(call: Call) -> Iterator[Hypothesis]:
    """A bias, a scale, a term of a sum missing; gradients of scale and bias swapped; a rectifier too many."""
    if call.has("b") and call.kind == OUTPUT:
        yield Hypothesis("bias missing", "lacks the bias", with_input("b", np.zeros_like))
        yield Hypothesis("bias doubled", "has the bias added twice", with_input("b", doubled))
        yield Hypothesis("bias negated", "has the bias subtracted", with_input("b", np.negative))
    if call.has("s"):
        if call.kind == OUTPUT and call.judge.op.name == "affine":
            yield from affines(call)
        if call.subject in ("y", "x"):
            yield Hypothesis("scale missing", "is that of a scale of 1", with_input("s", np.ones_like))
            yield Hypothesis("scale squared", "is multiplied by the scale twice", with_input("s", np.square))
        else:
            other = "b" if call.subject == "s" else "s"
            yield Hypothesis("ds and db swapped", f"is d{other}", lambda call: call.of(about=other))
    if call.judge.op.family == "sum" and call.kind == OUTPUT:
        for name in call.arrays:
            yield Hypothesis("term missing", f"lacks {name}", with_input(name, np.zeros_like))
            yield Hypothesis("term subtracted", f"has {name} subtracted", with_input(name, np.negative))
    if call.kind == OUTPUT and not is_rectifier(call):
        yield Hypothesis("ReLU after", "went through a ReLU", lambda call: call.right.clip(0))
        for name in call.arrays if call.judge.op.family == "sum" else ("x",):
            if call.has(name):
                yield Hypothesis("ReLU before", f"is that of {name} after a ReLU", with_input(name, positive))


def affines(call: Call) -> Iterator[Hypothesis]:
    """A scale and a shift that meet x in another way."""
    x, s, b = (call[name] for name in ("x", "s", "b"))
    s, b = per_channel(s), per_channel(b)
    said: tuple[tuple[str, str, Array], ...] = (
        ("scale after shift", "is s (x + b)", s * (x + b)),
        ("scale inverted", "is x / s + b", x / np.where(s == 0, 1, s) + b),
        ("scale and shift swapped", "is b x + s", b * x + s),
    )
    for name, formula, value in said:
        yield Hypothesis(name, formula, partial(_as_it_is, value))


def _as_it_is(value: Array, call: Call) -> Array:
    """A value, or its magnitude."""
    return np.abs(value) if call.measures else value


def doubled(array: Array) -> Array:
    """Twice an array."""
    return 2 * array


def positive(array: Array) -> Array:
    """What a rectifier keeps."""
    return array.clip(0)


def is_rectifier(call: Call) -> bool:
    """Whether the operator chooses between a value and 0."""
    op = call.judge.op
    return op.family == "activation" and not op.smooth and len(call.arrays) == 1


def rectifiers(call: Call) -> Iterator[Hypothesis]:
    """The mask missing, of the wrong side, of x >= 0, inverted."""
    if not is_rectifier(call):
        return
    if call.kind == OUTPUT:
        yield Hypothesis("no ReLU", "is x itself", lambda call: call["x"])
        yield Hypothesis("magnitude for ReLU", "is the magnitude of x", lambda call: np.abs(call["x"]))
        yield Hypothesis("ReLU inverted", "keeps what is negative", lambda call: call["x"].clip(None, 0))
        yield Hypothesis("ReLU6", "is cut off at 6", lambda call: call["x"].clip(0, 6))
        yield from leaks(call)
        return
    yield Hypothesis("mask missing", "is dy itself, not masked", lambda call: call["dy"])
    yield Hypothesis(
        "mask of dy",
        "is masked by dy > 0 in place of y > 0",
        lambda call: call["dy"] * call.positive_dy,
    )
    yield Hypothesis(
        "mask of dy and x",
        "is masked by dy > 0, too",
        lambda call: call["dy"] * call.positive_dy * (call["x"] > 0),
    )
    yield Hypothesis("mask x >= 0", "is handed on where x is 0", lambda call: call["dy"] * (call["x"] >= 0))
    yield Hypothesis(
        "mask inverted", "is masked by x <= 0: the other half", lambda call: call["dy"] * (call["x"] <= 0)
    )


def leaks(call: Call) -> Iterator[Hypothesis]:
    """A slope below 0: the one that fits best."""
    x = call["x"]
    below = np.where(x < 0, x, 0.0)
    slope = float((call.found * below).sum() / max(float(np.square(below).sum()), np.finfo(float).tiny))
    if slope != 0:
        yield Hypothesis(
            "leaky ReLU",
            f"has a slope of {slope:.3g} below 0",
            lambda call: np.where(x < 0, slope * x, x),
            sizes=lambda call: np.where(x < 0, abs(slope * x) * LEAST_DIGITS, np.abs(x)),
        )


def masks(call: Call) -> Iterator[Hypothesis]:
    """Of dropout: the scale or the mask missing, or the mask inverted."""
    if not call.has("mask") or call.attribute("ratio") is None:
        return
    keep = 1 / (1 - call.attribute("ratio"))
    source = "x" if call.kind == OUTPUT else "dy"
    yield Hypothesis("dropout scale missing", "is not divided by 1 - ratio", times(1 / keep))
    yield Hypothesis("dropout scale squared", "is divided by 1 - ratio twice", times(keep))
    yield Hypothesis("dropout missing", f"is {source} itself", lambda call: call[source])
    yield Hypothesis("mask missing", "is not masked, only scaled", lambda call: call[source] * keep)
    yield Hypothesis(
        "mask inverted", "keeps what should be dropped", lambda call: call.of({"mask": 1 - call["mask"]})
    )


def moves(call: Call) -> Iterator[Hypothesis]:
    """Values of a move taken in memory's order; one value of each square for their sum."""
    if call.judge.op.family != "move":
        return
    source = "x" if call.kind == OUTPUT else "dy"
    if call[source].size == call.found.size:
        yield Hypothesis(
            "axes not swapped",
            f"is {source} reshaped: its axes are not swapped",
            lambda call: call[source].reshape(call.found.shape),
        )
        return
    scale = call.attribute("scale")
    if scale is not None and call.kind != OUTPUT:
        for index, end in ((0, "first"), (scale - 1, "last")):
            yield Hypothesis(
                "one of each square",
                f"is the {end} dy of each square, not their sum",
                partial(one_of_each, scale, index),
            )
    if scale is not None and call.kind == OUTPUT:
        yield Hypothesis(
            "tiled",
            "is x side by side, not each value repeated",
            lambda call: np.tile(call["x"], (1, 1, 1, scale, scale)),
        )
    if call.found.ndim == 5 and scale is None:
        yield from frames(call)


def one_of_each(scale: int, index: int, call: Call) -> Array:
    """One value of each square of dy."""
    return call["dy"][..., index::scale, index::scale]


def frames(call: Call) -> Iterator[Hypothesis]:
    """Another frame than the middle one."""
    x = call["x"]
    t = x.shape[2]
    for index, which in ((0, "the first"), (t - 1, "the last"), (t // 2 - 1, "an earlier")):
        if index < 0:
            continue

        yield Hypothesis("another frame", f"is that of {which} frame: {index}", partial(of_frame, index))


def of_frame(index: int, call: Call) -> Array:
    """One frame, or the gradient of one."""
    if call.kind == OUTPUT:
        return call["x"][:, :, index : index + 1]
    dx = np.zeros(call["x"].shape)
    dx[:, :, index] = call["dy"][:, :, 0]
    return dx
