"""A report as one page of HTML that needs nothing else: verdicts on the graph, margins, failures drawn."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import NamedTuple

from refnet.check.report import IN_ORDER, OPEN, SEVERITY, Report, Verdict, Word
from refnet.net import Net, Node
from refnet.render import drawing, verdict_drawing
from refnet.render.document import anchors, asset, document, escaped, section, themes
from refnet.render.made import Made
from refnet.render.verdict_facts import (
    BLOCKED_NOTE,
    certifies,
    counts,
    derivative,
    facts,
    failure,
    failures,
    largest,
    maker,
    margin,
    place,
    right,
    rms,
    word,
)
from refnet.render.words import WORDS
from refnet.shapes import size, text

# Failures beside the first that are open when the page is.
MOST_OPEN = 3
# What the two parts of a node, and the two panels along a network, stand for.
SIDES = ("values", "gradients")


class Links(NamedTuple):
    """Identifiers on the page: where arrays are explained, by name, and nodes of the graph."""

    arrays: Mapping[str, str]
    nodes: Mapping[str, str]


def html(
    report: Report, net: Net | None = None, folded: Collection[str] = (), made: Made | None = None
) -> str:
    """Write the page of a report.

    Parameters
    ----------
    report : Report
    net : Net, optional
        Whose values or gradients were judged; its graph is drawn.
    folded : collection of str
        Arrays whose margins are folded away while they are right.
    made : Made, optional
        What it says of itself.

    Returns
    -------
    str
    """
    links = Links(
        anchors(verdict.tensor for verdict in report.verdicts.values()),
        {} if net is None else {n: f"~{a}" for n, a in anchors(node.name for node in net.nodes).items()},
    )
    judged = [v for v in report.verdicts.values() if v.verdict != "blocked"]
    blocked = [v for v in report.verdicts.values() if v.verdict == "blocked"]
    failed = failures(report)
    leading = failed[0] if failed else _closest(judged)
    parts = [
        f"<header><h1>{escaped(report.title)}</h1>{_whole(report, links)}{_facts(report)}</header><main>",
        "" if leading is None else section(_role(leading), _lead(leading, links)),
        "" if net is None else section("Graph", _graph(report, net, links)),
        section("Along the network", _along(report, net, links)) if net and certifies(report) else "",
        section("What else is not right", _others(failed[1:], links)) if failed[1:] else "",
        section("Margins", _margins(judged, folded, links)) if judged else "",
        section("Blocked gradients", _blocked(blocked, links)) if blocked else "",
        "</main>",
        made.html() if made else "",
    ]
    words = {str(name): shown.colours for name, shown in WORDS.items()}
    colours = words | verdict_drawing.WITHIN | verdict_drawing.BEYOND
    kinds = "".join(f".v-{name}{{fill:var(--{name});--c:var(--{name})}}" for name in colours)
    styles = themes(colours.items()) + kinds + asset("page.css") + asset("verdict_page.css")
    scripts = asset("reveal.js") + asset("verdict_page.js")
    return document(report.title, styles, "".join(parts), scripts)


def _mark(verdict: Word) -> str:
    return f'<i class="mark v-{verdict}">{WORDS[verdict].sign}</i>'


def _whole(report: Report, links: Links) -> str:
    worst = report.worst
    mark = _mark(worst.verdict) if worst else ""
    verdicts = list(report.verdicts.values())
    numbers = escaped("; ".join(filter(None, (counts(verdicts), largest(verdicts)))))
    if leading := report.leading:
        name = escaped(leading.node or leading.tensor)
        numbers += f'; first failure <a href="#{links.arrays[leading.tensor]}">{name}</a>'
    return f'<p class="whole">{mark} <b>{word(report)}</b> {numbers}</p>'


def _facts(report: Report) -> str:
    cells = "".join(f"<div><dt>{escaped(n)}</dt><dd>{escaped(v)}</dd></div>" for n, v in facts(report))
    return f"<dl>{cells}</dl>" if cells else ""


# Failures.


def _closest(judged: Sequence[Verdict]) -> Verdict | None:
    """Where all is right: the largest margin, if it is known how its differences are spread."""
    spread = [v for v in right(judged) if v.residual is not None and any(v.residual.histogram)]
    return max(spread, key=lambda verdict: verdict.badness, default=None)


def _role(leading: Verdict) -> str:
    """Why an array stands at the top of the page."""
    if leading.passes:
        return "Closest to its bound"
    if leading.verdict in OPEN:
        return "Not decided"
    return "First failure" if leading.verdict in IN_ORDER else "Worst failure"


def _lead(verdict: Verdict, links: Links) -> str:
    # What is right is explained in its row, which has the identifier.
    identifier = "" if verdict.passes else f' id="{links.arrays[verdict.tensor]}"'
    return (
        f"{_legend_of_maps([verdict])}"
        f'<article class="failure"{identifier}><h3>{_title(verdict, links)}</h3>{_in_full(verdict)}</article>'
    )


def _others(failed: Sequence[Verdict], links: Links) -> str:
    parts = [_legend_of_maps(failed)]
    for i, verdict in enumerate(failed):
        opened = " open" if i < MOST_OPEN else ""
        parts.append(
            f'<details class="failure" id="{links.arrays[verdict.tensor]}"{opened}>'
            f"<summary>{_title(verdict, links)}</summary>{_in_full(verdict)}</details>"
        )
    return "".join(parts)


def _legend_of_maps(verdicts: Iterable[Verdict]) -> str:
    if not any(verdict.maps for verdict in verdicts):
        return ""
    note = "<p>Maps: the wrong elements, counted over all other axes; how many of a cell's are wrong:</p>"
    return note + verdict_drawing.shares()


def _title(verdict: Verdict, links: Links) -> str:
    made = ""
    if maker(verdict):
        made = escaped(maker(verdict))
        if verdict.node in links.nodes:
            made = f'<a href="#{links.nodes[verdict.node]}">{made}</a>'
        made = f" <span>at {made}</span>"
    short = f"<span>, {escaped(verdict.hypothesis)}</span>" if verdict.hypothesis else ""
    return f"{_mark(verdict.verdict)} <b>{escaped(verdict.tensor)}</b> {verdict.verdict}{made}{short}"


def _in_full(verdict: Verdict) -> str:
    rows = "".join(
        f'<tr class="{label.split()[0]}"><td>{label}<td>{escaped(found)}' for label, found in failure(verdict)
    )
    parts = [f"<table>{rows}</table>" if rows else ""]
    if (residual := verdict.residual) is not None:
        if any(residual.histogram):
            parts.append(verdict_drawing.histogram(residual.histogram))
        if residual.heat is not None and size(residual.heat.shape) > 1:
            parts.append(verdict_drawing.heat(residual.heat))
    if verdict.maps:
        parts.append(f'<div class="maps">{"".join(map(verdict_drawing.wrong, verdict.maps))}</div>')
    if verdict.reproduce:
        line = escaped(verdict.reproduce)
        parts.append(f'<h4>reproduce, a click selects the line</h4><pre class="copy">{line}</pre>')
    return f"<div>{''.join(parts)}</div>"


# The graph, and margins along it.


def _graph(report: Report, net: Net, links: Links) -> str:
    sides = [side for side in _sides(report, net) if side]
    looks = {node.name: _looks(node, net, sides, links) for node in net.nodes}
    said = {verdict.verdict for verdict in report.verdicts.values()}
    signs = "".join(f"<li>{_mark(v)}{v}: {WORDS[v].meaning}</li>" for v in WORDS if v in said)
    none = '<li><i class="mark v-none"></i>not judged</li>'

    def about(blocks: Mapping[str, list[Node]]) -> str:
        nodes = [node.name for block in blocks.values() for node in block]
        here = [side[name] for side in sides for name in nodes if name in side]
        return counts(here) if here else "not judged"

    shown = "A node has the worst verdict of what its backward made."
    if certifies(report):
        shown = "A node has the verdict of its value."
    if len(sides) > 1:
        shown = (
            "The body of a node: its value; the strip along its lower edge: what its backward made, "
            "whose sign has a d before it."
        )
    return (
        f'<ul class="legend" id="~graph">{signs}{none}</ul>'
        f"<p>{shown} Data runs from left to right, and on in the next line; gradients run back. Dashed: no "
        f'gradient is computed.</p><div class="judged">'
        f"{drawing.graph(net, looks, net.gradient_flow(), about)}</div>"
    )


def _sides(report: Report, net: Net) -> tuple[dict[str, Verdict], dict[str, Verdict]]:
    """The verdict of each node's value, and the worst of what its backward made, or should not have made."""
    readers: dict[str, list[str]] = {}
    for node in net.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.name)
    nodes = {node.name for node in net.nodes}
    values: dict[str, Verdict] = {}
    gradients: dict[str, Verdict] = {}
    certified = certifies(report)
    for verdict in report.verdicts.values():
        side = values if certified and not verdict.tensor.startswith("d ") else gradients
        tensor = verdict.tensor.removeprefix("d ")
        for name in [verdict.node] if verdict.node in nodes else readers.get(tensor, []):
            if name not in side or side[name].badness < verdict.badness:
                side[name] = verdict
    return values, gradients


def _looks(node: Node, net: Net, sides: Sequence[Mapping[str, Verdict]], links: Links) -> drawing.Look:
    """A node's look: of its first side, and below it of the second."""
    found = [side.get(node.name) for side in sides] or [None]
    signs = [
        prefix + WORDS[verdict.verdict].sign
        for prefix, verdict in zip(("", "d"), found, strict=False)
        if verdict is not None and not verdict.passes
    ]
    sign = " ".join([*signs, drawing.sign(node, net)]).strip()
    below = None if len(found) < 2 else _look(node, found[1], "", links)
    return _look(node, found[0], sign, links)._replace(name=links.nodes[node.name], below=below)


def _look(node: Node, verdict: Verdict | None, sign: str, links: Links) -> drawing.Look:
    tip = f"{node.name}: {node.op}, {text(node.shape)}"
    if verdict is None:
        return drawing.Look("v-none", sign, f"{tip}; not judged", "~graph")
    tip += f"; {verdict.tensor} {verdict.verdict}"
    if margin(verdict):
        tip += f", margin {margin(verdict)}"
    kind = f"v-{verdict.verdict}{'' if verdict.passes else ' bad'}"
    return drawing.Look(kind, sign, tip, links.arrays[verdict.tensor])


def _along(report: Report, net: Net, links: Links) -> str:
    nodes = [node.name for node in net.nodes]
    panels = [
        (
            f"{title}: the largest difference in units of its bound",
            [
                verdict_drawing.Column(side[n], links.arrays[side[n].tensor]) if n in side else None
                for n in nodes
            ],
        )
        for title, side in zip(SIDES, _sides(report, net), strict=True)
        if side
    ]
    return (
        "<p>Bars: margins; what goes beyond the line at 1 is no rounding. Dashes: the rms of the "
        "differences, in units of the expected error of a plain sum. One logarithmic scale for both.</p>"
        + verdict_drawing.along(nodes, panels)
    )


# Every margin.


def _margins(judged: Sequence[Verdict], folded: Collection[str], links: Links) -> str:
    low, high = verdict_drawing.decades(v.margin for v in judged)
    hidden = [v for v in judged if v.passes and v.tensor in folded]
    shown = [v for v in judged if not v.passes or v.tensor not in folded]
    one = 100 * verdict_drawing.position(1.0, low, high)
    spread = any(v.residual is not None for v in judged)
    note = ""
    if spread:
        note = (
            " rms: of the differences, in units of the expected error of a plain sum. Right of it the "
            "differences by size, from -1 to 1 bound, on a logarithmic scale; those beyond are at the ends."
        )
    kind = "margins spread" if spread else "margins"
    parts = [
        "<p>The largest error of each array in units of its bound, on a logarithmic scale. What goes beyond "
        f"the line at 1 is no rounding.{note}</p>",
        f'<div class="{kind}" style="--one:{one:.2f}%">{_head(low, high, spread)}',
        *(_margin(v, low, high, spread, links) for v in shown),
    ]
    if hidden:
        rows = "".join(_margin(v, low, high, spread, links) for v in hidden)
        title = f"{counts(hidden)} beside these, {escaped(largest(hidden))}"
        parts.append(
            f'<details class="more"><summary>{_mark(hidden[0].verdict)} {title}</summary>{rows}</details>'
        )
    return "".join([*parts, "</div>"])


def _head(low: int, high: int, spread: bool) -> str:
    scale = "".join(_ticks(low, high))
    names = "<span>margin</span>" + ("<span>rms</span><span></span>" if spread else "")
    return f'<div class="m ticks"><span></span><span></span><span></span><span>{scale}</span>{names}</div>'


def _ticks(low: int, high: int) -> Iterator[str]:
    for share, name in verdict_drawing.ticks(low, high):
        end = {0.0: ' class="low"', 1.0: ' class="high"'}.get(share, "")
        yield f'<i{end} style="left:{100 * share:.2f}%">{name}</i>'


def _margin(verdict: Verdict, low: int, high: int, spread: bool, links: Links) -> str:
    bar = ""
    if margin(verdict) and verdict.margin != 0:
        share = 100 * verdict_drawing.position(verdict.margin, low, high)
        beyond = "" if verdict.margin <= 1 else " beyond"
        bar = f'<i class="bar v-{verdict.verdict}{beyond}" style="--v:{share:.2f}%"></i>'
    anchor, name = links.arrays[verdict.tensor], f"<b>{escaped(verdict.tensor)}</b>"
    where = f"worst at {place(verdict)} of {verdict.elements:,} elements" if place(verdict) else ""
    identifier = f' id="{anchor}"'
    if not verdict.passes:  # its anchor is where the failure is explained
        identifier, name = "", f'<a href="#{anchor}">{name}</a>'
    named = verdict.tensor in (verdict.node, f"d {verdict.node}")
    made = escaped(verdict.op if named else verdict.node)
    if verdict.node in links.nodes:
        made = f'<a href="#{links.nodes[verdict.node]}">{made}</a>'
    cells = [_mark(verdict.verdict), name, made, bar, margin(verdict)]
    if spread:
        cells += [rms(verdict), verdict_drawing.spark(verdict.residual.histogram) if verdict.residual else ""]
    kinds = ["", "", "", ' class="track"', "", "", ""]
    row = "".join(f"<span{kind}>{cell}</span>" for kind, cell in zip(kinds, cells, strict=False))
    return f'<div class="m"{identifier} title="{where}"{_keys(verdict)}>{row}</div>'


def _keys(verdict: Verdict) -> str:
    """What a row can be sorted by; NaN counts as infinite."""
    keys = {"verdict": float(SEVERITY.index(verdict.verdict)), "margin": verdict.margin}
    if verdict.residual is not None and verdict.residual.rms is not None:
        keys["rms"] = verdict.residual.rms
    return "".join(
        f' data-{name}="{"Infinity" if isnan(key) else repr(key).replace("inf", "Infinity")}"'
        for name, key in keys.items()
    )


def _blocked(blocked: Sequence[Verdict], links: Links) -> str:
    reasons = {v.why for v in blocked}
    notes = [BLOCKED_NOTE] if any(v.through is not None for v in blocked) else []
    columns = ["tensor", "training sees"]
    if any(v.through is not None for v in blocked):
        columns.append("through the block")
    if len(reasons) > 1:
        columns.append("why")
    elif why := reasons.pop():
        notes.append(f"Why: {escaped(why)}.")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = "".join(
        f'<tr id="{links.arrays[v.tensor]}"><td>{_mark("blocked")} {escaped(v.tensor)}<td>0'
        + (f"<td>{derivative(v)}" if "through the block" in columns else "")
        + (f'<td class="why">{escaped(v.why)}' if "why" in columns else "")
        for v in blocked
    )
    table = f'<table class="numbers blocked"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<p>{" ".join(notes)}</p><div class="wide">{table}</div>'
