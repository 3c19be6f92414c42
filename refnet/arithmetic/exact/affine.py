"""The kernel of `refnet.ops.affine`: each element rounded once, in one multiply-add."""

from typing import Any

import numpy as np

from refnet.arithmetic.exact import channels
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs


def forward(x: Array, s: Array, b: Array) -> tuple[Array, Any]:
    """Compute RN(s x + b), channel by channel."""
    return channels.lines(x, s, b), (x, s)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = RN(s dy); ds = RN(sum of dy x) and db = RN(sum of dy) over N, T, H, W."""
    x, s = context
    return (
        channels.lines(dy, s, np.zeros_like(s)) if needs[0] else None,
        channels.products("ds", dy, x) if needs[1] else None,
        channels.sums("db", dy) if needs[2] else None,
    )


KERNEL = Kernel(forward, backward)
