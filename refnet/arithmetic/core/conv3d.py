"""The kernel of `refnet.ops.conv3d`."""

from typing import Any

import numpy as np

from refnet._core import conv3d as kernels
from refnet.arithmetic.core import channels
from refnet.arithmetic.core.buffers import empty, flat, rows, workspace
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, per_channel
from refnet.op import InputGradients, Needs
from refnet.ops.conv3d import context, infer
from refnet.pieces import boxes
from refnet.shapes import ONES, ZEROS, Shape, Triple

# Values of weight gradients that are held at once, for spans of positions computed at the same time.
PARTIAL_SUMS = 1 << 21


def workspace_bytes(dtype: str) -> int:
    """Bytes of workspace that a convolution takes for each thread."""
    return int(kernels.workspace_bytes(np.dtype(dtype).itemsize))


def forward(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> tuple[Array, Any]:
    """Convolve; the bias is added to the finished sums."""
    y = empty(infer(x.shape, w.shape, **attrs), x.dtype)
    kernels.forward(x, rows(w), flat(y), scratch(x.dtype), *window_of(w, y.shape, **attrs))
    if b is not None:
        for box in boxes(y.shape):
            here = y[box]
            here += per_channel(b[box[1]])
    return y, context(x, w, b, **attrs)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx is a convolution of dy with the flipped w, dw pairs dy with x; db sums dy."""
    x, w, has_bias, attrs = context
    window = window_of(w, dy.shape, **attrs)
    dx = empty(x.shape, x.dtype) if needs[0] else None
    dw = empty(w.shape, w.dtype) if needs[1] else None
    if dx is not None:
        kernels.backward_data(flat(dy), rows(w), dx, scratch(x.dtype), *window)
    if dw is not None:
        kernels.backward_weights(flat(dy), x, rows(dw), scratch(x.dtype), partial_sums(rows(dw)), *window)
    if not has_bias:
        return dx, dw
    return dx, dw, channels.sums(dy) if needs[2] else None


def scratch(dtype: np.dtype[Any]) -> Array:
    """Scratch memory of every thread."""
    return workspace(workspace_bytes(dtype.name), np.dtype(np.uint8))


def partial_sums(dw: Array) -> Array:
    """Room for some weight gradients of the shape of dw (C_out, K), as far as there is any."""
    return empty((PARTIAL_SUMS // dw.size, *dw.shape), dw.dtype)


def window_of(
    w: Array,
    y: Shape,
    *,
    stride: Triple = ONES,
    pad: Triple = ZEROS,
    dilation: Triple = ONES,
    groups: int = 1,
) -> tuple[Any, int]:
    """What every kernel takes behind its arrays: (kernel, stride, pad, dilation, output), and groups."""
    return (w.shape[2:], stride, pad, dilation, y[2:]), groups


KERNEL = Kernel(forward, backward)
