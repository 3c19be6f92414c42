"""The definitions themselves: every operator as its file in `refnet.ops` writes it."""

from refnet.arithmetic.table import Arithmetic, Kernel
from refnet.ops import OPS

reference = Arithmetic(
    "reference",
    {op.name: Kernel(op.forward, op.backward).in_default_environment() for op in OPS.values()},
)
