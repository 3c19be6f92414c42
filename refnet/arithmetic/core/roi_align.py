"""The kernel of `refnet.ops.roi_align`: which cells each bin reads is found once, for every channel."""

from typing import Any

import numpy as np

from refnet._core import roi_align as kernels
from refnet.arithmetic.core.buffers import CACHE_LINE, empty, workspace
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array, wide
from refnet.op import InputGradients, Needs
from refnet.ops.roi_align import grid, infer
from refnet.pieces import converted, rows
from refnet.shapes import Shape

FLOAT64 = np.dtype(np.float64)
# Cells of a channel whose gradients are added up at a time.
BAND = 1 << 16


def forward(x: Array, rois: Array, **attrs: Any) -> tuple[Array, Any]:
    """Average each box along H, then along W."""
    y = empty(infer(x.shape, rois.shape, **attrs), x.dtype)
    taps = (rois[:, 0].astype(np.intp), *_taps(x, rois, **attrs))
    kernels.forward(x, *taps, y, _rows(x.shape))
    return y, (x.shape, taps)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each dy goes to the cells that its bin read, with their weights; rois are given."""
    shape, taps = context
    if not needs[0]:
        return None, None
    dx = empty(shape, dy.dtype)
    height = min(shape[2] * shape[3], max(1, BAND // shape[4]))
    bands = workspace(3 * height * shape[4] + CACHE_LINE, FLOAT64)
    kernels.input_gradient(dy, *taps, dx, _rows(shape), bands, np.empty((len(bands), height), np.intp))
    return dx, None


def _rows(x: Shape) -> Array:
    """Two rows of x for each thread."""
    return workspace(2 * x[4] + CACHE_LINE, FLOAT64)


def _taps(x: Array, rois: Array, *, output: tuple[int, int], **attrs: Any) -> tuple[Array, ...]:
    """Which cells each line of bins reads, their weights in the dtype of x, how many; and columns read."""
    boxes = (len(rois), rois.shape[1] // 4, 2)
    start, bins, samples = np.empty(boxes), np.empty(boxes), np.empty(boxes, np.intp)
    for some in rows(rois.shape):
        start[some], bins[some], samples[some] = grid(rois[some], output=output, **attrs)
    lines = (*start.shape[:2], sum(output))
    most = max(1, min(2 * int(samples.max()), max(x.shape[3:])))
    cells, weights, counts, extents = (
        np.zeros((*lines, most), np.intp),
        np.zeros((*lines, most)),
        np.empty(lines, np.intp),
        np.empty((*lines[:2], 2), np.intp),
    )
    kernels.taps(start, bins, samples, cells, weights, counts, extents, *x.shape[3:], output[0])
    return cells, wide(converted(weights, x.dtype)), counts, extents


KERNEL = Kernel(forward, backward)
