"""What was measured beside peers, as tables and lines for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from refnet import memory
from refnet.bench.changes import FEWEST, Change, Changes
from refnet.bench.measurement import REFNET, Measurement, Spread, geometric_means
from refnet.render.columns import Columns

# Sections of what core does beside peers; others have the name of an arithmetic.
OF_CORE = ("convolutions", "operators", "scaling", "nets")
# Columns of refnet's own time and rate; --json has those of peers.
MILLISECONDS, GFLOPS = "ms", "GFLOP/s"
NOTE = (
    "ms and GFLOP/s are refnet's, a multiply-add being two operations. Peers: their time, or memory, over "
    "refnet's, above 1 where refnet is better: median (least-most)."
)


def show(sections: Mapping[str, Sequence[Measurement]], lines: Iterable[str], console: Console) -> None:
    """Show what was measured, section by section, and then what it rests on."""
    for name, rows in sections.items():
        if name not in OF_CORE:
            console.print(f"In {name}, time or memory over that of others on the same problem:")
        for shown in tables(rows):
            console.print(shown)
            console.print()
        for line in means(rows) if name in OF_CORE[:-1] else ():
            console.print(line)
        console.print()
    for line in (NOTE, *lines):
        console.print(line, soft_wrap=True)


def show_changes(found: Changes, names: tuple[str, str], console: Console) -> None:
    """Show what changed from one report to another, and what else differs between them."""
    numbers = ("before", "after", "ratio")
    columns = ("problem", "direction", "dtype", *numbers, "verdict", "section")
    first = ("problem", "direction", "dtype", "ratio", "verdict", *numbers[:2])
    shown = Columns(columns, numbers, first=first, needed=5)
    for row in found.rows:
        times = (_number(row.before), _number(row.after), _number(row.ratio))
        shown.add_row(row.problem, row.direction, row.dtype, *times, row.verdict, row.section)
    if found.rows:
        console.print(shown)
        console.print()
    before, after = names
    slower, faster = (sum(row.verdict == word for row in found.rows) for word in ("slower", "faster"))
    mean = "" if found.mean is None else f", geometric mean of the ratios {found.mean:.2f}"
    lines = [
        f"{before} and {after}: {len(found.rows)} times in both, {faster} faster, {slower} slower{mean}.",
        "Before and after: milliseconds, the medians; ratio: after over before.",
        *_of_verdicts(found.rows),
        *(f"{file}: {warning}" for file, warning in found.busy),
    ]
    lines += [f"only in {file}: {what}" for file, what in found.missing]
    lines += [f"{name} is {one} in {before}, {other} in {after}" for name, one, other in found.otherwise]
    for line in lines:
        console.print(line, soft_wrap=True)


def _of_verdicts(rows: Sequence[Change]) -> Iterator[str]:
    """What a verdict means, and why there is none."""
    judged = [row for row in rows if row.judged]
    if judged:
        chance = max(row.chance for row in judged)
        yield (
            "Faster or slower: every figure of one is beyond every figure of the other; where nothing "
            f"changed, chance does that to 1 row in {1 / chance:.0f}."
        )
    if few := [min(row.rounds) for row in rows if not row.judged]:
        of = f" in {len(few)} of them" if judged else ""
        advice = f"expected at least {FEWEST} in each report (--rounds)"
        yield f"No verdict{of}: too few rounds, {min(few)}; {advice}"


def tables(rows: Sequence[Measurement]) -> Iterator[Columns]:
    """A table for each dtype."""
    for dtype in dict.fromkeys(row.dtype for row in rows):
        here = [row for row in rows if row.dtype == dtype]
        own = list(dict.fromkeys(name for row in here for name in row.own))
        peers = list(dict.fromkeys(name for row in here for name in row.peers))
        rates = [name for name in (MILLISECONDS, GFLOPS) if any(name in _rates(row) for row in here)]
        numbers = (*rates, *own, *peers)
        first = (dtype, "", *(peers or own))  # what is compared has room before what is not
        shown = Columns((dtype, "", *numbers), numbers, first=first, needed=3)
        for row in here:
            cells = [_cell(row.own.get(name, "")) for name in own]
            timed = [_rates(row).get(name, "") for name in rates]
            label = row.direction if row.own else f"{row.direction}: {memory.text(int(row.facts['bytes']))}"
            shown.add_row(
                row.problem, label, *timed, *cells, *(_cell(row.peers[name], "x") for name in peers)
            )
        yield shown


def _rates(row: Measurement) -> dict[str, str]:
    """How long refnet takes, and how fast that is."""
    found = {}
    if REFNET in row.seconds:
        found[MILLISECONDS] = _number(1000 * row.seconds[REFNET].median)
    if REFNET in row.gflops:
        found[GFLOPS] = _number(row.gflops[REFNET])
    return found


def means(rows: Sequence[Measurement]) -> Iterator[str]:
    """The geometric mean beside each peer."""
    for dtype, peers in geometric_means(rows).items():
        found = ", ".join(f"{peer} {mean:.2f} x" for peer, mean in peers.items())
        yield f"{dtype}, geometric mean of the medians: {found}"


def machine_lines(machine: Mapping[str, Any], dtypes: Sequence[str]) -> Iterator[str]:
    """The machine's limits, as measured in the run."""
    yield f"{machine['cpu']}, threads {machine['threads']}, micro-kernel {machine['micro_kernel']}"
    yield f"BLAS {'; '.join(machine['blas'])}"
    if machine["blas_chosen"]:
        yield f"OPENBLAS_CORETYPE is {machine['blas_chosen']}: the GEMM may be slower than it could be here"
    yield f"memory {machine['bandwidth'] / 1e9:.1f} GB/s, read and written by a copy"
    for dtype in dtypes:
        found = machine[dtype]
        peak, gemm = found["multiply_add_peak"], found["gemm_rate"]["median"]
        yield (
            f"{dtype}: {peak / 1e9:.1f} G multiply-adds/s in registers, GEMM {gemm / peak:.2f} of that; "
            f"workspace {memory.text(found['workspace_bytes_per_thread'])} a thread"
        )


def peer_lines(peers: Mapping[str, Any]) -> Iterator[str]:
    """Which peers there are, and why others are not."""
    for name, facts in peers.items():
        versions = ", ".join(f"{package} {found}" for package, found in facts["versions"].items())
        yield facts.get("unusable") or f"{name}: {versions}; threads: {facts['threads']}"


def _cell(found: Spread | str, unit: str = "") -> str:
    if isinstance(found, str):
        return found
    space = f" {unit}" if unit else ""
    if len(found.values) == 1:
        return f"{_number(found.median)}{space}"
    return f"{_number(found.median)}{space} ({_number(min(found.values))}-{_number(max(found.values))})"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
