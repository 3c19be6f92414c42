"""What refnet is measured beside: a record of plain functions, one for each in `refnet.bench.peers`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from refnet.arrays import Array
from refnet.bench.problem import Problem
from refnet.errors import one_line

# What is timed: it computes arrays, by name.
Call = Callable[[], Mapping[str, Array]]
# For each direction a call, or in words why there is none.
Calls = Mapping[str, Call | str]
# ``(threads, problem, inputs, dy) -> Calls``: an operator in each of the problem's directions.
Operator = Callable[[int, Problem, Sequence[Array], Array], Calls]


@dataclass(frozen=True)
class Peer:
    """An implementation to be measured beside refnet's.

    Attributes
    ----------
    name : str
    packages : tuple of str
        What has to be installed, by names that are to be imported too.
    threads : str
        How it is held to a number of threads.
    operator : ``(threads, problem, inputs, dy) -> Calls``
        Whatever can be done once, conversions and compilation, is done before a call is returned.
    train : ``(threads, net, given, output_gradients) -> Call``, optional
        A whole net forward and backward; None where the peer has none.
    """

    name: str
    packages: tuple[str, ...]
    threads: str
    operator: Operator
    train: Callable[..., Call] | None = None

    def versions(self) -> dict[str, str]:
        """The versions of its packages that are installed."""
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def unusable(self) -> str | None:
        """Why it cannot be used here; None if it can."""
        found = self.versions()
        if missing := [package for package in self.packages if package not in found]:
            verb = "are" if len(missing) > 1 else "is"
            return f"{' and '.join(missing)} {verb} not installed: pip install {' '.join(missing)}"
        for package in self.packages:
            try:
                import_module(package)
            except Exception as error:  # whatever a broken installation raises
                return f"{package} {found[package]} cannot be imported: {one_line(error)}"
        return None

    def facts(self) -> dict[str, Any]:
        """What a report says about it."""
        reason = self.unusable()
        return {"versions": self.versions()} | ({"unusable": reason} if reason else {"threads": self.threads})


def convolution_only(conv3d: Operator) -> Operator:
    """Let a peer that has convolution alone say so of other operators."""

    @wraps(conv3d)
    def operator(threads: int, problem: Problem, inputs: Sequence[Array], dy: Array) -> Calls:
        if problem.op == "conv3d":
            return conv3d(threads, problem, inputs, dy)
        return dict.fromkeys(problem.directions, "convolution only")

    return operator
