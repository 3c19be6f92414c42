"""Convolution and pooling as their definitions say, in nested loops over Python numbers."""

from itertools import product

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


def source(position, tap, stride, pad, dilation):
    """The input position that an output position reads through a tap."""
    return tuple(
        o * s + k * d - p for o, k, s, p, d in zip(position, tap, stride, pad, dilation, strict=True)
    )


def inside(at, volume):
    return all(0 <= i < n for i, n in zip(at, volume, strict=True))
