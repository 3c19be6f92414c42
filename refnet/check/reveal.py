"""In which order somebody's sum of products adds its terms: found by what it returns (FPRev).

Where all terms are 1 but for one of M and one of -M, so large that M + n = M, whatever is added to M or to
-M before the two meet is lost. What is left is the number of terms outside the smallest subtree that holds
both (Xie, Gao, Wang and Xue, FPRev: Revealing Floating-Point Accumulation Order, arXiv:2411.00442). From the
sizes of those subtrees follows the tree. Whether a product is rounded before it is added, or fused with the
addition, shows where a product that is no number of the format meets minus its rounded value.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.check.precision import Format
from refnet.check.summation import Tree
from refnet.errors import RefnetError

# Of values for both operands of each product, (count,) float64: the element that is their sum of products.
Sum = Callable[[Array, Array], float]

# Pairs of terms that are measured again, and how often.
AGAIN, TIMES = 8, 3
# Pairs whose meeting is compared with that of the tree which was found.
COMPARED = 48
# Calls for each term: chains take a few, trees the logarithm of their terms.
MOST = 32
# Fewest units that one measurement has to count to.
FEWEST = 16


class OrderError(RefnetError):
    """Why a sum has no order that can be told."""


class Scale(NamedTuple):
    """The two operands of a mask, and of a unit."""

    mask: tuple[float, float]
    unit: tuple[float, float]


# For operands and sums of float32's range; for operands in float16; for sums in float16.
SCALES = (
    Scale((2.0**100, 1.0), (1.0, 1.0)),
    Scale((2.0**15, 2.0**15), (2.0**-12, 2.0**-12)),
    Scale((2.0**15, 1.0), (2.0**-8, 1.0)),
)


class Order(NamedTuple):
    """How a sum of products is made.

    Attributes
    ----------
    tree : Tree
    fused : frozenset of int
        The terms whose products are added without having been rounded.
    calls : int
        How often the sum was asked for.
    """

    tree: Tree
    fused: frozenset[int]
    calls: int


def reveal(sum_of: Sum, count: int, *, accumulate: Format, seed: int = 0) -> Order:
    """Find the summation tree of a sum of products.

    Parameters
    ----------
    sum_of : callable
        Given (count,) values for either operand of each product, the sum.
    count : int
        How many products; 2 or more.
    accumulate : Format
        In which sums are claimed to be made.
    seed : int
        Of the pairs that are measured again.

    Returns
    -------
    Order

    Raises
    ------
    OrderError
        If the order differs from call to call or with the values, or the sum is none of products that are
        added two or more at a time (Winograd's, an FFT, a compensated or an exact sum).
    """
    meetings = Meetings(sum_of, count)
    pairs = _pairs(count, np.random.default_rng(seed))
    for i, j in (next(pairs) for _ in range(AGAIN)):
        if len({meetings.size(i, j) for _ in range(TIMES)}) > 1:
            raise OrderError("terms are added in an order that differs from call to call")
    tree = _tree(meetings, count)
    for i, j in (next(pairs) for _ in range(COMPARED)):
        i, j = j, i  # the masks' signs are not those that the tree was found with
        if meetings.size(i, j) != tree.meeting(i, j):
            raise OrderError(f"terms {i} and {j} meet elsewhere when the signs of their values are swapped")
    return Order(tree, _fused(meetings, tree, accumulate), meetings.calls)


def same_order(sum_of: Sum, tree: Tree, *, seed: int = 0) -> bool:
    """Whether terms of another sum, drawn pairs of them, meet where those of a tree do.

    Raises
    ------
    OrderError
        If they meet nowhere.
    """
    meetings, pairs = Meetings(sum_of, tree.count), _pairs(tree.count, np.random.default_rng(seed))
    return all(meetings.size(i, j) == tree.meeting(i, j) for i, j in (next(pairs) for _ in range(COMPARED)))


def _pairs(count: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    while True:
        i, j = (int(k) for k in rng.choice(count, 2, replace=False))
        yield min(i, j), max(i, j)


class Meetings:
    """A sum that is asked where terms meet.

    Parameters
    ----------
    sum_of : callable
    count : int

    Attributes
    ----------
    calls : int
        How often it was asked.

    Raises
    ------
    OrderError
        If it does not count units, or masks swallow none.
    """

    def __init__(self, sum_of: Sum, count: int):
        self._sum_of, self._count = sum_of, count
        self.calls = 0
        self._choose()

    def size(self, i: int, j: int) -> int:
        """How many terms the smallest subtree with both has: what masks at i and j lose.

        Raises
        ------
        OrderError
        """
        others = [k for k in range(self._count) if k not in (i, j)]
        left = 0
        for start in range(0, max(len(others), 1), self._most):
            units = others[start : start + self._most]
            found = self._units(units, masks=(i, j))
            if not (0 <= found <= len(units) and found == int(found)):
                raise OrderError(
                    f"{len(units)} ones beside a number of {self._large:.2g} and its negative add up to "
                    f"{found:.6g}, no count of them: this is no sum of products of the operands as they are"
                )
            left += int(found)
        return self._count - left

    def products(self, values: dict[int, tuple[float, float]]) -> float:
        """The sum where these terms have these operands, and all others zeros."""
        operands = np.zeros((2, self._count))
        for term, pair in values.items():
            operands[:, term] = pair
        self.calls += 1
        return float(self._sum_of(*operands))

    @property
    def _large(self) -> float:
        return self._scale.mask[0] * self._scale.mask[1]

    def _units(self, units: list[int], masks: tuple[int, int] | None = None) -> float:
        """How many of these units are in the sum."""
        (large, other), unit = self._scale.mask, self._scale.unit
        operands = np.zeros((2, self._count))
        operands[:, units] = np.reshape(unit, (2, 1))
        if masks is not None:
            operands[:, masks[0]] = large, other
            operands[:, masks[1]] = -large, other
        self.calls += 1
        return float(self._sum_of(*operands)) / (unit[0] * unit[1])

    def _choose(self) -> None:
        """Take the first scale whose units are counted and whose masks swallow some."""
        reasons = []
        for self._scale in SCALES:
            self._most = self._countable()
            if self._most < min(self._count, FEWEST):
                reasons.append(f"{min(self._count, FEWEST)} ones do not add up to their number")
                continue
            try:
                sizes = {self.size(0, term) for term in (1, self._count - 1)}
            except OrderError as error:
                reasons.append(str(error))
                continue
            if self._count == 2 or max(sizes) > 2:
                return
            reasons.append(
                f"ones are not lost beside {self._large:.2g}: no order shows, "
                "as of a compensated or an exact sum"
            )
        raise OrderError(reasons[0])

    def _countable(self) -> int:
        """Up to how many units the sum is right; of two numbers that follow each other one is odd."""
        most = self._count
        while most > 1:
            if all(self._units(list(range(n))) == n for n in (most, most - 1)):
                break
            most //= 2
        return most


def _tree(meetings: Meetings, count: int) -> Tree:
    """Find the tree by the terms that each pivot meets, nearest ones first.

    Around a pivot, those that it meets at one node are a subtree of that node, or several: they are taken
    apart likewise. Pivots alternate between the first and the last term, so that a chain takes as many calls
    as it has terms, whichever way it goes.
    """
    sets: set[frozenset[int]] = set()
    groups: list[tuple[list[int], int, bool]] = [(list(range(count)), count, False)]
    while groups:
        group, outer, from_last = groups.pop()
        pivot = group[-1] if from_last else group[0]
        met: dict[int, list[int]] = {}
        for term in group:
            if term != pivot:
                if meetings.calls > MOST * count:
                    raise OrderError(f"no fixed tree shows in {MOST} calls for each term")
                met.setdefault(meetings.size(min(pivot, term), max(pivot, term)), []).append(term)
        inside = [pivot]
        for size in sorted(met):
            inside += met[size]
            if len(inside) == size:
                sets.add(frozenset(inside))
            elif size != outer:
                raise OrderError(
                    f"{len(inside)} terms meet in a sum of {size}: they are added in no fixed tree"
                )
            if len(met[size]) > 1:
                groups.append((met[size], size, not from_last))
    return Tree.of_terms(count, sets)


def _fused(meetings: Meetings, tree: Tree, accumulate: Format) -> frozenset[int]:
    """The terms whose products are not rounded: (1 + h)^2 beside -(1 + 2 h), its rounded value, is h^2."""
    h = 2.0 ** -((accumulate.digits + 1) // 2)
    found = set()
    for term, other in tree.siblings().items():
        if meetings.products({term: (1 + h, 1 + h), other: (-1 - 2 * h, 1.0)}) == h * h:
            found.add(term)
    return frozenset(found)
