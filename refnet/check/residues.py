"""Whole numbers modulo a prime, held in arrays of a floating-point dtype.

Sums of few products stay below 2**24 (float32) or 2**53 (float64), and are exact in any order; they are
reduced before the next operator reads them. A residue r of p is held near zero: |r| <= p // 2 + SLACK.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from refnet.arithmetic.core.buffers import empty
from refnet.arrays import Array
from refnet.environment import errstate
from refnet.errors import TooLargeError

# By how much more than p // 2 a residue can be: rint(x / p) is computed with two roundings of x / p, so that
# where it is nearly half-way, the next whole number may be taken, and x - p rint(x / p) is up to 2 beyond.
SLACK = 4
# Elements that are reduced at a time: they stay in the second cache.
BLOCK = 1 << 15
# Largest primes: of these, `Residues.dot` adds up products of DOT residues, or of their digits, exactly.
LARGEST = {"float32": 1 << 21, "float64": 1 << 43}
DOT = {"float32": 1 << 12, "float64": 1 << 10}
DIGIT = 2.0**22


def exact_up_to(dtype: np.dtype[Any]) -> int:
    """All whole numbers up to this one, and sums that stay below it, are exact: 2**24 or 2**53."""
    return 1 << (np.finfo(dtype).nmant + 1)


def is_prime(n: int) -> bool:
    """Whether n is a prime.

    Miller-Rabin with the first twelve primes as bases, which decides for all n < 3.18e23 (Sorenson and
    Webster, Mathematics of Computation 86, 2017).
    """
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if n < 2 or any(n % q == 0 for q in bases):
        return n in bases
    twos = (n - 1 & 1 - n).bit_length() - 1
    for base in bases:
        power = pow(base, n - 1 >> twos, n)
        if power != 1 and all(
            (power := power if i == 0 else power * power % n) != n - 1 for i in range(twos)
        ):
            return False
    return True


def modulus(terms: int, dtype: np.dtype[Any]) -> int:
    """The largest prime for which sums of so many residues, and their reduction, are exact in the dtype."""
    limit = exact_up_to(dtype)
    # Two more residues are room for p rint(x / p), which is more than x.
    p = min(LARGEST[dtype.name], 2 * (limit // (terms + 2) - SLACK))
    while not is_prime(p):
        p -= 1
    return p


class Residues:
    """Arithmetic modulo p in arrays of a dtype.

    Parameters
    ----------
    p : int
        From `modulus`.
    dtype : dtype
    """

    def __init__(self, p: int, dtype: np.dtype[Any]):
        self.p, self.dtype = p, dtype
        self._block = DOT[dtype.name]
        self._p, self._inverse = dtype.type(p), dtype.type(1) / dtype.type(p)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draw each element from all residues alike."""
        whole = np.int32 if self.dtype == np.float32 else np.int64
        drawn = rng.integers(-(self.p // 2), self.p // 2 + 1, shape, whole)
        return np.asarray(drawn).astype(self.dtype)

    def total(self, *arrays: Array) -> Array:
        """The sum of arrays, reduced; none of them is changed."""
        out = empty(arrays[0].shape, self.dtype)
        flat, terms = out.reshape(-1), [a.reshape(-1) for a in arrays]
        with errstate(invalid="ignore", over="ignore"):
            for start in range(0, out.size, BLOCK):
                part = slice(start, start + BLOCK)
                x = terms[0][part]
                for term in terms[1:]:
                    x = x + term[part]
                reduced = np.multiply(x, self._inverse, out=flat[part])
                np.rint(reduced, out=reduced)
                reduced *= -self._p
                reduced += x
        return out

    def dot(self, a: Array, b: Array) -> int | None:
        """The sum of a b modulo p, from 0 to p - 1; None where it is no whole number, or NaN."""
        a, b, found = a.reshape(-1), b.reshape(-1), 0
        with errstate(invalid="ignore", over="ignore"):
            for start in range(0, a.size, self._block):
                part = slice(start, start + self._block)
                for unit, total in self._dots(a[part].astype(np.float64), b[part].astype(np.float64)):
                    if not total.is_integer():
                        return None
                    found += unit * int(total)
        return found % self.p

    def _dots(self, a: Array, b: Array) -> list[tuple[int, float]]:
        """Sums of products that are exact in float64, and by what each counts."""
        if self.dtype == np.float32:
            return [(1, float(a @ b))]
        (a1, a0), (b1, b0) = _two_digits(a), _two_digits(b)
        unit = int(DIGIT)
        return [
            (1, float(a0 @ b0)),
            (unit, float(a1 @ b0)),
            (unit, float(a0 @ b1)),
            (unit * unit, float(a1 @ b1)),
        ]

    def digits(self, x: Array, terms: int) -> Iterator[tuple[int, Array]]:
        """Residues as sums of units times digits, so small that sums of so many of them are exact.

        Parameters
        ----------
        x : ndarray
        terms : int

        Yields
        ------
        unit : int
        digit : ndarray

        Raises
        ------
        TooLargeError
            If there are too many terms for digits that are not all zero.
        """
        if terms > exact_up_to(self.dtype):
            raise TooLargeError(
                f"a sum of {terms} whole numbers is not exact in {self.dtype}: expected fewer"
            )
        base = 1 << ((2 * exact_up_to(self.dtype)) // terms).bit_length() - 1
        unit, most = 1, self.p // 2 + SLACK
        while most > base // 2:
            higher, digit = empty(x.shape, self.dtype), empty(x.shape, self.dtype)
            np.multiply(x, self.dtype.type(1 / base), out=higher)
            np.rint(higher, out=higher)
            np.multiply(higher, -self.dtype.type(base), out=digit)
            digit += x
            yield unit, digit
            x, unit, most = higher, unit * base, (most + base // 2) // base
        yield unit, x

    def array(self, values: list[int]) -> Array:
        """Whole numbers of any size, reduced."""
        half = self.p // 2
        return np.array([(value + half) % self.p - half for value in values], self.dtype)


def _two_digits(x: Array) -> tuple[Array, Array]:
    """X as DIGIT times the first plus the second."""
    high = np.rint(x * (1 / DIGIT))
    return high, x - high * DIGIT
