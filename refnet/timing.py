"""The timer: how long one call takes."""

from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

# A turn begins when the process has been idle for IDLE steps of STEP seconds in a row, or after PATIENCE
# seconds: threads that wait for work and never sleep are not waited for.
STEP, IDLE, PATIENCE = 0.01, 2, 1.0
# The share of a step that an idle process may compute.
BUSY = 0.1
# A processor that has been idle is slow at first: on a virtual machine two threads were seen to need 8 ms
# more after a pause. A call is repeated for WARM seconds; one that takes LONG seconds need not be.
WARM, LONG = 0.05, 1.0


def seconds(
    call: Callable[..., object],
    arguments: Callable[[], tuple[Any, ...]] = tuple,
    *,
    least: int | None = None,
) -> float:
    """Time one call: after a pause (`settle`) it is repeated, and the median of the later half counts.

    Parameters
    ----------
    call : callable
    arguments : callable, optional
        Makes the arguments of each repetition, for a call that uses them up; not timed.
    least : int, optional
        How often the call is repeated at least; by default twice, but once if it takes LONG seconds.

    Returns
    -------
    float
    """
    settle()
    start = perf_counter()
    taken = [_once(call, arguments())]
    if least is None:
        least = 1 if taken[0] >= LONG else 2
    while perf_counter() - start < WARM or len(taken) < least:
        taken.append(_once(call, arguments()))
    return median(taken[len(taken) // 2 :])


def settle() -> None:
    """Wait until the threads of what ran before are asleep.

    Idle threads spin for a while in case there is more to do, and halve the speed of what runs meanwhile:
    those of GNU's OpenMP were seen to for 40 ms, those of OpenBLAS for 100; LLVM's and Intel's OpenMP have
    200 by default. While they do, the process uses processor time.
    """
    end, idle = perf_counter() + PATIENCE, 0
    while idle < IDLE and perf_counter() < end:
        before = process_time()
        sleep(STEP)
        idle = idle + 1 if process_time() - before < BUSY * STEP else 0


def _once(call: Callable[..., object], arguments: tuple[Any, ...]) -> float:
    start = perf_counter()
    call(*arguments)
    return perf_counter() - start
