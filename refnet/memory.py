"""How much memory is left, and a clear refusal of what would not fit."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from refnet.errors import TooLargeError

if sys.platform != "win32":
    import resource

# Where Linux mounts control groups, and where it says in which ones this process is.
MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# Of each version: the files of the limit and of what is used, and what in memory.stat is a cache that can go.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def available() -> int:
    """Bytes that can still be allocated, within the limits of the containers and of the process."""
    left = min([int(psutil.virtual_memory().available), *_left_in_groups()])
    if sys.platform != "win32":
        address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
        if address_space != resource.RLIM_INFINITY:
            left = min(left, address_space - psutil.Process().memory_info().vms)
    return max(0, left)


def _left_in_groups() -> Iterator[int]:
    """What every control group that this process is in has left, of those with a limit."""
    try:
        memberships = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return  # not on Linux
    for line in memberships:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, files = MOUNT, VERSION_2
        elif "memory" in controllers.split(","):
            mount, files = MOUNT / "memory", VERSION_1
        else:
            continue
        # A container may see its own group as the mount, whatever its name outside is.
        folder = mount / group.strip("/")
        for each in (folder, *folder.parents):
            if each.is_relative_to(mount):
                yield from _left_in(each, *files)


def _left_in(folder: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    try:
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield int((folder / limit).read_text()) - int((folder / used).read_text()) + int(statistics[cache])
    except (OSError, ValueError, KeyError):
        pass  # no such group is seen from here, or it has no limit


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
