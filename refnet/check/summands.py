"""What one element of a sum is made of: its terms, in the order of the arrays, and how many there are."""

from typing import Any

import numpy as np

from refnet.arrays import Array, wide
from refnet.op import OUTPUT, Op
from refnet.shapes import ONES, Geometry, Shape, size

# Inputs whose gradients are sums over samples and positions, whatever the norm.
SCALE, SHIFT = 1, 2


def counted(op: Op, subject: int, shapes: tuple[Shape, ...], y: Shape, attrs: dict[str, Any]) -> int | None:
    """How many terms the longest sum of a result has; None where it is no plain sum.

    Parameters
    ----------
    op : Op
    subject : int
        OUTPUT, or which input's gradient.
    shapes : tuple of shape
        Of the inputs.
    y : shape
    attrs : dict
    """
    samples = size(y) // y[1] if len(y) > 1 else size(y)
    if op.family == "product":
        w = shapes[1]
        if subject == OUTPUT:
            return size(w[1:]) + (len(shapes) > 2)
        return size(w) // w[1] // attrs.get("groups", 1) if subject == 0 else samples
    if op.family == "norm" and subject in (SCALE, SHIFT) and not (op.smooth and subject == SCALE):
        return samples
    if op.family == "pooling" and not op.hands_on and subject == OUTPUT and len(shapes) == 1:
        if op.window is None:
            return size(shapes[0]) // size(y)
        return size(op.window(*shapes, **attrs).kernel)
    return None


def terms(
    op: Op,
    subject: int,
    arrays: tuple[Array, ...],
    dy: Array | None,
    index: tuple[int, ...],
    attrs: dict[str, Any],
) -> Array:
    """The terms of one element, in float64, along the axes of what is summed.

    Returns
    -------
    ndarray
        Of a convolution's y (C, kT, kH, kW), of its dx (C_out, kT, kH, kW), of its dw (N, oT, oH, oW); of a
        linear layer a vector; of the gradients of a norm's scale and shift (N, T, H, W); of an average
        the window.
    """
    if op.family == "norm":
        assert dy is not None, "a gradient is that of a dy"
        at = wide(dy)[:, index[0]]
        if subject == SHIFT:
            return at
        x = wide(arrays[0])[:, index[0]]
        if len(arrays) > 3:
            mean, variance = (float(a[index[0]]) for a in arrays[3:5])
            x = (x - mean) / np.sqrt(variance + attrs.get("epsilon", 0.0))
        return np.asarray(at * x)
    if op.family == "pooling":
        window = op.window(arrays[0].shape, **attrs) if op.window else Geometry(arrays[0].shape[2:], ONES)
        plane = wide(arrays[0])[index[0], index[1]]
        place = _inside(list(index[2:] if op.window else (0, 0, 0)), plane.shape, window).reads
        inside = plane[np.ix_(*place)]
        return np.asarray(inside / inside.size)
    return _of_product(op, subject, arrays, dy, index, attrs)


def _of_product(
    op: Op,
    subject: int,
    arrays: tuple[Array, ...],
    dy: Array | None,
    index: tuple[int, ...],
    attrs: dict[str, Any],
) -> Array:
    """Of a convolution, or of a linear layer, which is one of a single position."""
    x, w, *bias = arrays
    if op.window is None:
        x, w = x.reshape(*x.shape[:1], -1, 1, 1, 1), w.reshape(*w.shape, 1, 1, 1)
        dy = None if dy is None else dy.reshape(*dy.shape, 1, 1, 1)
        if subject == 0:
            index = (index[0], int(np.ravel_multi_index(index[1:], arrays[0].shape[1:])))
        index = (*index, 0, 0, 0) if subject != 2 else index
    groups = attrs.get("groups", 1)
    window = Geometry(
        w.shape[2:],
        *(
            tuple(attrs.get(name, default))
            for name, default in zip(("stride", "pad", "dilation"), (ONES, (0, 0, 0), ONES), strict=True)
        ),
    )
    filters, channels = len(w) // groups, w.shape[1]
    if subject == OUTPUT:
        n, k, *at = index
        group = k // filters
        taps = _inside(at, x.shape[2:], window)
        patch = wide(x)[n, group * channels : (group + 1) * channels][_inner(taps.reads)]
        products = patch * wide(w)[k][_inner(taps.of_kernel)]
        return products if not bias else np.append(products.reshape(-1), wide(bias[0])[k])
    assert dy is not None, "a gradient is that of a dy"
    dy = wide(dy)
    if subject == 2:
        return dy[:, index[0]]
    if subject == 1:
        k, c, *tap = index
        channel = k // filters * channels + c
        outs, ins = [], []
        for j, n, m, s, p, d in zip(tap, x.shape[2:], dy.shape[2:], *window[1:], strict=True):
            reads = np.arange(m) * s - p + j * d
            inside = (reads >= 0) & (reads < n)
            outs.append(np.flatnonzero(inside))
            ins.append(reads[inside])
        return np.asarray(dy[:, k][_inner(outs)] * wide(x)[:, channel][_inner(ins)])
    n, c, *at = index
    group = c // channels
    outs, taps_of = [], []
    for i, k, m, s, p, d in zip(at, window.kernel, dy.shape[2:], *window[1:], strict=True):
        shifted = i + p - np.arange(k) * d
        fits = (shifted % s == 0) & (shifted >= 0) & (shifted // s < m)
        outs.append(shifted[fits] // s)
        taps_of.append(np.flatnonzero(fits))
    some = slice(group * filters, (group + 1) * filters)
    return np.asarray(dy[n, some][_inner(outs)] * wide(w)[some, c % channels][_inner(taps_of)])


class _Taps:
    """Which taps of a window at an output position lie inside x, and what they read."""

    def __init__(self, reads: list[Array], of_kernel: list[Array]):
        self.reads, self.of_kernel = reads, of_kernel


def _inside(at: list[int], sizes: tuple[int, ...], window: Geometry) -> _Taps:
    reads, of_kernel = [], []
    for o, n, k, s, p, d in zip(at, sizes, *window, strict=True):
        positions = o * s - p + np.arange(k) * d
        inside = (positions >= 0) & (positions < n)
        reads.append(positions[inside])
        of_kernel.append(np.flatnonzero(inside))
    return _Taps(reads, of_kernel)


def _inner(places: list[Array]) -> tuple[Any, ...]:
    """All of the first axis, some places of the others."""
    return (slice(None), *np.ix_(*places))
