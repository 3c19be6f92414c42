"""The kernel of `refnet.ops.running_variance`, in steps, each correctly rounded in the dtype of x.

Over the n = N T H W values of each channel::

    mean = RN((sum of x) / n)
    d    = RN(x - mean)
    new  = RN((sum of d^2) / (n - 1))
    y    = RN(momentum variance + (1 - momentum) new)     momentum is the float64 number that was given

A step that is beyond the largest number is refused by name.
"""

from typing import Any

from refnet.arithmetic.exact import channels
from refnet.arithmetic.exact.batch_norm import centred
from refnet.arithmetic.exact.door import require_finite
from refnet.arithmetic.exact.running_mean import average
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.ops.batch_norm_training import values_per_channel
from refnet.ops.running_mean import MOMENTUM
from refnet.ops.running_variance import backward


def forward(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """RN(momentum variance + (1 - momentum) new)."""
    n = values_per_channel(x.shape)
    d = centred(x, channels.sums("mean", x, n))
    new = channels.products("variance", d, d, n - 1)
    require_finite("running_variance new", new)
    return average(variance, new, momentum), None


KERNEL = Kernel(forward, backward)
