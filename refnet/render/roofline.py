"""Convolutions under the machine's roofs, as an SVG or PNG made by matplotlib.

A roofline (Williams, Waterman, Patterson, CACM 2009): how fast against how many operations a byte that
is read or written once; no faster than multiply-adds in registers, no faster than memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from refnet.bench.measurement import OPERATIONS, REFNET, Measurement
from refnet.render.figure import STYLE, require_matplotlib, saved
from refnet.render.palette import FAMILIES

COLOURS = {
    REFNET: FAMILIES["product"][0],
    "torch": FAMILIES["stop"][0],
    "jax": FAMILIES["pooling"][0],
    "onnxruntime": FAMILIES["sum"][0],
    "numpy": FAMILIES["other"][0],
}
MARKS = {"forward": "o", "dx": "^", "dw": "s"}
# Marks of one problem stand beside each other, as far from its line as this.
BESIDE = {"forward": 0.985, "dx": 1, "dw": 1.015}


def drawn(rows: Sequence[Measurement], machine: Mapping[str, Any], kind: str = "svg") -> bytes:
    """Draw each convolution, direction and implementation; a panel for each dtype.

    Parameters
    ----------
    rows : sequence of Measurement
    machine : mapping
    kind : {"svg", "png"}

    Returns
    -------
    bytes

    Raises
    ------
    RefnetError
        If matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(12, 1.2 + 6.6 * len(dtypes)), layout="constrained")
        threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
        title = f"3D convolution, {threads} on {machine['cpu']}"
        figure.suptitle(title, fontsize=13, x=0.01, ha="left", weight="bold")
        for axes, dtype in zip(figure.subplots(len(dtypes), 1, squeeze=False)[:, 0], dtypes, strict=True):
            _panel(axes, dtype, [row for row in rows if row.dtype == dtype], machine)
        _legend(figure, rows, machine)
        return saved(figure, kind)


def intensity(row: Measurement) -> float:
    """Operations for each byte of the three arrays, each read or written once."""
    return OPERATIONS * row.facts["multiply_adds"] / row.facts["bytes"]


def rates(row: Measurement, machine: Mapping[str, Any]) -> dict[str, float]:
    """GFLOP/s of refnet and of every peer that was timed: their ratios, times the GEMM's rate of the run."""
    own = row.own["share of GEMM"].median * OPERATIONS * machine[row.dtype]["gemm_rate"]["median"] / 1e9
    timed = {name: cell.median for name, cell in row.peers.items() if not isinstance(cell, str)}
    return {REFNET: own} | {name: own / ratio for name, ratio in timed.items()}


def _panel(axes: Any, dtype: str, rows: Sequence[Measurement], machine: Mapping[str, Any]) -> None:
    problems = list(dict.fromkeys(row.problem for row in rows))
    at = {row.problem: intensity(row) for row in rows}
    points = [rate for row in rows for rate in rates(row, machine).values()]
    peak = OPERATIONS * machine[dtype]["multiply_add_peak"] / 1e9
    gemm = OPERATIONS * machine[dtype]["gemm_rate"]["median"] / 1e9
    memory = machine["bandwidth"] / 1e9
    left, right = min(*at.values(), peak / memory) / 3, max(at.values()) * 1.25
    bottom, top = min(points) / 1.4, max(peak, *points) * 1.6
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    axes.set_title(dtype, loc="left", fontsize=10.5)
    axes.set_ylabel("GFLOP/s")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    roof = {"color": "0.25", "linewidth": 1.2}
    axes.plot([left, peak / memory, right], [left * memory, peak, peak], **roof)
    axes.plot([gemm / memory, right], [gemm, gemm], **roof | {"linestyle": (0, (4, 3))})
    note: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "color": "0.25"}
    knee = peak / memory
    axes.annotate(f"multiply-adds in registers, {peak:.0f}", (knee, peak), xytext=(0, 3), va="bottom", **note)
    axes.annotate(f"GEMM, {gemm:.0f}", (knee, gemm), xytext=(2, -4), va="top", **note)
    label = f"memory, {memory:.0f} GB/s"
    axes.annotate(label, (left, max(left * memory, bottom)), xytext=(8, -2), va="top", **note)
    for row in rows:
        for name, rate in rates(row, machine).items():
            face = COLOURS[name] if name == REFNET else "none"
            axes.plot(
                at[row.problem] * BESIDE[row.direction],
                rate,
                MARKS[row.direction],
                color=COLOURS[name],
                markerfacecolor=face,
                markersize=5.5,
                markeredgewidth=1.1,
                zorder=4 if name == REFNET else 3,
            )
    _columns(axes, problems, at)


def _columns(axes: Any, problems: Sequence[str], at: Mapping[str, float]) -> None:
    """A line for each problem, and below the axis its name, apart from the next one's."""
    from math import log10

    order = sorted(problems, key=lambda problem: at[problem])
    low, high = (log10(limit) for limit in axes.get_xlim())
    places = [(log10(at[problem]) - low) / (high - low) for problem in order]
    apart = 0.019
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + apart)
    places[-1] = min(places[-1], 0.995)
    for i in range(len(places) - 1, 0, -1):
        places[i - 1] = min(places[i - 1], places[i] - apart)
    for problem, place in zip(order, places, strict=True):
        axes.axvline(at[problem], color="0.85", linewidth=0.7, zorder=1)
        start = ((log10(at[problem]) - low) / (high - low), 0)
        axes.annotate(
            problem,
            start,
            (place, -0.075),
            xycoords="axes fraction",
            textcoords="axes fraction",
            rotation=90,
            ha="center",
            va="top",
            fontsize=7,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )
    axes.set_xlabel("operations for each byte", loc="left")
    axes.tick_params(axis="x", pad=1, labelsize=8)


def _legend(figure: Any, rows: Sequence[Measurement], machine: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [name for name in COLOURS if any(name in rates(row, machine) for row in rows)]
    handles: list[Any] = [Patch(color=COLOURS[name], label=name) for name in names]
    for direction, mark in MARKS.items():
        line = Line2D([], [], marker=mark, color="0.35", linestyle="", markerfacecolor="none")
        line.set_label(direction)
        handles.append(line)
    figure.legend(handles=handles, loc="outside lower left", ncols=8, frameon=False, fontsize=8.5)
