"""The kernel of `refnet.ops.roi_align`: exact positions and weights of boxes, each element rounded once.

The definition's positions and weights are computed in rational numbers, of boxes and a scale that are taken
as exact; so where float64 rounds a position to the other side of a cell's centre, or a bin to another number
of samples, this does not.
"""

from fractions import Fraction
from math import ceil, lcm
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.exact import weighted
from refnet.arithmetic.exact.rational import rational
from refnet.arithmetic.exact.weighted import Entries, split
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.roi_align import infer
from refnet.shapes import Shape, size

# A product of two weights in doubles is off by less than this part of it, where it is not exact. One that is
# smaller than SMALL, which a box of numbers near 0 may have, is 0 with an error above it.
PRODUCT_ERROR, SMALL = 2.0**-98, 2.0**-400
HALF = Fraction(1, 2)


class Taps(NamedTuple):
    """What a line of bins reads along an axis: bins and cells, one a tap; weights are wholes / unit."""

    bins: Array
    cells: Array
    wholes: list[int]
    unit: int

    def weight(self, tap: int) -> Fraction:
        """The weight of a tap."""
        return Fraction(self.wholes[tap], self.unit)

    def split(self) -> Array:
        """All weights, as `weighted.split` has them: three rows."""
        return np.array([split(whole, self.unit) for whole in self.wholes]).reshape(-1, 3).T


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
    rows = np.moveaxis(blob, 1, -1)
    found = empty(rows.shape, rows.dtype)
    np.copyto(found, rows)
    return found.reshape(-1, blob.shape[1])


def _channels_first(rows: Array, shape: Shape) -> Array:
    """(N T H W, C) as (N, C, T, H, W)."""
    n, c, *volume = shape
    found = empty(shape, rows.dtype)
    np.copyto(found, np.moveaxis(rows.reshape(n, *volume, c), -1, 1))
    return found


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
        weights.append(_products(rows.split(), columns.split()))
        factors.append((first, rows, columns))
        first += results[-1].size
    starts = [start for start, _, _ in factors]

    def exact(entry: int) -> Fraction:
        start, rows, columns = factors[int(np.searchsorted(starts, entry, side="right")) - 1]
        i, j = divmod(entry - start, len(columns.wholes))
        return rows.weight(i) * columns.weight(j)

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
    # Whole numbers of a unit in which positions are whole: sample k of the line lies at first + 2 k step.
    unit = lcm(start.denominator, width.denominator) * 2 * max(samples, 1)
    step = width.numerator * (unit // width.denominator) // (2 * max(samples, 1))
    first = start.numerator * (unit // start.denominator) + step
    found: dict[tuple[int, int], int] = {}
    for k in range(bins * samples):
        position = first + 2 * k * step
        if not -unit <= position <= cells * unit:
            continue
        below, above = divmod(min(max(position, 0), (cells - 1) * unit), unit)
        place = k // samples, below
        found[place] = found.get(place, 0) + unit - above
        if above:
            place = k // samples, below + 1
            found[place] = found.get(place, 0) + above
    places = np.array(list(found), np.intp).reshape(-1, 2)
    return Taps(places[:, 0], places[:, 1], list(found.values()), unit * samples)


def _products(rows: Array, columns: Array) -> Array:
    """Every product of two weights as (high, low, error); exact where both are doubles, and so is it."""
    (a, a_low, _), (b, b_low, _) = rows, columns
    a, a_low, b, b_low = a[:, None], a_low[:, None], b[None], b_low[None]
    high = a * b
    # Veltkamp's halves, and what the product loses (Dekker).
    (a_head, a_tail), (b_head, b_tail) = _halves(a), _halves(b)
    lost = a_tail * b_tail - (((high - a_head * b_head) - a_tail * b_head) - a_head * b_tail)
    low = lost + (a * b_low + a_low * b)
    error = np.where((a_low == 0) & (b_low == 0), 0, high * PRODUCT_ERROR)
    found = np.stack([high, low, error], axis=-1)
    found[high < SMALL] = 0, 0, 2 * SMALL
    return found.reshape(-1, 3)


def _halves(a: Array) -> tuple[Array, Array]:
    """A double as a sum of two of 26 bits."""
    far = a * (2.0**27 + 1)
    head = far - (far - a)
    return head, a - head


KERNEL = Kernel(forward, backward)
