"""Core convolution beside PyTorch's in one run, all directions: ``python benchmarks/against_torch.py``.

Both get the same arrays and the same number of threads. Before anything is timed, both must be exact
on small whole numbers, whose sums every order and precision gets right. Then they run in turn, and the
ratio is taken pair by pair, so that it holds when the machine's speed drifts. The rate of a large GEMM
of SciPy's BLAS, measured in the same run between the problems, says what is possible.
"""

import argparse
import json
import os
import platform
from statistics import geometric_mean, median
from time import perf_counter

import numpy as np
import torch
from problems import CONV3D
from rich.console import Console
from rich.table import Table
from scipy.linalg import blas
from threadpoolctl import threadpool_limits

from refnet.arithmetic import core
from refnet.fill import uniform
from refnet.ops import OPS

GEMM_SIZE = 2048
DIRECTIONS = ("forward", "dx", "dw")


def seconds(call):
    start = perf_counter()
    call()
    return perf_counter() - start


def gemm_rate(dtype):
    """Multiply-adds a second of a square GEMM, the best of several."""
    gemm = blas.dgemm if dtype == "float64" else blas.sgemm
    a = np.asfortranarray(uniform("gemm", (GEMM_SIZE, GEMM_SIZE), 0).astype(dtype))
    return GEMM_SIZE**3 / min(seconds(lambda: gemm(1.0, a, a)) for _ in range(3))


def calls(case, x, w, dy):
    """For each direction, what core and what PyTorch call."""
    stride, pad = case.attrs.get("stride", (1, 1, 1)), case.attrs.get("pad", (0, 0, 0))
    groups = case.attrs.get("groups", 1)
    tx, tw, tdy = map(torch.from_numpy, (x, w, dy))
    _, context = core.conv3d.forward(x, w, **case.attrs)

    def ours(needs):
        return core.conv3d.backward(dy, context, needs)[needs.index(True)]

    def theirs(mask):
        backward = torch.ops.aten.convolution_backward
        ones, zeros = [1, 1, 1], [0, 0, 0]
        found = backward(tdy, tx, tw, None, stride, pad, ones, False, zeros, groups, [*mask, False])
        return found[mask.index(True)].numpy()

    return {
        "forward": (
            lambda: core.conv3d.forward(x, w, **case.attrs)[0],
            lambda: torch.conv3d(tx, tw, None, stride, pad, 1, groups).numpy(),
        ),
        "dx": (lambda: ours((True, False)), lambda: theirs([True, False])),
        "dw": (lambda: ours((False, True)), lambda: theirs([False, True])),
    }


def measure(case, dtype, rounds):
    output = OPS["conv3d"].infer(*case.shapes, **case.attrs)
    shapes = dict(zip(("x", "w", "dy"), (*case.shapes, output), strict=True))
    drawn = {name: uniform(name, shape, 0) for name, shape in shapes.items()}
    whole = {name: np.rint(2 * values).astype(dtype) for name, values in drawn.items()}
    for direction, (ours, theirs) in calls(case, **whole).items():
        if not np.array_equal(ours(), theirs()):
            raise SystemExit(f"{case.name}, {direction}: not exact on whole numbers; nothing is timed")
    multiply_adds = OPS["conv3d"].cost(*case.shapes, itemsize=8, **case.attrs).multiply_adds
    peak = gemm_rate(dtype)
    for direction, (ours, theirs) in calls(case, **{k: v.astype(dtype) for k, v in drawn.items()}).items():
        times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
        ratios = [b / a for a, b in times]
        yield {
            "problem": case.name,
            "direction": direction,
            "faster_than_torch": median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "share_of_gemm": multiply_adds / median(a for a, _ in times) / peak,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with threadpool_limits(args.threads):
        rows = [row for case in CONV3D for row in measure(case, args.dtype, args.rounds)]
    mean = geometric_mean(row["faster_than_torch"] for row in rows)
    if args.json:
        print(json.dumps({"dtype": args.dtype, "threads": args.threads, "geomean": mean, "rows": rows}))
        return
    table = Table("conv3d", "direction", box=None)
    for column in ("x faster than PyTorch", "least", "most", "share of the GEMM rate"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = [row["faster_than_torch"], row["least"], row["most"], row["share_of_gemm"]]
        table.add_row(row["problem"], row["direction"], *(f"{number:.2f}" for number in numbers))
    console = Console(width=120)
    console.print(table)
    console.print(
        f"\n{args.dtype}, {args.threads} threads, geometric mean {mean:.2f} x; medians of {args.rounds} "
        f"pairs; PyTorch {torch.__version__}, Python {platform.python_version()}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
