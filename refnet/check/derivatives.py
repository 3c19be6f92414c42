"""Derivatives of sum dy f for any f, one element of its arrays at a time.

Central differences, extrapolated, find the derivative and how far it may be off (`extrapolation`). Where f
takes complex numbers and is analytic, Im f(x + i h) / h, with h so small that h**2 is nothing, is the
derivative to rounding (Squire and Trapp, SIAM Review 40, 1998). An f that drops an imaginary part on the way
(abs, a comparison's branch, a cast) gives a wrong one; so it counts only where the differences agree.
"""

from math import frexp, inf, ldexp
from typing import NamedTuple

import numpy as np

from refnet.arrays import REAL, Array, wide
from refnet.check.bounds import smallest, unit
from refnet.check.extrapolation import Derivative, Problem, differentiate, value_noise
from refnet.check.foreign import Function
from refnet.check.subject import Subject
from refnet.environment import errstate

# The relative error of differences that confirm a complex step is this power of u: 1e-6 in float64, 2e-3 in
# float32.
CONFIRMED = 3 / 8


class Element(NamedTuple):
    """An element of a gradient, as f has it.

    Attributes
    ----------
    expected, error : float
        Found from f alone, and how far it may be off.
    allowed : float
        What is granted to vjp beside.
    why : str
        Why nothing was found.
    """

    expected: float
    error: float
    allowed: float
    why: str = ""


class Search:
    """Finds derivatives of f, one element at a time."""

    def __init__(self, subject: Subject, rounding: float, seed: int):
        self._subject, self._rounding = subject, rounding
        self._weights = subject.weights
        self._unit = unit(subject.dtype)
        self._rng = np.random.default_rng([seed, 1])
        self._real = subject.function
        self._oracle_dtype = subject.dtype
        self._complex: Function | None = None
        self._y = subject.y
        self._given_noise = self._noise = np.zeros(self._y.shape)
        self.complex_steps = 0
        self._complex_dtype = ""
        if not subject.spoilt:
            self._prepare()

    def _prepare(self) -> None:
        """Measure noise, and see whether f takes float64 and complex numbers."""
        self._given_noise = self._noise = self._noise_of(self._real, self._y, self._unit)
        if self._unit > unit("float64") and self._widen():
            self._noise = self._noise_of(self._real, self._y, self._oracle_unit)
        dtype = "complex128" if self._oracle_dtype == "float64" else "complex64"
        candidate = self._real.cast(dtype)
        arrays = candidate.arrays() or []
        if dtype in {array.dtype.name for array in arrays}:
            y = np.concatenate([array.reshape(-1) for array in arrays])
            if self._same(y) and not y.imag.any():
                self._complex, self._complex_dtype = candidate, dtype

    def _widen(self) -> bool:
        """Evaluate f in float64 from now on, if it takes it and is the same there."""
        wider = self._real.cast("float64")
        arrays = wider.arrays() or []
        if {array.dtype.name for array in arrays} != {"float64"}:
            return False
        y = np.concatenate([array.reshape(-1) for array in arrays])
        if not self._same(y):
            return False
        self._real, self._y, self._oracle_dtype = wider, y, "float64"
        return True

    def _noise_of(self, function: Function, y: Array, u: float) -> Array:
        directions = [
            self._rng.choice([-1, 1], value.shape) * self._rng.uniform(0.5, 1, value.shape)
            if value.dtype in REAL
            else None
            for value in self._subject.values
        ]
        centre = [value.copy() for value in function.values]

        def line(t: float) -> Array | None:
            for value, at, direction in zip(function.values, centre, directions, strict=True):
                if direction is not None:
                    value[...] = at * (1 + t * direction)
            found = function.vector()
            for value, at in zip(function.values, centre, strict=True):
                value[...] = at
            return None if found is None else found.real

        with errstate(all="ignore"):
            return value_noise(line, y, u)

    def _same(self, y: Array) -> bool:
        """Whether values are f's own, to the rounding of its arrays."""
        if y.shape != self._y.shape:
            return False
        counts = self._weights != 0
        largest = np.max(np.abs(self._y), initial=0, where=counts)
        noise = np.max(self._given_noise, initial=0, where=counts)
        with errstate(all="ignore"):
            off = np.abs(y.real - self._y)
        return bool((off <= 16 * noise + self._rounding * self._unit * largest)[counts].all())

    @property
    def oracle(self) -> str:
        """What derivatives were found with."""
        extra = f"complex steps in {self._complex_dtype}, confirmed by " if self.complex_steps else ""
        return f"{extra}extrapolated differences in {self._oracle_dtype}"

    @property
    def _oracle_unit(self) -> float:
        return unit(self._oracle_dtype)

    @property
    def _confirmed(self) -> float:
        return float(self._oracle_unit**CONFIRMED)

    @property
    def evaluations(self) -> int:
        """How often f was called."""
        every = {id(g): g for g in (self._subject.function, self._real, self._complex) if g is not None}
        return sum(function.evaluations for function in every.values())

    @property
    def largest_noise(self) -> float:
        """The largest noise of f's values in its own dtype, in units of u of the largest of them."""
        largest = np.max(np.abs(self._y), initial=0, where=self._weights != 0)
        return float(np.max(self._given_noise, initial=0) / (self._unit * largest)) if largest else 0.0

    def element(self, k: int, j: int) -> Element:
        """The derivative of sum dy f for element j of array k."""
        if self._subject.spoilt:
            return Element(0, inf, 0, self._subject.spoilt)
        values = self._real.values[k].reshape(-1)
        x, dtype = float(values[j]), values.dtype
        rest = float(np.max(np.abs(values)))
        large = max(abs(x), _typical(values)) or 1.0
        # A step is 64 to 127 units of a power of two, so that no period of f fits all of them.
        odd = (64 + int(self._rng.integers(64))) / 128
        starts = [_power(large) * odd / 2]
        if 0 < abs(x) < large / 256:
            starts.append(_power(abs(x)) * odd / 2)
        if large < 2.0**-10:
            starts.insert(0, odd / 2)

        def at(value: float) -> Array | None:
            return self._real.moved(k, j, value)

        problem = Problem(
            at=at,
            x=x,
            y=self._y,
            noise=self._noise,
            weights=np.abs(self._weights),
            unit=self._oracle_unit,
            rounded=lambda value: float(dtype.type(value)),
            enough=self._confirmed if self._complex else 0,
        )
        derivative = differentiate(problem, starts)
        if derivative is None:
            return Element(0, inf, 0, "f has no finite values on both sides of it")
        exact = None if derivative.why else self._complex_step(k, j, x, rest, problem, derivative)
        slopes, error = exact or (derivative.value, problem.size(derivative.error))
        used = slopes != 0 if exact else derivative.depends
        value_noise = problem.size(np.where(used, self._given_noise, 0))
        allowed = (
            self._rounding * self._unit * problem.size(slopes)
            + 16 * value_noise / derivative.longest
            + self._rounding * smallest(self._subject.dtype)
        )
        expected = float(np.sum(self._weights * slopes))
        why = derivative.why
        if why:
            half = self._weights * derivative.jump / 2
            below, above = expected - float(np.sum(half)), expected + float(np.sum(half))
            why += f": the derivative is {below:.6g} from below, {above:.6g} from above"
        return Element(expected, error, allowed, why)

    def _complex_step(
        self, k: int, j: int, x: float, rest: float, problem: Problem, derivative: Derivative
    ) -> tuple[Array, float] | None:
        """Im f(x + i h) / h and what underflow may do to it, if the differences confirm it."""
        function = self._complex
        if function is None:
            return None
        if problem.size(derivative.error) > self._confirmed * problem.size(derivative.value):
            return None
        found = None
        for scale in dict.fromkeys((abs(x) or rest or 1.0, rest or 1.0)):
            h = _power(scale) * 2.0**-10 * self._oracle_unit
            y = function.moved(k, j, complex(x, h)) if h else None
            if y is None or y.shape != self._y.shape:
                continue
            with errstate(all="ignore"):
                slopes = np.where(self._weights != 0, y.imag / h, 0)
            underflow = smallest(self._oracle_dtype) * self._rounding / h * float(np.sum(problem.weights))
            error = problem.size(derivative.error) + underflow
            off = problem.size(slopes - derivative.value)
            if off <= error + self._rounding * self._oracle_unit * problem.size(slopes):
                found = slopes, underflow
                if underflow <= self._oracle_unit * problem.size(slopes):
                    break
        self.complex_steps += found is not None
        return found


def _power(x: float) -> float:
    """The largest power of two that is at most x > 0."""
    return ldexp(1.0, frexp(x)[1] - 1)


def _typical(values: Array) -> float:
    """The root of the mean of the squares."""
    largest = float(np.max(np.abs(values), initial=0))
    return largest * float(np.sqrt(np.mean((values / largest) ** 2))) if largest else 0.0


def length(values: Array) -> float:
    """How large values are: the size of a step that is as large as they are."""
    return _typical(wide(values)) or 1.0
