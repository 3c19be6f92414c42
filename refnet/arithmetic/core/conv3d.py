"""The kernel of `refnet.ops.conv3d`."""

from math import prod
from typing import Any

import numpy as np

from refnet._core import conv3d as kernels
from refnet.arithmetic.core import channels
from refnet.arithmetic.core.buffers import empty, flat, rows, workspace
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import Gradients, Needs
from refnet.ops.conv3d import infer
from refnet.shapes import ONES, ZEROS, Triple

# Values of weight gradients that are held at once, for spans of positions computed at the same time.
PARTIAL_SUMS = 1 << 21
# Channels of x, and phases of a stride, up to which the gradient of x is computed for all phases at once.
IMAGE_CHANNELS, MOST_PHASES = 4, 16


def workspace_bytes(dtype: str) -> int:
    """Bytes of workspace that a convolution takes for each thread."""
    return int(kernels.WORKSPACE * np.dtype(dtype).itemsize)


def forward(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> tuple[Array, Any]:
    """Convolve; the bias is added to the finished sums."""
    y = empty(infer(x.shape, w.shape, **attrs), x.dtype)
    kernels.forward(x, rows(w), flat(y), workspace(kernels.WORKSPACE, x.dtype), *_window(w, y, **attrs))
    if b is not None:
        y += b[:, None, None, None]
    return y, (x, w, b is not None, attrs)


def backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Dx is a convolution of dy with the flipped w, dw pairs dy with x; db sums dy."""
    x, w, has_bias, attrs = context
    scratch, window = workspace(kernels.WORKSPACE, x.dtype), _window(w, dy, **attrs)
    dx = empty(x.shape, x.dtype) if needs[0] else None
    dw = empty(w.shape, w.dtype) if needs[1] else None
    if dx is not None:
        image = _is_strided_image(w, *window)
        if image:
            merged, phases_at, *places = _merged_phases(w, *window)
            kernels.image_gradient(flat(dy), rows(w), merged, phases_at, dx, scratch, *window, *places)
        # Or an infinity or NaN has met a weight of 0 that is none of the convolution's.
        if not (image and kernels.finite(flat(dx))):
            kernels.input_gradient(flat(dy), rows(w), dx, scratch, *window)
    if dw is not None:
        partial = empty((PARTIAL_SUMS // w.size, *rows(w).shape), w.dtype)
        kernels.weight_gradient(flat(dy), x, rows(dw), scratch, partial, *window)
    if not has_bias:
        return dx, dw
    return dx, dw, channels.sums(dy) if needs[2] else None


def _window(
    w: Array,
    y: Array,
    *,
    stride: Triple = ONES,
    pad: Triple = ZEROS,
    dilation: Triple = ONES,
    groups: int = 1,
) -> tuple[Any, ...]:
    """What every kernel takes behind its arrays."""
    return w.shape[2:], stride, pad, dilation, y.shape[2:], groups


def _is_strided_image(
    w: Array, kernel: Triple, stride: Triple, pad: Triple, dilation: Triple, *_: Any
) -> bool:
    """Whether x has so few channels, and a stride, that the phases of dx are better computed at once."""
    return (
        w.shape[1] <= IMAGE_CHANNELS
        and 1 < prod(stride) <= MOST_PHASES
        and dilation == ONES
        and all(k >= s for k, s in zip(kernel, stride, strict=True))
    )


def _merged_phases(
    w: Array, kernel: Triple, stride: Triple, pad: Triple, dilation: Triple, output: Triple, groups: int
) -> tuple[Array, Array, Triple, Triple]:
    """Weights (groups * phases * channels, filters * places), and how many places, and which is the first.

    The input position i = m s + v gathers with tap t = v + p - q s from the output position m + q: its
    phase v has the places q of the taps in [0, k). Other places, of other phases, have weight 0. Which phases
    have a place is told by bits, after the weights.
    """
    places = [
        (-((k - 1 - p) // s), (s - 1 + p) // s) for k, s, p in zip(kernel, stride, pad, strict=True)
    ]  # the least and the most q of any phase
    merged = np.zeros(
        (groups, *stride, w.shape[1], len(w) // groups, *(most - least + 1 for least, most in places)),
        w.dtype,
    )
    phases_at = np.zeros(merged.shape[-3:], np.uint16)
    grouped = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2)
    for i, phase in enumerate(np.ndindex(*stride)):
        here, taps = [], []
        for v, k, s, p, (_, most) in zip(phase, kernel, stride, pad, places, strict=True):
            first = (v + p) % s
            place = most - (v + p - first) // s
            here.append(slice(place, place + len(range(first, k, s))))
            taps.append(slice(first, k, s))
        phases_at[tuple(here)] += 1 << i
        every = (slice(None), slice(None))
        merged[(slice(None), *phase, *every, *here)] = grouped[(slice(None), *every, *taps)]
    (t, top_t), (h, top_h), (v, top_v) = ((most - least + 1, most) for least, most in places)
    weights = merged.reshape(-1, prod(merged.shape[-4:]))
    return weights, phases_at.ravel(), (t, h, v), (top_t, top_h, top_v)


KERNEL = Kernel(forward, backward)
