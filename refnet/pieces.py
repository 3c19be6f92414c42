"""Passes of NumPy over memory, some of it at a time: Python runs handlers of signals between two calls.

One call on gigabytes takes seconds, in which Ctrl-C is not heard. No bit depends on the pieces: each element
is computed by itself, or only looked at.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Elements of a piece: a millisecond or less, beside which a call costs nothing.
PIECE = 1 << 19

Box = tuple[slice, ...]


def boxes(shape: tuple[int, ...]) -> Iterator[Box]:
    """Cut an array into boxes of at most PIECE elements, in C order.

    Parameters
    ----------
    shape : tuple of int

    Yields
    ------
    tuple of slice
        One for each axis.
    """
    if not shape:
        yield ()
        return
    length, of_each = shape[0], prod(shape[1:])
    if of_each > PIECE:
        for i in range(length):
            for rest in boxes(shape[1:]):
                yield slice(i, i + 1), *rest
        return
    some = max(1, PIECE // max(1, of_each))
    for i in range(0, length, some):
        yield slice(i, min(i + some, length)), *(slice(0, n) for n in shape[1:])


def rows(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut the first axis of an array: rows of at most PIECE elements together, or one that has more."""
    some = max(1, PIECE // max(1, prod(shape[1:])))
    for i in range(0, shape[0], some):
        yield slice(i, min(i + some, shape[0]))


def fill(out: NDArray[Any], function: Callable[..., NDArray[Any]], *arrays: NDArray[Any]) -> NDArray[Any]:
    """Write function(*arrays), which computes element by element, into `out`; all have its shape."""
    for box in boxes(out.shape):
        out[box] = function(*(array[box] for array in arrays))
    return out


def copied(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """The array in a dtype, C-contiguous: a copy."""
    return fill(np.empty(array.shape, dtype), lambda part: part, array)


def converted(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """The array in a dtype; itself if it has that already."""
    if array.dtype == dtype or array.size <= PIECE:
        return array.astype(dtype, copy=False)
    return fill(np.empty_like(array, dtype), lambda part: part, array)


def all_finite(array: NDArray[Any]) -> bool:
    """Whether no element is infinite or NaN."""
    return all(bool(np.isfinite(array[box]).all()) for box in boxes(array.shape))
