"""The kernel of `refnet.ops.dropout`, in two steps, each correctly rounded in the dtype of x.

Forward::

    keep = RN(1 / (1 - ratio))          ratio is the float64 number that was given
    y    = RN(x keep) where the mask is 1, +0 where it is 0

Backward likewise, dx = RN(dy keep).
"""

from fractions import Fraction
from typing import Any

import numpy as np

from refnet.arithmetic.exact import channels
from refnet.arithmetic.exact.rational import nearest
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.dropout import RATIO


def forward(x: Array, mask: Array, *, ratio: float = RATIO) -> tuple[Array, Any]:
    """RN(x keep), where the mask keeps."""
    keep = np.array([nearest(1 / (1 - Fraction(ratio)), x.dtype)], x.dtype)
    return channels.scaled(x * mask, keep), (mask, keep)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """RN(dy keep), where the mask keeps; the mask is given."""
    mask, keep = context
    return channels.scaled(dy * mask, keep) if needs[0] else None, None


KERNEL = Kernel(forward, backward)
