"""Small pictures of where an array is wrong, for pages."""

from collections.abc import Sequence

import numpy as np

from refnet.arrays import Array
from refnet.check.report import Map

# Cells along an axis; a longer one has several indices in a cell.
MOST_CELLS = 64


def maps(wrong: Array, axes: Sequence[str]) -> tuple[Map, ...]:
    """Count the wrong elements of an array along its axes, two by two.

    Axes of one index are left out. The others are paired from the last on, so that lines meet columns and
    channels meet frames; the first is alone where their number is odd.

    Parameters
    ----------
    wrong : ndarray of bool
    axes : sequence of str
        What the axes are called, as many as there are.

    Returns
    -------
    tuple of Map
        None where there is no axis of more than one index.
    """
    long = [axis for axis, size in enumerate(wrong.shape) if size > 1]
    pairs = [tuple(long[max(0, end - 2) : end]) for end in range(len(long), 0, -2)]
    return tuple(_map(wrong, pair, axes) for pair in reversed(pairs))


def _map(wrong: Array, pair: tuple[int, ...], names: Sequence[str]) -> Map:
    others = tuple(axis for axis in range(wrong.ndim) if axis not in pair)
    shape = tuple(wrong.shape[axis] for axis in pair)
    steps = tuple(-(-size // MOST_CELLS) for size in shape)
    counts = np.count_nonzero(wrong, axis=others)
    for axis, step in enumerate(steps):
        counts = np.add.reduceat(counts, range(0, counts.shape[axis], step), axis)
    return Map(
        axes=tuple(names[axis] for axis in pair),
        shape=shape,
        steps=steps,
        counts=tuple(tuple(map(int, row)) for row in np.atleast_2d(counts)),
        depth=wrong.size // int(np.prod(shape)),
    )
