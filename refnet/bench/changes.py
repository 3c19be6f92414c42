"""What changed between two reports of ``refnet bench --json``."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import comb
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

from refnet.bench import load
from refnet.bench.measurement import REFNET
from refnet.bounded_json import LARGEST, loads
from refnet.errors import FileError, one_line
from refnet.regular import open_regular

# What of a report is no section of measurements.
BESIDE = ("settings", "machine", "peers", "geometric_means", "warnings")
# Facts of a machine that change with every run.
CHANGING = ("bandwidth", "load", "float64", "float32", "blas")
# Figures a side below which nothing is called faster or slower: those of one build often lie apart then.
FEWEST = 3

# Section, problem, direction, dtype.
Key = tuple[str, str, str, str]


class Times(NamedTuple):
    """Milliseconds, and of how many figures."""

    least: float
    median: float
    most: float
    rounds: int


@dataclass(frozen=True)
class Change:
    """One thing measured twice.

    Attributes
    ----------
    section, problem, direction, dtype : str
    before, after : float
        Milliseconds, the medians.
    ratio : float
        The second over the first: below 1 where it became faster.
    rounds : (int, int)
        How many figures each side has.
    verdict : {"faster", "slower", ""}
        Empty where what was measured overlaps, or a side has fewer than `FEWEST` figures.
    """

    section: str
    problem: str
    direction: str
    dtype: str
    before: float
    after: float
    ratio: float
    rounds: tuple[int, int]
    verdict: str

    @property
    def judged(self) -> bool:
        """Whether there are figures enough for a verdict."""
        return min(self.rounds) >= FEWEST

    @property
    def chance(self) -> float:
        """How probably the figures of one build lie apart, if any order of them is as probable."""
        return 2 / comb(sum(self.rounds), self.rounds[0])


@dataclass(frozen=True)
class Changes:
    """Two reports, compared.

    Attributes
    ----------
    rows : list of Change
        What both measured.
    missing : list of (str, str)
        What one alone measured: its file, and what.
    otherwise : list of (str, object, object)
        Settings and facts of the machines that differ.
    busy : list of (str, str)
        What a report says of a machine that was busy: its file, and the warning.
    """

    rows: list[Change]
    missing: list[tuple[str, str]]
    otherwise: list[tuple[str, Any, Any]]
    busy: list[tuple[str, str]]

    @property
    def mean(self) -> float | None:
        """The geometric mean of the ratios."""
        return geometric_mean(row.ratio for row in self.rows) if self.rows else None

    def as_json(self) -> dict[str, Any]:
        """Everything, in what JSON has."""
        return asdict(self) | {"geometric_mean": self.mean}


def compare(before: Path, after: Path) -> Changes:
    """Compare two reports.

    Raises
    ------
    FileError
        If one cannot be read, or is no such report.
    """
    a, b = _read(before), _read(after)
    first, second = _timed(before, a), _timed(after, b)
    rows = [_change(key, first[key], second[key]) for key in first if key in second]
    missing = [(str(before), ", ".join(key)) for key in first if key not in second]
    missing += [(str(after), ", ".join(key)) for key in second if key not in first]
    busy = [(str(path), line) for path, report in ((before, a), (after, b)) for line in _busy(report)]
    return Changes(rows, missing, list(_otherwise(a, b)), busy)


def _change(key: Key, first: Times, second: Times) -> Change:
    rounds = first.rounds, second.rounds
    verdict = "faster" if second.most < first.least else "slower" if second.least > first.most else ""
    found = Change(*key, first.median, second.median, second.median / first.median, rounds, verdict)
    return found if found.judged else replace(found, verdict="")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        handle = open_regular(path)
        if handle is None:
            raise ValueError("it is no file")
        with os.fdopen(handle, "rb") as file:
            found = loads(file.read(LARGEST + 1))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} cannot be read as a report: {one_line(error)}") from error
    if not isinstance(found, dict) or not all(
        isinstance(found.get(n), dict) for n in ("settings", "machine")
    ):
        raise FileError(f"{path} is no report: expected what refnet bench --json printed")
    return found


def _timed(path: Path, report: Mapping[str, Any]) -> dict[Key, Times]:
    """Refnet's times of each thing that was timed."""
    found = {}
    try:
        for section in (name for name in report if name not in BESIDE):
            for row in report[section]:
                key = (section, str(row["problem"]), str(row["direction"]), str(row["dtype"]))
                times = row["milliseconds"].get(REFNET)
                if times is not None:
                    least, median, most = (float(times[name]) for name in ("least", "median", "most"))
                    found[key] = Times(least, median, most, len(times["values"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        message = f"{path} has no milliseconds of {section}: expected what this refnet's bench --json printed"
        raise FileError(message) from None
    if not all(0 < time < float("inf") for times in found.values() for time in times[:3]):
        raise FileError(f"{path} has milliseconds that are none: expected what refnet bench --json printed")
    return found


def _busy(report: Mapping[str, Any]) -> list[str]:
    """Its warnings that the machine was busy."""
    found = report.get("warnings")
    return [str(line) for line in found if str(line).startswith(load.BUSY)] if isinstance(found, list) else []


def _otherwise(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for part in ("settings", "machine"):
        names = dict.fromkeys([*a[part], *b[part]])
        for name in (name for name in names if name not in CHANGING):
            one, other = a[part].get(name), b[part].get(name)
            if one != other:
                yield name, one, other
