"""How a long task reports its progress; the terminal draws the bar (`refnet.render.terminal`)."""

from collections.abc import Callable
from itertools import count

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def steps(progress: Progress, stage: str, total: int) -> Callable[[object], None]:
    """Count a stage's steps for `progress`: call what is returned after each, with anything."""
    done = count(1)
    return lambda _: progress(stage, next(done), total)
