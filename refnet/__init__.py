"""refnet: a framework-independent correctness oracle for 3D residual networks."""

from importlib.metadata import version

from refnet import _core as _core  # before all else: what sources without kernels say
from refnet import certify, golden, gradcheck, interop, networks, trace
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


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
