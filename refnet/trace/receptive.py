"""Receptive fields: which positions of an input a node's output position depends on, in T, H and W.

Exact, by integers alone. A position outside the input is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import floor, lcm
from typing import Any

from refnet.errors import require_known
from refnet.net import Net, require_net
from refnet.op import Reach
from refnet.ops import OPS


@dataclass(frozen=True)
class Field:
    """The receptive field along one axis.

    Behind an upsampling, windows differ from one output position to the next, and repeat.

    Attributes
    ----------
    jump : int
        How far the input moves on while the windows go round once.
    windows : tuple of (first, last)
        What output positions 0, 1, ... read, until the same comes again, `jump` further on.
    """

    jump: int
    windows: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Input positions from the first to the last that an output position reads; the most there are."""
        return max(last - first + 1 for first, last in self.windows)

    @property
    def step(self) -> Fraction:
        """How far the input moves from one output position to the next."""
        return Fraction(self.jump, len(self.windows))

    @property
    def offset(self) -> int:
        """The first input position that output position 0 reads; below 0 is padding."""
        return self.windows[0][0]

    def at(self, output: int) -> tuple[int, int]:
        """The first and the last input position that an output position reads."""
        rounds, phase = divmod(output, len(self.windows))
        first, last = self.windows[phase]
        return first + rounds * self.jump, last + rounds * self.jump

    def behind(self, reach: Reach) -> Field:
        """The field of an operator that reads what has this field."""
        turns = Fraction(reach.step) / len(self.windows)
        starts = [floor(o * reach.step) + reach.offset for o in range(turns.denominator)]
        windows = tuple((self.at(start)[0], self.at(start + reach.size - 1)[1]) for start in starts)
        return Field(turns.numerator * self.jump, windows)

    def as_json(self) -> dict[str, Any]:
        """Size, step (a whole number, or text such as "1/2") and offset."""
        step = self.step.numerator if self.step.denominator == 1 else str(self.step)
        return {"size": self.size, "step": step, "offset": self.offset}


# Along T, H and W; None: the whole axis.
Fields = tuple[Field | None, Field | None, Field | None]
ITSELF = Field(1, ((0, 0),))


def receptive_fields(net: Net, source: str = "data") -> dict[str, Fields]:
    """Find the receptive field of every node that depends on one input.

    Where paths meet, it is what either reads. Paths that move at different steps have no common
    window: the whole axis.

    Parameters
    ----------
    net : Net
    source : str
        An input of the net.

    Returns
    -------
    dict of str to (T, H, W)
        A Field for each axis, or None for the whole of it.

    Raises
    ------
    UnknownNameError
        If the net has no such input.
    """
    require_net(net)
    require_known("input", source, net.inputs)
    found: dict[str, Fields] = {source: (ITSELF, ITSELF, ITSELF)}
    for node in net.nodes:
        read = [found[name] for name in node.inputs if name in found]
        if read:
            reaches = OPS[node.op].reaches(*map(net.shape, node.inputs), **node.attrs)
            t, h, w = (
                None if reach is None else _behind(reduce(_either, along), reach)
                for reach, along in zip(reaches, zip(*read, strict=True), strict=True)
            )
            found[node.name] = t, h, w
    return found


def text(fields: Fields) -> str:
    """Write the sizes as people do: ``5x99x99``, ``1 x all x all``, ``all``."""
    if fields == (None, None, None):
        return "all"
    sizes = ["all" if field is None else str(field.size) for field in fields]
    return (" x " if "all" in sizes else "x").join(sizes)


def fields_as_json(fields: Fields | None) -> dict[str, Any] | None:
    """Size, step and offset by axis, or "all"; None where nothing of the input is read."""
    if fields is None:
        return None
    return {
        axis: "all" if field is None else field.as_json() for axis, field in zip("THW", fields, strict=True)
    }


def _behind(field: Field | None, reach: Reach) -> Field | None:
    return None if field is None else field.behind(reach)


def _either(a: Field | None, b: Field | None) -> Field | None:
    if a is None or b is None or a.step != b.step:
        return None
    outputs = range(lcm(len(a.windows), len(b.windows)))
    both = [(a.at(o), b.at(o)) for o in outputs]
    windows = tuple((min(x[0], y[0]), max(x[1], y[1])) for x, y in both)
    return Field(int(a.step * len(outputs)), windows)
