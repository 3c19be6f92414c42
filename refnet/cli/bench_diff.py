"""``refnet bench diff``."""

from pathlib import Path
from typing import Annotated

import typer

from refnet.bench import changes
from refnet.cli.options import Json
from refnet.render import measured, terminal


def bench_diff(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="What refnet bench --json printed.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="The same, later.")],
    as_json: Json = False,
) -> None:
    """Compare two reports. What became faster or slower, beyond what each run's figures differ by."""
    found = changes.compare(before, after)
    if as_json:
        terminal.print_json(found.as_json())
    else:
        measured.show_changes(found, (str(before), str(after)), terminal.screen())
