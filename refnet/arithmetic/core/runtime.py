"""What kernels run on: OpenMP's threads, the version of the micro-kernel."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from refnet._core import micro_kernel, openmp

# A forked child has none of its parent's threads, and GNU's OpenMP would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=openmp.use_one_thread)


def openmp_enabled() -> bool:
    """Whether the kernels were built with OpenMP."""
    return bool(openmp.is_enabled())


def threads() -> int:
    """How many threads a kernel called now may use."""
    return int(openmp.threads())


@contextmanager
def limited(count: int) -> Iterator[None]:
    """A context in which kernels that this Python thread calls may use that many threads.

    Parameters
    ----------
    count : int
        At least 1; without OpenMP there is one, whatever it is.
    """
    before = threads()
    openmp.use_threads(count)
    try:
        yield
    finally:
        openmp.use_threads(before)


def micro_kernel_version() -> str:
    """Name the version of the micro-kernel that convolutions run: baseline, avx2, avx512 or neon."""
    return str(micro_kernel.name())


def spin(rounds: int, dtype: str) -> int:
    """Do nothing but multiply-adds, independent and in registers, on every thread; return how many."""
    return int(micro_kernel.spin(rounds, dtype == "float64")[0])
