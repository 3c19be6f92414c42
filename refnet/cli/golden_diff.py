"""``refnet golden diff``."""

from pathlib import Path
from typing import Annotated

import typer

from refnet import golden
from refnet.cli.ending import FAILED
from refnet.cli.golden_findings import report
from refnet.cli.options import Json
from refnet.golden import Bundle
from refnet.render import tables, terminal


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle's folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    as_json: Json = False,
) -> None:
    """Compare two bundles. What may be the cause, which tensors differ, and by how much.

    Bits are compared; where one side is in float64 and the other in float32, once the wider is rounded.
    Exit code 0: all are equal so; 1: one is not; 2: nothing can be compared.
    """
    first, second = Bundle(a), Bundle(b)
    causes = golden.causes(first, second)
    with terminal.progress_bar(as_json) as progress:
        findings = golden.diff(first, second, progress=progress)
    if not as_json:
        tables.causes(causes, findings, (first, second), terminal.screen())
    report(findings, f"{a} and {b}", as_json, causes=[cause._asdict() for cause in causes])
    if not findings.ok:
        raise typer.Exit(FAILED)
