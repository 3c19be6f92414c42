"""The terminal: what a command prints on standard output, and the bar that shows its progress."""

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import progress as rich_progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from refnet import memory
from refnet.errors import printable, printable_lines
from refnet.progress import Progress
from refnet.render import files
from refnet.render.columns import Columns


class Screen(Console):
    """A console that no text controls, that cuts none off, and whose lines end in no blanks.

    What is no printable character is seen as an escape.
    """

    def print(self, *objects: Any, crop: bool = False, **options: Any) -> None:
        """Print, as `Console.print` does."""
        super().print(*objects, crop=crop, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render, as `Console.render` does."""
        line: list[Segment] = []
        for segment in super().render(renderable, options):
            if segment.control:
                line.append(segment)
                continue
            *ended, begun = printable_lines(segment.text).split("\n")
            for text in ended:
                yield from _without_blanks([*line, Segment(text, segment.style)])
                yield Segment("\n")
                line = []
            line += [Segment(begun, segment.style)] * bool(begun)
        yield from line


def _without_blanks(line: list[Segment]) -> list[Segment]:
    """A line without the blanks at its end."""
    while line and not line[-1].control:
        text, style, _ = line.pop()
        if text := text.rstrip(" "):
            return [*line, Segment(text, style)]
    return line


def screen() -> Console:
    """Standard output; wide enough for a table where it is no terminal and COLUMNS says nothing."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Screen(width=width, markup=False, highlight=False)


def say(sentence: str, console: Console) -> None:
    """Print a sentence, one line whatever names it quotes."""
    console.print(printable(sentence), soft_wrap=True)


def table(*columns: str, numbers: Collection[str] = (), **how: Any) -> Columns:
    """Begin a table of these columns, numbers to the right; `refnet.render.columns` says how it fits."""
    return Columns(columns, numbers, **how)


def print_json(value: Any) -> None:
    """Print JSON, one document."""
    print(
        json.dumps(value, indent=1).replace("\x7f", "\\u007f")
    )  # the one control character that JSON lets pass


def save(out: Path, content: bytes, quiet: bool) -> None:
    """Write a file, and say so."""
    files.write(out, content)
    if not quiet:
        screen().print(f"{out}: {memory.text(len(content))}", soft_wrap=True)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A bar on standard error for each stage, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        rich_progress.TextColumn("{task.description:>8}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)

        yield progress
