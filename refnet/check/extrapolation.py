"""Derivatives of a function that is known by its values alone, each with an estimate of its error.

Central differences at steps h, h/2, h/4, ... are extrapolated to h = 0 (Richardson, 1911; the estimate of the
error from neighbours in the table is Ridders', Adv. Eng. Softw. 4, 1982). Beside them stands the table of
one-sided differences, which for a smooth function tends to 0: where it does not, there is a kink at x. The
noise of the function's values is measured by differences of high order along a line (Moré and Wild, SIAM J.
Sci. Comput. 33, 2011).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from refnet.arrays import Array
from refnet.environment import errstate

COLUMNS = 6
# Beyond so many halvings of the step, rounding is all that is left of a difference.
ROWS = 56
SAMPLES = 17
# What does not change over so many steps is taken to be constant.
FAR = 2.0**10
# So many tables more than there are starts, from smaller steps.
TABLES = 6


def value_noise(line: Callable[[float], Array | None], y: Array, unit: float) -> Array:
    """How far each value of f may be from a smooth function, (m,): three standard deviations, at least u |y|.

    Parameters
    ----------
    line : callable
        t to the values of f where each element of its arrays is (1 + t d) times as large, for some d
        within -1 and 1; None where it has none.
    y : (m,) ndarray
        The values at t = 0.
    unit : float
        u of the dtype.

    Notes
    -----
    Differences of order k of independent errors of variance s**2 have the variance s**2 (2k)!/(k!)**2; those
    of a smooth function become smaller with the order. So a level that three orders agree on within a factor
    of 4 is noise. Steps of 64 u see what is rounded in the dtype, in float64 steps of sqrt(u) what is rounded
    to float32 on the way.
    """
    level = np.zeros(y.shape)
    scales = [(64 * unit, (2, 3, 4))]
    if unit < 2.0**-40:
        scales.append((unit**0.5, (3, 4, 5)))
    for step, orders in scales:
        samples = [line(step * (i - SAMPLES // 2)) for i in range(SAMPLES)]
        whole = [sample for sample in samples if sample is not None and sample.shape == y.shape]
        if len(whole) < SAMPLES:
            continue
        with errstate(invalid="ignore", over="ignore"):
            table = np.stack(whole)
            # In units of the largest, for squares overflow.
            largest = np.maximum(np.max(np.abs(table), axis=0), np.finfo(np.float64).tiny)
            table = table / largest
            levels = [
                np.sqrt(np.mean(np.diff(table, order, axis=0) ** 2, axis=0) / comb(2 * order, order))
                for order in orders
            ]
            agreed = np.max(levels, axis=0) <= 4 * np.min(levels, axis=0)
        level = np.maximum(level, np.where(agreed, np.max(levels, axis=0) * largest, 0))
    return np.maximum(3 * level, unit * np.abs(y) + np.finfo(np.float64).smallest_subnormal)


@dataclass(frozen=True)
class Problem:
    """A function's values as one of its elements moves.

    Attributes
    ----------
    at : callable
        The value of the element to f's values, (m,), or None.
    x : float
        Where the derivative is wanted.
    y, noise, weights : (m,) ndarray
        f's values at x; how far each may be off; how much each counts.
    unit : float
        u of the dtype.
    rounded : callable
        To the element's dtype.
    enough : float
        The relative error at which the search ends.
    """

    at: Callable[[float], Array | None]
    x: float
    y: Array
    noise: Array
    weights: Array
    unit: float
    rounded: Callable[[float], float]
    enough: float = 0.0

    def size(self, values: Array) -> float:
        """The weighted sum of the magnitudes."""
        return float(np.sum(self.weights * np.abs(values)))


@dataclass(frozen=True)
class Derivative:
    """Of each of f's values, as one element moves.

    Attributes
    ----------
    value, error : (m,) ndarray
        Found, and how far it may be off.
    jump : (m,) ndarray
        How much the derivative from above x is larger than that from below.
    step, longest : float
        The smallest and the largest step that it was found with: so long f is smooth.
    first : float
        The first step that was tried.
    why : str
        Why it cannot be trusted; empty if it can.
    depends : (m,) ndarray of bool, or True
        Which values are not constant over steps much longer.
    """

    value: Array
    error: Array
    jump: Array
    step: float
    longest: float
    first: float
    why: str = ""
    depends: Array | bool = True


@dataclass(frozen=True)
class _Row:
    """Of one step: columns of extrapolated derivatives and jumps, and what rounding may have done to them."""

    step: float
    slopes: list[Array]
    slope_rounding: list[Array]
    jumps: list[Array]
    jump_rounding: list[Array]


@dataclass(frozen=True)
class _Entry:
    """A column of a row, weighed: its error, whether it saw a kink, how much it extrapolated."""

    derivative: Derivative
    error: float
    kink: bool
    slope_change: float
    jump_change: float
    jump_error: float

    @property
    def rank(self) -> tuple[bool, float]:
        """The smaller the better."""
        return self.kink, self.error


def differentiate(problem: Problem, starts: Sequence[float]) -> Derivative | None:
    """The derivatives at x, by extrapolated central differences.

    Parameters
    ----------
    problem : Problem
    starts : sequence of float
        The largest steps of tables, tried in order until one converges.

    Returns
    -------
    Derivative or None
        None where f has no values on both sides of x.
    """
    best: _Entry | None = None
    pending = list(starts)
    for _ in range(len(starts) + TABLES):
        if not pending:
            break
        found = _table(problem, pending.pop(0))
        if found is None:
            continue
        if not found.kink and (closer := _confirm(problem, found)) is not None:
            pending[:0] = [found.derivative.step / 4, closer]
            found = replace(found, kink=True)
        if best is None or found.rank < best.rank:
            best = found
        if _converged(problem, best) and not best.kink:
            break
    if best is None:
        return None
    of = best.derivative
    if not best.kink:
        if _is_staircase(problem, of, max(starts)):
            return replace(
                of, why=f"f is constant within {of.longest:.2g} of it, but changes in steps beyond"
            )
        return _with_constants(problem, of)
    why = f"a kink or jump within {of.step:.2g} of it (steps of {of.first:.2g} and less were tried)"
    return replace(of, why=why)


def _is_staircase(problem: Problem, derivative: Derivative, start: float) -> bool:
    """Whether f is constant near x but rises on both sides of it, as what is rounded on the way does."""
    step = derivative.longest
    if problem.size(derivative.value) > 0 or step > start / 64:
        return False
    while step < start:
        step *= 8
        found = _difference(problem, step)
        if found is not None and 0 < problem.size(found[0]) >= problem.size(found[1]):
            return True
    return False


def _with_constants(problem: Problem, derivative: Derivative) -> Derivative:
    """Of values that do not depend on the element the noise is that of a step `FAR` times as long."""
    still = (derivative.value == 0) & (derivative.jump == 0) & (derivative.error > 0)
    if not still.any():
        return derivative
    far = FAR * derivative.longest
    for end in (problem.x + far, problem.x - far):
        values = problem.at(problem.rounded(end))
        if values is None or values.shape != still.shape:
            return derivative
        still &= values.real == problem.y
    error = np.where(still, problem.noise / far, derivative.error)
    return replace(derivative, error=error, depends=~still)


def _converged(problem: Problem, entry: _Entry) -> bool:
    return entry.error <= 1e-3 * problem.size(entry.derivative.value) or entry.error <= 1e-6 * (
        problem.size(problem.y) / entry.derivative.longest
    )


def _difference(problem: Problem, step: float) -> tuple[Array, Array, Array] | None:
    """The central difference, that from above less that from below, and the noise of both values.

    The steps that count are those that were realised: fl(x + h) - x.
    """
    above, below = problem.rounded(problem.x + step), problem.rounded(problem.x - step)
    if not below < problem.x < above:
        return None
    y_above, y_below = problem.at(above), problem.at(below)
    if y_above is None or y_below is None or y_above.shape != problem.y.shape != y_below.shape:
        return None
    y_above, y_below = y_above.real, y_below.real
    with errstate(all="ignore"):
        up = (y_above - problem.y) / (above - problem.x)
        down = (problem.y - y_below) / (problem.x - below)
        slope = (y_above - y_below) / (above - below)
        noise = np.maximum(problem.noise, problem.unit * np.maximum(np.abs(y_above), np.abs(y_below)))
        jump = up - down
    counts = problem.weights > 0
    if not (np.isfinite(slope[counts]).all() and np.isfinite(jump[counts]).all()):
        return None
    return np.where(counts, slope, 0), np.where(counts, jump, 0), np.where(counts, noise, 0)


def _table(problem: Problem, start: float) -> _Entry | None:
    """The best entry of a table of steps from `start` down; None where f has no values."""
    best: _Entry | None = None
    first, step, since = start, start, 0
    kink = last = 0.0
    before: _Row | None = None
    floor = problem.size(problem.y) / start
    for _ in range(ROWS):
        found = _difference(problem, step)
        if found is None:
            if before is not None:
                break
            first = step = step / 2
            continue
        row = _extrapolated(step, *found, before)
        entries = [_entry(problem, row, before, first, m) for m in range(1, len(row.slopes))]
        for entry in entries:
            # A kink that was seen is left behind by a smaller step only where its jump would be seen.
            hidden = kink > 0 and entry.jump_error > kink / 2
            weighed = replace(entry, kink=entry.kink or hidden)
            if best is None or weighed.rank < best.rank:
                best, since = weighed, -1
        # The jump of a kink is about the same at the next step; what was not yet extrapolated well is not.
        jump = max((problem.size(entry.derivative.jump) for entry in entries if entry.kink), default=0.0)
        kink = jump if last / 2 < jump < 2 * last else kink
        last = jump
        since += 1
        if (
            best is not None
            and not best.kink
            and 0 < best.error <= problem.enough * problem.size(best.derivative.value)
        ):
            break
        if best is not None and since >= 2 and not best.kink and _converged(problem, best):
            break
        seen = 0.01 * max(problem.size(found[0]), floor)
        if best is not None and problem.size(found[2]) / step > seen > 0:
            break
        before, step = row, step / 2
    return best


def _extrapolated(step: float, slope: Array, jump: Array, noise: Array, before: _Row | None) -> _Row:
    """A row of the tables: slopes in powers of h**2, jumps in odd powers of h."""
    row = _Row(step, [slope], [noise / step], [jump], [4 * noise / step])
    if before is None:
        return row
    for m in range(1, min(COLUMNS, len(before.slopes) + 1)):
        pairs = (
            (row.slopes, row.slope_rounding, before.slopes, before.slope_rounding, 4.0**m),
            (row.jumps, row.jump_rounding, before.jumps, before.jump_rounding, 2.0 ** (2 * m - 1)),
        )
        for values, rounding, earlier, earlier_rounding, factor in pairs:
            values.append(values[-1] + (values[-1] - earlier[m - 1]) / (factor - 1))
            rounding.append((factor * rounding[-1] + earlier_rounding[m - 1]) / (factor - 1))
    return row


def _entry(problem: Problem, row: _Row, before: _Row | None, first: float, m: int) -> _Entry:
    """Weigh a column: its distance from both neighbours, what rounding does, and half of the jump.

    The derivatives from below and above are the value less and plus half of the jump, so that whatever is
    between them is within the error. A jump that is more than its own errors, and that the last
    extrapolation did not reduce, is a kink.
    """
    assert before is not None
    slope, jump = row.slopes[m], row.jumps[m]
    neighbours = np.maximum(np.abs(slope - row.slopes[m - 1]), np.abs(slope - before.slopes[m - 1]))
    error = neighbours + row.slope_rounding[m] + np.abs(jump) / 2
    rounding = problem.size(row.jump_rounding[m])
    return _Entry(
        derivative=Derivative(slope, error, jump, row.step, row.step * 2**m, first),
        error=problem.size(error),
        kink=problem.size(jump) > 2 * (rounding + problem.size(jump - row.jumps[m - 1])),
        slope_change=problem.size(slope - row.slopes[0]),
        jump_change=problem.size(row.jumps[0]),
        jump_error=problem.size(jump) + rounding,
    )


def _confirm(problem: Problem, entry: _Entry) -> float | None:
    """Compare with one much smaller step: that step, if what is between them is not smooth; else None.

    What is narrower than the steps of a table is seen by no extrapolation. Of a smooth function the
    difference errs by h**2, and the one-sided ones differ by h, times what they did at the table's step.
    """
    of = entry.derivative
    ratio = problem.unit**0.25
    found = _difference(problem, of.step * ratio)
    if found is None:
        return None
    slope, jump, noise = found
    known = entry.error + 4 * problem.size(noise) / (of.step * ratio)
    smooth = problem.size(slope - of.value) <= known + 4 * ratio**2 * entry.slope_change
    level = problem.size(jump) <= known + 4 * ratio * entry.jump_change
    return None if smooth and level else of.step * ratio
