"""How much memory is left, and a clear refusal of what would not fit."""

import sys
from pathlib import Path

import psutil

from refnet.errors import TooLargeError

if sys.platform != "win32":
    import resource

CGROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that can still be allocated, within the limits of the container and of the process."""
    left = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        left = min(left, limit - used + int(statistics["inactive_file"]))  # a cache that can go
    except (OSError, ValueError, KeyError):
        pass  # no control group (version 2), or one without a limit
    if sys.platform != "win32":
        address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
        if address_space != resource.RLIM_INFINITY:
            left = min(left, address_space - psutil.Process().memory_info().vms)
    return max(0, left)


def text(count: int) -> str:
    """Write a number of bytes for people: ``1.5 GiB``."""
    amount = float(min(count, 2**1000))
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} PiB"


def require(count: int, what: str) -> None:
    """Refuse, before anything is allocated, work that needs `count` bytes and would not fit.

    Raises
    ------
    TooLargeError
        If `count` is more than is available.
    """
    left = available()
    if count > left:
        raise TooLargeError(
            f"{what} needs about {text(count)} of memory, {text(left)} is available: "
            "take a smaller input, or float32"
        )
