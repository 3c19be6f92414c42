"""What a report says, in words and numbers; terminal and page both show these."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, isnan
from typing import Any

from refnet.check.report import IN_ORDER, OPEN, SEVERITY, Report, Residual, Verdict
from refnet.errors import printable

CERTIFIED = IN_ORDER | {"exact", "consistent", "refused"}
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


def certifies(report: Report) -> bool:
    """Whether values were judged beside gradients, which are called ``d NAME`` then."""
    return any(verdict.verdict in CERTIFIED for verdict in report.verdicts.values())


def failures(report: Report) -> list[Verdict]:
    """What is not as it should be: the first failure of a certification, then the worst first."""
    leading = report.leading
    return sorted(report.failures, key=lambda verdict: verdict is not leading)


def right(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """What was judged and is as it should be."""
    return [v for v in verdicts if v.passes and v.verdict != "blocked"]


def largest(verdicts: Sequence[Verdict]) -> str:
    """The largest margin within bounds, the largest rms, and whose they are; nothing where nothing is."""
    judged = right(verdicts)
    if not judged:
        return ""
    worst = max(judged, key=lambda v: v.badness[1])
    said = f"largest margin within bounds {margin(worst)}, of {printable(worst.tensor)}"
    spread = {v.tensor: v.residual.rms for v in judged if v.residual and v.residual.rms is not None}
    if spread:
        widest = max(spread, key=lambda name: spread[name])
        said += f"; largest rms {spread[widest]:.3g} of the expected error, of {printable(widest)}"
    return said


def margin(verdict: Verdict) -> str:
    """Write a margin in three digits; in all of them where three would hide on which side of 1 it is."""
    value = verdict.margin
    if verdict.verdict == "blocked" or (verdict.verdict in OPEN and value == 0):
        return ""
    if value == inf or isnan(value):
        return "infinite"
    short = f"{value:.3g}"
    return repr(value) if float(short) == 1 != value else short


def rms(verdict: Verdict) -> str:
    """Write the root mean square of the differences, in units of the expected error, in three digits."""
    if verdict.residual is None or verdict.residual.rms is None:
        return ""
    return f"{verdict.residual.rms:.3g}"


def place(verdict: Verdict) -> str:
    """The index of the worst element: ``(0, 3, 1, 1, 2)``; nothing where all are equal."""
    if verdict.where is None or verdict.margin == 0:
        return ""
    return f"({', '.join(map(str, verdict.where))})"


def maker(verdict: Verdict) -> str:
    """The node whose call made the worst element, and its operator: ``conv1 (conv3d)``."""
    if verdict.node and verdict.op:
        return printable(f"{verdict.node} ({verdict.op})")
    return printable(verdict.node or verdict.op)


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """How it was checked, a fact at a time; what is empty is none."""
    for name, value in report.facts.items():
        if value == [] or value == {}:
            continue
        yield printable(name.replace("_", " ")), printable(_fact(value))


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
    elif margin(verdict):
        yield "margin", margin(verdict)
    if verdict.residual is not None:
        yield from _spread(verdict.residual)
    if verdict.structure:
        yield "structure", printable(verdict.structure)
    if verdict.cause:
        short = f" [{verdict.hypothesis}]" if verdict.hypothesis else ""
        yield "cause", printable(verdict.cause + short)
    if verdict.why:
        yield "why", printable(verdict.why)


def _spread(residual: Residual) -> Iterator[tuple[str, str]]:
    """How the differences are spread, beside what rounding makes."""
    if residual.rms is not None:
        terms = f", in sums of {residual.terms:,} terms" if residual.terms else ""
        yield "rms", f"{residual.rms:.3g} times the expected error{terms}; a plain chain makes 0.735"
    if residual.largest is not None:
        limit = "" if residual.limit is None else f"; at most {residual.limit:.3g} is likely"
        yield "largest", f"{residual.largest:.3g} times the expected error of a result near 0{limit}"


def derivative(verdict: Verdict) -> str:
    """The norm of the derivative through a block, where it is known."""
    return "" if verdict.through is None else f"{verdict.through:.6g}"
