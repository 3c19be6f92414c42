"""Gradients where an implementation may choose: at rectifiers' zeros, among equal values of a pooling window.

Any of the choices is accepted, element by element: first, last, or shared out.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic.core import core
from refnet.arrays import Array, wide
from refnet.check.bounds import Claim, unit
from refnet.check.expected import Expected, Known, exactly, of_errors
from refnet.check.precision import format_of
from refnet.shapes import Geometry, pooling, size, taps


def rectified(dy: Known, x: Known, y: Array | None, claim: Claim) -> Expected:
    """Dx of a rectifier: dy where x > 0, nothing where x < 0, anything between where x may be 0.

    Parameters
    ----------
    dy, x : Known
    y : ndarray, optional
        As it was dumped: it says the sign where x was not dumped.
    claim : Claim
    """
    value = wide(dy.value)
    if x.exact or y is None:
        positive = x.value > x.error
        open_ = ~positive & (x.value >= -x.error)
    else:
        positive = y > 0
        open_ = np.zeros((), bool)
    return _between(value, dy, positive, open_, claim)


def _between(value: Array, dy: Known, positive: Array, open_: Array, claim: Claim) -> Expected:
    if dy.exact and not open_.any():
        return exactly(np.where(positive, value, 0.0), claim)
    middle = np.where(positive, value, np.where(open_, value / 2, 0.0))
    reached = positive | open_
    error = np.where(reached, dy.error, 0.0) + np.where(open_, np.abs(value) / 2, 0.0)
    if dy.exact:
        return of_errors(middle, error, None, 0)
    return of_errors(middle, error, np.where(open_, np.inf, np.where(positive, dy.variance, 0.0)), 1)


class Pooled(NamedTuple):
    """Dx of a max pool.

    Attributes
    ----------
    expected : Expected
    chosen : bool
        Whether there was a choice: then each sample and channel of dx must add up to that of dy, for one of
        the largest values has it, or several share it.
    """

    expected: Expected
    chosen: bool


def pooled(dy: Known, x: Known, y: Array | None, claim: Claim, attrs: dict[str, Any]) -> Pooled:
    """Dx of a max pool: each dy goes to the largest value of its window, or to any that may be it.

    Parameters
    ----------
    dy, x : Known
    y : ndarray, optional
        As it was dumped: the largest values.
    claim : Claim
        In its formats gradients are added that meet, and stored.
    attrs : dict
        Of the pool.
    """
    values, off = wide(x.value), np.broadcast_to(x.error, x.value.shape)
    largest, _ = core["max_pool3d"].forward(values, **attrs)
    least = largest
    if not x.exact:
        least, _ = core["max_pool3d"].forward(values - off, **attrs)
        values = values + off
    if y is not None:
        least = np.maximum(least, y)
    window = pooling(values.shape, **attrs)
    rivals = np.zeros(least.shape, np.uint8 if size(window.kernel) < 256 else np.intp)
    for _, outputs, inputs in taps(values.shape, least.shape, window):
        rivals[..., *outputs] += values[..., *inputs] >= least[..., *outputs]
    open_ = rivals > 1
    gradient, error = wide(dy.value), np.broadcast_to(dy.error, dy.value.shape)
    _, context = core["max_pool3d"].forward(wide(x.value), **attrs)

    def to_winners(share: Array) -> Array:
        """What the winners of windows without a choice have of it."""
        (dx,) = core["max_pool3d"].backward(np.where(open_, 0.0, share), context, (True,))
        assert dx is not None, "it is needed"
        return dx

    sure, reached, carried = (to_winners(v) for v in (gradient, np.abs(gradient), error))
    variance, windows = to_winners(dy.variance), to_winners(np.ones(()))
    if open_.any():
        chosen = _Open(values, least, open_, window)
        low, high = (chosen.added(limit(gradient[open_], 0.0)) for limit in (np.minimum, np.maximum))
        sure = sure + (low + high) / 2
        carried = carried + (high - low) / 2 + chosen.added(error[open_])
        reached = reached + (high - low)
        several = chosen.added(np.ones(int(open_.sum())))
        windows = windows + several
        variance = np.where(several > 0, np.inf, variance)
    u = windows * unit(claim.accumulate) + unit(claim.store)
    error = carried + np.where(windows > 1, u * reached + format_of(claim.store).smallest, 0.0)
    # A gradient that no other meets is the very dy that came.
    expected = replace(of_errors(sure, error, None if dy.exact else variance, 1), rounded=dy.exact)
    return Pooled(expected, bool(open_.any()))


class _Open:
    """Windows of which any of several values may be the largest."""

    def __init__(self, values: Array, least: Array, open_: Array, window: Geometry):
        self._values, self._window, self._least = values, window, least[open_]
        self._at = np.nonzero(open_)

    def added(self, gradients: Array) -> Array:
        """What each value would have if it won all of its open windows."""
        total = np.zeros(self._values.shape)
        n, c, *at = self._at
        for tap in np.ndindex(*self._window.kernel):
            place: list[Array] = []
            inside = np.ones(len(n), bool)
            geometry = zip(at, tap, self._values.shape[2:], *self._window[1:], strict=True)
            for o, j, extent, stride, pad, dilation in geometry:
                i = o * stride - pad + j * dilation
                inside &= (i >= 0) & (i < extent)
                place.append(i)
            t, h, w = (i[inside] for i in place)
            wins = self._values[n[inside], c[inside], t, h, w] >= self._least[inside]
            # A tap of a window reads a place that no other window reads by this tap.
            total[n[inside][wins], c[inside][wins], t[wins], h[wins], w[wins]] += gradients[inside][wins]
        return total
