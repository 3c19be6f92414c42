"""What ``refnet golden verify`` and ``refnet golden diff`` say of the tensors that they have compared."""

from collections.abc import Sequence
from dataclasses import asdict

from refnet.golden import Finding
from refnet.render import tables, terminal


def report(found: Sequence[Finding], what: str, as_json: bool) -> bool:
    """Print which tensors differ, and return whether none does."""
    equal = all(finding.equal for finding in found)
    if as_json:
        terminal.print_json({"ok": equal, "tensors": [asdict(finding) for finding in found]})
    else:
        tables.findings(found, what, terminal.screen())
    return equal
