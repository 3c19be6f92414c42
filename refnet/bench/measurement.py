"""What was measured: ratios, and what they rest on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import geometric_mean, median
from typing import Any

# A multiply-add is two operations.
OPERATIONS = 2
# The name that refnet's own times have.
REFNET = "refnet"


@dataclass(frozen=True)
class Spread:
    """Numbers measured one after the other, such as ratios pair by pair."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    def times(self, factor: float) -> "Spread":
        """All of them, times a factor."""
        return Spread(tuple(factor * value for value in self.values))

    def as_json(self) -> dict[str, Any]:
        """All of them, and what is shown of them."""
        found = {"median": self.median, "least": min(self.values), "most": max(self.values)}
        return found | {"values": list(self.values)}


@dataclass(frozen=True)
class Measurement:
    """One thing measured.

    Attributes
    ----------
    problem, direction, dtype : str
    facts : dict
        Whole numbers and rates that the ratios rest on.
    own : dict of str to Spread
        Ratios of refnet's alone, by what they are: to the GEMM rate, to a copy, to less work.
    peers : dict of str to Spread or str
        For each peer its time, or memory, over refnet's; in words why there is none.
    seconds : dict of str to Spread
        How long refnet and each peer took, where time was measured.
    """

    problem: str
    direction: str
    dtype: str
    facts: Mapping[str, float]
    own: dict[str, Spread]
    peers: dict[str, Spread | str]
    seconds: dict[str, Spread] = field(default_factory=dict)

    @property
    def gflops(self) -> dict[str, float]:
        """10**9 operations a second of each, by its median; a multiply-add is two."""
        operations = OPERATIONS * self.facts.get("multiply_adds", 0)
        if not operations:
            return {}
        return {name: operations / spread.median / 1e9 for name, spread in self.seconds.items()}

    def as_json(self) -> dict[str, Any]:
        """Everything, in what JSON has."""
        own = {name: spread.as_json() for name, spread in self.own.items()}
        peers = {
            name: {"unavailable": cell} if isinstance(cell, str) else cell.as_json()
            for name, cell in self.peers.items()
        }
        named = {"problem": self.problem, "direction": self.direction, "dtype": self.dtype}
        times = {name: spread.times(1000).as_json() for name, spread in self.seconds.items()}
        rates = {"milliseconds": times, "gflops": self.gflops}
        return named | {"facts": dict(self.facts), **rates, "own": own, "peers": peers}


def geometric_means(rows: Iterable[Measurement]) -> dict[str, dict[str, float]]:
    """For each dtype and peer, the geometric mean of the medians."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for peer, cell in row.peers.items():
            if not isinstance(cell, str):
                found.setdefault(row.dtype, {}).setdefault(peer, []).append(cell.median)
    return {
        dtype: {peer: geometric_mean(ratios) for peer, ratios in peers.items()}
        for dtype, peers in found.items()
    }
