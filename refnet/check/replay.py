"""One call computed again with a mistake in it: the primitives of replays.

A replay is a function of a `Call`. What it returns for the call itself are the values that the mistake would
give; for the call *in magnitudes*, whose results are the sums of the magnitudes of what is added up, it
returns what bounds the rounding of these values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from refnet.arrays import INTEGER, Array, wide
from refnet.cached import cached_property
from refnet.check.bounds import Bound, bound
from refnet.check.compare import beyond
from refnet.check.judge import Judge
from refnet.check.locate import axes_of
from refnet.op import OUTPUT, Magnitude
from refnet.shapes import Geometry, Shape

# Products of a call from which on it is replayed in part, and of how many such a part has.
LARGE, PART = 2 * 10**8, 5 * 10**7
# Bounds within which a replayed value is near, whatever is judged of it.
MANY = 64
# Roundings of a replay beside those of the operator.
OWN = 4


class Part(NamedTuple):
    """Some filters of each group, or some channels: what a large convolution is replayed on.

    Attributes
    ----------
    of : {"filters", "channels"}
    groups : int
    first, kept : int
        Within each group.
    total : int
        How many a group has.
    """

    of: Literal["filters", "channels"]
    groups: int
    first: int
    kept: int
    total: int

    def cut(self, name: str, array: Array) -> Array:
        """The part of x, w, b, dy or y, and of gradients."""
        axis = {
            "filters": {"w": 0, "b": 0, "dy": 1, "y": 1},
            "channels": {"x": 1, "w": 1},
        }[self.of].get(name)
        if axis is None:
            return array
        groups = 1 if self.of == "channels" and name == "w" else self.groups
        shape = (*array.shape[:axis], groups, self.total, *array.shape[axis + 1 :])
        place = (slice(None),) * (axis + 1)
        chosen = array.reshape(shape)[*place, self.first : self.first + self.kept]
        return chosen.reshape(*array.shape[:axis], groups * self.kept, *array.shape[axis + 1 :])

    def __str__(self) -> str:
        return f"{self.groups * self.kept} of {self.groups * self.total} {self.of}"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call whose result is explained.

    Attributes
    ----------
    judge : Judge
    kind : int
        OUTPUT, or which input's gradient it is.
    arrays : dict of str to ndarray
        The inputs by name, in float64.
    dy : ndarray, optional
        In float64.
    found : ndarray
        The result, as it was found.
    part : Part, optional
        What is replayed of it.
    measures : bool
        Whether results are magnitudes.
    typical : ndarray, optional
        What an honest error does not exceed, in units of the magnitude of the result: taken where it is less
        than B.
    slack : ndarray, optional
        How far the found values may be from what was found, where they are the difference of two arrays.
    """

    judge: Judge
    kind: int
    arrays: Mapping[str, Array]
    dy: Array | None
    found: Array
    part: Part | None = None
    measures: bool = False
    typical: Array | None = None
    slack: Array | None = None

    @classmethod
    def of_judge(
        cls,
        judge: Judge,
        kind: int,
        found: Array,
        dy: Array | None,
        typical: Array | None = None,
        slack: Array | None = None,
    ) -> "Call":
        """The call that a judge judges; in part, if it is large."""
        values = [a if a.dtype == INTEGER else wide(a) for a in judge.arrays]
        names = dict(zip(parameters(judge), values, strict=False))
        given = None if dy is None else wide(dy)
        call = cls(judge=judge, kind=kind, arrays=names, dy=given, found=found, typical=typical, slack=slack)
        return replace(call, part=_part(call))

    @cached_property
    def subject(self) -> str:
        """The name of the input whose gradient it is; "y" for the output."""
        return "y" if self.kind == OUTPUT else list(self.arrays)[self.kind]

    @property
    def title(self) -> str:
        """Its name for people: y, dx."""
        return "y" if self.kind == OUTPUT else f"d{self.subject}"

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """What the axes of the result are called."""
        return axes_of(self.judge.op, self.kind, self.found.ndim)

    def axes_of(self, name: str) -> tuple[str, ...]:
        """What the axes of an input, of dy or of y are called."""
        index = OUTPUT if name in ("y", "dy") else list(self.arrays).index(name)
        return axes_of(self.judge.op, index, self[name].ndim)

    def __getitem__(self, name: str) -> Array:
        """An input, or dy."""
        if name != "dy":
            return self.arrays[name]
        assert self.dy is not None, "of an output there is no dy"
        return np.abs(self.dy) if self.measures else self.dy

    @property
    def positive_dy(self) -> Array:
        """Where dy, not its magnitude, is positive."""
        assert self.dy is not None, "of an output there is no dy"
        return self.dy > 0

    def has(self, *names: str) -> bool:
        """Whether the call was given all these inputs; "dy" for a gradient."""
        return all(name in self.arrays or (name == "dy" and self.dy is not None) for name in names)

    def attribute(self, name: str) -> Any:
        """An attribute, given or not; None where the operator has none of that name."""
        return self.judge.attrs.get(name, self.default(name))

    def default(self, name: str) -> Any:
        """The default of an attribute; None where there is none."""
        parameter = signature(self.judge.op.infer).parameters.get(name)
        return None if parameter is None or parameter.default is parameter.empty else parameter.default

    @cached_property
    def output_shape(self) -> Shape:
        """The shape of y."""
        return self.judge.op.output_shape(tuple(a.shape for a in self.arrays.values()), self.judge.attrs)

    @cached_property
    def window(self) -> Geometry | None:
        """The window that slides over T, H and W."""
        shapes = [a.shape for a in self.arrays.values()]
        make = self.judge.op.window
        return None if make is None else make(*shapes, **self.judge.attrs)

    @cached_property
    def right(self) -> Array:
        """What the call should have made; all of it, even where replays are of a part."""
        return (self._sizes if self.measures else self._values)(
            self.arrays, self.judge.attrs, self["dy"] if self.has("dy") else None
        )

    @property
    def sizes(self) -> Array:
        """The magnitude of the right result."""
        return self.in_magnitudes.right

    @cached_property
    def terms(self) -> int:
        """How many terms an element of the right result has at most."""
        op = self.judge.op
        if self.kind == OUTPUT:
            return int((op.norms or op.magnitude)(*self.arrays.values(), **self.judge.attrs).terms.max())
        magnitudes = (op.gradient_norms or op.gradient_magnitude)(
            self.dy, *self.arrays.values(), needs=self._needs(), **self.judge.attrs
        )
        return int(_present(magnitudes[self.kind]).terms.max())

    @cached_property
    def wrong(self) -> Array:
        """Which elements are further from the right ones than two bounds, as replays are judged."""
        return beyond(self.found, self.right, self.bound(self.sizes, 0.0))

    @cached_property
    def near(self) -> Array:
        """Many bounds of the right result."""
        one = self.bound(self.sizes, 0.0)
        return np.broadcast_to(MANY * one.absolute, self.found.shape)

    @cached_property
    def in_magnitudes(self) -> "Call":
        """The same call, whose results are magnitudes."""
        return replace(self, measures=True)

    def of(
        self,
        changed: Mapping[str, Array] | None = None,
        *,
        attrs: Mapping[str, Any] | None = None,
        about: str | None = None,
    ) -> Array:
        """The result of the call with other inputs, dy or attributes, or another input's gradient.

        Parameters
        ----------
        changed : dict, optional
            Inputs by name, and dy, that differ.
        attrs : dict, optional
            Attributes that differ.
        about : str, optional
            The input whose gradient is wanted instead.
        """
        call = self if about is None else replace(self, kind=list(self.arrays).index(about))
        changed = changed or {}
        arrays = {name: changed.get(name, array) for name, array in self.arrays.items()}
        dy = changed.get("dy", self["dy"] if self.has("dy") else None)
        if self.part is not None:
            arrays = {name: self.part.cut(name, array) for name, array in arrays.items()}
            dy = None if dy is None else self.part.cut("dy", dy)
        given = {**self.judge.attrs, **(attrs or {})}
        return (call._sizes if self.measures else call._values)(arrays, given, dy)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What a replay of it all, and one of the part, have for shapes."""
        whole = self.found.shape
        return (whole,) if self.part is None else (whole, self.part.cut(self.subject, self.found).shape)

    def cut(self, array: Array, shape: Shape) -> Array:
        """All of an array that is like the result, or the part, whichever has that shape."""
        if array.shape == shape or self.part is None:
            return array
        return self.part.cut(self.subject, array)

    def bound(self, sum_abs: Array, stored: float) -> Bound:
        """How far the found values may be from replayed ones: B of both, for both are computed.

        Parameters
        ----------
        sum_abs : ndarray
            Of the replayed call.
        stored : float
            The unit roundoff of a format in which results were stored, beside the claimed one; 0 for none.
        """
        count = np.full((), self.terms + OWN, np.int64)
        one = bound(Magnitude(np.abs(sum_abs), count), self.judge.claim)
        absolute = 2 * one.absolute
        if self.typical is not None:
            absolute = np.minimum(absolute, 2 * self.cut(self.typical, sum_abs.shape) * np.abs(sum_abs))
        if self.slack is not None:
            absolute = absolute + self.cut(self.slack, sum_abs.shape)
        return Bound(absolute, 2 * one.relative + stored)

    def _needs(self) -> tuple[bool, ...]:
        return tuple(i == self.kind for i in range(len(self.arrays)))

    def _values(self, arrays: Mapping[str, Array], attrs: Mapping[str, Any], dy: Array | None) -> Array:
        door = self.judge.oracle[self.judge.op.name]
        y, context = door.forward(*arrays.values(), **attrs)
        if self.kind == OUTPUT:
            return y
        assert dy is not None, "a gradient is that of a dy"
        return _present(door.backward(dy, context, self._needs())[self.kind])

    def _sizes(self, arrays: Mapping[str, Array], attrs: Mapping[str, Any], dy: Array | None) -> Array:
        """The sums of magnitudes; of products, those that the oracle itself makes of magnitudes."""
        op = self.judge.op
        if op.family == "product":
            return self._values({name: np.abs(a) for name, a in arrays.items()}, attrs, dy)
        if self.kind == OUTPUT:
            return op.magnitude(*arrays.values(), **attrs).sum_abs
        found = op.gradient_magnitude(dy, *arrays.values(), needs=self._needs(), **attrs)
        return _present(found[self.kind]).sum_abs


Found = TypeVar("Found")


def _present(gradient: Found | None) -> Found:
    """A gradient, or its magnitude, of what has one."""
    assert gradient is not None, "what has no gradient is not explained"
    return gradient


def parameters(judge: Judge) -> list[str]:
    """The names of an operator's inputs."""
    every = signature(judge.op.infer).parameters.values()
    return [parameter.name for parameter in every if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _part(call: Call) -> Part | None:
    """What to replay of a convolution of very many products, with its worst filter or channel in it."""
    shapes = [a.shape for a in call.arrays.values()]
    products = call.judge.op.cost(*shapes, itemsize=8, **call.judge.attrs).multiply_adds
    if call.window is None or not call.has("x", "w") or products < LARGE:
        return None
    groups = call.attribute("groups")
    of: Literal["filters", "channels"] = "filters" if call.subject in ("y", "w") else "channels"
    total = call["w"].shape[0] // groups if of == "filters" else call["w"].shape[1]
    count = min(total, max(1, total * PART // products))
    axis = {"y": 1, "w": 0, "x": 1}.get(call.subject)
    first = 0
    if axis is not None:
        off = np.abs(np.nan_to_num(call.found - call.right, nan=np.inf))
        worst = int(np.argmax(off.max(axis=tuple(i for i in range(off.ndim) if i != axis))))
        first = min(worst % total, total - count)
    return Part(of, groups, first, count, total)
