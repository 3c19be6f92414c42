"""Factors of the right result, and its indices in another order, shifted, lost or doubled."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from refnet.check.locate import PLACES
from refnet.check.mistakes.changes import Change, alone, flip, regroup, roll, shift, slab
from refnet.check.mistakes.hypothesis import Hypothesis, Replay, given, result, times
from refnet.check.replay import Call

NOUNS = (*PLACES, "channel", "filter", "sample", "feature")


def factors(call: Call) -> Iterator[Hypothesis]:
    """Missing, doubled, halved, negated."""
    yield Hypothesis("missing", "is zero everywhere", times(0.0))
    yield Hypothesis("doubled", "is twice what it should be", times(2.0))
    yield Hypothesis("halved", "is half of what it should be", times(0.5))
    yield Hypothesis("negated", "has the wrong sign", times(-1.0))


def order(call: Call) -> Iterator[Hypothesis]:
    """Indices of the result reversed, shifted, rolled, or permuted by groups."""
    for noun in NOUNS:
        reverse = "time flipped" if noun == "frame" else f"{noun}s reversed"
        yield Hypothesis(reverse, f"has its {noun}s in reverse order", result(flip(noun)))
        for by, word in ((1, "later"), (-1, "earlier")) if noun in PLACES else ():
            moved = f"has its {noun}s one {word} than they should be, zeros coming in"
            yield Hypothesis(f"{noun}s shifted {by:+d}", moved, result(shift(noun, by)))
        for by in rolls(call, noun):
            yield Hypothesis(f"{noun}s rolled", f"has its {noun}s rolled by {by}", result(roll(noun, by)))
    for noun in ("channel", "filter"):
        yield from by_groups(call, noun, result, "has its")
        yield from permuted(call, noun)


def by_groups(call: Call, noun: str, changed: Callable[[Change], Replay], said: str) -> Iterator[Hypothesis]:
    """Channels permuted by groups: those of the operator, and 2, 4, 8."""
    own = call.attribute("groups") or 1
    for groups in dict.fromkeys((own, 2, 4, 8)):
        yield Hypothesis(
            "groups reversed",
            f"{said} {groups} groups of {noun}s in reverse order",
            changed(regroup(noun, groups, "reversed")),
        )
        yield Hypothesis(
            f"{noun}s interleaved",
            f"{said} {noun}s of {groups} groups interleaved",
            changed(regroup(noun, groups, "interleaved")),
        )
        yield Hypothesis(
            f"{noun}s interleaved",
            f"{said} {noun}s dealt to {groups} groups in turn",
            changed(regroup(noun, groups, "dealt")),
        )


def of_groups(call: Call) -> Iterator[Hypothesis]:
    """Filters of a grouped kernel permuted by groups."""
    if call.has("w") and call.subject in ("y", "x") and (call.attribute("groups") or 1) > 1:
        yield from by_groups(call, "filter", partial(given, "w"), "is that of w with its")


def permuted(call: Call, noun: str) -> Iterator[Hypothesis]:
    """Channels in another order: each is the one that it is like most, by random projections."""
    if noun not in call.axes or call.right.shape[call.axes.index(noun)] < 3:
        return
    if call.judge.op.family == "move":  # that is what it does
        return
    axis = call.axes.index(noun)
    found, right = (np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) for a in (call.found, call.right))
    directions = np.random.default_rng(0).standard_normal((right.shape[1], 4))
    f, r = found @ directions, right @ directions
    like = np.square(f[:, None] - r[None]).sum(axis=2).argmin(axis=1)
    moved = np.flatnonzero(like != np.arange(len(like)))
    if not len(moved) or len(np.unique(like)) < len(like):
        return
    which = ", ".join(f"{like[i]} at {i}" for i in moved[:4]) + (", ..." if len(moved) > 4 else "")
    yield Hypothesis(
        f"{noun}s permuted",
        f"has its {noun}s in another order: {which}",
        lambda call: np.take(call.right, like, axis),
    )


def rolls(call: Call, noun: str) -> Iterator[int]:
    """By how much the result may be rolled along an axis: the amount that fits a random projection best."""
    axis = call.axes.index(noun) if noun in call.axes else None
    if axis is None or call.right.shape[axis] < 2:
        return
    found, right = (np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) for a in (call.found, call.right))
    direction = np.random.default_rng(0).standard_normal(right.shape[1])
    f, r = found @ direction, right @ direction
    off = [float(np.square(f - np.roll(r, by)).sum()) for by in range(len(r))]
    best = int(np.argmin(off))
    if best:
        yield best if best <= len(r) // 2 else best - len(r)


def slabs(call: Call) -> Iterator[Hypothesis]:
    """The first or last index along an axis lost or doubled; all samples but one lost."""
    for noun in NOUNS:
        for index, end in ((-1, "last"), (0, "first")):
            yield Hypothesis(
                f"{end} {noun} lost", f"lacks its {end} {noun}: zeros there", result(slab(noun, index, 0.0))
            )
            yield Hypothesis(
                f"{end} {noun} doubled", f"has its {end} {noun} doubled", result(slab(noun, index, 2.0))
            )
    if "sample" in call.axes:
        for n in (0, -1):
            yield Hypothesis(
                "one sample alone",
                f"is right in the {'last' if n else 'first'} sample alone, zero in the others",
                result(alone("sample", n)),
            )
