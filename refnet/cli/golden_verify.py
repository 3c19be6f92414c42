"""``refnet golden verify``."""

import typer

from refnet import golden, machine
from refnet.cli.ending import FAILED
from refnet.cli.golden_findings import report
from refnet.cli.options import BundlePath, Json
from refnet.golden import Bundle
from refnet.render import tables, terminal


def verify(bundle: BundlePath, as_json: Json = False) -> None:
    """Derive a bundle again from its manifest and compare bits."""
    opened = Bundle(bundle)
    with terminal.progress_bar(as_json) as progress:
        findings = golden.verify(opened, progress=progress)
    if not report(findings, f"{bundle}: derived again", as_json):
        if not as_json:
            tables.other_machine(opened, machine.facts(), terminal.screen())
        raise typer.Exit(FAILED)
