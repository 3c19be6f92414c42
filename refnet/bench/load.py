"""What else runs on the machine while something is measured."""

import os
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Any

import psutil

# Seconds that are looked at before anything is measured.
LOOK = 0.5
# Processors that others may use while a machine counts as quiet, beside those that are needed.
SPARE = 0.5
# How the warning begins.
BUSY = "the machine is busy"


@dataclass(frozen=True)
class Moment:
    """Seconds since some moment: on the clock, of all processors, of this process and its children."""

    clock: float
    everybody: float
    own: float

    @classmethod
    def now(cls) -> "Moment":
        """Look."""
        times, own = psutil.cpu_times(), os.times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return cls(perf_counter(), sum(times[:8]) - idle, sum(own[:4]))


def look() -> float:
    """How many processors others use now."""
    start = Moment.now()
    sleep(LOOK)
    return others(start)


def others(since: Moment) -> float:
    """How many processors others have used on average since then."""
    now = Moment.now()
    used = now.everybody - since.everybody - (now.own - since.own)
    return max(0.0, used / max(now.clock - since.clock, 1e-9))


def busy(used: float, threads: int) -> str | None:
    """Say that others use processors which as many threads would need; None where the machine is quiet."""
    cores = os.cpu_count() or 1
    if used + threads <= cores + SPARE:
        return None
    return (
        f"{BUSY}: others use {used:.1f} of {cores} processors, load average {average():.1f}; "
        "times are too long and differ: measure when it is quiet, or on fewer threads"
    )


def average() -> float:
    """Processes that ran or waited, on average of the last minute."""
    return float(psutil.getloadavg()[0])


def facts(before: float, during: float) -> dict[str, Any]:
    """What a report says of it."""
    return {"others_before": before, "others_during": during, "load_average": average()}
