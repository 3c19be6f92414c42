"""Core convolution beside PyTorch's, forward, in one run: ``python benchmarks/against_torch.py``.

Both get the same arrays and the same number of threads. Results are checked before they are timed:
both must lie within the rounding bound of a sum of K products, twice gamma_K apart at most. Then
they run in turn, and the ratio is taken pair by pair, so that it holds when the machine's speed
drifts. The rate of a large GEMM of the same BLAS, measured in the same run, says what is possible.
"""

import argparse
import json
import os
import platform
from statistics import median
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


def seconds(call):
    start = perf_counter()
    call()
    return perf_counter() - start


def gemm_rate(dtype):
    """Multiply-adds a second of a square GEMM, the best of several."""
    gemm = blas.dgemm if dtype == "float64" else blas.sgemm
    a = np.asfortranarray(uniform("gemm", (GEMM_SIZE, GEMM_SIZE), 0).astype(dtype))
    return GEMM_SIZE**3 / min(seconds(lambda: gemm(1.0, a, a)) for _ in range(5))


def check(case, x, w, ours, theirs):
    unit = np.finfo(x.dtype).eps / 2
    magnitude = OPS["conv3d"].magnitude(x, w, **case.attrs)
    gamma = magnitude.terms * unit / (1 - magnitude.terms * unit)
    if not (np.abs(ours - theirs) <= 2 * gamma * magnitude.sum_abs).all():
        raise SystemExit(f"{case.name}: the results differ by more than rounding; nothing is timed")


def measure(case, dtype, rounds, peak):
    x, w = (uniform(name, shape, 0).astype(dtype) for name, shape in zip("xw", case.shapes, strict=True))
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    stride, pad = case.attrs.get("stride", 1), case.attrs.get("pad", 0)

    def ours():
        return core.conv3d.forward(x, w, **case.attrs)[0]

    def theirs():
        return torch.conv3d(tx, tw, None, stride, pad)

    check(case, x, w, ours(), theirs().numpy())
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratios = [b / a for a, b in times]
    multiply_adds = OPS["conv3d"].cost(*case.shapes, itemsize=8, **case.attrs).multiply_adds
    return {
        "problem": case.name,
        "faster_than_torch": median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "share_of_gemm": multiply_adds / median(a for a, _ in times) / peak,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with threadpool_limits(args.threads):
        peak = gemm_rate(args.dtype)
        rows = [measure(case, args.dtype, args.rounds, peak) for case in CONV3D]
    mean = float(np.exp(np.mean([np.log(row["faster_than_torch"]) for row in rows])))
    if args.json:
        print(json.dumps({"dtype": args.dtype, "threads": args.threads, "geomean": mean, "rows": rows}))
        return
    table = Table("conv3d forward", box=None)
    for column in ("x faster than PyTorch", "least", "most", "share of the GEMM rate"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = [row["faster_than_torch"], row["least"], row["most"], row["share_of_gemm"]]
        table.add_row(row["problem"], *(f"{number:.2f}" for number in numbers))
    console = Console(width=110)
    console.print(table)
    console.print(
        f"\n{args.dtype}, {args.threads} threads, geometric mean {mean:.2f} x; medians of {args.rounds} "
        f"pairs; PyTorch {torch.__version__}, Python {platform.python_version()}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
