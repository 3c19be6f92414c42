"""What a check of any function judges: f and vjp at some arrays, and what is noticed when they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refnet.arrays import REAL, Array, at_the_door, seen_by_numpy, stored_in, wide
from refnet.check.bounds import unit
from refnet.check.foreign import Convert, Function, Outputs, converter
from refnet.environment import errstate
from refnet.errors import DTypeError, ShapeError, ValueRangeError, brief, kind_of
from refnet.shapes import text


@dataclass
class Subject:
    """What is judged, and what was noticed.

    Attributes
    ----------
    function : Function
        f at the arrays.
    vjp : callable
    names, values, converters : list
        Of the arrays: what they are called, NumPy's of the same values, what makes those the caller's kind.
    outputs : Outputs
        What f returned.
    dy : list of ndarray
        The gradient of each output.
    weights : (m,) ndarray of float64
        All elements of dy.
    spoilt : str
        Why no derivative of f can be found at all; empty if it can.
    options : str
        The arguments with which to check again.
    causes : dict of int to str
        What is wrong with an array's gradient, whatever its values.
    """

    function: Function
    vjp: Callable[..., Any]
    names: list[str]
    values: list[Array]
    converters: list[Convert]
    outputs: Outputs
    dy: list[Array]
    weights: Array
    spoilt: str
    options: str
    causes: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        f: Callable[..., Any],
        vjp: Callable[..., Any],
        arrays: Sequence[Any],
        names: Sequence[str] | None,
        dy: Any,
        seed: int,
    ) -> Subject:
        """Take everything through the door, and call f twice."""
        if not isinstance(arrays, tuple | list):
            raise DTypeError(f"arrays is {kind_of(arrays)}: expected a list or tuple of arrays")
        named = [f"array {k}" for k in range(len(arrays))] if names is None else list(names)
        if len(named) != len(arrays) or len(set(named)) < len(named):
            raise ValueRangeError(f"names is {brief(names)}: expected {len(arrays)} different names")
        values = [_value(name, array) for name, array in zip(named, arrays, strict=True)]
        if not any(value.dtype in REAL for value in values):
            raise ValueRangeError("arrays has none of float32 or float64: expected one at least")
        converters = [converter(name, array) for name, array in zip(named, arrays, strict=True)]
        function = Function(f, values, converters)
        outputs, changed = function.outputs()
        given, weights = _output_gradients(outputs, dy, seed)
        again, _ = function.outputs()
        spoilt = _spoilt(outputs, again, weights)
        options = f"{'' if dy is None else 'dy=dy, '}seed={seed}"
        subject = cls(function, vjp, named, values, converters, outputs, given, weights, spoilt, options)
        subject.causes.update((k, f"f changes {named[k]} in place") for k in changed)
        return subject

    @property
    def real(self) -> list[int]:
        """Which arrays have a gradient."""
        return [k for k, value in enumerate(self.values) if value.dtype in REAL]

    @property
    def y(self) -> Array:
        """The values of f, (m,) float64."""
        return self.outputs.vector

    @property
    def dtype(self) -> str:
        """The coarsest among arrays and outputs."""
        every = [self.values[k] for k in self.real] + list(self.outputs.arrays)
        return max((array.dtype.name for array in every), key=unit)

    def again(self, name: str) -> str:
        """A line of Python that judges an array again."""
        return f"refnet.gradcheck.check(f, vjp, arrays, {self.options}).verdicts[{name!r}]"

    def gradients(self) -> dict[int, Array]:
        """What vjp returns, by array.

        Raises
        ------
        DTypeError, ShapeError
            If it is not one gradient of the dtype and shape of each array.
        """
        first, second = self._call_vjp(), self._call_vjp()
        for k in first:
            if first[k].tobytes() != second[k].tobytes() and not self.spoilt:
                self.spoilt = f"vjp is not deterministic: two calls differ in the gradient of {self.names[k]}"
        return first

    def _call_vjp(self) -> dict[int, Array]:
        copies = [value.copy() for value in self.values]
        dys = [np.array(part) for part in self.dy]
        given = [convert(part) for convert, part in zip(self.outputs.converters, dys, strict=True)]
        with errstate(all="ignore"):
            returned = self.vjp(
                given[0] if self.outputs.single else tuple(given),
                *(convert(copy) for convert, copy in zip(self.converters, copies, strict=True)),
            )
        for k, (copy, value) in enumerate(zip(copies, self.values, strict=True)):
            if copy.tobytes() != value.tobytes():
                self.causes[k] = f"vjp changes {self.names[k]} in place"
        if any(a.tobytes() != b.tobytes() for a, b in zip(dys, self.dy, strict=True)):
            self.causes.update((k, "vjp changes dy in place") for k in self.real)
        if not isinstance(returned, tuple | list):
            if len(copies) > 1:
                kind = kind_of(returned)
                raise DTypeError(f"vjp returned {kind}: expected a tuple of {len(copies)} gradients")
            returned = (returned,)
        if len(returned) != len(copies):
            raise ShapeError(f"vjp returned {len(returned)} gradients: expected {len(copies)}, one an array")
        return {k: self._gradient(k, returned[k]) for k in self.real}

    def _gradient(self, k: int, returned: Any) -> Array:
        value, name = self.values[k], f"the gradient of {self.names[k]}"
        if returned is None:
            self.causes.setdefault(k, "vjp returned None, which stands for zeros")
            return np.zeros(value.shape, value.dtype)
        found = np.array(seen_by_numpy(name, returned, value.dtype.name))
        if stored_in(returned) != value.dtype.name:
            raise DTypeError(f"{name} is {stored_in(returned)}: expected {value.dtype}, as {self.names[k]}")
        if found.shape != value.shape:
            raise ShapeError(f"{name} has shape {text(found.shape)}: expected {text(value.shape)}")
        return found


def _value(name: str, array: Any) -> Array:
    """An array as f is given it: finite real numbers, integers or truth values."""
    values = seen_by_numpy(name, array, "float32, float64 or integers")
    if values.dtype.kind in "iub":
        return np.array(values)
    value = at_the_door(name, array)
    bad = np.argwhere(~np.isfinite(value))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise ValueRangeError(f"{name} is {value[place]} at {place}: expected finite numbers")
    return value


def _output_gradients(outputs: Outputs, dy: Any, seed: int) -> tuple[list[Array], Array]:
    """The dy of each output, and all its elements as weights, (m,) float64."""
    count = len(outputs.arrays)
    if dy is None:
        rng = np.random.default_rng(seed)
        parts = [
            np.asarray(rng.choice([-1, 1], y.shape) * (0.5 + rng.integers(1, 256, y.shape) / 256)).astype(
                y.dtype
            )
            for y in outputs.arrays
        ]
    else:
        given = [dy] if outputs.single else list(dy) if isinstance(dy, tuple | list) else [dy]
        if len(given) != count:
            raise ShapeError(f"dy has {len(given)} arrays: expected {count}, as f returns")
        parts = [at_the_door("dy", part) for part in given]
    for part, y in zip(parts, outputs.arrays, strict=True):
        if part.dtype != y.dtype:
            raise DTypeError(f"dy is {part.dtype}: expected {y.dtype}, as f returns")
        if part.shape != y.shape:
            raise ShapeError(f"dy has shape {text(part.shape)}: expected {text(y.shape)}, as f returns")
        if not np.isfinite(part).all():
            raise ValueRangeError("dy is not finite: expected finite numbers")
    return parts, np.concatenate([np.empty(0), *(wide(part).reshape(-1) for part in parts)])


def _spoilt(first: Outputs, second: Outputs, weights: Array) -> str:
    """Why no derivative can be found at all; empty if it can."""
    for i, (a, b) in enumerate(zip(first.arrays, second.arrays, strict=False)):
        name = "f" if first.single else f"output {i} of f"
        if a.tobytes() != b.tobytes():
            same = a.shape == b.shape
            by = f" by up to {np.abs(wide(a) - wide(b)).max():.3g}" if same else " in shape"
            return f"{name} is not deterministic: two evaluations of the same arrays differ{by}"
    bad = np.flatnonzero(~np.isfinite(first.vector) & (weights != 0))
    if not bad.size:
        return ""
    at = int(bad[0])
    for i, y in enumerate(first.arrays):
        if at < y.size:
            place = tuple(int(n) for n in np.unravel_index(at, y.shape))
            return f"{'f' if first.single else f'output {i} of f'} is {y[place]} at {place}"
        at -= y.size
    raise AssertionError
