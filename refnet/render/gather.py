"""The patch gather, drawn with one character a position; terminal and page both draw from this.

Along an axis, a row of characters says what an output reads; a plane shows one frame of its window.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from refnet.trace.explanation import SlidingAxis

READ, PADDING_READ, VALUE, PADDING, GAP = "●○·░ "
LEGEND = f"{READ} read   {PADDING_READ} read, padding   {VALUE} not read   {PADDING} not read, padding"
# Positions along an axis up to which all are drawn; of longer axes only what is near a read.
MOST_DRAWN = 16
# Fewer positions in a row than this are not worth a gap.
LEAST_LEFT_OUT = 4

Positions = list[int | None]


@dataclass(frozen=True)
class Grid:
    """Characters over positions; None is a gap where positions are left out.

    Attributes
    ----------
    title : str
    columns : list of int or None
        Input positions.
    rows : list of (label, characters)
        A character for each column.
    """

    title: str
    columns: Positions
    rows: list[tuple[str, str]]


def strip(window: SlidingAxis) -> Grid:
    """What the first outputs and the last read along one axis."""
    last = window.output - 1
    outputs: Positions = list(range(window.output))
    everything = range(-window.pad, window.source + window.pad)
    if len(everything) <= MOST_DRAWN and window.output <= MOST_DRAWN // 2:
        columns: Positions = list(everything)
    else:
        outputs = [0, 1, None, last] if last > 2 else outputs
        columns = _near(window, [o for o in outputs if o is not None])
    rows = []
    for o in outputs:
        if o is None:
            rows.append(("⋮", GAP * len(columns)))
        else:
            rows.append((f"out {o}", _marks(window, columns, window.reads(o))))
    return Grid(window.axis, columns, rows)


def planes(windows: tuple[SlidingAxis, ...], output: tuple[int, ...]) -> list[Grid]:
    """The frames that one output reads, each with what is read along H and W."""
    time, height, width = windows
    t, h, w = output
    lines, columns = _near(height, [h], 1), _near(width, [w], 1)
    drawn = []
    for frame in time.reads(t):
        outside = time.is_padding(frame)
        rows = []
        for line in lines:
            if line is None:
                rows.append(("⋮", GAP * len(columns)))
                continue
            reads = width.reads(w) if line in height.reads(h) else []
            marks = _marks(width, columns, reads, outside or height.is_padding(line))
            rows.append((str(line), marks))
        drawn.append(Grid(f"t = {frame}" + (", padding" if outside else ""), columns, rows))
    return drawn


def corner_and_middle(windows: tuple[SlidingAxis, ...]) -> dict[str, tuple[int, ...]]:
    """The output positions that are worth a look."""
    middle = tuple(window.output // 2 for window in windows)
    found: dict[str, tuple[int, ...]] = {"corner": (0, 0, 0)}
    return found | {"middle": middle} if any(middle) else found


def _near(window: SlidingAxis, outputs: Iterable[int], margin: int = 0) -> Positions:
    """Positions around what these outputs read, in order, with a gap where some are left out."""
    wanted = set()
    for o in outputs:
        reads = window.reads(o)
        if len(reads) > MOST_DRAWN // 2:
            reads = reads[: MOST_DRAWN // 4] + reads[-MOST_DRAWN // 4 :]
        whole = window.extent <= MOST_DRAWN // 2
        near = range(reads[0] - margin, reads[-1] + margin + 1) if whole else reads
        wanted |= {i for i in near if -window.pad <= i < window.source + window.pad}
    positions: Positions = []
    for before, i in pairwise((None, *sorted(wanted))):
        if before is not None and i is not None:
            few = i - before <= LEAST_LEFT_OUT
            positions += range(before + 1, i) if few else [None]
        positions.append(i)
    return positions


def _marks(window: SlidingAxis, columns: Positions, reads: list[int], outside: bool = False) -> str:
    def mark(position: int | None) -> str:
        if position is None:
            return GAP
        padding = outside or window.is_padding(position)
        if position in reads:
            return PADDING_READ if padding else READ
        return PADDING if padding else VALUE

    return "".join(map(mark, columns))
