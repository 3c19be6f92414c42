"""What kernels run on: OpenMP's threads, the version of the micro-kernel."""

import os

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
    """Name the version of the micro-kernel that convolutions run: baseline, avx2, avx512 or neon."""
    return str(micro_kernel.name())


def spin(rounds: int, dtype: str) -> int:
    """Do nothing but multiply-adds, independent and in registers, on every thread; return how many."""
    return int(micro_kernel.spin(rounds, dtype == "float64")[0])
