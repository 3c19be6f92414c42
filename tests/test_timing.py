"""The timer, on a clock of its own."""

import pytest

from refnet import timing
from refnet.timing import seconds, settle


@pytest.fixture
def clock(monkeypatch):
    """A clock that only calls and pauses move on: `clock.call(n)` takes n seconds.

    Until `clock.busy_until` other threads of the process compute all the time.
    """

    class Clock:
        def __init__(self):
            self.now, self.taken, self.busy_until = 0.0, [], 0.0

        def computed(self):
            return min(self.now, self.busy_until)

        def sleep(self, pause):
            self.now += pause

        def call(self, duration):
            self.now += duration
            self.taken.append(duration)

    made = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: made.now)
    monkeypatch.setattr(timing, "process_time", made.computed)
    monkeypatch.setattr(timing, "sleep", made.sleep)
    monkeypatch.setattr(timing, "STEP", 1 / 64)
    return made


def counting(*durations):
    """Arguments for one call after the other; the last for all that follow."""
    left = list(durations)
    return lambda: (left.pop(0) if len(left) > 1 else left[0],)


def test_a_short_call_is_repeated_until_the_processor_is_warm(clock):
    assert seconds(clock.call, lambda: (1 / 128,)) == 1 / 128
    assert len(clock.taken) == 7  # 7 / 128 is the first multiple beyond 0.05


def test_the_median_of_the_later_half_counts(clock):
    assert seconds(clock.call, counting(0.5, 0.25, 0.125, 0.375), least=4) == 0.25
    assert clock.taken == [0.5, 0.25, 0.125, 0.375]


def test_a_long_call_is_made_once_unless_more_are_asked_for(clock):
    assert seconds(clock.call, counting(0.75, 0.5)) == 0.5 and len(clock.taken) == 2
    assert seconds(clock.call, counting(1.0, 2.0)) == 1.0 and len(clock.taken) == 3
    assert seconds(clock.call, counting(1.0, 2.0), least=2) == 2.0 and len(clock.taken) == 5


def test_what_makes_the_arguments_is_not_timed(clock):
    def arguments():
        clock.now += 1
        return (1 / 1024,)

    assert seconds(clock.call, arguments) == 1 / 1024 and len(clock.taken) == 2


@pytest.mark.parametrize(("spinning", "waited"), [(0, 2 / 64), (1 / 64, 3 / 64), (5.5 / 64, 8 / 64), (9, 1)])
def test_a_turn_waits_until_no_other_thread_spins(clock, spinning, waited):
    """For two steps without, but for a second at most."""
    clock.busy_until = spinning
    settle()
    assert clock.now == waited


def test_the_pause_is_not_timed(clock):
    clock.busy_until = 1 / 4
    assert seconds(clock.call, lambda: (1 / 128,)) == 1 / 128
    assert clock.now == 1 / 4 + 2 / 64 + 7 / 128
