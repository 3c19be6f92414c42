"""Changes of an array whose axes have names."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from refnet.arrays import Array

# None: the array has no such axis, or nothing would change.
Change = Callable[[Array, tuple[str, ...]], Array | None]


def _axis(array: Array, axes: tuple[str, ...], name: str) -> int | None:
    """Which axis has that name, if it has more than one index."""
    axis = axes.index(name) if name in axes else None
    return None if axis is None or array.shape[axis] == 1 else axis


def flip(*names: str) -> Change:
    """Reverse some axes."""

    def change(array: Array, axes: tuple[str, ...]) -> Array | None:
        along = [_axis(array, axes, name) for name in names]
        some = tuple(axis for axis in along if axis is not None)
        return None if None in along else np.flip(array, some)

    return change


def swap(one: str, other: str) -> Change:
    """Swap two axes of equal sizes."""

    def change(array: Array, axes: tuple[str, ...]) -> Array | None:
        i, j = _axis(array, axes, one), _axis(array, axes, other)
        if i is None or j is None or array.shape[i] != array.shape[j]:
            return None
        return array.swapaxes(i, j)

    return change


def roll(name: str, by: int) -> Change:
    """Move every index on by so many; the last ones come first."""

    def change(array: Array, axes: tuple[str, ...]) -> Array | None:
        axis = _axis(array, axes, name)
        return None if axis is None else np.roll(array, by, axis)

    return change


def shift(name: str, by: int) -> Change:
    """Move every index on by one, or back; zeros come in."""

    def change(array: Array, axes: tuple[str, ...]) -> Array | None:
        axis = _axis(array, axes, name)
        if axis is None:
            return None
        moved = np.roll(array, by, axis)
        moved[along_axis(axis, 0 if by > 0 else -1)] = 0
        return moved

    return change


def slab(name: str, index: int, factor: float) -> Change:
    """Multiply what has one index along an axis."""

    def change(array: Array, axes: tuple[str, ...]) -> Array | None:
        axis = _axis(array, axes, name)
        if axis is None:
            return None
        changed = array.copy()
        changed[along_axis(axis, index)] *= factor
        return changed

    return change


def alone(name: str, index: int) -> Change:
    """Zero what has another index along an axis."""

    def change(array: Array, axes: tuple[str, ...]) -> Array | None:
        axis = _axis(array, axes, name)
        if axis is None:
            return None
        changed = np.zeros_like(array)
        changed[along_axis(axis, index)] = array[along_axis(axis, index)]
        return changed

    return change


def regroup(name: str, groups: int, how: Literal["reversed", "interleaved", "dealt"]) -> Change:
    """Groups in reverse order; or channels in the order of their place in a group; or back."""

    def change(array: Array, axes: tuple[str, ...]) -> Array | None:
        axis = _axis(array, axes, name)
        if axis is None or array.shape[axis] % groups or groups == 1:
            return None
        order = np.arange(array.shape[axis]).reshape(groups, -1)
        if how == "dealt":
            order = order.reshape(-1, groups)
        order = order[::-1] if how == "reversed" else order.T
        return np.take(array, order.reshape(-1), axis)

    return change


def along_axis(axis: int, index: int) -> tuple[Any, ...]:
    """The place of one index along an axis."""
    return (*(slice(None),) * axis, index)
