"""How many elements needed integers, because a sum in a few doubles did not decide how they are rounded."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Count:
    """Elements that were computed, and those of them that needed the fallback."""

    elements: int = 0
    undecided: int = 0


def added(counts: Iterable[Count]) -> Count:
    """Counts of several things as one."""
    total = Count()
    for count in counts:
        total.elements += count.elements
        total.undecided += count.undecided
    return total


@dataclass
class Counts:
    """What was counted, by what it is: ``y``, ``dx``, ``ds``, or a step on the way, such as ``variance``."""

    of: dict[str, Count] = field(default_factory=dict)

    def add(self, what: str, elements: int, undecided: int) -> None:
        """Count some more."""
        count = self.of.setdefault(what, Count())
        count.elements += elements
        count.undecided += undecided


_collecting: ContextVar[Counts | None] = ContextVar("_collecting", default=None)


@contextmanager
def counted() -> Iterator[Counts]:
    """A context in which kernels count; one inside of another counts by itself.

    Yields
    ------
    Counts
    """
    counts = Counts()
    token = _collecting.set(counts)
    try:
        yield counts
    finally:
        _collecting.reset(token)


def note(what: str, elements: int, undecided: int) -> None:
    """Count elements, and how many of them needed the fallback, if anybody collects that."""
    counts = _collecting.get()
    if counts is not None:
        counts.add(what, int(elements), int(undecided))
