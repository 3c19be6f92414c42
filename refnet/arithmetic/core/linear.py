"""The kernel of `refnet.ops.linear`: the products of a convolution of one tap.

Each element is a sum in the order of conv3d.pyx: y as a gradient of weights, over D; dx as an output, over
K; dw as a gradient of the input, over N. So a row of y or dx does not depend on the rest of the batch.
Few samples have kernels of their own, which sum in the same order.
"""

from typing import Any

from refnet._core import conv3d, linear
from refnet.arithmetic.core import channels
from refnet.arithmetic.core.buffers import empty, rows
from refnet.arithmetic.core.conv3d import partial_sums, scratch
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.linear import context
from refnet.pieces import boxes
from refnet.shapes import ONES, ZEROS

# Samples up to which reading or writing the weights takes longer than the sums: nothing is packed then.
FEW = 8


def forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, Any]:
    """Compute x w' + b."""
    y = empty((len(x), len(w)), x.dtype)
    if len(x) <= FEW:
        linear.forward(rows(x), w, y)
    else:
        conv3d.backward_weights(rows(x)[None], image(w), y, scratch(x.dtype), partial_sums(y), *window_of(w))
    if b is not None:
        for box in boxes(y.shape):
            here = y[box]
            here += b[box[1]]
    return y, context(x, w, b)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy w, dw = dy' x, db = sum of dy over samples."""
    x, w, has_bias = context
    dx = empty(x.shape, x.dtype) if needs[0] else None
    dw = empty(w.shape, w.dtype) if needs[1] else None
    few = len(x) <= FEW
    if dx is not None and few:
        linear.input_gradient(dy, w, rows(dx))
    elif dx is not None:
        conv3d.forward(image(w), dy, rows(dx)[None], scratch(x.dtype), *window_of(w))
    if dw is not None and few:
        linear.weight_gradient(dy, rows(x), dw)
    elif dw is not None:
        conv3d.backward_data(rows(x)[None], dy, image(dw), scratch(x.dtype), *window_of(w))
    if not has_bias:
        return dx, dw
    return dx, dw, channels.sums(dy[:, :, None, None, None]) if needs[2] else None


def image(w: Array) -> Array:
    """View w (K, D) as an image (1, K, 1, 1, D)."""
    return w[None, :, None, None]


def window_of(w: Array) -> tuple[Any, int]:
    """What every kernel takes behind its arrays: one tap, one group, and the positions (1, 1, D)."""
    return (ONES, ONES, ZEROS, ONES, (1, 1, w.shape[1])), 1


KERNEL = Kernel(forward, backward)
