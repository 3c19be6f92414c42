"""refnet: a framework-independent correctness oracle for 3D residual networks."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType

from refnet import _core as _core  # before all else: what sources without kernels say
from refnet import arithmetic, certify, golden, gradcheck, interop, networks, trace
from refnet.arithmetic import Arithmetic, Kernel
from refnet.errors import RefnetError
from refnet.inputs import clip, fill
from refnet.net import Net
from refnet.networks import build
from refnet.run import Gradients, Run, backward, forward

__version__ = version("refnet")

__all__ = [
    "Arithmetic",
    "Gradients",
    "Kernel",
    "Net",
    "RefnetError",
    "Run",
    "arithmetic",
    "backward",
    "build",
    "certify",
    "clip",
    "fill",
    "forward",
    "golden",
    "gradcheck",
    "interop",
    "networks",
    "trace",
]


def _offered(module: ModuleType) -> Callable[[], list[str]]:
    """What completion offers of a module: its public names, and what Python gives every module."""
    return lambda: sorted({*module.__all__, *(name for name in vars(module) if name.startswith("__"))})


for _module in (
    sys.modules[__name__],
    *(arithmetic, certify, clip, fill, golden, gradcheck, interop, networks, trace),
):
    vars(_module)["__dir__"] = _offered(_module)
