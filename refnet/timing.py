"""The timer: how long one call takes."""

from collections.abc import Callable
from statistics import median
from time import perf_counter, sleep
from typing import Any

# Seconds before the first call: by then the threads of what ran before no longer spin.
PAUSE = 0.01
# A processor that has been idle is slow at first: on a virtual machine two threads were seen to need 8 ms
# more after a pause. A call is repeated for WARM seconds; one that takes LONG seconds need not be.
WARM, LONG = 0.05, 1.0


def seconds(
    call: Callable[..., object],
    arguments: Callable[[], tuple[Any, ...]] = tuple,
    *,
    least: int | None = None,
    pause: float = PAUSE,
) -> float:
    """Time one call: after a pause it is repeated, and the median of the later half counts.

    Parameters
    ----------
    call : callable
    arguments : callable, optional
        Makes the arguments of each repetition, for a call that uses them up; not timed.
    least : int, optional
        How often the call is repeated at least; by default twice, but once if it takes LONG seconds.
    pause : float
        In seconds.

    Returns
    -------
    float
    """
    sleep(pause)
    start = perf_counter()
    taken = [_once(call, arguments())]
    if least is None:
        least = 1 if taken[0] >= LONG else 2
    while perf_counter() - start < WARM or len(taken) < least:
        taken.append(_once(call, arguments()))
    return median(taken[len(taken) // 2 :])


def _once(call: Callable[..., object], arguments: tuple[Any, ...]) -> float:
    start = perf_counter()
    call(*arguments)
    return perf_counter() - start
