"""How far from correctly rounded is ordinary arithmetic? Tables and the figure of docs/exact.md.

    python benchmarks/anatomy.py [--input 1x3x8x112x112] [--figure docs/exact_anatomy.svg] [--json FILE]

A network runs forward and backward in `core`. Each kernel that rounds is called a second time in `exact`,
on the very same arrays: a node's error is its own, and nothing is carried on from one node to the next. An
element's error is how many floating-point numbers of the run's dtype core's value is away from the exact
one, its correctly rounded value: 0 is correctly rounded, 1 its neighbour. Elements that are exactly 0, as
where a ReLU blocks dy, are not counted.

What is drawn (data, parameters, output gradients) is multiplied by pi / 3 and rounded: drawn numbers have
32 bits at most, and sums of such are more often exact in float64 than those of trained parameters.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path

import numpy as np

import refnet
from refnet.arithmetic import Arithmetic, Kernel, core, exact
from refnet.arithmetic.exact import KERNELS, MOVES
from refnet.arrays import Array, ulp_distance
from refnet.ops import OPS

NETS = ("basic", "bottleneck")
DTYPES = ("float32", "float64")
# Distances 0, 1, 2 to 3, 4 to 7, ...: the last bin has all from there on.
BINS = 12
COLOURS = {"float32": "#2b6cc4", "float64": "#b04a74"}


@dataclass
class Errors:
    """What was counted: elements by distance, and the largest distance."""

    bins: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    worst: int = 0

    def add(self, ours: Array, right: Array) -> None:
        """Count an array; what is exactly 0 on both sides is not."""
        counted = (right != 0) | (ours != 0)
        distances = ulp_distance(ours, right)[counted]
        if distances.size:
            bins = np.minimum(np.frexp(distances.astype(np.float64))[1], BINS - 1)
            self.bins += np.bincount(bins, minlength=BINS)
            self.worst = max(self.worst, int(distances.max()))

    def within(self, bin: int) -> float:
        """The share of elements in the bins up to this one."""
        return float(self.bins[: bin + 1].sum() / self.bins.sum())


Found = dict[tuple[str, str], Errors]


def compared(found: Found) -> Arithmetic:
    """An arithmetic that hands on what core computes, and counts how far from exact that is."""

    def kernel(op: str) -> Kernel:
        ours, right = core.kernels[op], exact.kernels[op]
        names = [f"d{name}" for name in signature(OPS[op].infer).parameters]

        def forward(*arrays, **attrs):
            y, context = ours.forward(*arrays, **attrs)
            exact_y, exact_context = right.forward(*arrays, **attrs)
            found[op, "y"].add(y, exact_y)
            return y, (context, exact_context)

        def backward(dy, contexts, needs):
            gradients = ours.backward(dy, contexts[0], needs)
            exact_gradients = right.backward(dy, contexts[1], needs)
            for name, need, one, other in zip(names, needs, gradients, exact_gradients, strict=False):
                if need:
                    found[op, name].add(one, other)
            return gradients

        return Kernel(forward, backward)

    def total(arrays):
        added = core.total(arrays)
        found["gradients that meet", "sum"].add(added, exact.total(arrays))
        return added

    kernels = core.kernels | {op: kernel(op) for op in KERNELS if op not in MOVES}
    return Arithmetic("core, compared with exact", kernels, total=total)


def full(drawn: Array) -> Array:
    """Numbers about as large that use all bits of their dtype."""
    return (drawn * np.float64(np.pi / 3)).astype(drawn.dtype)


def measure(transformation: str, input: tuple[int, ...], dtype: str) -> Found:
    """One network, forward and backward."""
    net = refnet.build(
        "resnet18_conv4", input=input, transformation=transformation, time_kernel=3, freeze_at=0
    )
    given = refnet.fill.params(net, dtype=dtype) | refnet.fill.inputs(net, dtype=dtype)
    dys = refnet.fill.output_gradients(net, dtype=dtype)
    given, dys = ({name: full(value) for name, value in drawn.items()} for drawn in (given, dys))
    found: Found = defaultdict(Errors)
    run = refnet.forward(net, given, compared(found), keep="outputs")
    refnet.backward(run, dys)
    return {key: errors for key, errors in found.items() if errors.bins.sum()}


def share(part: float) -> str:
    """In per cent, and never rounded up to all."""
    percent = 100 * part
    return (
        "100 %" if part == 1 else f"{min(percent, 99.9999):.4f} %" if percent > 99.9 else f"{percent:.1f} %"
    )


def table(found: Mapping[str, Found]) -> str:
    """Markdown: an operator and what it computes a row, where anything is not correctly rounded."""
    head = "| operator | computes | " + " | ".join(
        f"{dtype}: elements | correctly rounded | within 1 | worst" for dtype in DTYPES
    )
    lines = [f"{head} |", "|---|---|" + "--:|" * (4 * len(DTYPES))]
    for key in sorted({key for by_dtype in found.values() for key, e in by_dtype.items() if e.worst}):
        cells = []
        for dtype in DTYPES:
            e = found[dtype][key]
            cells += [f"{e.bins.sum():,}", share(e.within(0)), share(e.within(1)), f"{e.worst:,}"]
        lines.append(f"| {key[0]} | {key[1]} | {' | '.join(cells)} |")
    right = sorted(
        set.intersection(*({k for k, e in some.items() if not e.worst} for some in found.values()))
    )
    return "\n".join(lines) + "\n\nCorrectly rounded everywhere: " + ", ".join(map(" ".join, right)) + "."


def draw(found: Mapping[str, Mapping[str, Found]], title: str, path: Path) -> None:
    """A histogram for each operator and what it computes: shares of elements by their distance."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    counted = [some for by_dtype in found.values() for some in by_dtype.values()]
    keys = sorted({key for some in counted for key, errors in some.items() if errors.worst})
    columns = 4
    rows = -(-len(keys) // columns)
    with mpl.rc_context(
        {"svg.hashsalt": "refnet", "svg.fonttype": "none", "font.size": 9, "axes.linewidth": 0.6}
    ):
        figure = Figure(figsize=(12, 2.5 * rows + 0.6), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(keys) :]:
            axes.set_visible(False)
        for axes, key in zip(panels.flat, keys, strict=False):
            for i, dtype in enumerate(DTYPES):
                bins = sum(by_dtype[dtype][key].bins for by_dtype in found.values() if key in by_dtype[dtype])
                at = np.arange(BINS) + (i - 0.5) * 0.4
                axes.bar(at, bins / bins.sum(), 0.4, color=COLOURS[dtype], label=dtype)
            axes.set_title(" ".join(key), fontsize=9.5, loc="left")
            axes.set_yscale("log")
            axes.set_ylim(1e-6, 2)
            labels = [
                "0",
                "1",
                *(f"{2**n}-{2 ** (n + 1) - 1}" for n in range(1, BINS - 2)),
                f"{2 ** (BINS - 2)}+",
            ]
            axes.set_xticks(range(BINS), labels, rotation=90)
            axes.tick_params(labelbottom=True)
            axes.grid(axis="y", linewidth=0.4, alpha=0.5)
            axes.set_axisbelow(True)
        for axes in panels[:, 0]:
            axes.set_ylabel("share of elements")
        panels.flat[0].legend(frameon=False, fontsize=8.5)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", default="1x3x8x112x112")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    input = tuple(map(int, arguments.input.split("x")))
    found = {t: {dtype: measure(t, input, dtype) for dtype in DTYPES} for t in NETS}
    for transformation, by_dtype in found.items():
        print(f"\nresnet18_conv4, {transformation}, {arguments.input}\n\n{table(by_dtype)}")
    if arguments.figure:
        title = (
            "How far core is from correctly rounded, in floating-point numbers of its dtype: "
            f"resnet18_conv4, {' and '.join(NETS)}, {arguments.input}"
        )
        draw(found, title, arguments.figure)
    if arguments.json:
        record = [
            {"net": t, "dtype": dtype, "op": op, "of": of, "bins": e.bins.tolist(), "worst": e.worst}
            for t, by_dtype in found.items()
            for dtype, some in by_dtype.items()
            for (op, of), e in some.items()
        ]
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
