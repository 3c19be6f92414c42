"""How a command ends: its exit code, and the one line that says what is wrong."""

import sys
from typing import NoReturn

FAILED, UNUSABLE = 1, 2


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong, in one line, and exit."""
    print("refnet:", *message.split(), file=sys.stderr)
    sys.exit(code)
