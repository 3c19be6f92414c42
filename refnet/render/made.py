"""What a saved page says of itself: the command that made it, by which version, on which day, from what."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from refnet.errors import ValueRangeError, one_line
from refnet.render.document import escaped


@dataclass(frozen=True)
class Made:
    """How a page was made.

    Attributes
    ----------
    command : str
        As a shell takes it.
    date : str
        Of Greenwich, as ``2026-11-29``.
    options : mapping of str to object
        Everything that what is shown depends on, what was not given included.
    """

    command: str
    date: str
    options: Mapping[str, Any]

    def html(self) -> str:
        """The part of the page that says it."""
        facts = {"refnet": version("refnet"), "date": self.date, **self.options}
        pairs = ((escaped(name), escaped(str(value))) for name, value in facts.items())
        cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
        command = f'<p>Made by</p><pre class="copy">{escaped(self.command)}</pre>'
        return f'<footer class="made">{command}<dl>{cells}</dl></footer>'


def today() -> str:
    """The date; that of SOURCE_DATE_EPOCH, where it is set, so that a page can be made again as it was.

    Raises
    ------
    ValueRangeError
        If that is no number of seconds since 1970.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        moment = datetime.now(UTC) if given is None else datetime.fromtimestamp(int(given), UTC)
    except (ValueError, OverflowError, OSError) as error:
        why = one_line(error)
        raise ValueRangeError(
            f"SOURCE_DATE_EPOCH is {given!r}: expected seconds since 1970 ({why})"
        ) from None
    return moment.date().isoformat()
