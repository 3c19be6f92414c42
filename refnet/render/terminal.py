"""The terminal: what a command prints on standard output, and the bar that shows its progress."""

import json
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

from refnet import memory
from refnet.progress import Progress
from refnet.render import files


def screen() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    width = None if sys.stdout.isatty() else 160
    return Console(width=width, markup=False, highlight=False)


def table(*columns: str, numbers: Container[str] = (), header: bool = True) -> Table:
    """Begin a table, numbers to the right; what is too wide goes on in the next line, nothing is cut off."""
    begun = Table(box=None, show_header=header)
    for column in columns:
        begun.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return begun


def print_json(value: Any) -> None:
    """Print JSON, one document."""
    json.dump(value, sys.stdout, indent=1)
    print()


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
