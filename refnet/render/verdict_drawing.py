"""What a page of verdicts draws: where an array is wrong, how its differences are spread; inline SVG as text.

Colours are classes of the page's style sheet, so that a drawing follows its theme.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from math import ceil, floor, inf, isfinite, isnan, log, log10
from typing import NamedTuple

from refnet.check.report import Heat, Map, Verdict
from refnet.render.document import escaped
from refnet.render.palette import bands
from refnet.render.verdict_facts import margin, rms
from refnet.render.words import WORDS

# Levels of cells, on light ground and on dark: of errors within their bounds, and of those beyond, or wrong.
WITHIN = {
    "faint": ("#cfe0f6", "#1d3250"),
    "weak": ("#9cc0ee", "#2c5590"),
    "clear": ("#5b94dd", "#4a86cf"),
    "strong": ("#1f5cb0", "#8dbdf5"),
}
BEYOND = {
    "few": ("#d07a22", "#9c5c2a"),
    "some": ("#a84a0e", "#d07a38"),
    "most": ("#6e2406", "#ffb377"),
    "all": ("#2a0c02", "#fff0e0"),
}
# Levels of a map: from which share of a cell's elements on they hold.
SHARES = {"few": 0.0, "some": 0.01, "most": 0.5, "all": 1.0}
SHARE_NAMES = {"few": "under 1 in 100", "some": "under half", "most": "half or more", "all": "all"}
# A map's longer side and that of a frame, and the least and largest side of a cell, in pixels.
SIDE, FRAME_SIDE, LEAST_CELL, LARGEST_CELL = 300, 140, 4, 16
# Wrong cells so few, and so small, that a ring leads the eye to each.
MOST_RINGS, SMALL_CELL = 3, 8
# A histogram: its height and the width of a bin, in a row of a table and where it stands alone.
LOW, THIN, TALL, THICK = 18, 2, 130, 8


# Cells.


def shares() -> str:
    """The legend of maps."""
    return _legend(SHARE_NAMES.items())


def wrong(found: Map) -> str:
    """Draw a map of wrong elements: a row of cells for each of its rows."""
    levels = [
        [_share(count, _elements(found, i, j)) for j, count in enumerate(row)]
        for i, row in enumerate(found.counts)
    ]
    names = [
        f"{name} 0 to {length - 1}" + (f", {step} a cell" if step > 1 else "")
        for name, length, step in zip(found.axes, found.shape, found.steps, strict=True)
    ]
    titles = [f"{name} (down)" for name in names[:-1]] + names[-1:]
    caption = "<br>".join(map(escaped, titles))
    return _figure(levels, caption, escaped(f"wrong elements, {' x '.join(titles)}"), SIDE)


def heat(found: Heat) -> str:
    """Draw how large differences are, in units of their bounds: a map for each frame, one scale for all."""
    level, scale = _scale([value for frame in found.values for row in frame for value in row])
    figures = []
    for i, frame in enumerate(found.values):
        first, last = i * found.steps[0], min((i + 1) * found.steps[0], found.shape[0]) - 1
        caption = f"frame {first}" if first == last else f"frames {first} to {last}"
        levels = [[level(value) for value in row] for row in frame]
        figures.append(_figure(levels, caption, f"differences, {caption}", FRAME_SIDE))
    (_, height, width), (_, tall, wide) = found.shape, found.steps
    cells = "" if tall == wide == 1 else f", {tall} x {wide} elements a cell"
    return (
        '<div class="heat"><h4>the largest difference over samples and channels, in units of its bound; '
        f"lines 0 to {height - 1} down, columns 0 to {width - 1} across{cells}</h4>"
        f'{_legend(scale)}<div class="maps">{"".join(figures)}</div></div>'
    )


def _legend(levels: Iterable[tuple[str, str]]) -> str:
    dots = "".join(f'<li><i class="dot v-{level}"></i>{name}</li>' for level, name in levels)
    return f'<ul class="legend">{dots}</ul>'


def _figure(levels: Sequence[Sequence[str]], caption: str, label: str, side: int) -> str:
    """Draw rows of cells; equal neighbours are one rectangle, and what has no level is the ground."""
    lines, columns = len(levels), len(levels[0])
    tall, wide = (max(LEAST_CELL, min(LARGEST_CELL, side // cells)) for cells in (lines, columns))
    paths: dict[str, list[str]] = {}
    for i, row in enumerate(levels):
        for level, run in groupby(range(columns), key=row.__getitem__):
            if level:
                first, *others = run
                long = wide * (1 + len(others))
                paths.setdefault(level, []).append(f"M{wide * first} {tall * i}h{long}v{tall}h-{long}z")
    width, height = wide * columns, tall * lines
    beyond = [(i, j) for i, row in enumerate(levels) for j, level in enumerate(row) if level in BEYOND]
    lonely = len(beyond) <= MOST_RINGS and min(tall, wide) < SMALL_CELL
    rings = "".join(
        f'<circle class="ring" cx="{wide * (j + 0.5):g}" cy="{tall * (i + 0.5):g}" r="{wide + tall}"/>'
        for i, j in (beyond if lonely else ())
    )
    drawn = "".join(f'<path class="v-{level}" d="{"".join(d)}"/>' for level, d in paths.items())
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"'
    return (
        f'<figure><figcaption>{caption}</figcaption><svg class="map" {box} aria-label="{label}">'
        f'<rect class="ground" width="{width}" height="{height}"/>{drawn}{rings}</svg></figure>'
    )


def _elements(found: Map, line: int, column: int) -> int:
    """How many elements of the array a cell holds."""
    places = (line, column)[-len(found.axes) :]
    number = found.depth
    for at, length, step in zip(places, found.shape, found.steps, strict=True):
        number *= min(step, length - at * step)
    return number


def _share(count: int, elements: int) -> str:
    """Name the level of a cell; none where nothing is wrong."""
    if not count:
        return ""
    return [level for level, share in SHARES.items() if count >= share * elements][-1]


def _scale(values: Sequence[float]) -> tuple[Callable[[float], str], list[tuple[str, str]]]:
    """Levels of differences in units of their bounds, the same number of times apart, and what they mean.

    Those within the bound and those beyond it have levels of their own, from the least to the largest.
    """
    steps: list[tuple[str, float]] = []  # a level, and the largest value in it
    named: list[tuple[str, str]] = []
    finite = [value for value in values if isfinite(value) and value > 0]
    for levels, part in (
        (list(WITHIN), [v for v in finite if v <= 1]),
        (list(BEYOND), [v for v in finite if v > 1]),
    ):
        if not part:
            continue
        low, high = min(part), max(part)
        chosen = levels if high > 1.2 * low else levels[-2:-1]
        edges = [low * (high / low) ** (k / len(chosen)) for k in range(1, len(chosen))] + [high]
        for name, lower, upper in zip(chosen, [low, *edges], edges, strict=False):
            steps.append((name, upper))
            named.append((name, f"{lower:.2g} to {upper:.2g}" if lower < upper else f"{upper:.2g}"))
    if 0 in values:
        named.insert(0, ("none", "0"))
    if any(isnan(value) or value == inf for value in values):
        largest = [said for name, said in named if name == "all"]
        named = [entry for entry in named if entry[0] != "all"]
        named.append(("all", " or ".join([*largest, "infinite, NaN"])))

    def level(value: float) -> str:
        if value == 0:
            return ""
        return next((name for name, upper in steps if value <= upper), "all")

    return level, named


# Histograms.


def spark(counts: Sequence[int]) -> str:
    """Draw the 41 bins of difference / bound in the line of a table."""
    if not any(counts):
        return ""
    middle = THIN * len(counts) / 2
    box = f'width="{THIN * len(counts)}" height="{LOW}" viewBox="0 0 {THIN * len(counts)} {LOW}" role="img"'
    axis = f'<path class="rule" d="M0 {LOW - 0.5}H{THIN * len(counts)}M{middle:g} {LOW - 4}V{LOW}"/>'
    bars = "".join(_bars(counts, LOW - 1, THIN, 0))
    return f'<svg class="spark" {box} aria-label="differences by size, from -1 to 1 bound">{axis}{bars}</svg>'


def histogram(counts: Sequence[int]) -> str:
    """Draw the 41 bins of difference / bound with their axes; elements on a logarithmic scale."""
    left, top = 50, 8
    width, height = left + THICK * len(counts) + 14, top + TALL + 30
    parts = []
    for tick in _decades(max(counts)):
        line = top + TALL * (1 - _height(tick, max(counts)))
        parts.append(f'<path class="rule" d="M{left} {line:.1f}h{THICK * len(counts)}"/>')
        parts.append(f'<text class="l e" x="{left - 6}" y="{line + 3:.1f}">{tick:,}</text>')
    for share, name in ((-1, "-1"), (-0.5, "-0.5"), (0, "0"), (0.5, "0.5"), (1, "1")):
        at = left + THICK * (0.5 + (len(counts) - 1) * (share + 1) / 2)
        parts.append(f'<text class="l m" x="{at:g}" y="{top + TALL + 13}">{name}</text>')
    for at, kind, name in ((left, "l", "and beyond"), (width - 14, "l e", "and beyond")):
        parts.append(f'<text class="{kind}" x="{at}" y="{top + TALL + 25}">{name}</text>')
    bars = "".join(_bars(counts, TALL, THICK, left, top))
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"'
    return (
        '<div class="spread"><h4>difference / bound: how many elements, on a logarithmic scale</h4>'
        f'<svg class="histogram" {box} aria-label="differences by size">{"".join(parts)}{bars}</svg></div>'
    )


def _bars(counts: Sequence[int], tall: int, wide: int, left: int, top: int = 0) -> Iterator[str]:
    """A path of bars; those at both ends, which hold what is beyond the bound, are another."""
    ends = (0, len(counts) - 1)
    for kind, chosen in (("bin", range(1, ends[1])), ("end", ends)):
        bars = []
        for i in chosen:
            if counts[i]:
                height = max(1.5, tall * _height(counts[i], max(counts)))
                gap = 1 if wide > THIN else 0
                bars.append(f"M{left + wide * i} {top + tall}v-{height:.1f}h{wide - gap}v{height:.1f}z")
        if bars:
            yield f'<path class="{kind}" d="{"".join(bars)}"/>'


def _height(count: int, most: int) -> float:
    """A bar's share of the height: 1 element can be seen beside a million."""
    return log(1 + count) / log(1 + most)


def _decades(most: int) -> Iterator[int]:
    """Labels of the axis: powers of ten, few enough."""
    powers = floor(log10(most)) if most else 0
    for power in range(0, powers + 1, 1 + powers // 5):
        yield 10**power


# Along a network.


class Column(NamedTuple):
    """A verdict in a panel, and the identifier on the page where it is explained."""

    verdict: Verdict
    link: str


WIDTH, LEFT, PANEL, TITLE = 1200, 62, 110, 34
# Decades that are told apart below 1, and labels of a scale.
MOST_BELOW, MOST_TICKS = 6, 8
# A sign above a bar needs so many pixels.
SIGN_WIDTH, WIDEST_BAR = 10, 26


def along(nodes: Sequence[str], panels: Sequence[tuple[str, Sequence[Column | None]]]) -> str:
    """Draw margins along a network, a panel for values and one for gradients; the rms of each as a dash.

    Parameters
    ----------
    nodes : sequence of str
        Names, in order.
    panels : sequence
        A title, and for each node its verdict, or None.
    """
    judged = [column.verdict for _, columns in panels for column in columns if column is not None]
    spread = [v.residual.rms for v in judged if v.residual is not None and v.residual.rms is not None]
    low, high = decades([*(v.margin for v in judged), *spread])
    step = (WIDTH - LEFT) / len(nodes)
    height = 28 + len(panels) * (PANEL + TITLE)
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="margins along the network"'
    parts = [f'<div class="wide"><svg class="chart" {box}>']
    for stage, first, behind in bands(nodes):
        left, middle = LEFT + first * step, LEFT + (first + behind) / 2 * step
        middle = min(middle, WIDTH - 4 * len(stage))  # the name of a short last stage stays inside
        if first:
            parts.append(f'<path class="rule" d="M{left:.1f} 0V{height}"/>')
        parts.append(f'<text x="{middle:.1f}" y="12" class="l m">{escaped(stage)}</text>')
    for k, (title, columns) in enumerate(panels):
        top = 22 + k * (PANEL + TITLE) + TITLE
        parts.append(f'<text x="{LEFT}" y="{top - 15}" class="t">{escaped(title)}</text>')
        for share, name in ticks(low, high):
            line = top + PANEL * (1 - share)
            kind = "one" if name == "1" else "rule"
            parts.append(f'<path class="{kind}" d="M{LEFT} {line:.1f}H{WIDTH}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{line + 3:.1f}" class="l e">{name}</text>')
        parts += _panel(columns, top, step, low, high)
    return "".join([*parts, "</svg></div>"])


def _panel(columns: Sequence[Column | None], top: int, step: float, low: int, high: int) -> Iterator[str]:
    bottom, wide = top + PANEL, min(WIDEST_BAR, max(step * 0.8, min(step, 1.4)))
    bars: dict[str, list[str]] = {}
    dashes, signs, links = [], [], []
    signed = -inf
    for i, column in enumerate(columns):
        if column is None:
            continue
        verdict, middle = column.verdict, LEFT + (i + 0.5) * step
        share = position(verdict.margin, low, high) if margin(verdict) and verdict.margin != 0 else 0.0
        tall = max(2.0, PANEL * share)
        bar = f"M{middle - wide / 2:.2f} {bottom}v-{tall:.1f}h{wide:.2f}v{tall:.1f}z"
        bars.setdefault(verdict.verdict, []).append(bar)
        if verdict.residual is not None and verdict.residual.rms is not None:
            above = PANEL * position(verdict.residual.rms, low, high)
            dashes.append(f"M{middle - wide / 2:.2f} {bottom - above:.1f}h{wide:.2f}")
            tall = max(tall, above)
        if not verdict.passes and middle - signed >= SIGN_WIDTH:
            signed = middle
            sign = WORDS[verdict.verdict].sign
            signs.append(f'<text class="m t" x="{middle:.1f}" y="{bottom - tall - 4:.1f}">{sign}</text>')
        said = [f"{verdict.tensor}: {verdict.verdict}"]
        said += [
            f"{name} {value}" for name, value in (("margin", margin(verdict)), ("rms", rms(verdict))) if value
        ]
        links.append(
            f'<a href="#{column.link}" tabindex="-1"><rect class="hit" x="{LEFT + i * step:.2f}" y="{top}" '
            f'width="{step:.2f}" height="{PANEL}"><title>{escaped(", ".join(said))}</title></rect></a>'
        )
    yield from (f'<path class="v-{word}" d="{"".join(d)}"/>' for word, d in bars.items())
    if dashes:
        yield f'<path class="dash" d="{"".join(dashes)}"/>'
    yield from signs
    yield from links


def decades(values: Iterable[float]) -> tuple[int, int]:
    """A scale's ends, as powers of ten: all values are inside, but for those far below 1."""
    logs = [log10(value) for value in values if isfinite(value) and value > 0]
    low, high = floor(min(logs, default=-1)), ceil(max(logs, default=0))
    return max(min(low, -1), -MOST_BELOW), max(high, 1)


def position(value: float, low: int, high: int) -> float:
    """Where a value is on the scale, as a share of its length; what is beyond it is at its ends."""
    if not isfinite(value):
        return 1.0
    if value <= 0:
        return 0.0
    return min(1.0, max(0.01, (log10(value) - low) / (high - low)))


def ticks(low: int, high: int) -> Iterator[tuple[float, str]]:
    """Labels of the scale, and where they are."""
    step = ceil((high - low) / MOST_TICKS)
    for power in range(low, high + 1):
        if power % step == 0:
            yield (power - low) / (high - low), f"{10.0**power:g}"
