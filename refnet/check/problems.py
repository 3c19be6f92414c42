"""Problems on which operators are checked: their cases, and what is drawn; on whole numbers, or on reals."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import DTypeLike

from refnet.arrays import INTEGER, Array, dtype_name
from refnet.errors import require_known
from refnet.inputs.fill import uniform
from refnet.op import Case, Needs, Op
from refnet.ops import OPS

Kind = Literal["integers", "reals"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# The largest whole number of one array; the others hold -1, 0 and 1. Sums of magnitudes stay below what
# float32 counts to: they are exact in any order, but not with operands of fewer bits.
LARGEST, COUNTABLE = 4095, 2**24


@dataclass(frozen=True)
class Problem:
    """One call of an operator, forward and backward.

    Attributes
    ----------
    op : Op
    case : Case
        With every attribute, those at their defaults too: what a kernel is called with.
    dtype : {"float32", "float64"}
    kind : {"integers", "reals"}
    arrays : tuple of ndarray
    dy : ndarray
    """

    op: Op
    case: Case
    dtype: str
    kind: Kind
    arrays: tuple[Array, ...]
    dy: Array

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded."""
        return self.kind == "integers"

    @property
    def needs(self) -> Needs:
        """Which inputs have a gradient."""
        return tuple(self.op.domain(i).gradient for i in range(len(self.arrays)))


def problem(
    name: str, dtype: DTypeLike, kind: Kind, index: int, seed: int, largest: int = LARGEST
) -> Problem:
    """Make a problem of `check_op` again.

    Parameters
    ----------
    name : str
        The operator's.
    dtype : {"float32", "float64"}
    kind : {"integers", "reals"}
        Whole numbers up to `largest` in one array, which the index tells; -1, 0, 1 in the others; smaller
        ones where sums of magnitudes would exceed 2**24; or U(-1, 1) of 48 bits, rounded to the dtype.
        Labels, boxes, masks and statistics are drawn as the operator says.
    index : int
        Which of its cases; beyond these, which of its draws.
    seed : int
    largest : int
        4095 needs operands of 12 bits.

    Returns
    -------
    Problem

    Raises
    ------
    UnknownNameError
        If there is no such operator, dtype or kind.
    """
    require_known("operator", name, OPS)
    dtype = dtype_name(dtype)
    require_known("kind of values", kind, KINDS)
    op, case = OPS[name], case_of(name, index, seed)
    made = _integers(op, case, index, seed, largest) if kind == "integers" else _reals(op, case, index, seed)
    *arrays, dy = made
    complete = replace(case, attrs=op.call(case.shapes, case.attrs)[1])
    typed = (a if a.dtype == INTEGER else a.astype(dtype) for a in arrays)
    return Problem(op, complete, dtype, kind, tuple(typed), np.asarray(dy).astype(dtype))


def case_of(name: str, index: int, seed: int) -> Case:
    """The case of that index, or behind the cases a drawn one."""
    op = OPS[name]
    drawn = index - len(op.cases)
    return op.cases[index] if drawn < 0 else op.drawn(np.random.default_rng([seed, drawn]))


def kinds_of(name: str, index: int, seed: int) -> tuple[Kind, ...]:
    """On which kinds of values a problem says something: whole numbers only where they are never rounded."""
    return KINDS if exact_on_integers(OPS[name], case_of(name, index, seed)) else ("reals",)


def _shapes(op: Op, case: Case) -> list[tuple[int, ...]]:
    return [*case.shapes, op.output_shape(case.shapes, case.attrs)]


def _reals(op: Op, case: Case, index: int, seed: int) -> Iterator[Array]:
    """Inputs and dy."""
    for i, shape in enumerate(_shapes(op, case)):
        high, low = (uniform(f"{part} {i} of {op.name} {index}", shape, seed) for part in ("high", "low"))
        draw = op.domain(i).draw if i < len(case.shapes) else None
        yield high + low / 2**24 if draw is None else draw(high, *case.shapes, **case.attrs)


def _integers(op: Op, case: Case, index: int, seed: int, most: int) -> list[Array]:
    """Inputs and dy, of an operator whose inputs may hold anything."""
    shapes = _shapes(op, case)
    draws = [uniform(f"integer {i} of {op.name} {index}", shape, seed) for i, shape in enumerate(shapes)]
    while True:
        arrays = [np.rint(most * u if i == index % len(shapes) else 1.5 * u) for i, u in enumerate(draws)]
        *inputs, dy = arrays
        sums = [
            op.magnitude(*inputs, **case.attrs),
            *op.gradient_magnitude(dy, *inputs, needs=(True,) * len(inputs), **case.attrs),
        ]
        if all(np.max(found.sum_abs) < COUNTABLE for found in sums if found is not None):
            return arrays
        most //= 2


def exact_on_integers(op: Op, case: Case) -> bool:
    """Whether whole numbers are never rounded: nothing is divided, or averaged but by powers of two."""
    if op.divides or op.smooth:
        return False
    if op.family != "pooling" or op.hands_on:
        return True
    counts = op.magnitude(np.ones(case.shapes[0]), **case.attrs).terms - 1
    return bool((counts & (counts - 1) == 0).all())
