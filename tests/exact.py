"""Gradients by their definition, of numbers with 60 digits: right for every dtype, on every machine."""

from decimal import Context, Decimal, localcontext
from fractions import Fraction

import numpy as np

from refnet.ops import OPS

# Room for cancellation: sums of a few hundred terms, of which single ones are 2^60 times the others.
DIGITS = Context(prec=80, Emin=-(10**9), Emax=10**9)


def decimals(array):
    """Numbers as objects, exactly."""
    return np.vectorize(Decimal, otypes=[object])(np.asarray(array, "float64"))


def gradients(op, arrays, attrs, dy):
    """For each input its gradient, as Decimals; None where there is none."""
    with localcontext(DIGITS):
        of = GRADIENTS.get(op.name, by_columns)
        return of(op, arrays, attrs, decimals(dy))


def conv3d(op, arrays, attrs, dy):
    x, w, *bias = map(decimals, arrays)
    stride, pad, dilation = (attrs.get(k, default) for k, default in WINDOW.items())
    groups = attrs.get("groups", 1)
    padded = np.pad(x, [(0, 0), (0, 0)] + [(p, p) for p in pad], constant_values=Decimal(0))
    dx, dw = np.full(padded.shape, Decimal(0)), np.full(w.shape, Decimal(0))
    filters, depth = len(w) // groups, w.shape[1]
    for o in np.ndindex(*dy.shape[2:]):
        box = tuple(
            slice(i * s, i * s + d * (k - 1) + 1, d)
            for i, s, d, k in zip(o, stride, dilation, w.shape[2:], strict=True)
        )
        for n, k in np.ndindex(*dy.shape[:2]):
            first = k // filters * depth
            channels = slice(first, first + depth)
            dx[n, channels, *box] += dy[n, k, *o] * w[k]
            dw[k] += dy[n, k, *o] * padded[n, channels, *box]
    inner = tuple(slice(p, p + n) for p, n in zip(pad, x.shape[2:], strict=True))
    return (dx[:, :, *inner], dw, *(dy.sum(axis=(0, 2, 3, 4)) for _ in bias))


WINDOW = {"stride": (1, 1, 1), "pad": (0, 0, 0), "dilation": (1, 1, 1)}


def linear(op, arrays, attrs, dy):
    x, w, *bias = map(decimals, arrays)
    rows = x.reshape(len(x), -1)
    dx = (dy[:, :, None] * w).sum(axis=1).reshape(x.shape)
    return (dx, (dy[:, :, None] * rows[:, None]).sum(axis=0), *(dy.sum(axis=0) for _ in bias))


def affine(op, arrays, attrs, dy):
    x, s, _ = map(decimals, arrays)
    return dy * per_channel(s), sums(dy * x), sums(dy)


def batch_norm(op, arrays, attrs, dy):
    x, s, _, mean, variance = map(decimals, arrays)
    deviation = roots(variance + Decimal(attrs.get("epsilon", 1e-5)))
    z = (x - per_channel(mean)) / per_channel(deviation)
    return dy * per_channel(s / deviation), sums(dy * z), sums(dy), None, None


def batch_norm_training(op, arrays, attrs, dy):
    x, s, _ = map(decimals, arrays)
    n = Decimal(x.size // x.shape[1])
    centred = x - per_channel(sums(x) / n)
    deviation = roots(sums(centred * centred) / n + Decimal(attrs.get("epsilon", 1e-5)))
    z = centred / per_channel(deviation)
    ds, db = sums(dy * z), sums(dy)
    return per_channel(s / deviation) * (dy - per_channel(db / n) - z * per_channel(ds / n)), ds, db


def softmax(op, arrays, attrs, dy):
    y = exponentials(decimals(arrays[0]))
    return (y * (dy - (dy * y).sum(axis=1, keepdims=True)),)


def cross_entropy(op, arrays, attrs, dy):
    x, labels = arrays
    y = exponentials(decimals(x))
    y[np.arange(len(x)), labels] -= 1
    return y * dy.item() / len(x), None


def by_columns(op, arrays, attrs, dy):
    """Dy times the columns of a Jacobian whose entries float64 holds; quotients are taken again."""
    _, context = op.forward(*arrays, **attrs)
    needs = tuple(op.domain(i).gradient for i in range(len(arrays)))
    found = [np.full(a.shape, Decimal(0)) if need else None for a, need in zip(arrays, needs, strict=True)]
    for o in np.ndindex(dy.shape):
        one = np.zeros(dy.shape)
        one[o] = 1
        for total, column in zip(found, op.backward(one, context, needs), strict=True):
            if total is not None:
                total += np.vectorize(entry(op, attrs), otypes=[object])(column) * dy[o]
    return found


def entry(op, attrs):
    """The derivative that float64 has rounded: a count's reciprocal, 1 / (1 - ratio), or itself."""
    if op.name == "dropout":
        keep = 1 / (1 - Fraction(attrs.get("ratio", 0.5)))
        return lambda v: Decimal(keep.numerator) / keep.denominator if v else Decimal(0)
    if op.name.endswith(("average_pool", "average_pool3d")):
        return lambda v: 1 / Decimal(round(1 / v)) if v else Decimal(0)
    return Decimal


def per_channel(v):
    return v[:, None, None, None]


def sums(v):
    return v.sum(axis=(0, 2, 3, 4))


def roots(v):
    return np.vectorize(Decimal.sqrt, otypes=[object])(v)


def exponentials(x):
    e = np.vectorize(Decimal.exp, otypes=[object])(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


GRADIENTS = {
    f.__name__: f for f in (conv3d, linear, affine, batch_norm, batch_norm_training, softmax, cross_entropy)
}
assert GRADIENTS.keys() <= OPS.keys()
