"""Tables that fit: no name is folded or cut; columns that have no room are named, and left out or stacked."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from refnet.errors import printable, printable_lines

# Blanks on both sides of a column.
PADDING = 2
# How narrow a column of sentences may be.
LEAST_PROSE = 24


@dataclass
class Columns:
    """A table of as many columns as a console has room for.

    Every cell is on one line, but for sentences, which go on in the next line between two words. Where even
    the columns that are always shown have no room, each row is stacked: its first cell, the others below.

    Attributes
    ----------
    names : sequence of str
        Columns that say nothing in any row are not shown.
    numbers : collection of str
        Columns of numbers, to the right.
    prose : str
        The column of sentences, if one is.
    first : sequence of str
        The columns that are given room before others, most needed first; the others follow in their order.
    needed : int
        How many of these are always shown.
    header : bool
    rest : str
        Where columns are seen that are left out.
    """

    names: Sequence[str]
    numbers: Collection[str] = ()
    prose: str = ""
    first: Sequence[str] = ()
    needed: int = 1
    header: bool = True
    rest: str = "--json has all"
    _rows: list[tuple[str, ...]] = field(default_factory=list)
    _styles: list[str] = field(default_factory=list)

    def add_row(self, *cells: str, style: str | None = None) -> None:
        """Add a row, a cell for each column."""
        self._rows.append(tuple(map(printable, cells)))
        self._styles.append(style or "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = {name: [row[i] for row in self._rows] for i, name in enumerate(self.names)}
        said = {name: cells[name] for name in self.names if self.header is False or any(cells[name])}
        order = [*(name for name in self.first if name in said), *(n for n in said if n not in self.first)]
        always = [name for name in order[: self.needed] if name in said]
        room = options.max_width - sum(self._least(name, said[name]) for name in always)
        fitting = set(always)
        for name in order[self.needed :]:
            if (least := self._least(name, said[name])) <= room:
                fitting.add(name)
                room -= least
        if room < 0:
            yield from self._stacked(order, said, options.max_width)
            return
        table = Table(box=None, show_header=self.header)
        for name in (name for name in said if name in fitting):
            justify = "right" if name in self.numbers else "left"
            table.add_column(name, justify=justify, no_wrap=name != self.prose)  # type: ignore[arg-type]
        for i, style in enumerate(self._styles):
            table.add_row(*(said[name][i] for name in said if name in fitting), style=style or None)
        yield table
        if left := [name for name in said if name not in fitting]:
            yield Text("\n".join(_wrapped(self._left_out(left, options.max_width), options.max_width)))

    def _least(self, name: str, cells: Sequence[str]) -> int:
        """The room that a column needs."""
        lines = [line for cell in (name if self.header else "", *cells) for line in cell.split("\n")]
        whole = max(map(cell_len, lines), default=0)
        if name == self.prose:
            whole = min(whole, max(LEAST_PROSE, *map(_longest_word, lines)))
        return PADDING + whole

    def _stacked(self, order: Sequence[str], said: dict[str, list[str]], width: int) -> RenderResult:
        """Each row on lines of its own."""
        head, *others = order
        if self.header:
            yield Text(head, no_wrap=True, overflow="ignore")
        for i, style in enumerate(self._styles):
            yield Text(said[head][i], style, no_wrap=True, overflow="ignore")
            said_of = {name: said[name][i] for name in others if said[name][i]}
            below = [f"{name} {cell}" if name and self.header else cell for name, cell in said_of.items()]
            for line in _wrapped(", ".join(below), width, "  "):
                yield Text(line, no_wrap=True, overflow="ignore")

    def _left_out(self, names: Sequence[str], width: int) -> str:
        return f"Not shown in {width} columns: {', '.join(names)} ({self.rest})"


@dataclass
class Labelled:
    """Labels, with sentences beside them: every cell but the first of a row goes on in lines below.

    Where the longest words have no room beside each other, they stand below the label.

    Attributes
    ----------
    rows : sequence of tuple of str
    """

    rows: Sequence[tuple[str, ...]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = max(map(len, self.rows))
        rows = [tuple(map(printable_lines, (*row, *[""] * (count - len(row))))) for row in self.rows]
        columns = list(zip(*rows, strict=True))
        widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
        least = widths[:1] + [max(map(_longest_word, column)) for column in columns[1:]]
        room = options.max_width - PADDING * (count - 1)
        if sum(least) > room:
            for first, *others in rows:
                yield Text(first, no_wrap=True, overflow="ignore")
                for line in (line for cell in others for line in _wrapped(cell, options.max_width, "    ")):
                    yield Text(line, no_wrap=True, overflow="ignore")
            return
        while sum(widths) > room:  # the widest column that can give way does
            i = max((i for i in range(count) if widths[i] > least[i]), key=widths.__getitem__)
            widths[i] -= 1
        grid = Table.grid(padding=(0, PADDING, 0, 0))
        for width in widths:
            grid.add_column(width=width)
        for row in rows:
            grid.add_row(*row)
        yield grid


def _longest_word(cell: str) -> int:
    return max(map(cell_len, cell.split()), default=0)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """A text in lines, broken between words alone."""
    return [
        line
        for paragraph in text.split("\n")
        for line in wrap(
            paragraph,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
