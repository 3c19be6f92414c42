"""What the machine can do at most, measured in the same run as what is held against it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from refnet.arithmetic.core.runtime import spin
from refnet.arrays import Array
from refnet.inputs.fill import uniform
from refnet.timing import seconds

GEMM_SIZE = 2048
# Rounds of multiply-adds; on a fast processor some milliseconds.
SPINS = 1 << 22
# Larger than any cache; bytes.
COPIED = 256 << 20
ATTEMPTS, SPIN_ATTEMPTS = 5, 25


def multiply_add_peak(dtype: str) -> float:
    """Multiply-adds a second in registers, all threads together, the best of several."""
    count = spin(SPINS, dtype)
    return count / min(seconds(lambda: spin(SPINS, dtype)) for _ in range(SPIN_ATTEMPTS))


def gemm(dtype: str) -> Callable[[], Array]:
    """One square GEMM of SciPy's BLAS, GEMM_SIZE ** 3 multiply-adds."""
    from scipy.linalg import blas  # a fifth of a second, which no other command should wait for

    function, a = (blas.dgemm if dtype == "float64" else blas.sgemm), _square(dtype)
    return lambda: function(1.0, a, a)


def bandwidth(threads: int) -> float:
    """Bytes a second that a copy on `threads` threads reads and writes, the best of several."""
    copy = Copy(COPIED, threads)
    return 2 * COPIED / min(seconds(copy) for _ in range(ATTEMPTS))


class Copy:
    """A copy of `count` bytes, a piece for each thread."""

    def __init__(self, count: int, threads: int):
        source, sink = np.ones(count, np.uint8), np.ones(count, np.uint8)
        self.pieces = [np.array_split(array, threads) for array in (source, sink)]
        self.pool = ThreadPoolExecutor(threads)

    def __call__(self) -> None:
        """Copy them."""
        source, sink = self.pieces
        for _ in self.pool.map(np.copyto, sink, source):
            pass


@cache
def _square(dtype: str) -> Array:
    return np.asfortranarray(uniform("gemm", (GEMM_SIZE, GEMM_SIZE), 0).astype(dtype))
