"""What an operator is: one record of plain functions, written once per operator in `refnet.ops`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.errors import ShapeError
from refnet.shapes import ONES, ZEROS, Shape, Triple

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
class Domain:
    """What an input of an operator may hold.

    Attributes
    ----------
    gradient : bool
        Whether backward computes its gradient.
    draw : ``(uniform, *shapes, **attrs) -> array``, optional
        How draws of U(-1, 1), of the input's shape, become legal values: stated for labels, boxes,
        masks, statistics, which are given to a network and have no gradient. None where every
        number is legal.
    integer : bool
        Whether it holds whole numbers, int64, whatever the dtype of the others.
    """

    gradient: bool = True
    draw: Callable[..., Array] | None = None
    integer: bool = False


# The position of y among what backward may read.
OUTPUT = -1

ANYTHING = Domain()
STOPPED = Domain(gradient=False)


def constant(draw: Callable[..., Array], *, integer: bool = False) -> Domain:
    """Describe an input that is given, not learnt."""
    return Domain(gradient=False, draw=draw, integer=integer)


class Reach(NamedTuple):
    """What an output position o reads along one axis: from floor(o step) + offset on, `size` positions.

    What lies between the first and the last that is read counts, read or not.
    """

    size: int = 1
    step: int | Fraction = 1
    offset: int = 0


# Along T, H and W; None: every output reads the whole axis.
Reaches = tuple[Reach | None, Reach | None, Reach | None]
SAME = Reach()


def sliding(kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS, dilation: Triple = ONES) -> Reaches:
    """The reach of a window."""
    t, h, w = (
        Reach(d * (k - 1) + 1, s, -p) for k, s, p, d in zip(kernel, stride, pad, dilation, strict=True)
    )
    return t, h, w


def everything(*shapes: Shape, **attrs: Any) -> Reaches:
    """Every output reads all of T, H and W."""
    return None, None, None


def all_time(*shapes: Shape, **attrs: Any) -> Reaches:
    """Every output reads all of T: frames become something else than a place along T."""
    return None, SAME, SAME


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
        One gradient for each input; None where not needed, or where there is none.
    magnitude : ``(*arrays, **attrs) -> Magnitude``
    cost : ``(*shapes, itemsize, **attrs) -> Cost``
    cases : tuple of Case
        Small problems from which tests and benchmarks are enumerated.
    domains : tuple of Domain
        Of the first inputs; the others may hold anything.
    check : ``(*arrays, **attrs) -> None``
        Raises ValueRangeError where a value is not of its domain.
    smooth : bool
        Whether y curves in one of the inputs. The others are affine in each input that has a
        gradient, or piecewise so: a difference quotient within a piece has no truncation error.
    reach : ``(*shapes, **attrs) -> Reaches``, optional
        What an output position reads along T, H and W; None where it is the same position.
    keeps : tuple of int
        Which inputs `backward` may read, by position; OUTPUT is y.
    cheap : bool
        Whether `forward` is a mere pass over memory: its y may be computed again instead of kept.
    """

    name: str
    infer: Callable[..., Shape]
    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[[Array, Any, Needs], Gradients]
    magnitude: Callable[..., Magnitude]
    cost: Callable[..., Cost]
    cases: tuple[Case, ...]
    domains: tuple[Domain, ...] = ()
    check: Callable[..., None] | None = None
    smooth: bool = False
    reach: Callable[..., Reaches] | None = None
    keeps: tuple[int, ...] = ()
    cheap: bool = False

    def output_shape(self, shapes: tuple[Shape, ...], attrs: Mapping[str, Any]) -> Shape:
        """Infer the output's shape, with a clear word for a wrong number of inputs or attributes.

        Raises
        ------
        ShapeError
            If the operator does not take so many inputs or these attributes, or `infer` refuses them.
        """
        try:
            _require_call(self.infer, len(shapes), tuple(attrs))
        except TypeError as error:
            raise ShapeError(f"{self.name}: {error}") from None
        return self.infer(*shapes, **attrs)

    def domain(self, index: int) -> Domain:
        """What the input at that position may hold."""
        return self.domains[index] if index < len(self.domains) else ANYTHING

    def reaches(self, *shapes: Shape, **attrs: Any) -> Reaches:
        """What an output position reads along T, H and W."""
        return (SAME, SAME, SAME) if self.reach is None else self.reach(*shapes, **attrs)


@cache
def _require_call(function: Callable[..., Any], count: int, names: tuple[str, ...]) -> None:
    """Raise TypeError unless the function takes that many arguments and those keywords."""
    signature(function).bind(*range(count), **dict.fromkeys(names))


def terms(count: int) -> Array:
    """The same number of terms for every element."""
    return np.full((), count, np.int64)
