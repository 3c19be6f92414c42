"""What runs on this machine and decides about speed, and about the bits of `reference`."""

import os
import platform
from dataclasses import astuple
from importlib.metadata import version
from inspect import unwrap
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
        forward, backward = (
            "NumPy definition" if unwrap(ours) is unwrap(theirs) else "Cython"
            for ours, theirs in zip(astuple(kernel), astuple(definition), strict=True)
        )
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
