"""The kernel of `refnet.ops.running_variance`; as defined, nothing has a gradient."""

from typing import Any

from refnet.arithmetic.core import channels
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.ops.batch_norm_training import values_per_channel
from refnet.ops.running_mean import MOMENTUM, average
from refnet.ops.running_variance import backward, unbiased


def forward(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """Average the old variance and the batch's."""
    batch = unbiased(channels.statistics(x), values_per_channel(x.shape))
    return average(variance, batch, momentum), None


KERNEL = Kernel(forward, backward)
