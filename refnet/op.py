"""What an operator is: one record of plain functions, written once per operator in `refnet.ops`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from inspect import Parameter, Signature, signature
from typing import Any, Literal, NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.errors import ShapeError, UnknownNameError
from refnet.shapes import Geometry, Shape, plain, size, text
from refnet.shown import Shown, Table

Needs = tuple[bool, ...]
InputGradients = tuple[Array | None, ...]


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


GradientMagnitudes = tuple[Magnitude | None, ...]


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


def everything(*shapes: Shape, **attrs: Any) -> Reaches:
    """Every output reads all of T, H and W."""
    return None, None, None


def all_time(*shapes: Shape, **attrs: Any) -> Reaches:
    """Every output reads all of T: frames become something else than a place along T."""
    return None, SAME, SAME


@dataclass(frozen=True)
class Case:
    """A problem: the shapes of the inputs and the attributes of one call."""

    name: str
    shapes: tuple[Shape, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


def benchmark(name: str, *shapes: Shape, **attrs: Any) -> Case:
    """A problem that speed is measured on; the size of its first input ends its name."""
    return Case(f"{name} {text(shapes[0])}", shapes, attrs)


def drawn_case(*shapes: Shape, **attrs: Any) -> Case:
    """A problem that was drawn; shapes and attributes are its name."""
    said = [*map(text, shapes), *(f"{name} {value}" for name, value in attrs.items())]
    return Case(", ".join(said), shapes, attrs)


# What is drawn is small: the elements of inputs and output, and the multiply-adds.
MOST_DRAWN, MOST_MULTIPLY_ADDS = 20_000, 2_000_000

# The kinds of operators that colours, tables and fills tell apart.
Family = Literal["product", "norm", "activation", "pooling", "sum", "stop", "move", "other"]


# What the arguments of operators are called elsewhere, in lower case: in PyTorch, JAX, Keras, ONNX, Caffe2.
ALIASES = {
    **dict.fromkeys(("padding", "paddings", "pads", "auto_pad"), ("pad",)),
    **dict.fromkeys(("strides", "window_strides"), ("stride",)),
    **dict.fromkeys(("dilations", "dilation_rate", "rhs_dilation"), ("dilation",)),
    **dict.fromkeys(("group", "num_groups", "feature_group_count"), ("groups",)),
    **dict.fromkeys(("kernel_size", "kernel_shape", "pool_size", "window", "window_shape"), ("kernel",)),
    **dict.fromkeys(("weight", "weights", "filter", "filters", "kernel", "rhs"), ("w", "s")),
    **dict.fromkeys(("scale", "gamma"), ("s",)),
    **dict.fromkeys(("bias", "biases", "beta"), ("b",)),
    **dict.fromkeys(("input", "inputs", "data", "lhs", "logits", "a"), ("x", "x1")),
    **dict.fromkeys(("other", "y"), ("x2",)),
    **dict.fromkeys(("target", "targets", "label"), ("labels",)),
    **dict.fromkeys(("boxes",), ("rois",)),
    **dict.fromkeys(("eps",), ("epsilon",)),
    **dict.fromkeys(("running_mean", "rm"), ("mean",)),
    **dict.fromkeys(("running_var", "running_variance", "var", "riv"), ("variance",)),
    **dict.fromkeys(("p", "rate", "prob"), ("ratio",)),
    **dict.fromkeys(("output_size",), ("output",)),
    **dict.fromkeys(("factor", "scale_factor", "size"), ("scale",)),
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Op(Shown):
    """An operator.

    Attributes
    ----------
    name : str
    family : Family
        Its kind: a *product* with weights, a *norm* (a scale and a bias for each channel), an
        *activation* (a rectifier, a softmax, a loss), *pooling*, a *sum* of blobs, a *stop* of the
        gradient, a *move* of values to other places, or *other*.
    infer : ``(*shapes, **attrs) -> shape``
        The output's shape; raises ShapeError naming the axis, the value found, the value needed.
    forward : ``(*arrays, **attrs) -> (y, context)``
        The definition, in plain NumPy.
    backward : ``(dy, context, needs) -> gradients``
        One gradient for each input; None where not needed, or where there is none.
    magnitude : ``(*arrays, **attrs) -> Magnitude``
    gradient_magnitude : ``(dy, *arrays, needs, **attrs) -> tuple of Magnitude or None``
        What `magnitude` says of y, of the gradient of each input: whatever the order of its sums, an element
        computed in a dtype of unit roundoff u is within ``(terms + 1) u sum_abs`` of the exact one, to first
        order in u and where nothing underflows. sum_abs is at least the sum over y of |dy| times
        |derivative|. None where no gradient is needed, or there is none.
    propose : ``(rng) -> Case``
        Draws a legal problem, which may be too large to be tried; `drawn` is of what it proposes.
    norms, gradient_norms : optional
        Called as `magnitude` and `gradient_magnitude`: upper bounds of what these find, by the norms of what
        is multiplied (Cauchy and Schwarz), where exact sums would take as long as the operator itself.
    cost : ``(*shapes, itemsize, **attrs) -> Cost``
    cases : tuple of Case
        Small problems from which tests are enumerated.
    sums : Case, optional
        A problem on which the order of its sums is found: elements of its output, and those of a product's
        gradients, are sums of some dozens to hundreds of terms.
    benchmarks : tuple of Case
        The problems that speed is measured on: those of the networks at 1x3x8x224x224.
    roles : tuple of str
        What people call its parameters, in order; those beyond are just parameters.
    sign : str, optional
        What is written into its shape in a drawing; None for its name, or a product's kernel.
    domains : tuple of Domain
        Of the first inputs; the others may hold anything.
    check : ``(*arrays, **attrs) -> None``
        Raises ValueRangeError where a value is not of its domain.
    smooth : bool
        Whether y curves in one of the inputs. The others are affine in each input that has a
        gradient, or piecewise so: a difference quotient within a piece has no truncation error.
    divides : bool
        Whether it takes quotients, roots or exponentials, and so rounds small whole numbers too. The
        others are exact on them; averages are where their count is a power of two.
    hands_on : bool
        Whether it chooses and moves values of x, and computes none: all that may be rounded is a sum of
        gradients that meet.
    window : ``(*shapes, **attrs) -> Geometry``, optional
        The window that slides over T, H and W of its first input; None where none does.
    reach : ``(*shapes, **attrs) -> Reaches``, optional
        What an output position reads along T, H and W; None where `window` says it, and where it is
        the same position.
    context : ``(*arrays, **attrs) -> context``, optional
        What forward hands to backward, in the definition and in core, where that takes no y.
    keeps : tuple of int
        Which inputs `backward` may read, by position; OUTPUT is y.
    cheap : bool
        Whether `forward` is a mere pass over memory: its y may be computed again instead of kept.
    """

    name: str
    family: Family
    infer: Callable[..., Shape]
    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[[Array, Any, Needs], InputGradients]
    magnitude: Callable[..., Magnitude]
    gradient_magnitude: Callable[..., GradientMagnitudes]
    propose: Callable[[np.random.Generator], Case]
    cost: Callable[..., Cost]
    norms: Callable[..., Magnitude] | None = None
    gradient_norms: Callable[..., GradientMagnitudes] | None = None
    cases: tuple[Case, ...]
    sums: Case | None = None
    benchmarks: tuple[Case, ...] = ()
    roles: tuple[str, ...] = ()
    sign: str | None = None
    domains: tuple[Domain, ...] = ()
    check: Callable[..., None] | None = None
    smooth: bool = False
    divides: bool = False
    hands_on: bool = False
    window: Callable[..., Geometry] | None = None
    reach: Callable[..., Reaches] | None = None
    context: Callable[..., Any] | None = None
    keeps: tuple[int, ...] = ()
    cheap: bool = False

    @property
    def signature(self) -> Signature:
        """Operands and attributes with their defaults, as `infer` states them."""
        return _taken(self.infer).signature

    @property
    def form(self) -> str:
        """How it is called: ``(x, w, b=None, *, stride=(1, 1, 1), ...)``."""
        return _taken(self.infer).written

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of the inputs, in order; those that may be left out are the last."""
        return _taken(self.infer).operands

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes."""
        return _taken(self.infer).attributes

    def call(
        self, operands: Sequence[Any], given: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Sort what a call was given: operands in order, and every attribute, those at their defaults too.

        Operands may be given by name, and those that may be left out as None. Sequences become tuples.

        Raises
        ------
        UnknownNameError
            If a name is not one of the operator's.
        ShapeError
            If something is missing or given twice, or there are too many operands.
        """
        try:
            sources, defaults = _sorted(self.infer, len(operands), tuple(given))
        except TypeError as error:
            for name in given:
                if name not in self.signature.parameters:
                    known = self.signature.parameters
                    raise UnknownNameError(f"argument of {self.name}", name, known, ALIASES) from None
            raise ShapeError(f"{error}: expected {self.name}{self.form}") from None
        found = tuple(operands[at] if isinstance(at, int) else given[at] for at in sources)
        while found and found[-1] is None and len(found) > _taken(self.infer).least:
            found = found[:-1]
        attrs = defaults | {name: value for name, value in given.items() if name in defaults}
        return found, {name: plain(value) for name, value in attrs.items()}

    def _shown(self) -> Table:
        formula = (sys.modules[self.forward.__module__].__doc__ or "").partition("\n")[0]
        rows = [
            ("y", f"{self.name}{self.form}"),
            ("family", self.family),
            ("cases", str(len(self.cases))),
        ]
        return Table(f"operator {self.name}: {formula}", ("", ""), rows)

    def output_shape(self, shapes: tuple[Shape, ...], attrs: Mapping[str, Any]) -> Shape:
        """Infer the output's shape, and refuse a wrong number of inputs and unknown attributes.

        Raises
        ------
        UnknownNameError, ShapeError
            If the operator does not take that many inputs or those attributes, or `infer` refuses them.
        """
        for name in attrs:
            if name not in self.attributes:
                raise UnknownNameError(f"attribute of {self.name}", name, self.attributes, ALIASES)
        shapes, attrs = self.call(shapes, attrs)
        return self.infer(*shapes, **attrs)

    def drawn(self, rng: np.random.Generator) -> Case:
        """Draw a small problem: legal shapes and attributes, of which any may be odd, even, 1 or prime.

        Parameters
        ----------
        rng : Generator

        Returns
        -------
        Case
            Its inputs and output have at most 20,000 elements, its cost is at most two million
            multiply-adds.
        """
        while True:
            case = self.propose(rng)
            elements = sum(map(size, case.shapes)) + size(self.output_shape(case.shapes, case.attrs))
            work = self.cost(*case.shapes, itemsize=1, **case.attrs).multiply_adds
            if elements <= MOST_DRAWN and work <= MOST_MULTIPLY_ADDS:
                return case

    def domain(self, index: int) -> Domain:
        """What the input at that position may hold."""
        return self.domains[index] if index < len(self.domains) else ANYTHING

    def reaches(self, *shapes: Shape, **attrs: Any) -> Reaches:
        """What an output position reads along T, H and W."""
        if self.window is not None:
            window = zip(*self.window(*shapes, **attrs), strict=True)
            t, h, w = (Reach(dilation * (k - 1) + 1, stride, -pad) for k, stride, pad, dilation in window)
            return t, h, w
        return (SAME, SAME, SAME) if self.reach is None else self.reach(*shapes, **attrs)


class _Taken(NamedTuple):
    """What an operator takes; `least`, how many operands at least."""

    signature: Signature
    operands: tuple[str, ...]
    attributes: tuple[str, ...]
    written: str
    least: int


@cache
def _taken(infer: Callable[..., Shape]) -> _Taken:
    """What an operator takes: names and defaults alone, for the annotations of `infer` are of shapes."""
    own = signature(infer).parameters.values()
    shown = Signature([parameter.replace(annotation=Parameter.empty) for parameter in own])
    attributes = tuple(parameter.name for parameter in own if parameter.kind is Parameter.KEYWORD_ONLY)
    operands = tuple(name for name in shown.parameters if name not in attributes)
    least = sum(shown.parameters[name].default is Parameter.empty for name in operands)
    return _Taken(shown, operands, attributes, str(shown), least)


@cache
def _sorted(
    infer: Callable[..., Shape], count: int, names: tuple[str, ...]
) -> tuple[tuple[int | str, ...], dict[str, Any]]:
    """Where a call's operands are, by position or by name, and the defaults of all attributes.

    Raises TypeError where it cannot be called with so many operands and those names.
    """
    taken = _taken(infer)
    bound = taken.signature.bind(*range(count), **{name: name for name in names})
    return bound.args, {name: taken.signature.parameters[name].default for name in taken.attributes}


def magnitudes(sums: InputGradients, *counts: Array) -> GradientMagnitudes:
    """Pair the sum of |terms| of each input's gradient with their number; where there is none, None."""
    pairs = zip(sums, counts, strict=True)
    return tuple(None if sum_abs is None else Magnitude(sum_abs, count) for sum_abs, count in pairs)


def terms(count: int) -> Array:
    """The same number of terms for every element."""
    return np.full((), count, np.int64)
