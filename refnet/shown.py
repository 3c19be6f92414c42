"""What an object shows of itself: a few lines in a terminal, a small table in a notebook."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, KeysView, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from refnet.errors import printable

V = TypeVar("V", covariant=True)

# Rows of a table in a notebook, and in a terminal.
MOST_ROWS, MOST_LINES = 20, 12
# Of a value's own text.
MOST_CHARACTERS = 64


class Table(NamedTuple):
    """What is shown.

    Attributes
    ----------
    title : str
    columns : tuple of str
        Their headings; all empty where there is no heading.
    rows : sequence of tuple of str
        The first of which are shown.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def counted(count: int, noun: str) -> str:
    """A number of things: ``1 node``, ``2 nodes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Shown(ABC):
    """Whose objects show a table of themselves."""

    @abstractmethod
    def _shown(self) -> Table:
        """What is shown."""

    def __repr__(self) -> str:
        table = self._shown()
        return "\n".join([f"<{printable(table.title)}", *_lines(table)]) + ">"

    def _repr_html_(self) -> str:
        return as_html(self._shown())


class ShownMapping(Shown, Mapping[str, V]):
    """A mapping that shows a table of itself; it equals itself alone, for its values may be arrays."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def keys(self) -> KeysView[str]:
        """Return the names, which print as such."""
        return dict.fromkeys(self).keys()

    def _ipython_key_completions_(self) -> list[str]:
        return [*self]


class Names(Shown, frozenset[str]):
    """Names: a set that shows them in order."""

    def _shown(self) -> Table:
        return Table(counted(len(self), "name"), ("name",), [(name,) for name in sorted(self)])


class Record(Shown, dict[str, Any]):
    """What JSON says of something: a dict that shows how much each value holds, and so do those in it."""

    def __init__(self, found: Mapping[str, Any]):
        super().__init__({key: Record(v) if isinstance(v, dict) else v for key, v in found.items()})

    def _shown(self) -> Table:
        return Table(counted(len(self), "key"), ("", ""), [(key, _brief(v)) for key, v in self.items()])


def _brief(value: Any) -> str:
    """A value; of what holds others, how many."""
    if isinstance(value, dict | list):
        return counted(len(value), "key" if isinstance(value, dict) else "item")
    written = repr(value)
    return written if len(written) <= MOST_CHARACTERS else f"{written[:MOST_CHARACTERS]}..."


def as_html(table: Table) -> str:
    """A table of HTML, every text escaped."""
    rows = [_row("td", row) for row in table.rows[:MOST_ROWS]]
    if more := len(table.rows) - len(rows):
        rows.append(f'<tr><td colspan="{len(table.columns)}">and {more} more</td></tr>')
    head = f"<thead>{_row('th', table.columns)}</thead>" if any(table.columns) else ""
    caption = f'<caption style="text-align: left">{_text(table.title)}</caption>'
    return f"<table>{caption}{head}<tbody>{''.join(rows)}</tbody></table>"


def _lines(table: Table) -> Iterable[str]:
    """The first rows, in columns."""
    rows = [tuple(map(printable, row)) for row in islice(table.rows, MOST_LINES)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
    if more := len(table.rows) - len(rows):
        yield f"  and {more} more"


def _row(tag: str, cells: Iterable[str]) -> str:
    style = ' style="text-align: left"'
    return f"<tr>{''.join(f'<{tag}{style}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return escape(printable(text))
