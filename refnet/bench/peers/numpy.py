"""NumPy: the definitions themselves, the arithmetic `reference`."""

from collections.abc import Mapping
from typing import Any

from refnet.arithmetic import reference
from refnet.arrays import Array
from refnet.bench import own
from refnet.bench.peer import Calls, Peer


def conv3d(threads: int, x: Array, w: Array, dy: Array, attrs: Mapping[str, Any]) -> Calls:
    """Convolution, tap by tap."""
    return own.conv3d(reference, x, w, dy, attrs)


def operator(threads: int, op: str, inputs: list[Array], dy: Array, attrs: Mapping[str, Any]) -> Calls:
    """Any operator by its definition."""
    return own.operator(reference, op, inputs, dy, attrs)


PEER = Peer("numpy", ("numpy",), "one, and for its BLAS as threadpoolctl says", conv3d, operator)
