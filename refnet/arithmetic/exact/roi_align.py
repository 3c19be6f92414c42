"""The kernel of `refnet.ops.roi_align`: exact positions and weights of boxes, each element rounded once.

The definition's positions and weights are computed in rational numbers, of boxes and a scale that are taken
as exact; so where float64 rounds a position to the other side of a cell's centre, or a bin to another number
of samples, this does not.
"""

from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic.exact import weighted
from refnet.arithmetic.exact.rational import rational
from refnet.arithmetic.exact.weighted import Entries, split
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.roi_align import infer
from refnet.shapes import Shape, size

# A product of two weights in doubles is off by less than this part of it, where it is not exact.
PRODUCT_ERROR = 2.0**-98
HALF = Fraction(1, 2)


class Taps(NamedTuple):
    """What each of a line of bins reads along an axis: bins and cells, one a tap, and exact weights."""

    bins: Array
    cells: Array
    weights: list[Fraction]


def forward(x: Array, rois: Array, **attrs: Any) -> tuple[Array, Any]:
    """RN(sum of weights times cells)."""
    shape, entries = infer(x.shape, rois.shape, **attrs), _entries(x.shape, rois, **attrs)
    y = weighted.sums("y", _channels_last(x), entries, shape[0] * size(shape[2:]))
    return _channels_first(y, shape), (x.shape, entries)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = RN(sum of dy times weights of the bins that read a cell); rois are given."""
    shape, entries = context
    if not needs[0]:
        return None, None
    dx = weighted.sums("dx", _channels_last(dy), entries.turned(), shape[0] * size(shape[2:]))
    return _channels_first(dx, shape), None


def _channels_last(blob: Array) -> Array:
    """(N, C, T, H, W) as (N T H W, C)."""
    return np.ascontiguousarray(np.moveaxis(blob, 1, -1)).reshape(-1, blob.shape[1])


def _channels_first(rows: Array, shape: Shape) -> Array:
    """(N T H W, C) as (N, C, T, H, W)."""
    n, c, *volume = shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(n, *volume, c), -1, 1))


def _entries(x: Shape, rois: Array, *, output: tuple[int, int], **attrs: Any) -> Entries:
    """What every bin of every tube and frame reads: its row, a cell's row, and the product of two weights."""
    _, _, frames, height, width = x
    results, values, weights = [], [], []
    factors: list[tuple[int, Taps, Taps]] = []
    first = 0
    for r, t in np.ndindex(len(rois), frames):
        corners = [rational(v) for v in rois[r, 1 + 4 * t : 5 + 4 * t]]
        rows = _taps(corners[1], corners[3], output[0], height, **attrs)
        columns = _taps(corners[0], corners[2], output[1], width, **attrs)
        bins = (r * frames + t) * output[0] + rows.bins[:, None]
        lines = (int(rois[r, 0]) * frames + t) * height + rows.cells[:, None]
        results.append((bins * output[1] + columns.bins).ravel())
        values.append((lines * width + columns.cells).ravel())
        weights.append(_products(rows.weights, columns.weights))
        factors.append((first, rows, columns))
        first += results[-1].size
    starts = [start for start, _, _ in factors]

    def exact(entry: int) -> Fraction:
        start, rows, columns = factors[int(np.searchsorted(starts, entry, side="right")) - 1]
        i, j = divmod(entry - start, len(columns.weights))
        return rows.weights[i] * columns.weights[j]

    return Entries(np.concatenate(results), np.concatenate(values), np.concatenate(weights), exact)


def _taps(
    corner: Fraction,
    opposite: Fraction,
    bins: int,
    cells: int,
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = False,
) -> Taps:
    """The taps of one axis of a box, as `refnet.ops.roi_align` defines them."""
    scale, offset = rational(spatial_scale), HALF if aligned else Fraction(0)
    start, end = corner * scale - offset, opposite * scale - offset
    width = (end - start if aligned else max(end - start, Fraction(1))) / bins
    samples = sampling_ratio or max(ceil(width), 0)
    found: dict[tuple[int, int], Fraction] = {}
    for p in range(bins):
        for i in range(samples):
            position = start + p * width + (i + HALF) * width / samples
            if not -1 <= position <= cells:
                continue
            position = min(max(position, Fraction(0)), Fraction(cells - 1))
            below = position.numerator // position.denominator
            above = position - below
            for cell, weight in ((below, 1 - above), (below + 1, above)):
                if weight:
                    found[p, cell] = found.get((p, cell), Fraction(0)) + weight / samples
    places = np.array(list(found), np.intp).reshape(-1, 2)
    return Taps(places[:, 0], places[:, 1], list(found.values()))


def _products(rows: list[Fraction], columns: list[Fraction]) -> Array:
    """Every product of two weights as (high, low, error); exact where both are doubles, and so is it."""
    (a, a_low, _), (b, b_low, _) = (
        np.array([split(w) for w in line]).reshape(-1, 3).T for line in (rows, columns)
    )
    a, a_low, b, b_low = a[:, None], a_low[:, None], b[None], b_low[None]
    high = a * b
    # Veltkamp's halves, and what Dekker's product loses: weights are between 2^-200 and 1.
    (a_head, a_tail), (b_head, b_tail) = _halves(a), _halves(b)
    lost = a_tail * b_tail - (((high - a_head * b_head) - a_tail * b_head) - a_head * b_tail)
    low = lost + (a * b_low + a_low * b)
    error = np.where((a_low == 0) & (b_low == 0), 0, high * PRODUCT_ERROR)
    return np.stack([high, low, error], axis=-1).reshape(-1, 3)


def _halves(a: Array) -> tuple[Array, Array]:
    """A double as a sum of two of 26 bits."""
    far = a * (2.0**27 + 1)
    head = far - (far - a)
    return head, a - head


KERNEL = Kernel(forward, backward)
