"""What exact arithmetic costs: the tables of docs/exact.md.

    python benchmarks/exact.py [--input 1x3x8x224x224] [--rounds 3] [--threads N] [--json FILE]

resnet18_conv4, bottleneck and basic, time kernel 3, freeze_at 2 (docs/performance.md has that, too),
forward and backward, only outputs and what backward needs kept: `exact` beside `core` in float64, and
beside PyTorch's float64 where that is installed. What each computes is compared first. Then all take turns,
and a ratio is the median over rounds of two calls of one round. Each peak of memory is that of a process of
its own. How many elements needed integers is counted in the run that is compared.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import psutil

import refnet
from refnet.arithmetic.exact.fallback import Count
from refnet.arrays import Array
from refnet.bench.agreement import check, require_close, roundoff
from refnet.bench.peak import largest
from refnet.bench.peers import PEERS
from refnet.bench.threads import limited
from refnet.timing import seconds

NETS = ("bottleneck", "basic")
# An arithmetic of refnet's, or a peer, in a dtype.
SIDES = (("exact", "float32"), ("core", "float64"), ("exact", "float64"), ("torch", "float64"))
BASE = ("core", "float64")
# A net of some ten layers whose operators are rightly rounded, or nearly, is as far off as so many roundoffs.
APART = 2**12


@dataclass(frozen=True)
class Problem:
    """A net, what is given, and where backward starts from."""

    net: refnet.Net
    given: dict[str, Array]
    dys: dict[str, Array]


def problem(transformation: str, input: tuple[int, ...], dtype: str) -> Problem:
    """The network, seeded."""
    net = refnet.build(
        "resnet18_conv4", input=input, transformation=transformation, time_kernel=3, freeze_at=2
    )
    given = refnet.fill.params(net, dtype=dtype) | refnet.fill.inputs(net, dtype=dtype)
    return Problem(net, given, refnet.fill.output_gradients(net, dtype=dtype))


def step(side: tuple[str, str], found: Problem, threads: int, counts=None) -> Callable[[], dict[str, Array]]:
    """Forward and backward, of one side."""
    who, _ = side
    if who in PEERS:
        return PEERS[who].train(threads, found.net, found.given, found.dys)

    def call() -> dict[str, Array]:
        run = refnet.forward(found.net, found.given, who, keep="outputs")
        gradients = refnet.backward(run, found.dys)
        if counts is not None:
            add_counts(counts, found.net, run.fallbacks, gradients.fallbacks)
        return run.blobs | {f"gradient of {name}": gradient for name, gradient in gradients.items()}

    return call


def add_counts(counts, net, *fallbacks) -> None:
    """Add what was counted node by node, by operator and what it computes."""
    ops = {node.name: node.op for node in net.nodes}
    for some in fallbacks:
        for name, by_what in some.items():
            for what, count in by_what.items():
                op = ("gradients that meet", "sum") if what == "sum" else (ops.get(name, ""), what)
                counts[op].elements += count.elements
                counts[op].undecided += count.undecided


def compare(transformation, input, threads, sides):
    """Refuse results that differ by more than rounding; return what was counted, by dtype."""
    counts = {dtype: defaultdict(Count) for dtype in ("float32", "float64")}
    base = step(BASE, problem(transformation, input, BASE[1]), threads)()
    for who, dtype in sides:
        if (who, dtype) != BASE:
            found = step((who, dtype), problem(transformation, input, dtype), threads, counts[dtype])()
            what = f"{who}, {dtype}, {transformation}"
            bound = APART * roundoff(dtype)
            check(what, base, {name: a.astype("float64") for name, a in found.items()}, require_close(bound))
    return counts


def peak(side, transformation, input, threads) -> int:
    """Bytes that a process of its own held at most, less what it held before."""
    request = json.dumps([side, transformation, input, threads])
    done = subprocess.run(
        [sys.executable, __file__, "--peak", request], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def peak_of(request: str) -> None:
    """What `peak` runs."""
    side, transformation, input, threads = json.loads(request)
    with limited(threads):
        call = step(tuple(side), problem(transformation, input, side[1]), threads)
        before = psutil.Process().memory_info().rss
        call()
    print(largest() - before)


def ratio_text(values) -> str:
    """A median, and the smallest and largest in brackets."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(transformation, input, threads, rounds, sides):
    """Counts, seconds of each side in each round, and peaks."""
    with limited(threads):
        counts = compare(transformation, input, threads, sides)
        calls = {side: step(side, problem(transformation, input, side[1]), threads) for side in sides}
        taken = {side: [] for side in sides}
        for _ in range(rounds):
            for side in sides:
                taken[side].append(seconds(calls[side], least=1))
    peaks = {side: peak(side, transformation, input, threads) for side in sides}
    return counts, taken, peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", default="1x3x8x224x224")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak_of(arguments.peak)
        return
    input = tuple(map(int, arguments.input.split("x")))
    sides = [side for side in SIDES if side[0] not in PEERS or find_spec(side[0])]
    found = {t: measure(t, input, arguments.threads, arguments.rounds, sides) for t in NETS}
    print(f"resnet18_conv4, time kernel 3, freeze_at 2, {arguments.input}, {arguments.threads} threads\n")
    print("| | beside | " + " | ".join(f"{t}: time | peak memory" for t in NETS) + " |")
    print("|---|---|" + "--:|" * (2 * len(NETS)))
    for side in sides:
        for other in (BASE, ("torch", "float64")):
            if other not in sides or side == other or (side[0] == "torch"):
                continue
            cells = []
            for _, taken, peaks in found.values():
                cells.append(ratio_text([a / b for a, b in zip(taken[side], taken[other], strict=True)]))
                cells.append(f"{peaks[side] / peaks[other]:.2f}")
            print(f"| {' '.join(side)} | {' '.join(other)} | {' | '.join(cells)} |")
    print("\n| operator | computes | " + " | ".join(f"{t}: float32 | float64" for t in NETS) + " |")
    print("|---|---|" + "--:|" * (2 * len(NETS)))
    for key in sorted({key for counts, *_ in found.values() for by_op in counts.values() for key in by_op}):
        shares = [by_op[key] for counts, *_ in found.values() for by_op in counts.values()]
        cells = [f"{100 * c.undecided / max(1, c.elements):.4f} %" if c.undecided else "0" for c in shares]
        print(f"| {key[0]} | {key[1]} | {' | '.join(cells)} |")
    if arguments.json:
        record = {
            t: {
                "seconds": {" ".join(side): times for side, times in taken.items()},
                "peaks": {" ".join(side): size for side, size in peaks.items()},
            }
            for t, (_, taken, peaks) in found.items()
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
