"""What an operator is: one record of plain functions, written once per operator in `refnet.ops`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refnet.shapes import Shape

Array = NDArray[Any]
Needs = tuple[bool, ...]
Gradients = tuple[Array | None, ...]


class Cost(NamedTuple):
    """The work of one call.

    Attributes
    ----------
    multiply_adds : int
        Products that are summed. What the ResNet paper calls FLOPs.
    bytes : int
        Bytes of all inputs read once and the output written once.
    """

    multiply_adds: int
    bytes: int


class Magnitude(NamedTuple):
    """The ingredients of a rounding bound, element by element of the output.

    Attributes
    ----------
    sum_abs : ndarray, the output's shape
        The sum of the absolute values of everything that is added up.
    terms : ndarray of int64, broadcastable to the output's shape
        How many nonzero-able terms that sum has; padding contributes none.
    """

    sum_abs: Array
    terms: Array


@dataclass(frozen=True)
class Case:
    """A small problem: the shapes of the inputs and the attributes of one call."""

    name: str
    shapes: tuple[Shape, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Op:
    """An operator.

    Attributes
    ----------
    name : str
    infer : ``(*shapes, **attrs) -> shape``
        The output's shape; raises ShapeError naming the axis, the value found, the value needed.
    forward : ``(*arrays, **attrs) -> (y, context)``
        The definition, in plain NumPy.
    backward : ``(dy, context, needs) -> gradients``
        One gradient, or None where not needed, for each input.
    magnitude : ``(*arrays, **attrs) -> Magnitude``
    cost : ``(*shapes, itemsize, **attrs) -> Cost``
    cases : tuple of Case
        Small problems from which tests and benchmarks are enumerated.
    """

    name: str
    infer: Callable[..., Shape]
    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[[Array, Any, Needs], Gradients]
    magnitude: Callable[..., Magnitude]
    cost: Callable[..., Cost]
    cases: tuple[Case, ...]


def terms(count: int) -> Array:
    """The same number of terms for every element."""
    return np.full((), count, np.int64)
