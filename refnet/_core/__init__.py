"""The kernels, compiled from `_core/*.pyx` of the sources; they import nothing of refnet."""

import os
import sys
from importlib.util import find_spec

# How often a thread of GNU's OpenMP looks for work before it sleeps, where the user says nothing of it. Its
# own 300,000 take milliseconds, on a busy machine those of the thread that it waits for; so few cost nothing
# on a quiet one (benchmarks/waiting.py; docs/performance.md has its figures).
SPINS = "10000"
# What refnet cannot be imported without: its dependencies in pyproject.toml.
NEEDED = ("numpy", "scipy", "safetensors", "typer", "psutil")

if find_spec(f"{__name__}.openmp") is None:
    raise ImportError(
        f"{__path__[0]} holds no compiled kernels: these are refnet's sources. To use the refnet that is "
        "installed, start Python in another folder; to compile this one, run `pip install -e .` in it",
        name=__name__,
        path=__path__[0],
    )

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise ImportError(
        f"refnet needs {', '.join(missing)}, not installed for {sys.executable}. To install what it needs, "
        "run `pip install -e .` in the folder of its sources",
        name=missing[0],
    )

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = SPINS
    from refnet._core import openmp as openmp  # OpenMP reads its settings when it is loaded

    del os.environ["GOMP_SPINCOUNT"]  # they are not those of other libraries, nor of child processes
