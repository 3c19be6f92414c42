"""Core's operators beside PyTorch's, forward and backward, in one run: ``python benchmarks/operators.py``.

The sizes are those that occur in the networks at 1x3x8x224x224, a head at 100 tubes, a classifier at a
batch of 32. Results are checked before they are timed; then both run in turn and the ratio is taken
pair by pair. Beside it, for what only moves memory, the time of a copy of as many bytes.
"""

import argparse
import os
from statistics import median
from time import perf_counter

import numpy as np
import torch
import torch_twins
from problems import OPERATORS
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from refnet.arithmetic import core
from refnet.fill import uniform
from refnet.ops import OPS


def seconds(call):
    start = perf_counter()
    call()
    return perf_counter() - start


def arrays(op, case, dtype):
    drawn = []
    for i, shape in enumerate(case.shapes):
        values, draw = uniform(f"{case.name} {i}", shape, 0), OPS[op].domain(i).draw
        values = values if draw is None else draw(values, *case.shapes, **case.attrs)
        drawn.append(values if values.dtype == np.int64 else values.astype(dtype))
    return drawn


def close(ours, theirs, what):
    tolerance = 1e-10 if ours.dtype == np.float64 else 1e-4
    if not np.abs(ours - theirs).max() <= tolerance * max(1, np.abs(theirs).max()):
        raise SystemExit(f"{what}: the results differ by more than rounding; nothing is timed")


def measure(op, case, dtype, rounds):
    given = arrays(op, case, dtype)
    learns = [OPS[op].domain(i).gradient for i in range(len(given))]
    tensors = [torch.from_numpy(a).requires_grad_(g) for a, g in zip(given, learns, strict=True)]
    twin = getattr(torch_twins, op)

    def ours():
        return core[op].forward(*given, **case.attrs)

    def theirs():
        return twin(torch.nn.functional, *tensors, **case.attrs)

    y, context = ours()
    z = theirs()
    close(y, z.detach().numpy(), case.name)
    dy = uniform("dy", y.shape, 0).astype(dtype)
    tdy, wanted = torch.from_numpy(dy), [t for t in tensors if t.requires_grad]

    def our_backward():
        return core[op].backward(dy, context)

    def their_backward():
        return [g.contiguous() for g in torch.autograd.grad(z, wanted, tdy, retain_graph=True)]

    directions = {"forward": (ours, theirs)}
    if z.requires_grad and any(learns):
        directions["backward"] = (our_backward, their_backward)
        ours_now = [g for g in our_backward() if g is not None]
        for a, b in zip(ours_now, their_backward(), strict=True):
            close(a, b.numpy(), f"{case.name}, backward")
    moved = OPS[op].cost(*case.shapes, itemsize=y.itemsize, **case.attrs).bytes
    source, sink = torch.zeros(moved // 2, dtype=torch.uint8), torch.zeros(moved // 2, dtype=torch.uint8)
    for direction, (mine, peer) in directions.items():
        with torch.set_grad_enabled(direction == "backward"):
            times = [
                (seconds(mine), seconds(peer), seconds(lambda: sink.copy_(source))) for _ in range(rounds)
            ]
        ratios = [b / a for a, b, _ in times]
        copies = median(a / c for a, _, c in times)
        yield case.name, direction, median(ratios), min(ratios), max(ratios), copies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table("operator", "direction", box=None)
    for column in ("x faster than PyTorch", "least", "most", "copies"):
        table.add_column(column, justify="right")
    with threadpool_limits(args.threads):
        for op, cases in OPERATORS.items():
            for case in cases:
                for name, direction, *numbers in measure(op, case, args.dtype, args.rounds):
                    table.add_row(name, direction, *(f"{number:.2f}" for number in numbers))
    console = Console(width=110)
    console.print(table)
    console.print(
        f"\n{args.dtype}, {args.threads} threads; medians of {args.rounds} pairs; PyTorch "
        f"{torch.__version__}. Copies: the time over that of\ncopying half of the bytes that it "
        "reads and writes.",
        highlight=False,
    )


if __name__ == "__main__":
    main()
