"""A report on the terminal: failures in full, then every verdict, then the whole."""

from collections.abc import Collection, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from refnet.check.report import Report, Verdict
from refnet.render.verdict_facts import (
    BLOCKED_NOTE,
    counts,
    derivative,
    facts,
    failure,
    largest,
    maker,
    margin,
    place,
    word,
)

# Failures that a person is shown in full unless all are asked for; the table has them all.
MOST_IN_FULL = 8
STYLES = {"wrong": "bold red", "undecided": "bold yellow"}
NUMBERS = ("margin", "training sees", "through the block")
# Blanks on both sides of a column.
PADDING = 2


def show(report: Report, console: Console, *, folded: Collection[str] = (), every: bool = False) -> None:
    """Print a report: failures, verdicts, blocked gradients, and a line that says the whole.

    Parameters
    ----------
    report : Report
    console : Console
    folded : collection of str
        Arrays that are only counted while they are right.
    every : bool
        Show these too, and each failure in full.
    """
    failures, verdicts = report.failures, list(report.verdicts.values())
    shown = failures if every else failures[:MOST_IN_FULL]
    for verdict in shown:
        _failure(verdict, console)
    if len(failures) > len(shown):
        console.print(f"... and {len(failures) - len(shown)} more (--all shows them in full)\n")
    right = [v for v in verdicts if v.verdict == "ok"]
    counted = [] if every else [v for v in right if v.tensor in folded]
    kept = [v for v in right if every or v.tensor not in folded]
    if failures or kept:
        listed = [*failures, *kept]
        causes = [v.cause or v.why for v in listed] if len(failures) > len(shown) else []
        _columns(_verdict_columns(listed) | {"cause": causes}, 3, console, [v.verdict for v in listed])
    if counted:
        console.print(
            f"{counts(counted)} beside these, {largest(counted)} (--all lists them)", soft_wrap=True
        )
    blocked = [v for v in verdicts if v.verdict == "blocked"]
    if blocked:
        console.print()
        _blocked(blocked, console)
    console.print()
    console.print(f"{report.title}: {_whole(report)}", soft_wrap=True)
    if report.facts:
        found = "; ".join(f"{name} {value}" for name, value in facts(report))
        console.print(found, soft_wrap=True)


def _whole(report: Report) -> str:
    verdicts = list(report.verdicts.values())
    return "; ".join(filter(None, (word(report), counts(verdicts), largest(verdicts)))) + "."


def _failure(verdict: Verdict, console: Console) -> None:
    made = f", at {maker(verdict)}" if maker(verdict) else ""
    console.print(Text(f"{verdict.tensor}: {verdict.verdict}{made}", STYLES[verdict.verdict]), soft_wrap=True)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, found in failure(verdict):
        grid.add_row(f"  {label}", found)
    console.print(grid)
    if verdict.reproduce:  # whole lines, so that they can be copied
        console.print("  reproduce")
        console.print(f"    {verdict.reproduce}", soft_wrap=True)
    console.print()


def _verdict_columns(verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
    return {
        "tensor": [v.tensor for v in verdicts],
        "verdict": [v.verdict for v in verdicts],
        "margin": [margin(v) for v in verdicts],
        "node": [v.node for v in verdicts],
        "where": [place(v) for v in verdicts],
    }


def _blocked(verdicts: Sequence[Verdict], console: Console) -> None:
    reasons = dict.fromkeys(v.why for v in verdicts if v.why)
    columns = {
        "blocked": [v.tensor for v in verdicts],
        "training sees": ["0"] * len(verdicts),
        "through the block": [derivative(v) for v in verdicts],
    }
    if len(reasons) > 1:
        columns["why"] = [v.why for v in verdicts]
    _columns(columns, 3, console)
    for reason in reasons if len(reasons) == 1 else ():
        console.print(f"Why: {reason}.", soft_wrap=True)
    if any(v.through is not None for v in verdicts):
        console.print(BLOCKED_NOTE, soft_wrap=True)


def _columns(
    columns: Mapping[str, Sequence[str]], needed: int, console: Console, words: Sequence[str] = ()
) -> None:
    """Print as many columns as there is room for whole, and name the others; without room, a line each cell.

    Parameters
    ----------
    columns : mapping of str to sequence of str
        What says nothing is left out.
    needed : int
        How many of the first are always shown.
    console : Console
    words : sequence of str, optional
        The verdict of each row, for its style.
    """
    said = {name: cells for name, cells in columns.items() if any(cells)}
    always = [name for name in list(columns)[:needed] if name in said]
    widths = {name: PADDING + max(map(cell_len, (name, *cells))) for name, cells in said.items()}
    fitting = always.copy()
    for name in said:
        if name not in always and sum(widths[n] for n in (*fitting, name)) <= console.width:
            fitting.append(name)
    styles = [STYLES.get(word) for word in words] or [None] * len(next(iter(columns.values())))
    if sum(widths[name] for name in always) > console.width:
        for i, style in enumerate(styles):
            first, *others = always
            console.print(Text(said[first][i], style or ""), soft_wrap=True)
            console.print("  " + ", ".join(f"{name} {said[name][i]}" for name in others if said[name][i]))
    else:
        shown = Table(box=None)
        for name in fitting:
            shown.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
        for i, style in enumerate(styles):
            shown.add_row(*(said[name][i] for name in fitting), style=style)
        console.print(shown)
    if left := [name for name in said if name not in fitting]:
        console.print(
            f"Not shown in {console.width} columns: {', '.join(left)} (--json has all)", soft_wrap=True
        )
