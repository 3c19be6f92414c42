"""Shapes, cost and gradient flow along a network, as an SVG or PNG made by matplotlib."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from io import BytesIO
from itertools import groupby
from typing import Any

from refnet.errors import RefnetError
from refnet.ops import OPS
from refnet.render.palette import FAMILIES, PANELS, bands
from refnet.trace import Row

# Nodes up to which there is room for their names.
MOST_NAMED = 90
# Of a PNG, an inch.
DOTS = 150
# Endings of files that can be drawn.
KINDS = (".svg", ".png")
STYLE: Any = {
    "svg.hashsalt": "refnet",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.linewidth": 0.6,
    "text.parse_math": False,
}


def require_matplotlib() -> None:
    """Refuse to plot without matplotlib.

    Raises
    ------
    RefnetError
        If it is not installed.
    """
    if find_spec("matplotlib") is None:
        raise RefnetError('plots need matplotlib, which is not installed: pip install "refnet[plots]"')


def drawn(title: str, rows: Sequence[Row], kind: str = "svg") -> bytes:
    """Draw a trace: blob sizes, multiply-adds, parameters, receptive field; where no gradient flows.

    The same trace has the same bytes, with the same matplotlib.

    Parameters
    ----------
    title : str
    rows : sequence of Row
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

    with mpl.rc_context():
        mpl.rcdefaults()  # a person's own settings would change the bytes
        mpl.rcParams.update(STYLE)
        named = len(rows) <= MOST_NAMED
        figure = Figure(figsize=(12, 9.4 if named else 8), layout="constrained")
        figure.suptitle(title, fontsize=13, x=0.01, ha="left", weight="bold")
        panels = figure.subplots(len(PANELS), 1, sharex=True)
        for axes, (label, value) in zip(panels, PANELS, strict=True):
            _panel(axes, label, rows, value)
        _stages(panels[0], rows)
        if named:
            panels[-1].set_xticks(range(len(rows)), [row.name for row in rows], rotation=90, fontsize=6)
        else:
            panels[-1].set_xlabel("node")
        _legend(figure, rows)
        return saved(figure, kind)


def saved(figure: Any, kind: str) -> bytes:
    """A figure as a file, without a date."""
    content = BytesIO()
    figure.savefig(content, format=kind, dpi=DOTS, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def _panel(axes: Any, label: str, rows: Sequence[Row], value: Callable[[Row], int | None]) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_title(label, loc="left", fontsize=9.5)
    axes.set_xlim(-0.75, len(rows) - 0.25)
    axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=2)
    if "field" in label:
        heights = [value(row) for row in rows]
        line = [float("nan") if height is None else height for height in heights]
        axes.step(range(len(rows)), line, where="mid", color="0.25", linewidth=1.2)
        axes.fill_between(range(len(rows)), line, step="mid", color="0.25", alpha=0.08)
        height = rows[0].inputs[0][3]
        axes.axhline(height, color="0.25", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(f"the input, {height}", (0, height), (2, 2), textcoords="offset points", fontsize=7.5)
    for name, (colour, _) in FAMILIES.items():
        at = [(i, value(row)) for i, row in enumerate(rows) if OPS[row.op].family == name]
        if at and "field" not in label:
            axes.bar(*zip(*at, strict=True), width=0.8 if len(rows) <= MOST_NAMED else 1, color=colour)
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    for first, last in _blocked(rows):
        axes.axvspan(first - 0.5, last + 0.5, facecolor="0.5", alpha=0.13, linewidth=0, zorder=0)
    for i, row in enumerate(rows):
        if OPS[row.op].family == "stop":
            axes.axvline(i, color=FAMILIES["stop"][0], linewidth=1.2, zorder=3)
    for _, first, _ in bands(row.name for row in rows)[1:]:
        axes.axvline(first - 0.5, color="0.6", linewidth=0.6, linestyle=(0, (2, 2)))


def _stages(axes: Any, rows: Sequence[Row]) -> None:
    """Name the stages above the first panel."""
    above = axes.secondary_xaxis("top")
    runs = bands(row.name for row in rows)
    above.set_xticks([(first + behind - 1) / 2 for _, first, behind in runs], [stage for stage, _, _ in runs])
    above.tick_params(length=0, pad=1, labelsize=9)
    above.spines["top"].set_visible(False)
    axes.title.set_position((0, 1))


def _legend(figure: Any, rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ops = list(dict.fromkeys(row.op for row in rows))
    handles: list[Any] = []
    for name, (colour, _) in FAMILIES.items():
        here = ", ".join(op for op in ops if OPS[op].family == name)
        if here and name != "stop":
            handles.append(Patch(color=colour, label=here))
    if stops := [op for op in ops if OPS[op].family == "stop"]:
        handles.append(Line2D([], [], color=FAMILIES["stop"][0], label=", ".join(stops)))
    if not all(row.gradient for row in rows):
        handles.append(Patch(facecolor="0.5", alpha=0.13, label="no gradient is computed here"))
    figure.legend(handles=handles, loc="outside lower left", ncols=8, frameon=False, fontsize=8)


def _blocked(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Runs of nodes that no gradient reaches: (first, last)."""
    runs = []
    for gradient, run in groupby(enumerate(rows), key=lambda pair: pair[1].gradient):
        at = [i for i, _ in run]
        if not gradient:
            runs.append((at[0], at[-1]))
    return runs
