"""About how long measuring takes, before anything is measured.

A model: multiply-adds at half of what the machine does in registers, bytes at what memory gives, each call at
least as long as the timer repeats it. It is meant to say minutes or hours, no more.
"""

from collections.abc import Iterable, Iterator

from refnet import timing
from refnet.bench import limits
from refnet.bench.measure import FAR, SLOW, Setting
from refnet.bench.threads import limited

# How many times as long as core others take.
SLOWER = {"core": 1.0, "exact": 30.0, "reference": 6.0, "numpy": 6.0}
PEER = 2.0
# Seconds of a process that measures memory, beside what it computes, and of the machine's limits.
PROCESS, LIMITS = 3.0, 5.0
# Of each turn: waiting for threads to sleep, and making what is measured.
TURN = 0.1
# Bytes a second, and multiply-adds as a share of those in registers.
MEMORY, SHARE = 5e9, 0.5


def expected(works: Iterable[tuple[str, float, float]], processes: int, setting: Setting) -> float:
    """About how many seconds it takes to measure.

    Parameters
    ----------
    works : iterable of (arithmetic, multiply-adds, bytes in float64)
        Of each call that is measured, in one dtype.
    processes : int
        How many memory is measured of, beside calls.
    setting : Setting

    Returns
    -------
    float
    """
    with limited(setting.threads):
        peaks = [limits.multiply_add_peak(dtype) for dtype in setting.dtypes]
    total = LIMITS + processes * PROCESS * (1 + len(setting.peers))
    for source, adds, bytes in works:
        for peak in peaks:
            once = max(adds / (SHARE * peak), bytes / MEMORY)
            total += sum(_pair(once * slower, once, setting.rounds) for slower in _slower(source, setting))
    return total


def _slower(source: str, setting: Setting) -> Iterator[float]:
    """The yardstick of an arithmetic, a GEMM or core, and each peer."""
    yield SLOWER.get(source, PEER)
    yield from (SLOWER.get(peer.name, PEER) for peer in setting.peers)


def _pair(first: float, second: float, rounds: int) -> float:
    """Seconds of checking two calls, and of measuring them in turn."""
    once = first > max(SLOW, FAR * second)
    turns = sum(TURN + _timed(call) for call in (first, second))
    return first + second + turns * (1 if once else rounds)


def _timed(call: float) -> float:
    """How long the timer takes for a call."""
    return call if call >= timing.LONG else max(timing.WARM, 2 * call)


def text(seconds: float) -> str:
    """Write it for people."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.0f} hours"
