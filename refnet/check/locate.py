"""Which indices of an array are wrong, in words: channel 3, the last column, every second line.

Indices count from 0, as everywhere in Python.
"""

from collections.abc import Sequence

import numpy as np

from refnet.arrays import Array
from refnet.op import Op

# What people call the places of T, H and W.
PLACES = {"frame": "T", "line": "H", "column": "W"}
TAPS = ("tap T", "tap H", "tap W")
BLOB = ("sample", "channel", *PLACES)
# Of more indices than this, only how many is said.
FEW = 6


def axes_of(op: Op, index: int, rank: int) -> tuple[str, ...]:
    """Name the axes of an operator's output, or of an input and its gradient.

    Parameters
    ----------
    op : Op
    index : int
        Which input, by position; OUTPUT is y.
    rank : int
        Of the array.

    Returns
    -------
    tuple of str
        "sample", "channel", "frame", "line", "column"; of a kernel "filter", "channel", "tap T", "tap H",
        "tap W"; of a matrix "sample" or "filter", and "feature"; of a vector "channel".
    """
    kernel = op.family == "product" and index == 1
    if rank == 5:
        return ("filter", "channel", *TAPS) if kernel else BLOB
    if rank == 2:
        return ("filter" if kernel else "sample", "feature")
    if rank == 1:
        return ("channel",)
    return tuple(f"axis {i}" for i in range(rank))


def structure(wrong: Array, axes: tuple[str, ...], groups: int = 1) -> str:
    """Say which elements are wrong, with the first of these descriptions that holds.

    All of them; one; the product of a set of indices along each axis; the union of whole slabs, such as
    the borders; most of such a product or union, and how many; how many are scattered, and within what.

    Parameters
    ----------
    wrong : ndarray of bool
    axes : tuple of str
        What each axis is called: `axes_of`.
    groups : int
        Of a grouped convolution: whole groups of channels or filters are called groups.

    Returns
    -------
    str
        Such as "channels 3 and 7, the last column".
    """
    count = int(np.count_nonzero(wrong))
    if count in (0, wrong.size):
        return "none" if count == 0 else "the only element" if count == 1 else f"all {count} elements"
    if count == 1:
        return f"one element: {_place(wrong, axes)}"
    box = [np.flatnonzero(along) for along in _any_along(wrong)]
    inside = wrong[np.ix_(*box)]
    where = _product(box, wrong.shape, axes, groups)
    if inside.all():
        return where
    slabs = _slabs(inside)
    if slabs is not None:
        whole = [positions[chosen] for positions, chosen in zip(box, slabs, strict=True)]
        union = _union(whole, wrong.shape, axes, groups)
        others = [
            np.arange(n) if len(chosen) else positions
            for n, chosen, positions in zip(wrong.shape, whole, box, strict=True)
        ]
        within = _product(others, wrong.shape, axes, groups)
        covered = _covered(inside.shape, slabs)
        some = "" if covered == count else f" ({count} of {covered} elements there)"
        return f"{union}{f', in {within}' if within else ''}{some}"
    if 2 * count >= inside.size:
        return f"{where or 'almost all'} ({count} of {inside.size} elements{' there' if where else ''})"
    return f"scattered ({count} of {inside.size}{f' in {where}' if where else ''}, no pattern)"


def _any_along(wrong: Array) -> list[Array]:
    """For each axis, at which of its indices anything is wrong."""
    ranks = range(wrong.ndim)
    return [np.asarray(wrong.any(axis=tuple(j for j in ranks if j != i))) for i in ranks]


def _slabs(inside: Array) -> list[Array] | None:
    """For each axis, the indices whose slabs are mostly wrong; None unless their union is what is wrong."""
    ranks = range(inside.ndim)
    means = [inside.mean(axis=tuple(j for j in ranks if j != i)) for i in ranks]
    full = [np.flatnonzero(mean == 1) for mean in means]
    # Where a slab is wrong throughout, those are the ones; chance makes some elements of a slab right.
    most = [np.flatnonzero((mean > 0.75) & (n > 1)) for mean, n in zip(means, inside.shape, strict=True)]
    for slabs in (full, most):
        if any(len(chosen) == n for chosen, n in zip(slabs, inside.shape, strict=True)):
            continue
        rest = inside.copy()
        for axis, chosen in enumerate(slabs):
            rest[(slice(None),) * axis + (chosen,)] = False
        if not rest.any():
            return slabs
    return None


def _covered(shape: tuple[int, ...], slabs: list[Array]) -> int:
    """How many elements the slabs have together."""
    outside = np.prod([n - len(chosen) for n, chosen in zip(shape, slabs, strict=True)])
    return int(np.prod(shape) - outside)


def _place(wrong: Array, axes: tuple[str, ...]) -> str:
    """The index of the only element."""
    (index,) = np.argwhere(wrong)
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=True))


def _product(box: Sequence[Array], shape: tuple[int, ...], axes: tuple[str, ...], groups: int) -> str:
    """Describe a product of sets; "" where it is everything."""
    parts = {
        axis: _indices(axis, chosen, n, groups)
        for axis, chosen, n in zip(axes, box, shape, strict=True)
        if len(chosen) < n
    }
    if any(axis in TAPS for axis in parts):
        first = axes.index(TAPS[0])
        sets = zip(box[first:], shape[first:], strict=True)
        entries = ["*" if len(chosen) == n else _entry(chosen) for chosen, n in sets]
        parts = {axis: part for axis, part in parts.items() if axis not in TAPS}
        one = "tap" if all(len(chosen) == 1 for chosen in box[first:]) else "taps"
        parts["taps"] = f"{one} ({', '.join(entries)})"
    ends = [
        axis
        for axis, chosen, n in zip(axes, box, shape, strict=True)
        if axis in PLACES and n > 2 and 0 < len(chosen) < n and set(chosen.tolist()) <= {0, n - 1}
    ]
    if len(ends) > 1:
        where = " and ".join(parts.pop(axis) for axis in ends)
        several = any(len(box[axes.index(axis)]) > 1 for axis in ends)
        parts["corner"] = f"the corner{'s' if several else ''} of {where}"
    return ", ".join(parts.values())


def _union(slabs: Sequence[Array], shape: tuple[int, ...], axes: tuple[str, ...], groups: int) -> str:
    """Describe a union of slabs."""
    some = [(axis, chosen, n) for axis, chosen, n in zip(axes, slabs, shape, strict=True) if len(chosen)]
    if all(axis in PLACES and _symmetric(chosen, n) for axis, chosen, n in some):
        return f"the borders along {_and([PLACES[axis] for axis, _, _ in some])}"
    return " and ".join(_indices(axis, chosen, n, groups) for axis, chosen, n in some)


def _symmetric(chosen: Array, n: int) -> bool:
    """Whether a set is as many indices at both ends, not all of them in the middle."""
    half = len(chosen) // 2
    ends = [*range(half), *range(n - half, n)]
    return 0 < 2 * half < n and chosen.tolist() == ends


def _entry(chosen: Array) -> str:
    """A set of taps along one axis."""
    return "|".join(map(str, chosen.tolist()))


def _indices(axis: str, chosen: Array, n: int, groups: int) -> str:
    """Describe a set of indices along an axis of n, not all of them, at least one."""
    first, last, count = int(chosen[0]), int(chosen[-1]), len(chosen)
    if axis == "sample" and count == 1:
        return f"sample {first} of {n}"
    whole = _groups(axis, chosen, n, groups)
    if whole:
        return whole
    if count == 1:
        end = "first" if first == 0 else "last" if first == n - 1 else ""
        return f"the {end} {axis}" if end and axis in PLACES else f"{axis} {first}"
    steps = np.diff(chosen)
    if (steps == 1).all():
        return f"{axis}s {first} to {last}" if count > 2 else f"{axis}s {first} and {last}"
    gap = int(steps[0])
    if (steps == gap).all() and first < gap and last + gap >= n and count > 2:
        which = {2: "second", 3: "third", 4: "fourth"}.get(gap, f"{gap}th")
        return f"every {which} {axis}{f' from {first} on' if first else ''}"
    if np.count_nonzero(steps > 1) == 1 and first == 0 and last == n - 1 and axis in PLACES:
        return f"{_end('first', int(np.argmax(steps > 1)) + 1)} and {_end('last', _tail(steps), axis)}"
    if count <= FEW:
        return f"{axis}s {_and([str(i) for i in chosen.tolist()])}"
    return f"{count} of {n} {axis}s"


def _tail(steps: Array) -> int:
    """How many indices follow the only gap."""
    return len(steps) - int(np.argmax(steps > 1))


def _end(which: str, count: int, axis: str = "") -> str:
    """The first 2, the last line."""
    number = f" {count}" if count > 1 else ""
    noun = f" {axis}{'s' if count > 1 else ''}" if axis else ""
    return f"the {which}{number}{noun}"


def _groups(axis: str, chosen: Array, n: int, groups: int) -> str:
    """Describe whole groups of channels; "" where these are none."""
    if groups == 1 or axis not in ("channel", "filter") or n % groups or n == groups:
        return ""
    size = n // groups
    found = np.unique(chosen // size)
    if len(found) * size != len(chosen):
        return ""
    named = "group" if len(found) == 1 else "groups"
    return f"{named} {_and([str(i) for i in found.tolist()])} of {groups}, {size} {axis}s each"


def _and(words: list[str]) -> str:
    """Join as prose does: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
