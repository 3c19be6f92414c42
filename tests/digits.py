"""Whole numbers of any size, many at once: what long sums of many elements are compared with.

A tensor is whole multiples of a power of two, in digits of 20 bits, each digit an array. Digits are
multiplied as one learns it at school: each with each. Products of digits have 40 bits, so float64 adds up
8192 of them without rounding, and BLAS may do it in any order. What comes of it is carried, and rounded once,
in integers. Nothing is rounded before that, so there is no bound that could be wrong, and nothing is shared
with the kernels: no sums in doubles, no certificate, no accumulator of theirs.
"""

from typing import NamedTuple

import numpy as np
from rounding import FORMATS
from support import shifted_sums

BITS = 20
MASK = (1 << BITS) - 1
# Products of two digits that float64 adds up exactly.
MOST_TERMS = 1 << 53 - 2 * BITS
# Digits above the last, into which int64 is carried; and below the first, of which a quotient is made.
ABOVE, BELOW = 4, 8


class Whole(NamedTuple):
    """The sum of `digits[i]` 2**(BITS (position + i)); digits are int64 of either sign."""

    position: int
    digits: np.ndarray


def whole(array):
    """The values of an array, exactly; digits have its values' signs."""
    precision = FORMATS[array.dtype.name][0]
    fraction, exponent = np.frexp(np.abs(array, dtype=np.float64))
    significand = np.ldexp(fraction, precision).astype(np.int64).ravel()
    exponent = exponent.astype(np.int64).ravel() - precision
    some = np.flatnonzero(significand)
    position = int(exponent[some].min()) // BITS if some.size else 0
    highest = int(exponent[some].max()) // BITS if some.size else 0
    digits = np.zeros((highest - position + 5, array.size), np.int64)
    bit = exponent - BITS * position
    # In halves, that shifted by up to 19 bits still fit.
    for half, first in ((significand & (1 << 26) - 1, 0), (significand >> 26, 26)):
        place, shift = divmod(bit[some] + first, BITS)
        shifted = half[some] << shift
        for i in range(3):
            digits[place + i, some] += shifted >> BITS * i & MASK
    digits *= np.where(np.signbit(array), -1, 1).ravel()
    used = np.flatnonzero(digits.any(axis=1))
    first, last = (used[0], used[-1] + 1) if used.size else (0, 1)
    return Whole(position + int(first), digits[first:last].reshape(-1, *array.shape))


def added(*terms):
    """Their sum, terms broadcast."""
    position = min(term.position for term in terms)
    count = max(term.position + len(term.digits) for term in terms) - position
    shape = np.broadcast_shapes(*(term.digits.shape[1:] for term in terms))
    digits = np.zeros((count, *shape), np.int64)
    for term in terms:
        for i, digit in enumerate(term.digits, term.position - position):
            digits[i] += digit
    return Whole(position, digits)


def summed(number, axes):
    """Sum over axes of the tensor."""
    return Whole(number.position, number.digits.sum(axis=tuple(axis + 1 for axis in axes)))


def shaped(number, shape):
    """The same numbers in another shape."""
    return Whole(number.position, number.digits.reshape(-1, *shape))


def multiplied(a, b):
    """Element by element, broadcast."""
    shape = np.broadcast_shapes(a.digits.shape[1:], b.digits.shape[1:])
    digits = np.zeros((len(a.digits) + len(b.digits) - 1, *shape), np.int64)
    for i, x in enumerate(a.digits):
        for j, y in enumerate(b.digits):
            digits[i + j] += x * y
    return Whole(a.position + b.position, digits)


def convolved(x, w, dy, terms, **attrs):
    """(y, dx, dw) of a convolution, whose sums have so many terms at most."""
    assert terms <= MOST_TERMS, f"{terms} products of digits do not fit into float64"
    # An odd number of digits: then (i, i + s, i + 2 s) meets each pair of digits of each two once.
    n = max(len(number.digits) for number in (x, w, dy)) | 1
    parts = [np.zeros((n, *number.digits.shape[1:])) for number in (x, w, dy)]
    for part, number in zip(parts, (x, w, dy), strict=True):
        part[: len(number.digits)] = number.digits
    zero = [~part.reshape(n, -1).any(axis=1) for part in parts]
    shapes = (dy.digits.shape[1:], x.digits.shape[1:], w.digits.shape[1:])
    found = [np.zeros((2 * n - 1, *shape), np.int64) for shape in shapes]
    for i in range(n):
        for s in range(n):
            at = i, (i + s) % n, (i + 2 * s) % n
            if sum(bool(of[k]) for of, k in zip(zero, at, strict=True)) > 1:
                continue
            sums = shifted_sums(*(part[k] for part, k in zip(parts, at, strict=True)), **attrs)
            for total, (a, b), one in zip(found, ((0, 1), (1, 2), (2, 0)), sums, strict=True):
                total[at[a] + at[b]] += one.astype(np.int64)
    positions = x.position + w.position, w.position + dy.position, dy.position + x.position
    return [Whole(position, total) for position, total in zip(positions, found, strict=True)]


def carried(digits):
    """The same numbers, every digit but the last within 0 and MASK."""
    digits = digits.copy()
    for i in range(len(digits) - 1):
        digits[i + 1] += digits[i] >> BITS
        digits[i] &= MASK
    return digits


def rounded(number, dtype, count=1):
    """Each number over a positive count (of up to 40 bits, broadcast), rounded once, ties to even."""
    precision, smallest, _ = FORMATS[np.dtype(dtype).name]
    room = [(BELOW, ABOVE)] + [(0, 0)] * (number.digits.ndim - 1)
    digits = carried(np.pad(number.digits, room))
    is_negative = digits[-1] < 0
    digits = carried(np.where(is_negative, -digits, digits))
    rest = np.zeros(np.broadcast_shapes(digits.shape[1:], np.shape(count)), np.int64)
    if np.any(np.asarray(count) != 1):
        digits = np.broadcast_to(digits, (len(digits), *rest.shape)).copy()
        for i in reversed(range(len(digits))):
            digits[i], rest = divmod(rest << BITS | digits[i], count)
    is_used = digits != 0
    top = len(digits) - 1 - is_used[::-1].argmax(axis=0)
    top = np.where(is_used.any(axis=0), top, BELOW)

    def at(i):
        return np.take_along_axis(digits, (top - i)[None], axis=0)[0].astype(np.uint64)

    # The first 64 bits, the first of them 1, and whether anything is behind them.
    u = np.uint64
    first = at(0) << u(44) | at(1) << u(24) | at(2) << u(4) | at(3) >> u(16)
    behind = (at(3) & u(0xFFFF)) << u(20) | at(4)
    lead = BITS - np.frexp(at(0).astype(np.float64))[1].astype(np.int64)
    cut = (36 - lead).astype(u)
    first = first << lead.astype(u) | behind >> cut
    lower = np.take_along_axis(np.cumsum(is_used, axis=0), (top - 5)[None], axis=0)[0] > 0
    more = lower | (rest != 0) | ((behind & ((u(1) << cut) - u(1))) != 0)
    exponent = BITS * (number.position - BELOW + top - 2) - 4 - lead
    unit = np.maximum(exponent + 64 - precision, smallest)
    shift = np.minimum(unit - exponent, 65)
    small = np.minimum(shift, 63).astype(u)
    kept, left, half = first >> small, first & ((u(1) << small) - u(1)), u(1) << small - u(1)
    up = (left > half) | ((left == half) & (more | (kept & u(1) == 1)))
    kept = kept + up.astype(u)
    # A unit of 2 or 4 times the first bit: nothing is kept, and only more than half a unit is rounded up.
    kept = np.where(shift > 63, ((shift == 64) & ((first > u(1 << 63)) | more)).astype(u), kept)
    kept = np.where(is_used.any(axis=0), kept, u(0))
    with np.errstate(over="ignore"):
        magnitude = np.ldexp(kept.astype(np.float64), np.minimum(unit, 2000))
        return np.where(is_negative & is_used.any(axis=0), -magnitude, magnitude).astype(dtype)
