"""What ``refnet golden verify`` and ``refnet golden diff`` say of the tensors that they have compared."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from refnet.golden import Finding, first_difference
from refnet.render import tables, terminal


def report(found: Sequence[Finding], what: str, as_json: bool, **more: Any) -> bool:
    """Print which tensors differ, the first of them apart, and return whether none does.

    Where nothing could be compared, nothing is equal. JSON has `more` beside.
    """
    equal = all(finding.equal for finding in found) and any(finding.derived for finding in found)
    if as_json:
        first = first_difference(found)
        terminal.print_json(
            {
                "ok": equal,
                **more,
                "first": None if first is None else asdict(first),
                "tensors": [asdict(finding) for finding in found],
            }
        )
    else:
        tables.findings(found, what, terminal.screen())
    return equal
