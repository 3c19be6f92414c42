"""Arrays as a candidate has dumped them: any layout, any of the formats; what does not fit is a finding."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from refnet.arrays import Array, at_the_door
from refnet.errors import RefnetError, ValueRangeError, brief
from refnet.shapes import Shape, text

BLOB, KERNEL = "NCTHW", "KCTHW"


def as_dumped(name: str, array: Any, *, integer: bool = False) -> Array:
    """An array as it can be judged: its values in float32 or float64.

    Raises
    ------
    DTypeError
    """
    return at_the_door(name, array, integer=integer)


def laid_out(array: Any, axes: str) -> Any:
    """A blob or kernel in our order of axes, given the order of its own; another rank is left as it is."""
    ours = BLOB if "N" in axes else KERNEL
    if axes == ours or getattr(array, "ndim", 0) != 5:
        return array
    return np.transpose(at_the_door("array", array), [axes.index(letter) for letter in ours])


def require_axes(axes: object, kernel_axes: object) -> None:
    """Refuse what is no order of a blob's axes, or of a kernel's.

    Raises
    ------
    ValueRangeError
    """
    for name, found, own in (("axes", axes, BLOB), ("kernel_axes", kernel_axes, KERNEL)):
        if not isinstance(found, str) or sorted(found) != sorted(own):
            raise ValueRangeError(f"{name} is {brief(found)}: expected a permutation of {own}")


def require_order(
    arrays: Mapping[str, Any], shapes: Mapping[str, Shape], argument: str, claimed: str
) -> None:
    """Refuse arrays most of which have their axes in one other order than it is said.

    Parameters
    ----------
    arrays : mapping of str to array_like
    shapes : mapping of str to shape
        In our order.
    argument : {"axes", "kernel_axes"}
        What says their order.
    claimed : str

    Raises
    ------
    ValueRangeError
    """
    ours = BLOB if argument == "axes" else KERNEL
    found = {name: tuple(getattr(array, "shape", ())) for name, array in arrays.items()}
    found = {name: shape for name, shape in found.items() if len(shape) == len(shapes[name]) == len(ours)}

    def fitting(axes: str) -> list[str]:
        at = [ours.index(letter) for letter in axes]
        return [name for name, shape in found.items() if shape == tuple(shapes[name][i] for i in at)]

    if len(found) < 2 or 2 * len(fitting(claimed)) >= len(found):
        return
    # Where several fit, H and W being equal: that which leaves T, H and W in this order, and N or K first.
    orders = sorted(map("".join, permutations(ours)), key=lambda a: ("THW" not in a, a[0] != ours[0]))
    best = max(orders, key=lambda axes: len(fitting(axes)))
    if 2 * len(named := fitting(best)) > len(found):
        name = named[0]
        raise ValueRangeError(
            f"the candidate looks like {best}: {name} is {text(found[name])}; expected {claimed}, or "
            f"--{argument.replace('_', '-')} {best} (in Python {argument}={best!r})"
        )


class Dumped(NamedTuple):
    """An array of a candidate.

    Attributes
    ----------
    tensor, node, op : str
    array : array_like
    axes : str
        The order of its axes.
    integer : bool
    """

    tensor: str
    node: str
    op: str
    array: Any
    axes: str = BLOB
    integer: bool = False

    def read(self, shape: Shape) -> tuple[Array | None, tuple[str, str | None]]:
        """The array, if it can be judged; if not, why, and the short name of that."""
        try:
            found = as_dumped(self.tensor, self.array, integer=self.integer)
        except RefnetError as error:
            return None, (str(error), "dtype")
        laid = laid_out(found, self.axes)
        if laid.size == 1 and not any(n != 1 for n in (*laid.shape, *shape)):
            laid = laid.reshape(shape)  # a loss, with or without an axis
        if laid.shape != shape:
            return None, (f"its shape is {text(laid.shape)}, expected {text(shape)}", "shape")
        return np.ascontiguousarray(laid).reshape(shape), ("", None)
