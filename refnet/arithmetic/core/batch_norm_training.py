"""The kernel of `refnet.ops.batch_norm_training`."""

from typing import Any

from refnet._core import batch_norm as kernels
from refnet.arithmetic.core import batch_norm, channels
from refnet.arithmetic.core.buffers import empty, flat
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.batch_norm import EPSILON
from refnet.ops.batch_norm_training import values_per_channel


def forward(x: Array, s: Array, b: Array, *, epsilon: float = EPSILON) -> tuple[Array, Any]:
    """Normalise by the statistics of the batch."""
    return batch_norm.forward(x, s, b, *channels.statistics(x), epsilon=epsilon)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = scale (dy - db / n - z ds / n), ds = sum of dy z, db = sum of dy; z = (x - mean) / deviation."""
    x, s, mean, deviation = context
    n = x.dtype.type(values_per_channel(x.shape))
    ds, db = channels.products(dy, x, mean) / deviation, channels.sums(dy)
    dx = empty(x.shape, x.dtype) if needs[0] else None
    if dx is not None:
        of_variance = ds / (n * deviation)
        kernels.input_gradient(flat(dy), flat(x), mean, s / deviation, db / n, of_variance, flat(dx))
    return dx, ds if needs[1] else None, db if needs[2] else None


KERNEL = Kernel(forward, backward)
