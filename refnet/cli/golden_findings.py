"""What ``refnet golden verify`` and ``refnet golden diff`` say of the tensors that they have compared."""

from dataclasses import asdict
from typing import Any

from refnet.golden import first_difference
from refnet.golden.findings import Findings
from refnet.render import tables, terminal


def report(found: Findings, what: str, as_json: bool, **more: Any) -> None:
    """Print which tensors differ, the first of them apart. JSON has `more` beside."""
    if as_json:
        first = first_difference(found)
        terminal.print_json(
            {
                "ok": found.ok,
                **more,
                "first": None if first is None else asdict(first),
                "tensors": [asdict(finding) for finding in found],
            }
        )
    else:
        tables.findings(found, what, terminal.screen())
