"""The kernel of `refnet.ops.running_mean`, in two steps, each correctly rounded in the dtype of x.

Over the n = N T H W values of each channel::

new = RN((sum of x) / n)
y   = RN(momentum mean + (1 - momentum) new)      momentum is the float64 number that was given
"""

from fractions import Fraction
from typing import Any

from refnet.arithmetic.exact import channels
from refnet.arithmetic.exact.rational import nearest_all, rational
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.ops.batch_norm_training import values_per_channel
from refnet.ops.running_mean import MOMENTUM, backward


def forward(x: Array, mean: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """RN(momentum mean + (1 - momentum) new)."""
    return average(mean, channels.sums("mean", x, values_per_channel(x.shape)), momentum), None


def average(old: Array, new: Array, momentum: float) -> Array:
    """RN(momentum old + (1 - momentum) new)."""
    part = Fraction(momentum)
    pairs = zip(old, new, strict=True)
    return nearest_all((part * rational(a) + (1 - part) * rational(b) for a, b in pairs), old.dtype)


KERNEL = Kernel(forward, backward)
