"""How a command ends: its exit code, and the one line that says what is wrong."""

import sys
from typing import NoReturn

from refnet.errors import printable

FAILED, UNUSABLE = 1, 2


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong, in one line, and exit."""
    say(message)
    sys.exit(code)


def say(message: str) -> None:
    """Print a line on standard error, if somebody still reads it."""
    try:
        print("refnet:", *map(printable, message.split()), file=sys.stderr, flush=True)
    except (OSError, RuntimeError):  # a terminal that is gone; or a signal came while a line was printed
        sys.stderr = None  # nothing is left to be flushed at exit
