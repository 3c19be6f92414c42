"""What callers hand to a run: checked against the net before anything is computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refnet.arrays import Array, at_the_door, require_mapping, require_one_dtype, stored_in
from refnet.errors import DTypeError, ShapeError, ValueRangeError, require_known
from refnet.net import Net
from refnet.ops import OPS
from refnet.pieces import all_finite, copied
from refnet.shapes import Shape, text


def clean_values(net: Net, given: Mapping[str, Array], allow_nonfinite: bool) -> dict[str, Array]:
    """The inputs and parameters of a net as kernels need them.

    Raises
    ------
    UnknownNameError, ShapeError, DTypeError, ValueRangeError
        If it is no mapping, or something is missing, unknown, or of the wrong shape, dtype or value.
    """
    require_mapping("given", given)
    shapes = {**net.inputs, **net.params}
    for name in given:
        require_known("input or parameter", name, shapes)
    missing = [name for name in shapes if name not in given]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueRangeError(
            f"no value is given for {', '.join(missing[:5])}{more}: "
            "expected one for every input and parameter of the net"
        )
    integer = {name: net.domain(name).integer for name in shapes}
    values = {name: at_the_door(name, given[name], integer=integer[name]) for name in shapes}
    require_one_dtype(given, values)
    for name, value in values.items():
        if value.shape != shapes[name]:
            raise ShapeError(f"{name} has shape {text(value.shape)}: expected {text(shapes[name])}")
        if not allow_nonfinite:
            _require_finite(name, value)
    _require_legal(net, values)
    return values


def clean_gradient(
    name: str, dy: Array, shape: Shape, dtype: np.dtype[Any] | None, allow_nonfinite: bool
) -> Array:
    """A copy of an output's gradient: what is computed from it may be it, and is handed out.

    Raises
    ------
    ShapeError, DTypeError, ValueRangeError
        If it is not of that shape and dtype, or not finite.
    """
    given, dy = dy, at_the_door(f"gradient of {name}", dy)
    if dy.shape != shape:
        raise ShapeError(f"gradient of {name} has shape {text(dy.shape)}: expected {text(shape)}")
    if dtype is not None and dy.dtype != dtype:
        raise DTypeError(f"gradient of {name} is {stored_in(given)}: expected {dtype}, the run's dtype")
    if not allow_nonfinite:
        _require_finite(f"gradient of {name}", dy)
    return copied(dy, dy.dtype)


def real_dtype(values: Mapping[str, Array]) -> np.dtype[Any] | None:
    """The dtype of what is given, labels left out; None where nothing else is, and nothing is computed."""
    return next((value.dtype for value in values.values() if value.dtype.kind == "f"), None)


def _require_legal(net: Net, values: Mapping[str, Array]) -> None:
    """Refuse labels, boxes, masks, statistics that an operator would refuse."""
    for node in net.nodes:
        check = OPS[node.op].check
        if check is None:
            continue
        # In place of what is not there yet, zeros that take no memory: no check looks at them.
        zero = np.zeros((), np.float64)
        arrays = [
            values[name] if name in values else np.broadcast_to(zero, net.shape(name)) for name in node.inputs
        ]
        try:
            check(*arrays, **node.attrs)
        except ValueRangeError as error:
            raise ValueRangeError(f"{node.name} ({node.op}): {error}") from None


def _require_finite(name: str, value: Array) -> None:
    if not all_finite(value):
        finite = np.isfinite(value)
        index = tuple(int(i) for i in np.unravel_index(np.argmin(finite), value.shape))
        count = value.size - int(finite.sum())
        raise ValueRangeError(
            f"{name} has {count} non-finite value{'s' if count > 1 else ''}, the first is "
            f"{value[index]} at {list(index)}: expected finite numbers (or allow_nonfinite)"
        )
