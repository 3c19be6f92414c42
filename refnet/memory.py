"""How much memory is left, and a clear refusal of what would not fit."""

from pathlib import Path

import psutil

from refnet.errors import TooLargeError

CGROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that can still be allocated: what the machine has left, within the container's limit."""
    left = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return left
    return max(0, min(left, limit - used))


def text(count: int) -> str:
    """Write a number of bytes for people: ``1.5 GiB``."""
    amount = float(count)
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
