"""NumPy: the definitions themselves, the arithmetic `reference`."""

from collections.abc import Sequence

from refnet.arithmetic import reference
from refnet.arrays import Array
from refnet.bench import own
from refnet.bench.peer import Calls, Peer
from refnet.bench.problem import Problem


def operator(threads: int, problem: Problem, inputs: Sequence[Array], dy: Array) -> Calls:
    """Any operator by its definition."""
    return own.operator(reference, problem, inputs, dy)


PEER = Peer("numpy", ("numpy",), "one, and for its BLAS as threadpoolctl says", operator)
