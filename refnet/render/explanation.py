"""An explanation on the terminal."""

from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from refnet.render.columns import Labelled
from refnet.render.facts import facts, geometry
from refnet.render.gather import LEGEND, Grid, corner_and_middle, planes, strip
from refnet.trace.explanation import Explanation

STYLES = {"●": "bold green", "○": "yellow", "░": "yellow", "·": "dim"}
INDENT = (0, 0, 0, 2)


def show(found: Explanation, console: Console) -> None:
    """Print an explanation: what is computed, shapes, the gather drawn, cost, backward."""
    console.print(Text(f"{found.name}: {found.op}", "bold"))
    console.print(Padding(Text(_flowing(found.definition.replace("::\n", ":\n"))), INDENT, expand=False))
    for title, rows in facts(found):
        if title == "cost" and found.windows:
            _gather(found, console)
        console.print(Text(f"\n{title}", "bold"))
        console.print(Labelled([(f"  {first}", *others) for first, *others in rows]))


def _flowing(text: str) -> str:
    """A text whose paragraphs are one line each, but for formulas, which are indented."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else " ".join(p.split()) for p in paragraphs)


def _gather(found: Explanation, console: Console) -> None:
    console.print(Text("\ngather", "bold"), Text(geometry(found)), sep="  ")
    console.print(_coloured(f"  {LEGEND}"))

    def shape(grid: Grid) -> tuple[object, ...]:
        return grid.columns, grid.rows

    for _, alike in groupby(map(strip, found.windows), shape):
        grids = list(alike)
        title = "along " + " and ".join(grid.title for grid in grids)
        console.print(_coloured("\n".join(["", *_lines(grids[0], title)])))
    for place, output in corner_and_middle(found.windows).items():
        console.print(f"\n  output (t, h, w) = {output}, {_article(place)}, along H (down) and W:")
        blocks = [_lines(grid, grid.title) for grid in planes(found.windows, output)]
        width = max(len(line) for block in blocks for line in block)
        each = max(1, (console.width - 1) // (width + 2))
        for start in range(0, len(blocks), each):
            beside = blocks[start : start + each]
            drawn = ["  ".join(line.ljust(width) for line in lines) for lines in zip(*beside, strict=True)]
            console.print(_coloured("\n".join(["", *map(str.rstrip, drawn)])))


def _article(place: str) -> str:
    return "a corner" if place == "corner" else "in the middle"


def _lines(grid: Grid, title: str) -> list[str]:
    """A grid as text: positions over marks, labels on the left."""
    label = max(len(label) for label, _ in grid.rows)
    cell = 1 + max(len(str(c)) for c in grid.columns if c is not None)
    head = "".join(("⋯" if c is None else str(c)).rjust(cell) for c in grid.columns)
    rows = [f"  {name:>{label}}{''.join(mark.rjust(cell) for mark in marks)}" for name, marks in grid.rows]
    return [line.rstrip() for line in (f"  {title}", f"  {'':>{label}}{head}", *rows)]


def _coloured(drawing: str) -> Text:
    text = Text(drawing, no_wrap=True)
    for mark, style in STYLES.items():
        text.highlight_words([mark], style)
    return text
