"""Parts of the page that are drawn: charts, blocks of the graph, the patch gather; inline SVG as text.

Colours are classes of the page's style sheet, so that a drawing follows its theme.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import NamedTuple

from refnet.net import Net, Node
from refnet.ops import OPS
from refnet.render.document import escaped
from refnet.render.facts import short
from refnet.render.gather import Grid, corner_and_middle, planes, strip
from refnet.render.palette import PANELS, bands, places
from refnet.shapes import text
from refnet.trace import Row
from refnet.trace.explanation import SlidingAxis

CELL = 19
MARKS = {"●": "read", "○": "padread", "·": "value", "░": "pad"}


def gather(windows: tuple[SlidingAxis, ...]) -> tuple[str, int, int]:
    """Draw what outputs read, along each axis and in a corner's and a middle window; width and height."""
    parts: list[str] = []
    x = y = widest = 0
    strips: dict[object, list[Grid]] = {}
    for grid in map(strip, windows):  # axes that are alike are drawn once
        strips.setdefault((tuple(grid.columns), tuple(grid.rows)), []).append(grid)
    heights = []
    for alike in strips.values():
        drawn, width, height = _grid(alike[0], f"along {' and '.join(g.title for g in alike)}", x, 0)
        parts.append(drawn)
        heights.append(height)
        x += width + 2 * CELL
    widest, y = x, max(heights) + CELL
    for place, output in corner_and_middle(windows).items():
        position = ", ".join(map(str, output))
        parts.append(f'<text x="0" y="{y + 11}" class="t">output ({position}), {place}</text>')
        y += 18
        x = height = 0
        for grid in planes(windows, output):
            drawn, width, height = _grid(grid, grid.title, x, y)
            parts.append(drawn)
            x += width + 2 * CELL
        widest, y = max(widest, x), y + height + CELL
    return "".join(parts), widest, y


def _grid(grid: Grid, title: str, x: int, y: int) -> tuple[str, int, int]:
    """One grid of cells with its positions; its width and height."""
    margin = 8 + 6 * max(len(label) for label, _ in grid.rows)
    top = 30
    parts = [f'<text x="{x}" y="{y + 11}" class="t">{escaped(title)}</text>']
    for i, column in enumerate(grid.columns):
        at = x + margin + i * CELL + CELL / 2
        label = "⋯" if column is None else str(column)
        parts.append(f'<text x="{at:g}" y="{y + 26}" class="l m">{label}</text>')
    paths: dict[str, list[str]] = {}
    for j, (label, marks) in enumerate(grid.rows):
        line = y + top + j * CELL
        parts.append(f'<text x="{x + margin - 4}" y="{line + 13}" class="l e">{label}</text>')
        for i, mark in enumerate(marks):
            if mark in MARKS:
                square = f"M{x + margin + i * CELL + 1} {line + 1}h17v17h-17z"
                paths.setdefault(MARKS[mark], []).append(square)
    parts += [f'<path class="{kind}" d="{"".join(squares)}"/>' for kind, squares in paths.items()]
    width = max(margin + len(grid.columns) * CELL, 6 * len(title))
    return "".join(parts), width, top + len(grid.rows) * CELL


WIDTH, PANEL, LEFT, TITLE = 1200, 92, 62, 34


def charts(nodes: Sequence[Row], anchors: Mapping[str, str]) -> str:
    """Draw the panels of a trace, one above the other: bars by node, stages, where no gradient flows."""
    step = (WIDTH - LEFT) / len(nodes)
    height = len(PANELS) * (PANEL + TITLE) + 26
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="cost along the network"'
    parts = [f'<div class="wide"><svg class="chart" {box}>']
    blocked = "".join(
        f"M{LEFT + i * step:.2f} 18h{step + 0.05:.2f}V{height}h-{step + 0.05:.2f}z"
        for i, found in enumerate(nodes)
        if not found.gradient
    )
    parts.append(f'<path class="blockedarea" d="{blocked}"/>')
    for stage, first, behind in bands(found.name for found in nodes):
        left, middle = LEFT + first * step, LEFT + (first + behind) / 2 * step
        middle = min(middle, WIDTH - 4 * len(stage))  # the name of a short last stage stays inside
        if first:
            parts.append(f'<path class="rule" d="M{left:.1f} 0V{height}"/>')
        parts.append(f'<text x="{middle:.1f}" y="12" class="l m">{escaped(stage)}</text>')
    for k, (label, value) in enumerate(PANELS):
        top = 22 + k * (PANEL + TITLE) + TITLE
        values = [value(found) for found in nodes]
        largest = max((v for v in values if v), default=1)
        parts.append(f'<text x="{LEFT}" y="{top - 8}" class="t">{label}</text>')
        for share, tick in ((1, short(largest)), (0, "0")):
            line = top + PANEL * (1 - share)
            parts.append(f'<path class="rule" d="M{LEFT} {line:g}H{WIDTH}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{line + 3:g}" class="l e">{tick}</text>')
        bars: dict[str, list[str]] = {}
        for i, (found, v) in enumerate(zip(nodes, values, strict=True)):
            if v:
                kind = "field" if "field" in label else OPS[found.op].family
                tall = PANEL * v / largest
                wide = step if kind == "field" else max(step * 0.8, min(step, 1.4))
                bar = f"M{LEFT + i * step:.2f} {top + PANEL}v-{tall:.2f}h{wide:.2f}v{tall:.2f}z"
                bars.setdefault(kind, []).append(bar)
        parts += [f'<path class="f-{kind}" d="{"".join(d)}"/>' for kind, d in bars.items()]
    for i, found in enumerate(nodes):
        left = LEFT + i * step
        if OPS[found.op].family == "stop":
            parts.append(f'<path class="stopline" d="M{left + step / 2:.1f} 16V{height}"/>')
        tip = f"{found.name}: {found.op}, {text(found.output)}, {short(found.multiply_adds)} multiply-adds"
        parts.append(
            f'<a href="#{anchors[found.name]}" tabindex="-1"><rect class="hit" x="{left:.2f}" y="18" '
            f'width="{step:.2f}" height="{height - 18}"><title>{escaped(tip)}</title></rect></a>'
        )
    return "".join([*parts, "</svg></div>"])


GAP, LANE, ROUND = 11, 34, 18


class Look(NamedTuple):
    """How a node of the graph is drawn.

    Attributes
    ----------
    kind : str
        The class of its shape in the style sheet.
    sign : str
        What stands in the shape.
    tip : str
        What a pointer over it is told.
    link : str
        Where a click leads: an identifier of the page.
    name : str
        Its own identifier on the page, where something leads to it.
    below : Look, optional
        Of a strip along the lower edge, which leads elsewhere; it has no sign.
    """

    kind: str
    sign: str
    tip: str
    link: str
    name: str = ""
    below: "Look | None" = None


def sign(node: Node, net: Net) -> str:
    """What stands in a node's shape: a kernel, a sign, a short name; small circles have none."""
    op = OPS[node.op]
    if op.sign is not None:
        return op.sign
    if op.window is not None and op.family == "product":
        return text(op.window(*map(net.shape, node.inputs), **node.attrs).kernel)
    return op.name.removesuffix("3d").replace("_", " ")


def graph(
    net: Net, looks: Mapping[str, Look], flow: set[str], about: Callable[[Mapping[str, list[Node]]], str]
) -> str:
    """Draw the graph, stage by stage and block by block.

    Parameters
    ----------
    net : Net
    looks : mapping of str to Look
        By node.
    flow : set of str
        The values whose gradient is computed.
    about : callable
        What stands beside a stage's name, from the nodes of each of its blocks; HTML.
    """
    stages: dict[str, dict[str, list[Node]]] = {}
    for node, (stage, name) in zip(net.nodes, places(node.name for node in net.nodes), strict=True):
        stages.setdefault(stage, {}).setdefault(name, []).append(node)
    before = next(iter(net.inputs), "")
    parts = []
    for stage, blocks in stages.items():
        parts.append(f"<h3>{escaped(stage)} <small>{about(blocks)}</small></h3><div class=blocks>")
        for name, nodes in blocks.items():
            caption = f"{escaped(name)} <span>{text(nodes[-1].shape)}</span>"
            drawn = _block(net, nodes, before, looks, flow)
            parts.append(f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>")
            before = nodes[-1].name
        parts.append("</div>")
    return "".join(parts)


def _block(net: Net, nodes: Sequence[Node], before: str, looks: Mapping[str, Look], flow: set[str]) -> str:
    """Draw one block: branch in a row, what runs beside it below.

    Data come from the left; the value `before` without being named.
    """
    column, lane = _layout(net, nodes)
    signs = {node.name: looks[node.name].sign for node in nodes}
    widths = {name: ROUND if len(sign) < 2 else 12 + round(6.3 * len(sign)) for name, sign in signs.items()}
    across = [max(widths[n] for n in column if column[n] == c) for c in range(max(column.values()) + 1)]
    outside = [
        name for node in nodes for name in node.inputs if name not in column and name not in net.params
    ]
    labels = [name for name in outside if name != before]
    margin = 16 if not labels else 12 + round(5.6 * max(map(len, labels)))
    starts = [margin + sum(across[:c]) + c * GAP for c in range(len(across))]
    centre = {name: starts[c] + across[c] / 2 for name, c in column.items()}
    taken = max(lane.values())

    edges, named = [], []
    for node in nodes:
        for name in node.inputs:
            if name in net.params:
                continue
            begin = centre[name] + widths[name] / 2 if name in column else 0 if name == before else margin - 8
            source = lane[name] if name in column else 0 if name == before else lane[node.name]
            far = column[node.name] - column.get(name, -1) > 1
            via = source
            if far and source == lane[node.name]:
                via = taken = taken + 1
            end = centre[node.name] - widths[node.name] / 2
            kind = "edge" if name in flow else "edge cut"
            edges.append(f'<path class="{kind}" d="{_route(begin, source, via, end, lane[node.name])}"/>')
            if name in labels:
                y = _middle(source) + 3
                named.append(f'<text x="{margin - 12}" y="{y}" class="l e">{escaped(name)}</text>')
    last = nodes[-1].name
    right = starts[-1] + across[-1] + 14
    kind, begin = "edge" if last in flow else "edge cut", centre[last] + widths[last] / 2
    edges.append(f'<path class="{kind}" d="M{begin:g} {_middle(lane[last])}H{right}"/>')

    shapes = [
        _glyph(looks[node.name], centre[node.name], _middle(lane[node.name]), widths[node.name])
        for node in nodes
    ]
    linked = [
        _link(looks[node.name], shape, node.name not in flow)
        for node, shape in zip(nodes, shapes, strict=True)
    ]
    for node in nodes:
        if (below := looks[node.name].below) is not None:
            place = (centre[node.name], _middle(lane[node.name]), widths[node.name])
            strip = _strip(looks[node.name], below, *place)
            linked.append(_link(below, strip, node.name not in flow))
    height = (taken + 1) * LANE
    head = f'<svg class="block" width="{right}" height="{height}" viewBox="0 0 {right} {height}">'
    return "".join([head, *edges, *named, *linked, "</svg>"])


def _middle(lane: int) -> int:
    return lane * LANE + LANE // 2


def _route(begin: float, source: int, via: int, end: float, target: int) -> str:
    """From a shape's right edge to another's left: along the lane `via`, with round corners."""
    a, v, b = _middle(source), _middle(via), _middle(target)
    path, x = f"M{begin:g} {a}", end - 5
    if via != source:
        path += f"h3q4 0 4 4V{v - 4}q0 4 4 4"
    if via != target:
        turn = -4 if v > b else 4
        path += f"H{x - 4:g}q4 0 4 {turn}V{b - turn}q0 {turn} 4 {turn}"
    return path + f"H{end:g}"


def _link(look: Look, shape: str, cut: bool) -> str:
    name, kind = f' id="{look.name}"' if look.name else "", " class=cut" if cut else ""
    return f'<a href="#{look.link}"{name}{kind}>{shape}<title>{escaped(look.tip)}</title></a>'


def _radius(look: Look) -> int:
    return 8 if look.sign else 6


def _glyph(look: Look, x: float, y: int, width: int) -> str:
    if width == ROUND:
        radius = _radius(look)
        shape = f'<circle class="{look.kind}" cx="{x:g}" cy="{y}" r="{radius}"/>'
    else:
        box = f'x="{x - width / 2:g}" y="{y - 10}" width="{width}" height="20" rx="5"'
        shape = f'<rect class="{look.kind}" {box}/>'
    line = y + (4 if look.below is None else 2)
    label = f'<text x="{x:g}" y="{line}" class="on m">{escaped(look.sign)}</text>' if look.sign else ""
    return shape + label


def _strip(look: Look, below: Look, x: float, y: int, width: int) -> str:
    """The lower edge of what `_glyph` draws: below half the radius of a circle, the round part of a box."""
    if width == ROUND:
        radius = _radius(look)
        half, top = radius * sqrt(3) / 2, y + radius / 2
        round_edge = f"a{radius} {radius} 0 0 1-{2 * half:.2f} 0"
    else:
        half, top = width / 2, y + 5
        round_edge = f"a5 5 0 0 1-5 5h-{width - 10}a5 5 0 0 1-5-5"
    return f'<path class="{below.kind}" d="M{x - half:g} {top:g}h{2 * half:.2f}{round_edge}z"/>'


def _layout(net: Net, nodes: Sequence[Node]) -> tuple[dict[str, int], dict[str, int]]:
    """Column (the longest way from the left) and lane of every node of a block."""
    column: dict[str, int] = {}
    lane: dict[str, int] = {}
    for node in nodes:
        inside = [name for name in node.inputs if name in column]
        column[node.name] = 1 + max((column[name] for name in inside), default=-1)
        wanted = min((lane[name] for name in inside), default=0)
        held = {lane[name] for name in lane if column[name] == column[node.name]}
        lane[node.name] = next(i for i in range(wanted, len(nodes) + wanted + 1) if i not in held)
    return column, lane
