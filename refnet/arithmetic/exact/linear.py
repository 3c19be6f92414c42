"""The kernel of `refnet.ops.linear`: the products of a convolution of one tap, as core has them."""

from typing import Any

from refnet.arithmetic.core.buffers import rows
from refnet.arithmetic.core.linear import image, window_of
from refnet.arithmetic.exact import channels, conv3d, products
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.linear import context


def forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, Any]:
    """RN(x w' + b)."""
    samples, bias = rows(x)[None], products.bias(b, x.dtype)
    y = conv3d.weight_gradients(samples, image(w), bias, (len(x), len(w)), window_of(w), "y")
    return y, context(x, w, b)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """RN(dy w), RN(dy' x), RN(sum of dy over samples)."""
    x, w, has_bias = context
    window, none = window_of(w), products.bias(None, x.dtype)
    dx = dw = None
    if needs[0]:
        dx = conv3d.sums(image(w), dy, none, (1, len(dy), 1, 1, w.shape[1]), window, "dx").reshape(x.shape)
    if needs[1]:
        dw = conv3d.input_gradients(rows(x)[None], dy, image(w).shape, window, "dw").reshape(w.shape)
    if not has_bias:
        return dx, dw
    return dx, dw, channels.sums("db", dy[:, :, None, None, None]) if needs[2] else None


KERNEL = Kernel(forward, backward)
