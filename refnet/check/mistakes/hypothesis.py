"""What a mistake is: its name, what is said of it, and how a call is replayed with it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from refnet.arrays import Array
from refnet.check.mistakes.changes import Change
from refnet.check.mistakes.sliding import windowed
from refnet.check.precision import Format
from refnet.check.replay import Call

Replay = Callable[[Call], Array | None]


@dataclass(frozen=True)
class Hypothesis:
    """A mistake.

    Attributes
    ----------
    name : str
        For programs: "kernel flipped T".
    sentence : str
        What is said of the result, behind its name: "is that of a kernel flipped along T".
    replay : ``(call) -> array or None``
        What the call gives with this mistake; None where it cannot be made there.
    sizes : ``(call) -> array``, optional
        Its magnitude, where that is not the replay of the call in magnitudes.
    stored : Format, optional
        The format in which the mistake stores results.
    """

    name: str
    sentence: str
    replay: Replay
    sizes: Replay | None = None
    stored: Format | None = None


Proposer = Callable[[Call], Iterable[Hypothesis]]


def result(change: Change) -> Replay:
    """A mistake that changes the right result."""
    return lambda call: change(call.right, call.axes)


def given(name: str, change: Change) -> Replay:
    """A mistake that changes an input, or dy."""

    def replay(call: Call) -> Array | None:
        changed = change(call[name], call.axes_of(name))
        return None if changed is None else call.of({name: changed})

    return replay


def with_input(name: str, change: Callable[[Array], Array]) -> Replay:
    """A mistake in the values of an input."""
    return lambda call: call.of({name: change(call[name])})


def with_attribute(name: str, value: Any) -> Replay:
    """A mistake in an attribute."""
    return lambda call: call.of(attrs={name: value})


def with_window(**changes: Any) -> Replay:
    """A mistake in where windows lie: the parameters of `windowed`."""
    return lambda call: windowed(call, **changes)


def times(factor: float) -> Replay:
    """A mistake that multiplies the right result."""
    return lambda call: call.right * factor


def of_right(call: Call) -> Array:
    """The magnitude of the right result, which is no less than that of a part of its terms."""
    return call.right
