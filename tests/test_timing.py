"""The timer, on a clock of its own."""

import pytest

from refnet import timing
from refnet.timing import seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that only calls move on: `clock.call(n)` takes n seconds."""

    class Clock:
        def __init__(self):
            self.now, self.taken = 0.0, []

        def call(self, duration):
            self.now += duration
            self.taken.append(duration)

    made = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: made.now)
    monkeypatch.setattr(timing, "sleep", lambda pause: None)
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
