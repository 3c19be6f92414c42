"""What kernels run on: OpenMP's threads, the version of the micro-kernel, BLAS held to one thread."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

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


def micro_kernel_version() -> str:
    """Name the version of the micro-kernel that convolutions run: baseline, avx2 or avx512."""
    return str(micro_kernel.name())


def spin(rounds: int, dtype: str) -> int:
    """Do nothing but multiply-adds, independent and in registers, on every thread; return how many."""
    return int(micro_kernel.spin(rounds, dtype == "float64")[0])


def blas() -> list[str]:
    """Name the BLAS libraries of this process: implementation, version, kernels."""
    return sorted(
        " ".join(str(info[key]) for key in ("internal_api", "version", "architecture") if info.get(key))
        for info in ThreadpoolController().select(user_api="blas").info()
    )


class _HeldBLAS:
    """BLAS libraries that are held to one thread while any Python thread asks for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        self.threads: list[int] = []

    def set_threads(self, counts: list[int]) -> None:
        for library, count in zip(self.libraries, counts, strict=True):
            library.set_num_threads(count)


_held = _HeldBLAS()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread, for their number changes bits; the last to leave gives back what it had."""
    with _held.lock:
        if _held.holders == 0:
            _held.threads = [library.num_threads for library in _held.libraries]
            _held.set_threads([1] * len(_held.libraries))
        _held.holders += 1
    try:
        yield
    finally:
        with _held.lock:
            _held.holders -= 1
            if _held.holders == 0:
                _held.set_threads(_held.threads)
