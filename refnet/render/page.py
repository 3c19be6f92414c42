"""A trace as one page of HTML that needs nothing else: no script from elsewhere, no font, no network."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby

from refnet import memory
from refnet.net import Net, Node
from refnet.ops import OPS
from refnet.render import drawing
from refnet.render.document import anchors, asset, document, section, themes
from refnet.render.facts import FREEZE_COLUMNS, FREEZE_NOTE, facts, freeze_rows, geometry, short
from refnet.render.made import Made
from refnet.render.palette import FAMILIES
from refnet.render.palette import places as of_stages
from refnet.shapes import Shape, size, text
from refnet.trace import FreezePoint, trace
from refnet.trace.explanation import Explanation, SlidingAxis, explain_all
from refnet.trace.receptive import text as field_text

# Fewer multiply-adds than this share of the largest have no bar worth drawing.
LEAST_BAR = 0.004


def html(title: str, net: Net, freeze: Sequence[FreezePoint] | None = None, made: Made | None = None) -> str:
    """Write the page of a network: totals, charts, the graph, every node, freeze points if measured.

    Parameters
    ----------
    title : str
    net : Net
    freeze : sequence of FreezePoint, optional
    made : Made, optional
        What it says of itself.

    Returns
    -------
    str
    """
    nodes = explain_all(net)
    places = anchors(node.name for node in net.nodes)
    symbols: dict[tuple[SlidingAxis, ...], tuple[str, int, int]] = {}
    listed = "".join(_nodes(nodes, places, symbols))
    parts = [
        f"<header><h1>{escape(title)}</h1>{_totals(net, nodes)}</header><main>",
        section("Along the network", _legend(nodes) + drawing.charts(trace(net), places)),
        section("Why stop the gradient", _freeze(freeze)) if freeze else "",
        section("Graph", _graph(net, nodes, places)),
        section("Nodes", _FILTER + listed),
        section("Operators", _operators(nodes)),
        "</main>",
        made.html() if made else "",
    ]
    colours = themes(FAMILIES.items()) + "".join(
        f".f-{name}{{fill:var(--{name});--c:var(--{name})}}" for name in FAMILIES
    )
    body = f"{_symbols(symbols)}{''.join(parts)}"
    return document(title, colours + asset("page.css"), body, asset("page.js") + asset("reveal.js"))


_FILTER = (
    '<p class="tools"><label>Find <input id="~find" type="search" placeholder="res3 conv3d"></label> '
    '<output id="~found" for="~find"></output></p>'
)


def _totals(net: Net, nodes: Sequence[Explanation]) -> str:
    adds = sum(found.multiply_adds for found in nodes)
    wasted = adds - sum(found.useful_multiply_adds for found in nodes)
    behind = sum(found.multiply_adds for found in nodes if not found.gradient)
    stops = [found.name for found in nodes if OPS[found.op].family == "stop"]
    facts = [
        ("input", _shapes(net.inputs)),
        ("nodes", f"{len(nodes)}"),
        ("parameters", f"{sum(map(size, net.params.values())):,}"),
        ("multiply-adds", f"{adds:,}"),
        ("of them on padding", f"{100 * wasted / max(adds, 1):.1f} %"),
        ("blobs, float64", memory.text(8 * sum(size(found.output) for found in nodes))),
        ("gradient stops", ", ".join(map(escape, stops)) or "nowhere"),
        ("of multiply-adds, no gradient", f"{100 * behind / max(adds, 1):.1f} %"),
        ("outputs" if len(net.outputs) > 1 else "output", _shapes(net.outputs)),
    ]
    cells = [f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts]
    if len(net.outputs) > 1:
        cells[-1] = cells[-1].replace("<div>", '<div class="wide">')
    return f"<dl>{''.join(cells)}</dl>"


def _shapes(named: Mapping[str, Shape]) -> str:
    return ", ".join(f"{escape(name)} {text(shape)}" for name, shape in named.items())


def _legend(nodes: Sequence[Explanation]) -> str:
    ops = list(dict.fromkeys(found.op for found in nodes))
    entries = [
        f'<li><i class="dot f-{name}"></i>{", ".join(op for op in ops if OPS[op].family == name)}</li>'
        for name in FAMILIES
        if any(OPS[op].family == name for op in ops)
    ]
    if not all(found.gradient for found in nodes):
        entries.append('<li><i class="dot shade"></i>no gradient is computed here</li>')
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _freeze(points: Sequence[FreezePoint]) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in FREEZE_COLUMNS)
    rows = ("".join(f"<td>{cell}</td>" for cell in row) for row in freeze_rows(points))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    note = " ".join(FREEZE_NOTE)
    return f'<div class="wide">{table}</div><p>{note}</p>'


def _graph(net: Net, nodes: Sequence[Explanation], places: Mapping[str, str]) -> str:
    by_name = {found.name: found for found in nodes}
    total = max(1, sum(found.multiply_adds for found in nodes))
    looks = {
        node.name: drawing.Look(
            f"f-{OPS[node.op].family}",
            drawing.sign(node, net),
            f"{node.name}: {node.op}, {text(node.shape)}",
            places[node.name],
        )
        for node in net.nodes
    }

    def about(blocks: Mapping[str, list[Node]]) -> str:
        here = [by_name[node.name] for block in blocks.values() for node in block]
        adds = sum(found.multiply_adds for found in here)
        params = sum(size(shape) for found in here for shape in found.params.values())
        facts = [
            f"{len(blocks)} block{'s' if len(blocks) > 1 else ''}",
            text(here[-1].output),
            f"{short(params)} parameters",
            f"{short(adds)} multiply-adds, {100 * adds / total:.1f} %",
        ]
        return " · ".join(facts)

    note = "<p>Data runs from left to right, and on in the next line. Faded: no gradient is computed.</p>"
    return note + drawing.graph(net, looks, net.gradient_flow(), about)


def _nodes(
    nodes: Sequence[Explanation],
    places: Mapping[str, str],
    symbols: dict[tuple[SlidingAxis, ...], tuple[str, int, int]],
) -> Iterator[str]:
    largest = max([found.multiply_adds for found in nodes] + [1])
    head = ("", "node", "operator", "output", "field", "parameters", "multiply-adds", "")
    yield f'<div class="row head">{"".join(f"<span>{name}</span>" for name in head)}</div>'
    pairs = zip(of_stages(found.name for found in nodes), nodes, strict=True)
    for stage, run in groupby(pairs, key=lambda pair: pair[0][0]):
        yield f'<div class="stage"><h3>{escape(stage)}</h3>'
        for _, found in run:
            yield _node(found, places, largest, symbols)
        yield "</div>"


def _node(
    found: Explanation,
    places: Mapping[str, str],
    largest: int,
    symbols: dict[tuple[SlidingAxis, ...], tuple[str, int, int]],
) -> str:
    params, share = sum(map(size, found.params.values())), found.multiply_adds / largest
    bar = f'<i class="bar" style="--v:{100 * share:.1f}%"></i>' if share > LEAST_BAR else ""
    row = (
        f'<i class="dot f-{OPS[found.op].family}"></i>',
        f"<b>{escape(found.name)}</b>",
        found.op,
        text(found.output),
        field_text(found.field) if found.field else "",
        f"{params:,}" if params else "",
        f"{found.multiply_adds:,}" if found.multiply_adds else "",
        bar,
    )
    cut = "" if found.gradient else ' class="cut"'
    sections = []
    for title, rows in facts(found):
        table = "".join(_cells(row, places) for row in rows)
        sections.append(f'<div class="fact"><h4>{title}</h4><table>{table}</table></div>')
    body = f'<div class="facts">{"".join(sections)}</div>'
    if found.windows:
        body += _gather(found, symbols)
    return (
        f'<details id="{places[found.name]}"{cut}><summary class="row">'
        f"{''.join(f'<span>{cell}</span>' for cell in row)}</summary><div>{body}</div></details>"
    )


def _cells(row: tuple[str, ...], places: Mapping[str, str]) -> str:
    def cell(content: str) -> str:
        link = places.get(content)
        return f'<a href="#{link}">{escape(content)}</a>' if link else escape(content)

    return f"<tr>{''.join(f'<td>{cell(content)}' for content in row)}"


def _gather(found: Explanation, symbols: dict[tuple[SlidingAxis, ...], tuple[str, int, int]]) -> str:
    """The drawing of a window; nodes of one geometry share it."""
    if found.windows not in symbols:
        symbols[found.windows] = drawing.gather(found.windows)
    key = list(symbols).index(found.windows)
    _, width, height = symbols[found.windows]
    legend = "".join(
        f'<li><i class="dot {kind}"></i>{label}</li>'
        for kind, label in (
            ("read", "read"),
            ("padread", "read, padding"),
            ("value", "not read"),
            ("pad", "not read, padding"),
        )
    )
    label = f"what outputs of {escape(found.name)} read"
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}"'
    return (
        f'<div class="gather fact"><h4>gather</h4><p>{geometry(found)}</p><ul class="legend">{legend}</ul>'
        f'<div class="wide"><svg {box}><use href="#~g{key}"/></svg></div></div>'
    )


def _symbols(symbols: dict[tuple[SlidingAxis, ...], tuple[str, int, int]]) -> str:
    drawn = "".join(f'<g id="~g{i}">{svg}</g>' for i, (svg, _, _) in enumerate(symbols.values()))
    return f'<svg width="0" height="0" class="defs" aria-hidden="true"><defs>{drawn}</defs></svg>'


def _operators(nodes: Sequence[Explanation]) -> str:
    parts = []
    for op in dict.fromkeys(found.op for found in nodes):
        here = [found for found in nodes if found.op == op]
        adds = sum(found.multiply_adds for found in here)
        definition = here[0].definition.replace("::\n", ":\n")
        parts.append(
            f'<details><summary><i class="dot f-{OPS[op].family}"></i> <b>{op}</b> '
            f"<small>{len(here)} nodes, {short(adds)} multiply-adds</small></summary>"
            f"<pre>{escape(definition)}\n\nBackward: {escape(here[0].derivative)}</pre></details>"
        )
    return "".join(parts)
