"""The kernel of `refnet.ops.conv3d`: RN(exact sum) of y, dx, dw and db.

float64 has kernels of its own, of two doubles an element (`_core/exact_conv3d.pyx`). float32 is summed by
core's kernels in float64, whose order of sums bounds their error. What neither decides is NaN until
`_core/exact_settle.pyx` has computed it in integers.
"""

from typing import Any

import numpy as np

from refnet._core import conv3d as core_kernels
from refnet._core import exact_conv3d as kernels
from refnet._core import exact_settle as settle
from refnet.arithmetic.core import channels as core_channels
from refnet.arithmetic.core.buffers import empty, flat, rows
from refnet.arithmetic.core.conv3d import partial_sums, scratch, window_of
from refnet.arithmetic.exact import channels, fallback, products
from refnet.arithmetic.exact.products import DOUBLE, KC
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs
from refnet.ops.conv3d import context, infer
from refnet.shapes import ONES, ZEROS, Geometry, Shape, size, taps

# What every kernel takes behind its arrays: (kernel, stride, pad, dilation, output), and groups.
Window = tuple[Any, int]


def forward(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> tuple[Array, Any]:
    """RN(sum of w x + b)."""
    shape = infer(x.shape, w.shape, **attrs)
    y = sums(x, rows(w), products.bias(b, x.dtype), shape, window_of(w, shape, **attrs))
    return y, context(x, w, b, **attrs)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """RN(sum of w dy), RN(sum of dy x), RN(sum of dy)."""
    x, w, has_bias, attrs = context
    window = window_of(w, dy.shape, **attrs)
    dx = input_gradients(flat(dy), rows(w), x.shape, window) if needs[0] else None
    dw = None
    if needs[1]:
        dw = weight_gradients(flat(dy), x, products.bias(None, x.dtype), rows(w).shape, window).reshape(
            w.shape
        )
    if not has_bias:
        return dx, dw
    return dx, dw, channels.sums("db", dy) if needs[2] else None


def sums(x: Array, w: Array, b: Array, shape: Shape, window: Window, what: str = "y") -> Array:
    """The output, of that shape, of w (C_out, K) with a bias (C_out) or none."""
    coarse = not b.size and products.are_coarse(w.shape[1], x, w)
    if x.dtype == DOUBLE:
        y = empty(shape, DOUBLE)
        kernels.forward(x, w, b, flat(y), scratch(DOUBLE), *window, coarse)
    else:
        y = _single_sums(x, w, b, shape, window, coarse)
    fallback.note(what, y.size, settle.forward(x, w, b, flat(y), *window))
    return y


def _single_sums(x: Array, w: Array, b: Array, shape: Shape, window: Window, coarse: bool) -> Array:
    """The same in float32, NaN where undecided."""
    groups, positions = window[1], size(shape[2:])
    wide_x, squares = products.widened(flat(x), groups)
    wide_w = w.astype(DOUBLE)
    total = empty(shape, DOUBLE)
    core_kernels.forward(wide_x.reshape(x.shape), wide_w, flat(total), scratch(DOUBLE), *window)
    if b.size:
        total += b.astype(DOUBLE)[:, None, None, None]
    filters = _errors(coarse, w.shape[1], -(-w.shape[1] // KC)) * products.norms(wide_w, (1,))
    if window[0][:3] == (ONES, ONES, ZEROS):
        reached = squares  # each position reads itself
    else:
        reached = empty((len(x), groups, positions), DOUBLE)
        core_kernels.forward(
            squares.reshape(len(x), groups, *x.shape[2:]), _ones(window), reached, scratch(DOUBLE), *window
        )
    found = products.rounded(
        total.reshape(-1, positions), np.tile(filters, len(x)), products.roots(reached).reshape(-1, positions)
    )
    return found.reshape(shape)


def input_gradients(dy: Array, w: Array, shape: Shape, window: Window, what: str = "dx") -> Array:
    """The gradient, of that shape, of x from dy (N, C_out, P)."""
    coarse = products.are_coarse(len(w) // window[1] * size(window[0][0]), dy, w)
    if dy.dtype == DOUBLE:
        dx = np.zeros(shape)
        kernels.backward_data(dy, w, dx, scratch(DOUBLE), *window, coarse)
    else:
        dx = _single_input_gradients(dy, w, shape, window, coarse)
    fallback.note(what, dx.size, settle.backward_data(dy, w, dx, *window))
    return dx


def _single_input_gradients(dy: Array, w: Array, shape: Shape, window: Window, coarse: bool) -> Array:
    """The same in float32, NaN where undecided."""
    (kernel, *_), groups = window
    filters, volume = len(w) // groups, size(shape[2:])
    wide_dy, squares = products.widened(dy, groups)
    wide_w = w.astype(DOUBLE)
    dx, reached = empty(shape, DOUBLE), empty((len(dy), groups, *shape[2:]), DOUBLE)
    core_kernels.backward_data(wide_dy, wide_w, dx, scratch(DOUBLE), *window)
    core_kernels.backward_data(squares, _ones(window), reached, scratch(DOUBLE), *window)
    terms = filters * size(kernel)  # merged phases have no more places than the kernel taps: docs/exact.md
    of_channels = products.norms(wide_w.reshape(groups, filters, -1, size(kernel)), (1, 3)).reshape(-1)
    of_channels *= _errors(coarse, terms, -(-terms // KC))
    found = products.rounded(
        dx.reshape(-1, volume), np.tile(of_channels, len(dy)), products.roots(reached).reshape(-1, volume)
    )
    return found.reshape(shape)


def weight_gradients(dy: Array, x: Array, b: Array, shape: Shape, window: Window, what: str = "dw") -> Array:
    """The gradient (C_out, K) of w from dy (N, C_out, P), plus b (K) or none."""
    coarse = not b.size and products.are_coarse(len(x) * dy.shape[2], dy, x)
    if x.dtype == DOUBLE:
        dw = empty(shape, DOUBLE)
        kernels.backward_weights(dy, x, b, dw, scratch(DOUBLE), *window, coarse)
    else:
        dw = _single_weight_gradients(dy, x, b, shape, window, coarse)
    fallback.note(what, dw.size, settle.backward_weights(dy, x, b, dw, *window))
    return dw


def _single_weight_gradients(
    dy: Array, x: Array, b: Array, shape: Shape, window: Window, coarse: bool
) -> Array:
    """The same in float32, NaN where undecided."""
    groups = window[1]
    wide_dy, wide_x = dy.astype(DOUBLE), x.astype(DOUBLE)
    dw = empty(shape, DOUBLE)
    core_kernels.backward_weights(wide_dy, wide_x, dw, scratch(DOUBLE), partial_sums(dw), *window)
    if b.size:
        dw += b
    of_filters = products.roots(_squares(wide_dy[..., None, None]))
    of_filters *= _errors(coarse, dy.shape[2], products.spans(len(x), dy.shape[2]))
    of_channels = products.roots(_squares(wide_x)).reshape(groups, -1, 1)
    return products.rounded(dw, of_filters, (of_channels * _reach(x.shape, window[0])).reshape(groups, -1))


def _squares(blob: Array) -> Array:
    """Sums of squares, channel by channel."""
    return core_channels.products(blob, blob)[0]


def _errors(coarse: bool, terms: int, chains: int) -> float:
    return 0 if coarse else products.chain_error(terms, chains)


def _ones(window: Window) -> Array:
    """A filter of ones for each group, which adds up one channel."""
    return np.ones((window[1], size(window[0][0])))


def _reach(x: Shape, window: Any) -> Array:
    """1 for each tap that reads x somewhere, 0 for those that see nothing but padding: they have no terms."""
    kernel, stride, pad, dilation, output = window
    reach = np.zeros(kernel)
    for tap, outputs, _ in taps(x, (1, 1, *output), Geometry(kernel, stride, pad, dilation)):
        reach[tap] = all(along.start < along.stop for along in outputs)
    return reach.reshape(-1)


KERNEL = Kernel(forward, backward)
