"""A report on the terminal: failures in full, then every verdict, then the whole."""

from collections.abc import Collection, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from refnet.check.report import Report, Verdict
from refnet.errors import printable
from refnet.render.columns import Columns, Labelled
from refnet.render.verdict_facts import (
    BLOCKED_NOTE,
    counts,
    derivative,
    facts,
    failure,
    failures,
    largest,
    maker,
    margin,
    place,
    right,
    rms,
    word,
)
from refnet.render.words import WORDS

# Failures that a person is shown in full unless all are asked for; the table has them all.
MOST_IN_FULL = 8
NUMBERS = ("margin", "rms", "training sees", "through the block")
# The column of sentences.
PROSE = "cause"


def show(report: Report, console: Console, *, folded: Collection[str] = (), every: bool = False) -> None:
    """Print a report: failures, verdicts, blocked gradients, the whole; of a certification the first failure.

    Parameters
    ----------
    report : Report
    console : Console
    folded : collection of str
        Arrays that are only counted while they are as they should be.
    every : bool
        Show these too, and each failure in full.
    """
    failed, verdicts = failures(report), list(report.verdicts.values())
    shown = failed if every else failed[:MOST_IN_FULL]
    for verdict in shown:
        _failure(verdict, console)
    if len(failed) > len(shown):
        console.print(f"... and {len(failed) - len(shown)} more (--all shows them in full)\n")
    counted = [] if every else [v for v in verdicts if v.passes and v.tensor in folded]
    kept = [v for v in right(verdicts) if every or v.tensor not in folded]
    if listed := [*failed, *kept]:
        _columns(_verdict_columns(listed), 3, console, [WORDS[v.verdict].style for v in listed])
    lists = " (--all lists them)"
    none_shown = bool(counted) and len(counted) == len(verdicts)  # then the whole counts the same
    if counted and not none_shown:
        beside = " beside these" if listed else ""
        numbers = ", ".join(filter(None, (counts(counted) + beside, largest(counted))))
        console.print(f"{numbers}{lists}", soft_wrap=True)
    blocked = [v for v in verdicts if v.verdict == "blocked" and (every or v.tensor not in folded)]
    if blocked:
        console.print()
        _blocked(blocked, console)
    if not none_shown:
        console.print()
    whole = f"{printable(report.title)}: {_whole(report)}{lists if none_shown else ''}."
    console.print(whole, soft_wrap=True)
    if report.facts:
        found = "; ".join(f"{name} {value}" for name, value in facts(report))
        console.print(found, soft_wrap=True)
    if leading := report.leading:
        console.print(f"First failure: {_short(leading)}", style=WORDS[leading.verdict].style, soft_wrap=True)


def _whole(report: Report) -> str:
    verdicts = list(report.verdicts.values())
    return "; ".join(filter(None, (word(report), counts(verdicts), largest(verdicts))))


def _short(verdict: Verdict) -> str:
    """A failure on one line: where, which array, what, why."""
    why = verdict.cause or verdict.structure or f"margin {margin(verdict)}"
    tensor = f"{verdict.tensor} is " if verdict.tensor != verdict.node else ""
    return f"{maker(verdict)}: {printable(f'{tensor}{verdict.verdict}, {why}')}"


def _failure(verdict: Verdict, console: Console) -> None:
    made = f", at {maker(verdict)}" if maker(verdict) else ""
    heading = f"{printable(verdict.tensor)}: {verdict.verdict}{made}"
    console.print(Text(heading, WORDS[verdict.verdict].style), soft_wrap=True)
    if said := list(failure(verdict)):
        console.print(Labelled([(f"  {label}", found) for label, found in said]))
    if verdict.reproduce:  # whole lines, so that they can be copied
        console.print("  reproduce")
        console.print(f"    {printable(verdict.reproduce)}", soft_wrap=True)
    console.print()


def _verdict_columns(verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
    return {
        "tensor": [printable(v.tensor) for v in verdicts],
        "verdict": [v.verdict for v in verdicts],
        "margin": [margin(v) for v in verdicts],
        "rms": [rms(v) for v in verdicts],
        PROSE: [printable(v.cause or v.why) for v in verdicts],
        "node": [printable(v.node) if v.tensor not in (v.node, f"d {v.node}") else "" for v in verdicts],
        "where": [place(v) for v in verdicts],
    }


def _blocked(verdicts: Sequence[Verdict], console: Console) -> None:
    reasons = dict.fromkeys(v.why for v in verdicts if v.why)
    columns = {
        "blocked": [printable(v.tensor) for v in verdicts],
        "training sees": ["0"] * len(verdicts),
        "through the block": [derivative(v) for v in verdicts],
    }
    if len(reasons) > 1:
        columns["why"] = [printable(v.why) for v in verdicts]
    _columns(columns, 3, console)
    for reason in reasons if len(reasons) == 1 else ():
        console.print(f"Why: {printable(reason)}.", soft_wrap=True)
    if any(v.through is not None for v in verdicts):
        console.print(BLOCKED_NOTE, soft_wrap=True)


def _columns(
    columns: Mapping[str, Sequence[str]], needed: int, console: Console, styles: Sequence[str] = ()
) -> None:
    """Print a table of these columns, the first always; `styles` are its rows'."""
    table = Columns(tuple(columns), NUMBERS, PROSE, needed=needed)
    rows = list(zip(*columns.values(), strict=True))
    for row, style in zip(rows, styles or [""] * len(rows), strict=True):
        table.add_row(*row, style=style)
    console.print(table)
