"""``refnet golden diff``."""

from pathlib import Path
from typing import Annotated

import typer

from refnet import golden
from refnet.cli.ending import FAILED
from refnet.cli.golden_findings import report
from refnet.cli.options import Json
from refnet.render import terminal


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle's folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    as_json: Json = False,
) -> None:
    """Compare two bundles: which tensors differ, in how many bits and by how many ulp."""
    with terminal.progress_bar(as_json) as progress:
        findings = golden.diff(a, b, progress=progress)
    if not report(findings, f"{a} and {b}", as_json):
        raise typer.Exit(FAILED)
