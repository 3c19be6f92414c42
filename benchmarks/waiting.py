"""How long threads that wait look for work before they sleep, on a quiet and on a busy machine.

    python benchmarks/waiting.py [--rounds 3] [--neighbours 0,1,2] [--spins 300000,10000,1000,0]

GNU's OpenMP takes the number from GOMP_SPINCOUNT when it is loaded; 300,000 is its own default, `SPINS` of
refnet/_core/__init__.py is refnet's. A forward pass of resnet18_conv4 in float32, large and small, on all
processors, in a process of its own for each number, in turn; beside so many neighbours, processes that do
nothing but count. Each figure is the median over rounds of the median call, as a multiple of that of the
first number beside nobody. What is computed has the same bits, which is checked first.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from statistics import median

from rich.console import Console
from rich.table import Table

SIZES = {"1x3x8x224x224": 5, "1x3x4x64x64": 30}
CALLS = """
import hashlib, json, sys
from time import perf_counter
import refnet
shape, calls = json.loads(sys.argv[1])
net = refnet.build("resnet18_conv4", input=shape)
given = refnet.fill.params(net, dtype="float32") | refnet.fill.inputs(net, dtype="float32")
def call():
    return refnet.forward(net, given, keep="outputs")
(output,) = call().blobs.values()
times = [perf_counter()]
for _ in range(calls):
    call()
    times.append(perf_counter())
print(json.dumps([hashlib.sha256(output).hexdigest(), [b - a for a, b in zip(times, times[1:])]]))
"""


def measured(size: str, spins: int) -> tuple[str, float]:
    """The hash of what is computed, and the median of its calls in seconds."""
    call = json.dumps([[int(n) for n in size.split("x")], SIZES[size]])
    env = os.environ | {"GOMP_SPINCOUNT": str(spins)}
    run = subprocess.run([sys.executable, "-c", CALLS, call], env=env, check=True, capture_output=True)
    bits, found = json.loads(run.stdout)
    return bits, median(found)


@contextmanager
def beside(neighbours: int):
    """So many processes that take all the time they get."""
    with ExitStack() as stack:
        for _ in range(neighbours):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbours", default="0,1,2")
    parser.add_argument("--spins", default="300000,10000,1000,0")
    options = parser.parse_args()
    several = [int(n) for n in options.neighbours.split(",")]
    spins = [int(n) for n in options.spins.split(",")]
    found, bits = defaultdict(list), defaultdict(set)
    for _ in range(options.rounds):
        for neighbours in several:
            with beside(neighbours):
                for size in SIZES:
                    for number in spins:
                        one, took = measured(size, number)
                        found[size, neighbours, number].append(took)
                        bits[size].add(one)
    if any(len(one) > 1 for one in bits.values()):
        raise SystemExit("the bits differ: nothing is said of time")
    table = Table("input", "neighbours", *(f"{number:,} spins" for number in spins))
    for size in SIZES:
        base = median(found[size, several[0], spins[0]])
        for neighbours in several:
            row = (f"{median(found[size, neighbours, number]) / base:.2f}" for number in spins)
            table.add_row(size, str(neighbours), *row)
    Console().print(table)


if __name__ == "__main__":
    main()
