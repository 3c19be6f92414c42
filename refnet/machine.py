"""What decides about bits and speed on this machine: versions, BLAS, OpenMP, processor."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from refnet.arithmetic import ARITHMETICS
from refnet.arithmetic.core import runtime

CPUINFO = Path("/proc/cpuinfo")


def facts() -> dict[str, Any]:
    """Collect them; plain values that JSON can hold."""
    return {
        "refnet": version("refnet"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "blas": runtime.blas(),
        "micro_kernel": runtime.micro_kernel_version(),
        "openmp": runtime.openmp_enabled(),
        "threads": runtime.threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }


def kernels() -> dict[str, str]:
    """For each operator, what the `core` arithmetic runs."""
    found = {}
    for op, kernel in ARITHMETICS["core"].kernels.items():
        definition = ARITHMETICS["reference"].kernels[op]
        forward = "NumPy definition" if kernel.forward is definition.forward else "Cython"
        backward = "NumPy definition" if kernel.backward is definition.backward else "Cython"
        found[op] = forward if forward == backward else f"{forward}, backward {backward}"
    return found


def _cpu() -> str:
    try:
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
