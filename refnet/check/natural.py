"""A sum that misses more than a plain chain does, judged again by the orders in which such sums are made.

Where values and order are tied (sorted terms, blocks of one sign, constant ones), partial sums are larger
than they are on average over all orders.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.check.bounds import Claim, unit
from refnet.check.expected import Expected
from refnet.check.plausible import Levels
from refnet.check.summands import terms
from refnet.environment import errstate
from refnet.op import Op

# Elements that are looked at, beside the least plausible one; how many terms have the magnitude of a term, on
# average, where they are alike.
SAMPLE, ALIKE = 48, 2
LANES, CHAINS, BLOCKS = (4, 8, 16, 32), (8, 16, 64, 256), (4, 8, 16, 32, 64)


class Order(NamedTuple):
    """What natural orders say.

    Attributes
    ----------
    plausible : bool
        Whether the errors are those of sums in some natural order.
    name : str
        Which.
    alike : bool
        Whether the terms are alike: then rounding errors are not of mean zero, and nothing is expected of
        them but the bound.
    """

    plausible: bool
    name: str = ""
    alike: bool = False


class Summed(NamedTuple):
    """Whose sums they are: the arguments of `terms`."""

    op: Op
    subject: int
    arrays: tuple[Array, ...]
    dy: Array | None
    attrs: dict[str, Any]


def reconsidered(
    of: Summed,
    found: Array,
    expected: Expected,
    worst: tuple[int, ...],
    claim: Claim,
    levels: Levels,
) -> Order:
    """Judge a sample of elements by the partial sums of each natural order."""
    places = [worst, *_sampled(found.shape)]
    rows = [terms(of.op, of.subject, of.arrays, of.dy, place, of.attrs) for place in places]
    if _are_alike(rows):
        return Order(True, "", True)
    off = np.array([float(found[place]) - float(expected.value[place]) for place in places])
    stored = np.array([unit(claim.store) * float(expected.value[place]) for place in places])
    u = unit(claim.accumulate)
    for name, partial_sums in ORDERS.items():
        squares = np.array([partial_sums(row) for row in rows])
        sigma = np.sqrt((u**2 * squares + stored**2) / 3) + expected.floor
        with errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(off == 0, 0.0, np.abs(off) / sigma)
        # Of the sample, which is drawn, the mean; of the worst, which is not, the largest.
        mean = float(np.sqrt(np.mean(np.square(ratio[1:]))))
        if mean <= 1 + 2 / np.sqrt(len(places)) and float(ratio.max()) <= levels.largest:
            return Order(True, name)
    return Order(False)


def _are_alike(rows: list[Array]) -> bool:
    """Whether terms, but for zeros, have few magnitudes: equal ones round off the same again and again."""
    alike = wanted = 0
    for row in rows:
        _, counts = np.unique(np.abs(row[row != 0]), return_counts=True)
        alike += int(np.square(counts).sum())
        wanted += min(ALIKE, int(counts.sum())) * int(counts.sum())
    return alike >= wanted


def _sampled(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    count = int(np.prod(shape))
    chosen = np.random.default_rng(0).choice(count, min(SAMPLE, count), replace=False)
    for place in np.sort(chosen):
        yield tuple(int(i) for i in np.unravel_index(place, shape))


def _chain(flat: Array) -> float:
    return float(np.square(np.cumsum(flat)).sum())


def _in_order(row: Array) -> float:
    """Position after position, in the order of the arrays."""
    return _chain(row.ravel())


def _backwards(row: Array) -> float:
    return _chain(row.ravel()[::-1])


def _taps_first(row: Array) -> float:
    """Tap by tap, the first axis innermost."""
    return _chain(np.moveaxis(row, 0, -1).ravel()) if row.ndim > 1 else _chain(row)


def _in_lanes(count: int) -> Callable[[Array], float]:
    def partial_sums(row: Array) -> float:
        flat = np.resize(row.ravel(), -(-row.size // count) * count)
        flat[row.size :] = 0
        lanes = flat.reshape(-1, count).cumsum(axis=0)
        return float(np.square(lanes).sum()) + _chain(lanes[-1])

    return partial_sums


def _in_chains(length: int) -> Callable[[Array], float]:
    def partial_sums(row: Array) -> float:
        flat = np.resize(row.ravel(), -(-row.size // length) * length)
        flat[row.size :] = 0
        chains = flat.reshape(-1, length).cumsum(axis=1)
        return float(np.square(chains).sum()) + _chain(chains[:, -1])

    return partial_sums


def _in_blocks(count: int) -> Callable[[Array], float]:
    """Channels in blocks, tap after tap within a block: as vectors of channels are laid out."""

    def partial_sums(row: Array) -> float:
        if row.ndim < 2:
            return _chain(row)
        channels = row.reshape(len(row), -1)
        blocks = [channels[i : i + count].T.ravel() for i in range(0, len(row), count)]
        return _chain(np.concatenate(blocks))

    return partial_sums


ORDERS: dict[str, Callable[[Array], float]] = {
    "in the order of the arrays": _in_order,
    "tap by tap": _taps_first,
    "backwards": _backwards,
    **{f"in blocks of {count} channels": _in_blocks(count) for count in BLOCKS},
    **{f"in {count} lanes": _in_lanes(count) for count in LANES},
    **{f"in chains of {length}": _in_chains(length) for length in CHAINS},
}
