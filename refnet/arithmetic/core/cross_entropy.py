"""The kernel of `refnet.ops.cross_entropy`."""

from typing import Any

import numpy as np

from refnet._core import softmax as kernels
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs


def forward(x: Array, labels: Array) -> tuple[Array, Any]:
    """Compute the loss of each sample and their mean, in double; the mean is rounded."""
    y = np.empty((), x.dtype)
    kernels.cross_entropy(x, labels, np.empty(len(x)), y.reshape(1))
    return y, (x, labels)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = (softmax(x) - 1 at the label) dy / N, in double, rounded once; labels have no gradient."""
    x, labels = context
    if not needs[0]:
        return None, None
    dx = empty(x.shape, x.dtype)
    kernels.cross_entropy_input_gradient(x, labels, dx, float(dy) / len(x))
    return dx, None


KERNEL = Kernel(forward, backward)
