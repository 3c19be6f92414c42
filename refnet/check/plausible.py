"""Differences from what is expected: beyond every bound, larger than rounding is, or with structure.

The tests of a report share one level of error, delta: docs/certify.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from math import inf, log, sqrt

import numpy as np

from refnet._core import residual as kernels
from refnet.arrays import Array
from refnet.check.expected import Expected
from refnet.check.maps import MOST_CELLS
from refnet.check.report import Heat, Residual, Word
from refnet.environment import errstate
from refnet.shapes import Shape, size

BINS = 41
# Sums of a region: elements, and of d d / v, d r / v, r r / v, d / v, 1 / v, r / v.
COUNT, DD, DR, RR, D1, ONE, R1 = range(7)
SUMS = 7
# Planes of as many elements are divided into tiles, so many along a side.
LARGE_PLANE, TILES = 64, 4
# What has fewer elements is no block of its own.
LEAST_PLANE = 16
# Blocks from which on their spread says something.
FEW = 8


@dataclass(frozen=True)
class Levels:
    """What may be by chance, over all of a report.

    Attributes
    ----------
    largest : float
        lambda: of abs(d) in units of the error of a result near 0.
    level : float
        Of each test of the residual.
    copies : float
        As how many elements one counts in these tests: those of one value have one error.
    """

    largest: float
    level: float
    copies: float = 1.0

    @classmethod
    def of(cls, shapes: list[Shape], delta: float) -> "Levels":
        """The levels of a report on arrays of these shapes that is wrong with a probability of delta."""
        elements = sum(map(size, shapes))
        tests = sum(8 + 2 * (TILES**2 + sum(shape)) for shape in shapes)
        return cls(sqrt(2 * log(2 * max(elements, 1) / delta)), delta / max(tests, 1))


@dataclass(frozen=True)
class Structure:
    """What a residual has beyond noise.

    Attributes
    ----------
    kind : {"factor", "offset"}
    where : str
        "" for everywhere; "channel 3", "frame 0", "the border", "tile ...".
    by : float
        The relative factor by which it is larger, or the offset.
    certainty : float
        In standard errors.
    """

    kind: str
    where: str
    by: float
    certainty: float

    @property
    def name(self) -> str:
        """For programs: "scaled", "channel offset"."""
        what = "scaled" if self.kind == "factor" else "offset"
        noun = self.where.split()[0].removeprefix("the").rstrip("s") if self.where else ""
        return " ".join(filter(None, ("border" if "border" in self.where else noun, what)))

    @property
    def words(self) -> str:
        """Such as "larger by 4.0e-06 of itself in channel 3"."""
        place = f" in {self.where}" if self.where else ""
        if self.kind == "factor":
            return f"{'larger' if self.by > 0 else 'smaller'} by {abs(self.by):.1e} of itself{place}"
        return f"off by {self.by:+.2e} on average{place}"


@dataclass(frozen=True)
class Assessment:
    """How an array stands against what is expected of it.

    Attributes
    ----------
    word : str
        exact, consistent, systematic, implausible, impossible or refused.
    margin : float
        The largest abs(d) / B.
    where : tuple of int
        The index of that element; of an implausible array, that of the largest d in units of its error.
    found, expected, bound : float
        Of that element.
    wrong, elements : int
        Elements beyond their bounds, of how many.
    unjudged : int
        Elements of which nothing finite is expected.
    residual : Residual
    structures : tuple of Structure
        What has been found beyond noise.
    """

    word: Word
    margin: float
    where: tuple[int, ...]
    found: float
    expected: float
    bound: float
    wrong: int
    elements: int
    unjudged: int
    residual: Residual
    structures: tuple[Structure, ...] = field(default=())


def assess(found: Array, expected: Expected, axes: tuple[str, ...], levels: Levels) -> Assessment:
    """Judge an array.

    Parameters
    ----------
    found : ndarray of float32 or float64
    expected : Expected
        With the rounding of the claimed storage.
    axes : tuple of str
        What the axes of the array are called.
    levels : Levels
    """
    sums = _Pass(found, expected)
    place = sums.worst
    rms, limit = sums.rms(levels.level)
    structures = tuple(_structures(sums, axes, levels)) if expected.statistical else ()
    if structures:
        copied = replace(levels, copies=max(levels.copies, _copies(expected.value)))
        structures = tuple(_structures(sums, axes, copied))
    implausible = expected.statistical and not (rms <= limit and sums.largest <= levels.largest)
    word: Word = "consistent"
    if sums.wrong:
        word = "impossible"
    elif _is_rounded(found, expected):
        word = "exact"
    elif _says_nothing(sums, expected, levels):
        word = "refused"
    elif implausible:
        word, place = "implausible", sums.least_plausible if sums.largest > levels.largest else place
    elif structures:
        word = "systematic"
    index = tuple(int(i) for i in np.unravel_index(place, found.shape))
    r = float(expected.value[index])
    return Assessment(
        word=word,
        margin=sums.margin,
        where=index,
        found=float(found[index]),
        expected=r,
        bound=_bound_at(expected, place, r),
        wrong=sums.wrong,
        elements=found.size,
        unjudged=sums.unjudged,
        residual=Residual(
            rms=rms if expected.statistical else None,
            largest=sums.largest if expected.statistical else None,
            limit=levels.largest if expected.statistical else None,
            terms=expected.terms,
            histogram=tuple(int(n) for n in sums.histogram),
        ),
        structures=structures,
    )


def heat(found: Array, expected: Expected) -> Heat | None:
    """Where the differences of a blob are large, over frames, lines and columns."""
    if found.ndim != 5:
        return None
    ratio = np.zeros(found.shape[2:])
    per_channel = expected.absolute.reshape(found.shape) if expected.absolute.size > 1 else None
    for n, c in np.ndindex(*found.shape[:2]):
        value = expected.value[n, c]
        own = expected.absolute[0] if per_channel is None else per_channel[n, c]
        bound = expected.relative * np.abs(value) + expected.scale * expected.per * own + expected.least
        with errstate(all="ignore"):
            here = np.abs(found[n, c] - value) / bound
        np.maximum(
            ratio, np.where(np.isnan(here), np.where(np.isnan(found[n, c]), inf, 0.0), here), out=ratio
        )
    sizes: Shape = ratio.shape
    steps = (-(-sizes[0] // 16), -(-sizes[1] // MOST_CELLS), -(-sizes[2] // MOST_CELLS))
    for axis, step in enumerate(steps):
        ratio = np.maximum.reduceat(ratio, range(0, ratio.shape[axis], step), axis)
    values = tuple(tuple(tuple(map(float, row)) for row in frame) for frame in ratio)
    return Heat(shape=(sizes[0], sizes[1], sizes[2]), steps=steps, values=values)


def _copies(values: Array) -> float:
    """How many elements have the value of an element, on average; of constant data all are copies of a few.

    The variance of a sum of their errors is so many times that of independent ones.
    """
    _, counts = np.unique(values[values != 0], return_counts=True)
    return float(np.square(counts).sum() / counts.sum()) if counts.size else 1.0


def _is_rounded(found: Array, expected: Expected) -> bool:
    """Whether every element is the expected value rounded: to the dtype in which it was dumped."""
    first = slice(0, 256)
    with errstate(all="ignore"):
        for part in (first, slice(None)):
            if not np.array_equal(found.ravel()[part], expected.value.ravel()[part].astype(found.dtype)):
                return False
    return True


def _bound_at(expected: Expected, place: int, r: float) -> float:
    absolute = float(expected.absolute[place if expected.absolute.size > 1 else 0])
    return expected.relative * abs(r) + expected.scale * expected.per * absolute + expected.least


def _says_nothing(sums: "_Pass", expected: Expected, levels: Levels) -> bool:
    """Whether all that is expected is within what rounding may make of zero."""
    if not 0 < sums.size <= sums.bound:
        return False
    if not expected.statistical:
        return True
    return bool(levels.largest * np.sqrt(expected.variance(2.0).sum()) > sums.size)


def _tile_of(length: int, tiles: int) -> Array:
    """Which tile each index of an axis is in."""
    return np.asarray(np.arange(length) * tiles // length, np.intp)


def _stretches(width: int, tiles: int) -> Array:
    """Where stretches of columns end, their tiles, and whether they are the first or last column."""
    tile = _tile_of(width, tiles)
    ends = np.union1d(np.flatnonzero(np.diff(tile)) + 1, [1, max(width - 1, 1), width])
    last = ends - 1
    return np.array([ends, tile[last], (last == 0) | (last == width - 1)], np.intp)


class _Pass:
    """One pass of the kernel over an array, and what follows from its sums."""

    def __init__(self, found: Array, expected: Expected):
        self.shape = found.shape
        planes = _planes(found.shape)
        self.tiles = TILES if planes[1] * planes[2] >= LARGE_PLANE else 1
        count = planes[0]
        tops, sums = np.zeros((count, 6)), np.zeros((count, 2 * self.tiles**2, SUMS))
        counts = np.zeros((count, 2 + BINS), np.intp)
        kernels.residual(
            np.ascontiguousarray(found).reshape(planes),
            np.ascontiguousarray(expected.value).reshape(planes),
            expected.absolute,
            expected.spread,
            expected.relative,
            expected.scale,
            expected.per,
            expected.least,
            expected.spread_per,
            expected.plain,
            (expected.floor / expected.scale) ** 2,
            _tile_of(planes[1], self.tiles) * self.tiles,
            _stretches(planes[2], self.tiles),
            tops,
            counts,
            sums,
        )
        self.size, self.bound = (float(np.sqrt(tops[:, column].sum())) for column in (4, 5))
        self.margin, self.worst = _top(tops[:, 0], tops[:, 1], planes)
        self.largest, self.least_plausible = _top(tops[:, 2], tops[:, 3], planes)
        self.wrong, self.unjudged = int(counts[:, 0].sum()), int(counts[:, 1].sum())
        self.histogram = counts[:, 2:].sum(axis=0)
        self.scale = expected.scale
        blocks = sums.reshape(*_leading(found.shape), *sums.shape[1:])
        # By block; of a blob (N, C, T, H, W), by channel and region too.
        self.sums: Array = blocks.sum(axis=-2)
        self.regions: Array = blocks.sum(axis=(0, 2)) if blocks.ndim == 5 else np.empty((0, 0, SUMS))
        self._shrink(expected.shrink)

    def _shrink(self, most: float) -> None:
        """Take the claimed truncation out of the residual: the factor that fits, 1 - most or more."""
        square = float(self.sums[..., RR].sum())
        slope = float(self.sums[..., DR].sum()) / square if square > 0 else 0.0
        if not -most <= slope < 0:
            return
        for d in (self.sums, self.regions):
            d[..., DD] += slope**2 * d[..., RR] - 2 * slope * d[..., DR]
            d[..., DR] -= slope * d[..., RR]
            d[..., D1] -= slope * d[..., R1]

    def rms(self, level: float) -> tuple[float, float]:
        """The root mean square of d / sigma, and what it may be."""
        blocks = self.blocks()
        count = blocks[:, COUNT].sum()
        if count == 0:
            return 0.0, inf
        square = blocks[:, DD].sum() / count
        if len(blocks) >= FEW:
            off = blocks[:, DD] - min(square, 1.0) * blocks[:, COUNT]
            spread = sqrt(float(np.square(off).sum()) * len(blocks) / (len(blocks) - 1)) / count
            most = 1 + _t(level, len(blocks) - 1) * min(spread, 1.0)
        else:
            most = 1 + _normal(level) * sqrt(6 / count)
        return sqrt(float(square)), sqrt(float(most))

    def blocks(self) -> Array:
        """Sums by channel or filter, or finer where there are few."""
        by_channel = self.along(1 if self.sums.ndim == 4 else 0)
        whole = self.sums.reshape(-1, SUMS)
        return by_channel if len(by_channel) >= FEW else whole[whole[:, COUNT] > 0]

    def along(self, axis: int) -> Array:
        """Sums of what has one index of a leading axis, (indices, 7)."""
        others = tuple(i for i in range(self.sums.ndim - 1) if i != axis)
        found: Array = self.sums.sum(axis=others)
        return found


def _planes(shape: Shape) -> tuple[int, int, int]:
    """An array as planes: of a blob those of H and W, of a kernel its filters, of a matrix its rows."""
    leading = _leading(shape)
    if len(shape) == 5 and len(leading) == 3:
        return size(leading), shape[3], shape[4]
    return size(leading), 1, size(shape) // size(leading)


def _leading(shape: Shape) -> Shape:
    """The axes whose indices are blocks."""
    if len(shape) == 5:
        if shape[3] * shape[4] >= LEAST_PLANE:
            return shape[:3]
        return shape[:2] if size(shape[2:]) >= LEAST_PLANE else shape[:1]
    return shape[:1] if len(shape) > 1 else (1,)


def _top(values: Array, places: Array, planes: tuple[int, int, int]) -> tuple[float, int]:
    """The largest value of all planes, and its place in the array."""
    plane = int(values.argmax())
    return float(values[plane]), plane * planes[1] * planes[2] + int(places[plane])


def _structures(sums: _Pass, axes: tuple[str, ...], levels: Levels) -> Iterator[Structure]:
    """What regressions of the residual on r, and on 1, find: overall, by channel, frame, border, tile."""
    blocks = sums.blocks()
    for kind, cross, square, unit in (("factor", DR, RR, 1.0), ("offset", D1, ONE, sums.scale)):
        overall = _regressed(blocks[:, cross], blocks[:, square], levels)
        if overall is not None:
            yield Structure(kind, "", overall[0] * unit, overall[1])
            continue
        for axis in range(min(sums.sums.ndim - 1, len(axes) - 1)):
            by = sums.along(axis)
            which = _outlier(by[:, cross], by[:, square], levels)
            if which is not None:
                index, slope, certainty = which
                yield Structure(kind, f"{axes[axis]} {index}", slope * unit, certainty)
        if sums.sums.ndim == 4 and "frame" in axes:
            yield from _regions(sums, kind, cross, square, unit, levels)


def _regions(
    sums: _Pass, kind: str, cross: int, square: int, unit: float, levels: Levels
) -> Iterator[Structure]:
    """Borders and tiles of planes, frames: each by the spread over channels."""
    frames, regions = sums.sums.sum(axis=0), sums.regions  # (C, T, 7), (C, regions, 7)
    if len(frames) < FEW:
        return
    if frames.shape[1] > 1:
        for t in range(frames.shape[1]):
            one = _regressed(frames[:, t, cross], frames[:, t, square], levels)
            if one is not None:
                yield Structure(kind, f"frame {t}", one[0] * unit, one[1])
                return
    if sums.tiles > 1:
        border = regions[:, 1::2].sum(axis=1)
        one = _regressed(border[:, cross], border[:, square], levels)
        if one is not None:
            yield Structure(kind, "the border", one[0] * unit, one[1])
            return
        height, width = sums.shape[-2:]
        for tile in range(sums.tiles**2):
            part = regions[:, 2 * tile : 2 * tile + 2].sum(axis=1)
            one = _regressed(part[:, cross], part[:, square], levels)
            if one is not None:
                row, column = divmod(tile, sums.tiles)
                lines, columns = (
                    f"{-(-k * n // sums.tiles)} to {-(-(k + 1) * n // sums.tiles) - 1}"
                    for k, n in ((row, height), (column, width))
                )
                yield Structure(kind, f"lines {lines}, columns {columns}", one[0] * unit, one[1])
                return


@cache
def _t(level: float, freedom: int) -> float:
    """What Student's t exceeds with this probability."""
    from scipy.special import stdtrit  # a tenth of a second, for which only those wait who certify

    return -float(stdtrit(freedom, level))


@cache
def _normal(level: float) -> float:
    """What a normal deviate exceeds with this probability."""
    from scipy.special import ndtri

    return -float(ndtri(level))


def _regressed(cross: Array, square: Array, levels: Levels) -> tuple[float, float] | None:
    """The slope of d, and how many standard errors it is, if that is more than chance makes.

    Neighbouring results share operands: the standard error is that of blocks. It is not taken for less than
    what errors of the expected size would have, independent but for copies.
    """
    total = float(square.sum())
    if not total > 0 or np.unique(cross).size < FEW:  # blocks that are copies say nothing of a spread
        return None
    slope = float(cross.sum()) / total
    spread = sqrt(float(np.square(cross - slope * square).sum()) * len(cross) / (len(cross) - 1))
    certainty = abs(slope) * total / max(spread, sqrt(levels.copies * total))
    return (slope, certainty) if certainty > _t(levels.level / 2, len(cross) - 1) else None


def _outlier(cross: Array, square: Array, levels: Levels) -> tuple[int, float, float] | None:
    """The index whose slope stands out among the others', its slope and certainty."""
    some = square > 0
    if int(some.sum()) < FEW:
        return None
    with errstate(invalid="ignore", divide="ignore"):
        z = np.where(some, cross / np.sqrt(square), 0.0)
    typical = max(levels.copies, float(np.median(np.square(z[some]))) / 0.4549)
    # The typical square of few is itself uncertain.
    certainty = np.abs(z) / sqrt(typical * (1 + 8 / int(some.sum())))
    index = int(certainty.argmax())
    if certainty[index] <= _normal(levels.level / 2):
        return None
    return index, float(cross[index] / square[index]), float(certainty[index])
