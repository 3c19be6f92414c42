"""``refnet golden verify``."""

from dataclasses import asdict
from typing import Annotated

import typer

from refnet import golden, machine
from refnet.arithmetic import find_arithmetic
from refnet.cli.ending import FAILED
from refnet.cli.golden_findings import report
from refnet.cli.options import BundlePath, Json, word
from refnet.errors import ValueRangeError
from refnet.golden import Bundle
from refnet.golden.against import JUDGES
from refnet.render import tables, terminal


def verify(
    bundle: BundlePath,
    against: Annotated[
        str | None,
        word(
            JUDGES,
            "Instead, errors in ulp: compare with what is correctly rounded on the bundle's own inputs.",
        ),
    ] = None,
    arithmetic: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="The one that made the bundle, where that is one's own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Derive a bundle again from its manifest and compare bits."""
    opened = Bundle(bundle)
    if against is not None:
        if arithmetic is not None:
            raise ValueRangeError("--against and --arithmetic are given: expected one of the two")
        judge(opened, against, as_json)
        return
    own = None if arithmetic is None else find_arithmetic(arithmetic)
    with terminal.progress_bar(as_json) as progress:
        findings = golden.verify(opened, own, progress=progress)
    report(findings, f"{bundle}: derived again", as_json)
    if not as_json:
        tables.not_derived(findings, opened, terminal.screen())
        if any(not finding.equal for finding in findings):
            tables.other_machine(opened, machine.facts(), terminal.screen())
    if not findings.ok:
        raise typer.Exit(FAILED)


def judge(bundle: Bundle, arithmetic: str, as_json: bool) -> None:
    """Print how far a bundle is from correctly rounded, and fail where that explains an element in no way."""
    with terminal.progress_bar(as_json) as progress:
        found = golden.against(bundle, arithmetic, progress=progress)
    explained = all(rounding.explained for rounding in found)
    if as_json:
        tensors = [asdict(rounding) for rounding in found]
        terminal.print_json({"ok": explained, "against": arithmetic, "tensors": tensors})
    else:
        tables.roundings(found, bundle, arithmetic, terminal.screen())
    if not explained:
        raise typer.Exit(FAILED)
