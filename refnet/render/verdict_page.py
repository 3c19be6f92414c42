"""A report as one page of HTML that needs nothing else: verdicts on the graph, margins, failures drawn."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from math import ceil, floor, isfinite, log10

from refnet.check.report import Map, Report, Verdict, Word
from refnet.net import Net, Node
from refnet.render import drawing
from refnet.render.document import asset, document, section, themes
from refnet.render.verdict_facts import (
    BLOCKED_NOTE,
    counts,
    derivative,
    facts,
    failure,
    failures,
    largest,
    maker,
    margin,
    place,
    word,
)
from refnet.render.words import WORDS
from refnet.shapes import text

# Of the levels of a map, on light ground and on dark.
LEVEL_COLOURS = {
    "few": ("#d07a22", "#9c5c2a"),
    "some": ("#a84a0e", "#d07a38"),
    "most": ("#6e2406", "#ffb377"),
    "all": ("#2a0c02", "#fff0e0"),
}
# Levels of a map: from which share of a cell's elements on they hold.
LEVELS = {"few": 0.0, "some": 0.01, "most": 0.5, "all": 1.0}
LEVEL_NAMES = {"few": "under 1 in 100", "some": "under half", "most": "half or more", "all": "all"}
# Failures that are open when the page is.
MOST_OPEN = 5
# Decades of margins that are told apart below 1, and labels on the scale.
MOST_BELOW, MOST_TICKS = 6, 8
# A map's longer side, and the least and largest side of a cell, in pixels.
SIDE, LEAST_CELL, LARGEST_CELL = 300, 4, 16
# Wrong cells so few, and so small, that a ring leads the eye to each.
MOST_RINGS, SMALL_CELL = 3, 8


def html(report: Report, net: Net | None = None, folded: Collection[str] = ()) -> str:
    """Write the page of a report.

    Parameters
    ----------
    report : Report
    net : Net, optional
        Whose gradients were judged; its graph is drawn.
    folded : collection of str
        Arrays whose margins are folded away while they are right.

    Returns
    -------
    str
    """
    anchors = {name: f"t{i}" for i, name in enumerate(report.verdicts)}
    judged = [v for v in report.verdicts.values() if v.verdict != "blocked"]
    blocked = [v for v in report.verdicts.values() if v.verdict == "blocked"]
    failed = failures(report)
    parts = [
        f"<header><h1>{escape(report.title)}</h1>{_whole(report)}{_facts(report)}</header><main>",
        section("What is not right", _failures(failed, anchors)) if failed else "",
        section("Graph", _graph(report, net, anchors)) if net is not None else "",
        section("Margins", _margins(judged, folded, anchors)) if judged else "",
        section("Blocked gradients", _blocked(blocked, anchors)) if blocked else "",
        "</main>",
    ]
    colours = {name: shown.colours for name, shown in WORDS.items()} | LEVEL_COLOURS
    kinds = "".join(f".v-{name}{{fill:var(--{name});--c:var(--{name})}}" for name in colours)
    styles = themes(colours.items()) + kinds + asset("page.css") + asset("verdict_page.css")
    return document(report.title, styles, "".join(parts))


def _mark(verdict: Word) -> str:
    return f'<i class="mark v-{verdict}">{WORDS[verdict].sign}</i>'


def _whole(report: Report) -> str:
    worst = report.worst
    mark = _mark(worst.verdict) if worst else ""
    verdicts = list(report.verdicts.values())
    numbers = "; ".join(filter(None, (counts(verdicts), largest(verdicts))))
    return f'<p class="whole">{mark} <b>{word(report)}</b> {escape(numbers)}</p>'


def _facts(report: Report) -> str:
    cells = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in facts(report))
    return f"<dl>{cells}</dl>" if cells else ""


def _failures(failed: Sequence[Verdict], anchors: Mapping[str, str]) -> str:
    parts = []
    if any(verdict.maps for verdict in failed):
        levels = "".join(
            f'<li><i class="dot v-{level}"></i>{name}</li>' for level, name in LEVEL_NAMES.items()
        )
        parts.append(
            "<p>Maps: the wrong elements, counted over all other axes; how many of a cell's are wrong:</p>"
            f'<ul class="legend">{levels}</ul>'
        )
    for i, verdict in enumerate(failed):
        rows = "".join(f"<tr><td>{label}<td>{escape(found)}" for label, found in failure(verdict))
        maps = "".join(map(_map, verdict.maps))
        made = f" <span>at {escape(maker(verdict))}</span>" if maker(verdict) else ""
        again = ""
        if verdict.reproduce:
            line = escape(verdict.reproduce)
            again = f'<h4>reproduce, a click selects the line</h4><pre class="copy">{line}</pre>'
        opened = " open" if i < MOST_OPEN else ""
        parts.append(
            f'<details class="failure" id="{anchors[verdict.tensor]}"{opened}><summary>'
            f"{_mark(verdict.verdict)} <b>{escape(verdict.tensor)}</b> {verdict.verdict}{made}</summary>"
            f'<div><table>{rows}</table><div class="maps">{maps}</div>{again}</div></details>'
        )
    return "".join(parts)


def _map(found: Map) -> str:
    """Draw a map: a row of cells for each of its rows; equal neighbours are one rectangle."""
    lines, columns = len(found.counts), len(found.counts[0])
    tall, wide = (max(LEAST_CELL, min(LARGEST_CELL, SIDE // cells)) for cells in (lines, columns))
    paths: dict[str, list[str]] = {}
    for i, row in enumerate(found.counts):
        levels = [_level(count, _elements(found, i, j)) for j, count in enumerate(row)]
        for level, run in groupby(range(columns), key=levels.__getitem__):
            if level:
                first, *others = run
                long = wide * (1 + len(others))
                paths.setdefault(level, []).append(f"M{wide * first} {tall * i}h{long}v{tall}h-{long}z")
    width, height = wide * columns, tall * lines
    wrong = [(i, j) for i, row in enumerate(found.counts) for j, count in enumerate(row) if count]
    lonely = len(wrong) <= MOST_RINGS and min(tall, wide) < SMALL_CELL
    rings = "".join(
        f'<circle class="ring" cx="{wide * (j + 0.5):g}" cy="{tall * (i + 0.5):g}" r="{wide + tall}"/>'
        for i, j in (wrong if lonely else ())
    )
    drawn = "".join(f'<path class="v-{level}" d="{"".join(d)}"/>' for level, d in paths.items())
    names = [
        f"{name} 0 to {length - 1}" + (f", {step} a cell" if step > 1 else "")
        for name, length, step in zip(found.axes, found.shape, found.steps, strict=True)
    ]
    titles = [f"{name} (down)" for name in names[:-1]] + names[-1:]
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"'
    label = escape(" x ".join(titles))
    return (
        f"<figure><figcaption>{label.replace(' x ', '<br>')}</figcaption>"
        f'<svg class="map" {box} aria-label="wrong elements, {label}">'
        f'<rect class="ground" width="{width}" height="{height}"/>{drawn}{rings}</svg></figure>'
    )


def _elements(found: Map, line: int, column: int) -> int:
    """How many elements of the array a cell holds."""
    places = (line, column)[-len(found.axes) :]
    number = found.depth
    for at, length, step in zip(places, found.shape, found.steps, strict=True):
        number *= min(step, length - at * step)
    return number


def _level(count: int, elements: int) -> str:
    """Name the level of a cell; none where nothing is wrong."""
    if not count:
        return ""
    return [level for level, share in LEVELS.items() if count >= share * elements][-1]


def _graph(report: Report, net: Net, anchors: Mapping[str, str]) -> str:
    worst = _by_node(report, net)
    looks = {node.name: _look(node, net, worst.get(node.name), anchors) for node in net.nodes}
    said = {v.verdict for v in report.verdicts.values()}
    signs = "".join(f"<li>{_mark(v)}{v}: {WORDS[v].meaning}</li>" for v in WORDS if v in said)
    none = '<li><i class="mark v-none"></i>no call of its backward was judged</li>'

    def about(blocks: Mapping[str, list[Node]]) -> str:
        here = [worst[n.name] for block in blocks.values() for n in block if n.name in worst]
        return f"{counts(here)}" if here else "not judged"

    return (
        f'<ul class="legend" id="graph">{signs}{none}</ul>'
        "<p>A node has the worst verdict of what its backward made. Data runs from left to right, and on in "
        "the next line; gradients run back. Dashed: no gradient is computed.</p>"
        f'<div class="judged">{drawing.graph(net, looks, net.gradient_flow(), about)}</div>'
    )


def _by_node(report: Report, net: Net) -> dict[str, Verdict]:
    """The worst verdict of what a node's backward made, or should not have made."""
    readers: dict[str, list[str]] = {}
    for node in net.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.name)
    nodes = {node.name for node in net.nodes}
    found: dict[str, Verdict] = {}
    for verdict in report.verdicts.values():
        for name in [verdict.node] if verdict.node in nodes else readers.get(verdict.tensor, []):
            if name not in found or found[name].badness < verdict.badness:
                found[name] = verdict
    return found


def _look(node: Node, net: Net, verdict: Verdict | None, anchors: Mapping[str, str]) -> drawing.Look:
    sign, tip = drawing.sign(node, net), f"{node.name}: {node.op}, {text(node.shape)}"
    if verdict is None:
        return drawing.Look("v-none", sign, f"{tip}; not judged", "graph")
    tip += f"; {verdict.tensor} {verdict.verdict}"
    if margin(verdict):
        tip += f", margin {margin(verdict)}"
    kind = f"v-{verdict.verdict}"
    if not verdict.passes:
        kind, sign = f"{kind} bad", f"{WORDS[verdict.verdict].sign} {sign}".strip()
    return drawing.Look(kind, sign, tip, anchors[verdict.tensor])


def _margins(judged: Sequence[Verdict], folded: Collection[str], anchors: Mapping[str, str]) -> str:
    low, high = _decades(judged)
    hidden = [v for v in judged if v.passes and v.tensor in folded]
    shown = [v for v in judged if not v.passes or v.tensor not in folded]
    scale = "".join(_ticks(low, high))
    head = (
        f'<div class="m ticks"><span></span><span></span><span></span><span>{scale}</span><span></span></div>'
    )
    parts = [
        "<p>The largest error of each array in units of its bound, on a logarithmic scale. What goes beyond "
        "the line at 1 is no rounding.</p>",
        f'<div class="margins" style="--one:{_position(1.0, low, high):.2f}%">{head}',
        *(_margin(v, low, high, anchors) for v in shown),
    ]
    if hidden:
        rows = "".join(_margin(v, low, high, anchors) for v in hidden)
        title = f"{counts(hidden)} beside these, {escape(largest(hidden))}"
        parts.append(
            f'<details class="more"><summary>{_mark(hidden[0].verdict)} {title}</summary>{rows}</details>'
        )
    return "".join([*parts, "</div>"])


def _margin(verdict: Verdict, low: int, high: int, anchors: Mapping[str, str]) -> str:
    bar = ""
    if margin(verdict) and verdict.margin != 0:
        share = _position(verdict.margin, low, high)
        beyond = "" if verdict.margin <= 1 else " beyond"
        bar = f'<i class="bar v-{verdict.verdict}{beyond}" style="--v:{share:.2f}%"></i>'
    anchor, name = anchors[verdict.tensor], f"<b>{escape(verdict.tensor)}</b>"
    where = f"worst at {place(verdict)} of {verdict.elements:,} elements" if place(verdict) else ""
    identifier = f' id="{anchor}"'
    if not verdict.passes:  # its anchor is where the failure is explained
        identifier, name = "", f'<a href="#{anchor}">{name}</a>'
    return (
        f'<div class="m"{identifier} title="{where}"><span>{_mark(verdict.verdict)}</span><span>{name}</span>'
        f'<span>{escape(verdict.node)}</span><span class="track">{bar}</span>'
        f"<span>{margin(verdict)}</span></div>"
    )


def _decades(judged: Sequence[Verdict]) -> tuple[int, int]:
    """The scale's ends, as powers of ten: all margins are inside, but for those far below 1."""
    logs = [log10(v.margin) for v in judged if isfinite(v.margin) and v.margin > 0]
    low, high = floor(min(logs, default=-1)), ceil(max(logs, default=0))
    return max(min(low, -1), -MOST_BELOW), max(high, 1)


def _position(value: float, low: int, high: int) -> float:
    """Where a margin is on the scale, in percent of its length; what is beyond it is at its ends."""
    if not isfinite(value):
        return 100.0
    return 100 * min(1.0, max(0.01, (log10(value) - low) / (high - low)))


def _ticks(low: int, high: int) -> Iterator[str]:
    step = ceil((high - low) / MOST_TICKS)
    for power in range(low, high + 1):
        if power % step == 0:
            at = 100 * (power - low) / (high - low)
            end = {low: ' class="low"', high: ' class="high"'}.get(power, "")
            yield f'<i{end} style="left:{at:.2f}%">{10.0**power:g}</i>'


def _blocked(blocked: Sequence[Verdict], anchors: Mapping[str, str]) -> str:
    reasons = {v.why for v in blocked}
    notes = [BLOCKED_NOTE] if any(v.through is not None for v in blocked) else []
    columns = ["tensor", "training sees", "through the block"]
    if len(reasons) > 1:
        columns.append("why")
    elif why := reasons.pop():
        notes.append(f"Why: {escape(why)}.")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = "".join(
        f'<tr id="{anchors[v.tensor]}"><td>{_mark("blocked")} {escape(v.tensor)}<td>0<td>{derivative(v)}'
        + (f"<td>{escape(v.why)}" if "why" in columns else "")
        for v in blocked
    )
    table = f'<table class="numbers blocked"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<p>{" ".join(notes)}</p><div class="wide">{table}</div>'
