"""A sum of products computed along a summation tree, with the roundings of a format: bit for bit.

Everything is computed in float64, and what float64 loses is kept: a sum and its error. Where that error is
not zero, the last bit of the sum is made odd, so that rounding it to a format of at least two digits fewer is
rounding the exact sum once (Boldo and Melquiond, IEEE Transactions on Computers 57(4), 2008).
"""

from collections.abc import Collection, Sequence
from math import fsum

import numpy as np

from refnet.arrays import Array
from refnet.check.precision import FLOAT64, Format, Way
from refnet.check.summation import Tree

# Splits a float64 into two halves of 26 bits (Dekker, 1971).
SPLIT = 2.0**27 + 1


def along(
    tree: Tree,
    left: Array,
    right: Array,
    *,
    fused: Collection[int],
    accumulate: Format,
    store: Format,
    way: Way = "nearest",
) -> Array:
    """Sums of products, added in the order of a tree.

    What a node adds is rounded once, however many numbers they are. A product is rounded before it is added,
    unless it is fused. Zeros have no sign.

    Parameters
    ----------
    tree : Tree
    left, right : (count, n) ndarray of float64
        The operands of each sum's products. Products and sums are of the size of normal numbers.
    fused : collection of int
        The terms whose products are not rounded by themselves.
    accumulate : Format
        In which products and sums are rounded.
    store : Format
        To which the last sum is rounded.
    way : {"nearest", "zero"}
        How sums are rounded.

    Returns
    -------
    (n,) ndarray of float64
    """
    values: list[list[Array]] = []
    for term in range(tree.count):
        product = _product(left[term], right[term])
        values.append(product if term in fused else [_rounded(product, accumulate, way)])
    for children in tree.nodes:
        parts = [part for child in children for part in values[child]]
        values.append([_rounded(parts, accumulate, way)])
    (total,) = values[-1]
    return store.round(total)


def _product(a: Array, b: Array) -> list[Array]:
    """A product in two parts, without an error; one where the other is nothing (Dekker, 1971)."""
    product = a * b
    high_a, high_b = (SPLIT * v - (SPLIT * v - v) for v in (a, b))
    low_a, low_b = a - high_a, b - high_b
    error = ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b
    return [product, error] if error.any() else [product]


def _rounded(parts: Sequence[Array], form: Format, way: Way) -> Array:
    """The exact sum of some numbers, rounded to a format."""
    if len(parts) == 1:
        return form.round(parts[0], way)
    if len(parts) == 2:
        total, error = _two(*parts)
    else:
        rows = np.stack(parts, axis=-1).tolist()
        total = np.array([fsum(row) for row in rows])
        error = np.array([fsum([*row, -one]) for row, one in zip(rows, total.tolist(), strict=True)])
    if form is FLOAT64 and way == "nearest":
        return total
    return form.round(_odd(total, error), way)


def _two(a: Array, b: Array) -> tuple[Array, Array]:
    """The sum, and what rounding it lost (Knuth, 1969)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _odd(total: Array, error: Array) -> Array:
    """Of the two float64 between which the exact sum lies, the one whose last bit is odd."""
    other = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    even = total.view(np.int64) % 2 == 0
    found: Array = np.where((error != 0) & even, other, total)
    return found
