"""The kernel of the operators that move time: x seen as (N, A, B, P), and y as (N, B, A, P)."""

from collections.abc import Callable
from typing import Any

from refnet._core import swap_axes as kernels
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops import batch_to_time, channels_to_time, time_to_batch, time_to_channels
from refnet.shapes import Shape


def swap_axes(infer: Callable[..., Shape], split: Callable[..., Shape]) -> Kernel:
    """Make the kernel of an operator of that output, for which `split` gives (N, A, B, P)."""

    def forward(x: Array, **attrs: int) -> tuple[Array, Any]:
        y = empty(infer(x.shape, **attrs), x.dtype)
        n, a, b, p = split(*x.shape, **attrs)
        kernels.forward(x.reshape(n, a, b, p), y.reshape(n, b, a, p))
        return y, (x.shape, (n, b, a, p))

    def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
        shape, (n, b, a, p) = context
        if not needs[0]:
            return (None,)
        dx = empty(shape, dy.dtype)
        kernels.forward(dy.reshape(n, b, a, p), dx.reshape(n, a, b, p))
        return (dx,)

    return Kernel(forward, backward)


TIME_TO_CHANNELS = swap_axes(time_to_channels.infer, lambda n, c, t, h, w: (n, c, t, h * w))
TIME_TO_BATCH = swap_axes(time_to_batch.infer, lambda n, c, t, h, w: (n, c, t, h * w))
CHANNELS_TO_TIME = swap_axes(
    channels_to_time.infer, lambda n, c, t, h, w, *, frames: (n, frames, c // frames, h * w)
)
BATCH_TO_TIME = swap_axes(
    batch_to_time.infer, lambda n, c, t, h, w, *, frames: (n // frames, frames, c, h * w)
)
