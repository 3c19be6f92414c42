"""Gradients of any function: every element of each compared with a derivative found from f alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

import numpy as np

from refnet.arrays import Array, wide
from refnet.check.derivatives import Element, Search, length
from refnet.check.report import Report, Verdict
from refnet.check.subject import Subject
from refnet.environment import errstate
from refnet.errors import ValueRangeError, brief, require_callable
from refnet.inputs.fill import require_seed
from refnet.progress import Progress, silent, steps

# An element is decided if its bound is at most so much of the largest of its gradient.
KNOWN = 2.0**-5
# Where a whole gradient is zero but for rounding: if the bound is at most so much of what other arrays do.
NOTHING = 2.0**-10


def check(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    arrays: Sequence[Any],
    *,
    dy: Any = None,
    names: Sequence[str] | None = None,
    rounding: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Report:
    """Judge every element of the gradients that ``vjp`` says a function has.

    The gradient of an array x is sum_i dy_i df_i/dx. Each df_i/dx_j is found from values of f alone, one
    element of x moving at a time, with an estimate E of its error. An element of what vjp returns is right if

        ``|found - expected| <= E + n u sum_i |dy_i df_i/dx_j| + 16 sum_i |dy_i| e_i / L + n eta``

    with u and eta those of the coarsest dtype among arrays and outputs, n roundings, e_i the noise of f's
    values in its own dtype, which is measured, and L the length over which f is smooth as x_j moves. An
    element of which that says nothing is undecided, with the reason, and never passed: at a kink, or where f
    has no values.

    Parameters
    ----------
    f : callable
        ``f(*arrays)``: an array or a tuple of arrays, float32 or float64. It is given copies, of the
        caller's kind of arrays; in float64, and in complex numbers, too, where it takes them.
    vjp : callable
        ``vjp(dy, *arrays)``: one gradient for each array, of its dtype and shape. None stands for zeros.
    arrays : sequence of array_like
        Of NumPy, PyTorch or JAX, float32 or float64, finite. Integers are handed on, and have no gradient.
    dy : array_like or tuple of array_like, optional
        The gradient of what f returns, of its shapes and dtypes; by default random, within 1/2 and 3/2, of
        either sign.
    names : sequence of str, optional
        What the arrays are called; "array 0", ... by default.
    rounding : float, optional
        How many roundings an element of vjp's is allowed, n; the number of all values, those of the arrays
        and of f, by default: as many terms as a sum over any of them has.
    seed : int
        Of dy, of the steps, and of the line along which noise is measured.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Report
        A verdict for each array of real numbers. Facts: how often f was called, by which method the
        elements were found, the noise of f, and for each array the smallest error that would have been
        seen, in units of the largest element of its gradient.

    Raises
    ------
    RefnetError
        If arrays, dy or what f and vjp return are none that fit.

    Notes
    -----
    f is called about 15 times for each element where it is smooth and takes complex numbers, 20 to 40 times
    where it does not or varies fast, about 100 times at a kink. What drops an imaginary part, and is smaller
    than the error of the differences (1e-6 of the element in float64, 2e-3 in float32), is not seen by them.
    """
    began = perf_counter()
    for name, function in (("f", f), ("vjp", vjp)):
        require_callable(name, function)
    require_seed(seed)
    subject = Subject.of(f, vjp, arrays, names, dy, seed)
    if rounding is None:
        rounding = sum(value.size for value in subject.values) + subject.y.size
    elif isinstance(rounding, bool) or not isinstance(rounding, int | float) or not 0 <= rounding < inf:
        raise ValueRangeError(f"rounding is {brief(rounding)}: expected a number of roundings, 0 or more")
    found = subject.gradients()
    search = Search(subject, rounding, seed)
    total = sum(subject.values[k].size for k in subject.real)
    step = steps(progress, "elements", total)
    known = {k: _Known.of([_told(search.element(k, j), step) for j in range(found[k].size)]) for k in found}
    response = max((of.largest * length(subject.values[k]) for k, of in known.items()), default=0.0)
    verdicts = {}
    detectable = {}
    for k, of in known.items():
        nothing = NOTHING * response / length(subject.values[k])
        verdicts[subject.names[k]] = _verdict(subject, k, found[k], of, nothing)
        detectable[subject.names[k]] = of.smallest_error
    facts = {
        "oracle": search.oracle,
        "dtype": subject.dtype,
        "elements": total,
        "evaluations": search.evaluations,
        "complex_steps": search.complex_steps,
        "rounding": rounding,
        "noise": search.largest_noise,
        "detectable": detectable,
        "seed": seed,
        "seconds": perf_counter() - began,
    }
    title = f"gradients of {getattr(f, '__name__', type(f).__name__)}, {subject.dtype}"
    return Report(title=title, verdicts=verdicts, facts=facts)


def _told(element: Element, step: Callable[[object], None]) -> Element:
    step(element)
    return element


@dataclass(frozen=True)
class _Known:
    """The elements of a gradient, as arrays.

    Attributes
    ----------
    expected, error, bound : (n,) ndarray
    reached : (n,) ndarray of bool
        Whether there is a derivative.
    why : list of str
        Why there is none.
    largest : float
        The largest that is known.
    """

    expected: Array
    error: Array
    bound: Array
    reached: Array
    why: list[str]
    largest: float

    @classmethod
    def of(cls, elements: list[Element]) -> _Known:
        """Of all elements of an array."""
        expected, error, allowed = (np.array([e[i] for e in elements], np.float64) for i in range(3))
        why = [element.why for element in elements]
        reached = np.array([not reason for reason in why], bool)
        known = reached & (error <= KNOWN * np.abs(expected))
        largest = float(np.max(np.abs(expected), initial=0, where=known))
        return cls(expected, error, error + allowed, reached, why, largest)

    @property
    def smallest_error(self) -> float:
        """The error that would be seen at each element, in units of the largest where there is one."""
        return float(np.max(self.bound, initial=0)) / (self.largest or 1.0)


def _verdict(subject: Subject, k: int, gradient: Array, known: _Known, nothing: float) -> Verdict:
    """Compare what vjp returned with what is known.

    An element is decided if its bound is small beside the largest of its array or what was found; or, where
    all of an array is zero but for rounding, at most `nothing`, which is small beside what other arrays do.
    """
    name, cause = subject.names[k], subject.causes.get(k, "")
    in_place = cause.endswith("in place")
    found, expected, bound = wide(gradient).reshape(-1), known.expected, known.bound
    with errstate(all="ignore"):
        off = np.abs(found - expected)
        size = np.where(np.isnan(found), inf, np.abs(found))
        constant = (expected == 0) & (size == 0)
        zero = (size <= bound) & (bound <= nothing)
        decided = known.reached & ((bound <= KNOWN * np.maximum(known.largest, size)) | zero | constant)
        wrong = decided & ~(off <= bound)
        margin = np.where(off == 0, 0, off / bound)
    margin = np.where(decided, np.where(np.isnan(margin), inf, margin), 0)
    undecided = np.flatnonzero(~decided)
    fine = not wrong.any() and not in_place
    where = why = None
    place = int(undecided[0]) if fine and undecided.size else int(margin.argmax()) if found.size else None
    if place is not None:
        where = _index(place, gradient)
    if undecided.size:
        first = int(undecided[0])
        coarse = f"the derivative is {expected[first]:.3g}, the bound {bound[first]:.2g}"
        why = known.why[first] or coarse
        why = f"{undecided.size} of {found.size} elements undecided; at {_index(first, gradient)}: {why}"
    return Verdict(
        tensor=name,
        verdict="ok" if fine and not undecided.size else "undecided" if fine else "wrong",
        margin=float(np.max(margin, initial=0)),
        where=where,
        found=None if place is None else float(found[place]),
        expected=None if place is None else float(expected[place]),
        bound=None if place is None else float(bound[place]),
        wrong=int(wrong.sum()),
        elements=found.size,
        cause=cause if in_place or wrong.any() else "",
        why=why or "",
        reproduce="" if fine and not undecided.size else subject.again(name),
    )


def _index(place: int, array: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(place, array.shape))
