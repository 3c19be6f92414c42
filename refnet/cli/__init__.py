"""The command line: ``refnet --help``.

Exit codes: 0 fine, 1 a check failed, 2 unusable input (one line says what), 128 + n stopped by signal n.
"""

from refnet.cli.app import STOPPING, main

__all__ = ["STOPPING", "main"]
