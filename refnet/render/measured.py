"""What was measured beside peers, as tables and lines for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from refnet import memory
from refnet.bench.measurement import Measurement, Spread, geometric_means
from refnet.render.columns import Columns

# Sections of what core does beside peers; others have the name of an arithmetic.
OF_CORE = ("convolutions", "operators", "scaling", "nets")
NOTE = "Peers: their time, or memory, over refnet's, above 1 where refnet is better: median (least-most)."


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


def tables(rows: Sequence[Measurement]) -> Iterator[Columns]:
    """A table for each dtype."""
    for dtype in dict.fromkeys(row.dtype for row in rows):
        here = [row for row in rows if row.dtype == dtype]
        own = list(dict.fromkeys(name for row in here for name in row.own))
        peers = list(dict.fromkeys(name for row in here for name in row.peers))
        shown = Columns((dtype, "", *own, *peers), numbers=(*own, *peers), needed=3)
        for row in here:
            cells = [_cell(row.own.get(name, "")) for name in own]
            label = row.direction if row.own else f"{row.direction}: {memory.text(int(row.facts['bytes']))}"
            shown.add_row(row.problem, label, *cells, *(_cell(row.peers[name], "x") for name in peers))
        yield shown


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
