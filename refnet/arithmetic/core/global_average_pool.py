"""The kernel of `refnet.ops.global_average_pool`; its gradient is the definition's."""

from typing import Any

from refnet.arithmetic.core import channels
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.ops.global_average_pool import backward, infer
from refnet.shapes import size


def forward(x: Array, *, over_time: bool = False) -> tuple[Array, Any]:
    """Divide the sum by the count; what is averaged together is a channel of its own to the sum."""
    shape = infer(x.shape, over_time=over_time)
    y = channels.sums(x.reshape(1, size(shape), -1)).reshape(shape)
    y /= x.dtype.type(x.size // y.size)
    return y, x.shape


KERNEL = Kernel(forward, backward)
