"""What a report says, in words and numbers; terminal and page both show these."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf, isnan
from typing import Any

from refnet.check.report import SEVERITY, Report, Verdict

BLOCKED_NOTE = "Through the block: the Euclidean norm of the derivative if nothing were stopped."


def word(report: Report) -> str:
    """The verdict of the whole: that of its worst part."""
    worst = report.worst
    if worst is None:
        return "nothing was judged"
    return "ok" if worst.verdict == "blocked" else worst.verdict


def counts(verdicts: Sequence[Verdict]) -> str:
    """How many there are of each verdict: ``1 wrong, 40 ok, 22 blocked``."""
    numbers = {name: sum(v.verdict == name for v in verdicts) for name in reversed(SEVERITY)}
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items() if number) or "none"


def largest(verdicts: Sequence[Verdict]) -> str:
    """The largest margin within bounds, and whose it is; nothing where nothing is."""
    right = [v for v in verdicts if v.verdict == "ok"]
    if not right:
        return ""
    worst = max(right, key=lambda v: v.badness)
    return f"largest margin within bounds {margin(worst)}, of {worst.tensor}"


def margin(verdict: Verdict) -> str:
    """Write a margin in three digits; in all of them where three would hide on which side of 1 it is."""
    value = verdict.margin
    if verdict.verdict == "blocked" or (verdict.verdict == "undecided" and value == 0):
        return ""
    if value == inf or isnan(value):
        return "infinite"
    short = f"{value:.3g}"
    return repr(value) if float(short) == 1 != value else short


def place(verdict: Verdict) -> str:
    """The index of the worst element: ``(0, 3, 1, 1, 2)``; nothing where all are equal."""
    if verdict.where is None or verdict.margin == 0:
        return ""
    return f"({', '.join(map(str, verdict.where))})"


def maker(verdict: Verdict) -> str:
    """The node whose call made the worst element, and its operator: ``conv1 (conv3d)``."""
    if verdict.node and verdict.op:
        return f"{verdict.node} ({verdict.op})"
    return verdict.node or verdict.op


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """How it was checked, a fact at a time; what is empty is none."""
    for name, value in report.facts.items():
        if value == [] or value == {}:
            continue
        yield name.replace("_", " "), _fact(value)


def _fact(value: Any) -> str:
    match value:
        case Mapping():  # what names have in common is said once: "core for relu and reference for conv3d"
            names: dict[str, list[str]] = {}
            for name, entry in value.items():
                names.setdefault(_fact(entry), []).append(str(name))
            said = [
                f"{entry} for {', '.join(of)}" if len(names) > 1 else entry for entry, of in names.items()
            ]
            return " and ".join(said)
        case list() | tuple():
            return ", ".join(map(_fact, value))
        case float():
            return f"{value:.3g}"
        case int() if value >= 10**6:
            return f"{value:,}"
    return str(value)


def failure(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What is known of a failure, a label and a text at a time."""
    if verdict.wrong:
        yield "wrong", f"{verdict.wrong:,} of {verdict.elements:,} elements are beyond their bounds"
    if verdict.where is not None:
        yield "worst at", place(verdict)
    if verdict.found is not None:
        yield "found", repr(verdict.found)
    if verdict.expected is not None:
        yield "expected", repr(verdict.expected)
    if verdict.bound is not None:
        yield "bound", f"{verdict.bound:.3g}" if verdict.bound else "0: no rounding is allowed here"
    if verdict.found is not None and verdict.expected is not None:
        off = abs(verdict.found - verdict.expected)
        times = f", {margin(verdict)} times the bound" if verdict.bound else ""
        if not isnan(off):
            yield "error", f"{off:.3g}{times}"
    if verdict.structure:
        yield "structure", verdict.structure
    if verdict.cause:
        yield "cause", verdict.cause + (f" [{verdict.hypothesis}]" if verdict.hypothesis else "")
    if verdict.why:
        yield "why", verdict.why


def derivative(verdict: Verdict) -> str:
    """The norm of the derivative through a block, where it is known."""
    return "" if verdict.through is None else f"{verdict.through:.6g}"
