"""Convolution, pooling and RoIAlign as their definitions say, in nested loops over Python numbers."""

from fractions import Fraction
from itertools import product
from math import ceil, floor

import numpy as np


def conv3d(x, w, b=None, *, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1), groups=1):
    """Seven loops (n, k, t, h, w; c; tap) over exact Python numbers; y as an object array."""
    x, w = np.asarray(x, object), np.asarray(w, object)
    (samples, _, *volume), (channels, depth, *kernel) = x.shape, w.shape
    output = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(volume, kernel, stride, pad, dilation, strict=True)
    ]
    y = np.zeros((samples, channels, *output), object)
    for n, k, *position in product(*map(range, y.shape)):
        total = 0 if b is None else b[k]
        group = k // (channels // groups)
        for c in range(depth):
            for tap in product(*map(range, kernel)):
                at = source(position, tap, stride, pad, dilation)
                if inside(at, volume):
                    total += w[(k, c, *tap)] * x[(n, group * depth + c, *at)]
        y[(n, k, *position)] = total
    return y


def conv3d_gradients(dy, x, w, *, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1), groups=1):
    """The same loops; every product's two factors get the other one times dy."""
    dy, x, w = (np.asarray(a, object) for a in (dy, x, w))
    depth, kernel = w.shape[1], w.shape[2:]
    dx, dw, db = np.zeros(x.shape, object), np.zeros(w.shape, object), np.zeros(len(w), object)
    for n, k, *position in product(*map(range, dy.shape)):
        g = dy[(n, k, *position)]
        db[k] += g
        group = k // (len(w) // groups)
        for c in range(depth):
            for tap in product(*map(range, kernel)):
                at = source(position, tap, stride, pad, dilation)
                if inside(at, x.shape[2:]):
                    dx[(n, group * depth + c, *at)] += w[(k, c, *tap)] * g
                    dw[(k, c, *tap)] += x[(n, group * depth + c, *at)] * g
    return dx, dw, db


def max_pool3d(x, dy, *, kernel, stride=(1, 1, 1), pad=(0, 0, 0)):
    """(y, dx): the first largest value of each window, and where its gradient goes."""
    y, dx = np.zeros(dy.shape, x.dtype), np.zeros(x.shape, dy.dtype)
    for n, c, *position in product(*map(range, dy.shape)):
        window = [source(position, tap, stride, pad, (1, 1, 1)) for tap in product(*map(range, kernel))]
        window = [at for at in window if inside(at, x.shape[2:])]
        best = max(window, key=lambda at, n=n, c=c: x[(n, c, *at)])  # the first of equals
        y[(n, c, *position)] = x[(n, c, *best)]
        dx[(n, c, *best)] += dy[(n, c, *position)]
    return y, dx


def roi_align(x, rois, dy, *, output, spatial_scale=1, sampling_ratio=0, aligned=False):
    """(y, dx) in fractions: every bin's samples one by one, each from its neighbours in the plane."""
    y, dx = np.zeros(dy.shape, object), np.zeros(x.shape, object)
    for r, t in np.ndindex(len(rois), x.shape[2]):
        n, corners = int(rois[r, 0]), rois[r, 1 + 4 * t : 5 + 4 * t]
        scaled = [Fraction(v) * Fraction(spatial_scale) - Fraction(int(aligned), 2) for v in corners]
        start = scaled[1], scaled[0]
        extent = [scaled[3] - scaled[1], scaled[2] - scaled[0]]
        if not aligned:
            extent = [max(e, 1) for e in extent]
        bins = [e / n for e, n in zip(extent, output, strict=True)]
        samples = [sampling_ratio or ceil(b) for b in bins]
        count = max(1, samples[0] * samples[1])
        for (c, p, q), i, j in product(np.ndindex(x.shape[1], *output), *map(range, samples)):
            h = start[0] + (p + Fraction(2 * i + 1, 2 * samples[0])) * bins[0]
            w = start[1] + (q + Fraction(2 * j + 1, 2 * samples[1])) * bins[1]
            for at, weight in neighbours(h, w, *x.shape[3:]):
                y[r, c, t, p, q] += Fraction(x[(n, c, t, *at)]) * weight / count
                dx[(n, c, t, *at)] += Fraction(dy[r, c, t, p, q]) * weight / count
    return y, dx


def neighbours(h, w, height, width):
    """The cells around a point, by how near they are; none where it lies more than a cell outside."""
    if not (-1 <= h <= height and -1 <= w <= width):
        return []
    h, w = min(max(h, 0), height - 1), min(max(w, 0), width - 1)
    around = product((floor(h), floor(h) + 1), (floor(w), floor(w) + 1))
    return [((i, j), (1 - abs(h - i)) * (1 - abs(w - j))) for i, j in around if i < height and j < width]


def source(position, tap, stride, pad, dilation):
    """The input position that an output position reads through a tap."""
    return tuple(
        o * s + k * d - p for o, k, s, p, d in zip(position, tap, stride, pad, dilation, strict=True)
    )


def inside(at, volume):
    return all(0 <= i < n for i, n in zip(at, volume, strict=True))
