"""Of windows that slide: a wrong kernel, padding, stride or dilation."""

from collections.abc import Iterator
from itertools import combinations, permutations
from typing import Any

import numpy as np

from refnet.arrays import Array
from refnet.check.locate import TAPS
from refnet.check.mistakes.changes import Change, flip, roll, slab, swap
from refnet.check.mistakes.hypothesis import Hypothesis, Replay, given, result, with_input, with_window
from refnet.check.mistakes.order import rolls
from refnet.check.mistakes.sliding import inside
from refnet.check.replay import Call
from refnet.shapes import ONES, Triple, size

KERNEL_CHANGES: tuple[tuple[str, str, Change], ...] = (
    ("transposed", "transposed kernel", swap("filter", "channel")),
    ("transposed", "transposed kernel", swap("filter", "feature")),
    *(
        (f"flipped {axes}", f"kernel flipped along {' and '.join(axes)}", flip(*(f"tap {a}" for a in axes)))
        for count in (1, 2, 3)
        for axes in map("".join, combinations("THW", count))
    ),
    *(
        (f"swapped {a}{b}", f"kernel with {a} and {b} swapped", swap(f"tap {a}", f"tap {b}"))
        for a, b in combinations("THW", 2)
    ),
)


def kernels(call: Call) -> Iterator[Hypothesis]:
    """The kernel transposed, flipped, or with two axes swapped."""
    if not call.has("x", "w") or call.subject == "b":
        return
    for name, said, change in KERNEL_CHANGES:
        replay = result(change) if call.subject == "w" else given("w", change)
        yield Hypothesis(f"kernel {name}", f"is that of a {said}", replay)
    if call.subject == "w":
        for noun in TAPS:
            for by in rolls(call, noun):
                yield Hypothesis("taps rolled", f"has its {noun} rolled by {by}", result(roll(noun, by)))
            for index, end in ((-1, "last"), (0, "first")):
                yield Hypothesis(
                    f"{end} {noun} lost", f"lacks the {end} {noun}", result(slab(noun, index, 0))
                )
    else:
        for noun in TAPS:
            for index, end in ((-1, "last"), (0, "first")):
                yield Hypothesis(
                    f"{end} {noun} lost", f"lacks the {end} {noun}", given("w", slab(noun, index, 0.0))
                )


# Of more taps than these, only the first and the last along each axis are tried.
MOST_TAPS = 64


def taps_lost(call: Call) -> Iterator[Hypothesis]:
    """One tap of every filter lost: the one that takes most of the residual away."""
    if call.window is None or not call.has("x", "w") or call.subject not in ("y", "x"):
        return
    if 1 < size(call.window.kernel) <= MOST_TAPS:
        for tap in np.ndindex(*call.window.kernel):
            yield Hypothesis("tap lost", f"lacks the tap {tap} of every filter", without_tap(tap))


def without_tap(tap: tuple[int, ...]) -> Replay:
    """The result of filters with a zero there."""

    def replay(call: Call) -> Array:
        w = call["w"].copy()
        place: Any = (..., *tap)
        w[place] = 0
        return call.of({"w": w})

    return replay


def inflation(call: Call) -> Iterator[Hypothesis]:
    """A kernel that was made of a 2D one by repeating it in time, for one that holds it in the middle."""
    if not call.has("x", "w") or call["w"].ndim != 5 or call["w"].shape[2] == 1 or call.subject == "w":
        return
    yield Hypothesis(
        "inflation mean-repeat",
        "is that of a kernel repeated in time, divided by its length",
        with_input("w", repeated),
    )
    yield Hypothesis(
        "inflation center-only",
        "is that of a kernel that is zero but for its middle frame",
        with_input("w", centred),
    )


def repeated(w: Array) -> Array:
    """The mean over time, at each time."""
    return np.broadcast_to(w.mean(axis=2, keepdims=True), w.shape)


def centred(w: Array) -> Array:
    """The sum over time, in the middle."""
    changed = np.zeros_like(w)
    changed[:, :, w.shape[2] // 2] = w.sum(axis=2)
    return changed


def at(index: int, triple: Triple, value: int) -> Triple:
    """A triple with another entry."""
    t, h, w = (value if i == index else entry for i, entry in enumerate(triple))
    return t, h, w


def offsets(call: Call) -> Iterator[Hypothesis]:
    """The padding on one side, missing, replicated, off by one."""
    if call.window is None or call.subject == "b":
        return
    pad = call.window.pad
    if any(pad):
        yield Hypothesis(
            "pad missing",
            "is that of windows that begin at 0: no padding before the first frame, line or column",
            with_window(before=(0, 0, 0)),
        )
        doubled = tuple(2 * p for p in pad)
        yield Hypothesis(
            "pad before only",
            "is that of all the padding before x, and none behind",
            with_window(before=doubled),
        )
        yield Hypothesis(
            "padded windows left out",
            "is that of a call without padding: windows that reach into it are left out",
            left_out,
        )
        yield Hypothesis(
            "pad replicated",
            "is that of padding that repeats the border of x",
            with_window(edge=True),
        )
    t, h, w = (max(k - s, 0) // 2 for k, s in zip(call.window.kernel, call.window.stride, strict=True))
    if (t, h, w) != pad and any((t, h, w)):
        yield Hypothesis(
            "pad same",
            f"is that of padding as TensorFlow's SAME has it, {(t, h, w)} before x instead of {pad}",
            with_window(before=(t, h, w)),
        )
    for axes in ("T", "H", "W", "HW"):
        if not any(pad["THW".index(axis)] for axis in axes) or sum(map(bool, pad)) <= len(axes):
            continue
        yield Hypothesis(
            f"pad replicated {axes}",
            f"is that of padding that repeats the border of x along {' and '.join(axes)}, zeros elsewhere",
            with_window(edge=axes),
        )
    for i, axis in enumerate("THW"):
        for name, said, before in (
            (f"pad missing {axis}", f"windows that begin at 0 along {axis}: no padding before it", 0),
            (
                f"pad before only {axis}",
                f"all the padding along {axis} before x, and none behind",
                2 * pad[i],
            ),
            (f"pad off by one {axis}", f"windows that begin one place too early along {axis}", pad[i] + 1),
            (f"pad off by one {axis}", f"windows that begin one place too late along {axis}", pad[i] - 1),
        ):
            if before != pad[i]:
                yield Hypothesis(
                    name,
                    f"is that of {said}",
                    with_window(before=at(i, pad, before)),
                )


def left_out(call: Call) -> Array:
    """Only windows that lie inside x count."""
    kept = inside(call)
    return call.right * kept if call.subject == "y" else call.of({"dy": call["dy"] * kept})


def steps(call: Call) -> Iterator[Hypothesis]:
    """Stride or dilation dropped, along all axes or one; or swapped between axes."""
    if call.window is None or call.subject == "b":
        return

    def proposed(what: str, name: str, said: str, other: Triple) -> Hypothesis:
        return Hypothesis(
            f"{what} {name}",
            f"is that of a {what} {said}: {other} instead of {getattr(call.window, what)}",
            with_window(**{what: other}),
        )

    window = call.window
    for other in ((1, 2, 2), (2, 1, 1), (2, 2, 2)):
        if other != window.dilation and call.attribute("dilation") is not None:
            ends = zip(window.kernel, window.pad, window.dilation, other, strict=True)
            t, h, w = (p + (d - own_d) * (k - 1) // 2 for k, p, own_d, d in ends)
            if min(t, h, w) >= 0:
                yield Hypothesis(
                    "dilation moved",
                    f"is that of a dilation of {other} instead of {window.dilation}, padded for that",
                    with_window(dilation=other, before=(t, h, w)),
                )
    for what, own in (("stride", call.window.stride), ("dilation", call.window.dilation)):
        if own != ONES:
            yield proposed(what, "dropped", "dropped", ONES)
        if what == "dilation" and own != ONES:
            window = call.window
            t, h, w = (
                p - (d - 1) * (k - 1) // 2
                for k, p, d in zip(window.kernel, window.pad, window.dilation, strict=True)
            )
            yield Hypothesis(
                "dilation dropped",
                f"is that of a dilation dropped, padded for that: {ONES} instead of {own}",
                with_window(dilation=ONES, before=(t, h, w)),
            )
        for i, axis in enumerate("THW"):
            if own[i] != 1 and at(i, own, 1) != ONES:
                yield proposed(what, f"dropped {axis}", f"dropped along {axis}", at(i, own, 1))
        for t, h, w in sorted(set(permutations(own)) - {own}):
            yield proposed(what, "swapped", "swapped between axes", (t, h, w))
