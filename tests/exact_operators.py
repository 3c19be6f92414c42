"""Operators of exact arithmetic, but for products with weights: their formulas in `Fraction`, rounded once.

The formulas are written down here once more, as loops over `Fraction`; what an operator states in steps is
computed in those steps.
"""

from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import product
from math import ceil, floor

import numpy as np
import pytest
from rounding import nearest_all, rational, same_bits
from support import legal

from refnet.arithmetic.exact import KERNELS, exact
from refnet.errors import ValueRangeError
from refnet.ops import OPS

ROOM = Context(prec=120, Emin=-(10**15), Emax=10**15)
AXES = (0, 2, 3, 4)


# ---- data


def spacing(dtype):
    """The distance of 1 to the next number."""
    return float(np.finfo(dtype).eps)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape)


def cancelling(rng, shape, dtype):
    """Each value and, further on, its opposite, some of them a few units off."""
    values = rng.standard_normal(shape).astype(dtype).astype(np.float64).reshape(-1)
    half = len(values) // 2
    values[half : 2 * half] = -values[:half] if rng.random() < 0.5 else -values[:half][::-1]
    values *= 1 + spacing(dtype) * rng.integers(-1, 2, len(values)) * (rng.random(len(values)) < 0.2)
    return values.reshape(shape)


def ties(rng, shape, dtype):
    """Ones and halves of their last unit: sums half-way between two numbers, and beside it."""
    half = spacing(dtype) / 2
    parts = [1, -1, half, -half, 2 * half, 3 * half, half**2, -(half**2), 1 + 2 * half, 1 - half, 0]
    return rng.choice(parts, shape)


def coarse(rng, shape, dtype):
    return rng.integers(-8, 9, shape) / 4


def subnormal(rng, shape, dtype):
    tiny = float(np.finfo(dtype).smallest_subnormal)
    return rng.integers(-9, 10, shape) * tiny * 2.0 ** rng.integers(0, 28, shape)


def underflowing(rng, shape, dtype):
    """Products below the smallest number."""
    low = -75 if dtype == "float32" else -537
    return (
        rng.choice([-1, 1], shape) * rng.uniform(1, 2, shape) * 2.0 ** rng.integers(low - 8, low + 8, shape)
    )


def huge(rng, shape, dtype):
    return rng.uniform(-1, 1, shape) * float(np.finfo(dtype).max) * rng.choice([1, 1, 0.5, 2.0**-20], shape)


def zeros(rng, shape, dtype):
    tiny = float(np.finfo(dtype).smallest_subnormal)
    return rng.choice([0.0, -0.0, 0.0, -0.0, tiny, -tiny, 1.0, -1.0], shape)


def outlier(rng, shape, dtype):
    values = rng.standard_normal(shape)
    values.reshape(-1)[rng.integers(values.size)] = 2.0 ** (100 if dtype == "float32" else 200)
    return values


def wide(rng, shape, dtype):
    """All exponents that there are."""
    low, high = (-149, 127) if dtype == "float32" else (-1074, 1023)
    with np.errstate(under="ignore"):
        return np.ldexp(rng.uniform(-1, 1, shape), rng.integers(low, high, shape))


KINDS = [normal, cancelling, ties, coarse, subnormal, underflowing, huge, zeros, outlier, wide]


def drawn(op, case, kind, dtype, rng):
    """Inputs of a kind; what is given, as its domain says; variances of that kind too."""
    arrays = []
    for i, shape in enumerate(case.shapes):
        if op.domain(i).draw is None:
            arrays.append(kind(rng, shape, dtype).astype(dtype))
        else:
            arrays.append(legal(op, case, i, rng.standard_normal(shape).astype(dtype), rng))
    if op.name == "running_variance" or (op.name == "batch_norm" and rng.random() < 0.5):
        i = 1 if op.name == "running_variance" else 4
        arrays[i] = np.abs(kind(rng, case.shapes[i], dtype)).astype(dtype)
    return arrays


# ---- definitions: of (arrays, dy, attrs, rn), y and then the gradients; rn rounds rational numbers


class TooLargeError(Exception):
    """A step that is beyond the largest number."""


def finite(values):
    if not np.isfinite(values).all():
        raise TooLargeError
    return rational(values)


def per_channel(v):
    return v[:, None, None, None]


def channel_totals(x):
    return np.array([sum(x[:, c].ravel(), Fraction(0)) for c in range(x.shape[1])], object)


def affine(arrays, dy, attrs, rn):
    x, s, b = map(rational, arrays)
    y = rn(per_channel(s) * x + per_channel(b))
    yield y
    yield rn(per_channel(s) * dy), rn(channel_totals(dy * x)), rn(channel_totals(dy))


def add_two(arrays, dy, attrs, rn):
    yield rn(rational(arrays[0]) + rational(arrays[1]))
    yield None


def window_of(o, axis, x, attrs):
    """Positions along an axis that a window of an output reads."""
    kernel, stride, pad = (
        attrs.get(k, d)[axis] for k, d in (("kernel", None), ("stride", (1,) * 3), ("pad", (0,) * 3))
    )
    first = o * stride - pad
    return [i for i in range(first, first + kernel) if 0 <= i < x.shape[2 + axis]]


def windows(x, y, attrs):
    """Every output position with all positions of its window, in C order."""
    for o in np.ndindex(*y.shape[2:]):
        yield o, list(product(*(window_of(o[axis], axis, x, attrs) for axis in range(3))))


def average_pool3d(arrays, dy, attrs, rn):
    x = rational(arrays[0])
    y, dx = np.zeros(dy.shape, object), np.full(x.shape, Fraction(0))
    for o, inside in windows(x, dy, attrs):
        y[:, :, *o] = sum((x[:, :, *i] for i in inside), Fraction(0)) / len(inside)
        for i in inside:
            dx[:, :, *i] += dy[:, :, *o] / len(inside)
    yield rn(y)
    yield (rn(dx),)


def max_pool3d(arrays, dy, attrs, rn):
    x, dx = rational(arrays[0]), np.full(arrays[0].shape, Fraction(0))
    y = np.zeros(dy.shape, arrays[0].dtype)
    for o, inside in windows(x, dy, attrs):
        for plane in np.ndindex(*x.shape[:2]):
            best = max(inside, key=lambda i, plane=plane: x[*plane, *i])  # the first of equal ones
            y[*plane, *o] = arrays[0][*plane, *best]
            dx[*plane, *best] += dy[*plane, *o]
    yield y
    yield (rn(dx),)


def global_average_pool(arrays, dy, attrs, rn):
    x = rational(arrays[0])
    count = x.size // dy.size
    total = x.reshape(*dy.shape, count).sum(axis=-1) if count > 1 else x.reshape(dy.shape)
    yield rn(total / count)
    yield (rn(np.broadcast_to(dy / count, x.shape)),)


def upsample_nearest(arrays, dy, attrs, rn):
    scale = attrs.get("scale", 2)
    n, c, t, h, w = arrays[0].shape
    yield arrays[0].repeat(scale, 3).repeat(scale, 4)
    squares = dy.reshape(n, c, t, h, scale, w, scale)
    dx = sum((squares[:, :, :, :, i, :, j] for i, j in np.ndindex(scale, scale)), Fraction(0))
    yield (rn(dx),)


def root(value):
    """1 / sqrt(value), of 120 digits."""
    with localcontext(ROOM):
        return Fraction(1 / (Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


def batch_norm(arrays, dy, attrs, rn):
    x, s, b, mean, variance = map(rational, arrays)
    r = rational(rn(np.array([root(v + Fraction(attrs.get("epsilon", 1e-5))) for v in variance], object)))
    scale, d = finite(rn(s * r)), finite(rn(x - per_channel(mean)))
    yield rn(per_channel(scale) * d + per_channel(b))
    p = finite(rn(channel_totals(dy * d)))
    yield rn(per_channel(scale) * dy), rn(p * r), rn(channel_totals(dy)), None, None


def batch_norm_training(arrays, dy, attrs, rn):
    x, s, b = map(rational, arrays)
    n = x.size // x.shape[1]
    d = finite(rn(x - per_channel(finite(rn(channel_totals(x) / n)))))
    variance = finite(rn(channel_totals(d * d) / n))
    r = rational(rn(np.array([root(v + Fraction(attrs.get("epsilon", 1e-5))) for v in variance], object)))
    scale = finite(rn(s * r))
    yield rn(per_channel(scale) * d + per_channel(b))
    ds = rn(finite(rn(channel_totals(dy * d))) * r)
    db = rn(channel_totals(dy))
    k = finite(rn(r * finite(ds) / n))
    g = finite(rn(dy - per_channel(rational(rn(finite(db) / n)))))
    h = finite(rn(g - per_channel(k) * d))
    yield rn(per_channel(scale) * h), ds, db


def running_mean(arrays, dy, attrs, rn):
    x, mean = map(rational, arrays)
    momentum = Fraction(attrs.get("momentum", 0.9))
    yield rn(momentum * mean + (1 - momentum) * finite(rn(channel_totals(x) / (x.size // x.shape[1]))))
    yield None, None


def running_variance(arrays, dy, attrs, rn):
    x, variance = map(rational, arrays)
    momentum, n = Fraction(attrs.get("momentum", 0.9)), x.size // x.shape[1]
    d = finite(rn(x - per_channel(finite(rn(channel_totals(x) / n)))))
    yield rn(momentum * variance + (1 - momentum) * finite(rn(channel_totals(d * d) / (n - 1))))
    yield None, None


def dropout(arrays, dy, attrs, rn):
    keep = rational(rn(np.array([1 / (1 - Fraction(attrs.get("ratio", 0.5)))], object)))[0]
    x, mask = map(rational, arrays)
    yield rn(x * mask * keep)
    yield rn(dy * mask * keep), None


def exponential(d):
    """exp(d) of 120 digits; what is far below the smallest number is a smaller one, of its sign."""
    with localcontext(ROOM):
        return Fraction(Decimal(float(d)).exp()) if d > -1000 else Fraction(1, 2**2000)


def exponentials(x, rn):
    """d, e and their sum."""
    d = rn(x - x.max(axis=1, keepdims=True))
    e = rational(rn(np.array([[exponential(v) for v in row] for row in d], object)))
    return d, e, rational(rn(e.sum(axis=1)))


def softmax(arrays, dy, attrs, rn):
    _, e, total = exponentials(rational(arrays[0]), rn)
    y = rn(e / total[:, None])
    yield y
    y = rational(y)
    p = finite(rn((dy * y).sum(axis=1)))
    yield (rn(y * finite(rn(dy - p[:, None]))),)


def cross_entropy(arrays, dy, attrs, rn):
    (x, labels), rows = arrays, np.arange(len(arrays[0]))
    d, e, total = exponentials(rational(x), rn)
    with localcontext(ROOM):
        logarithms = [Fraction((Decimal(t.numerator) / Decimal(t.denominator)).ln()) for t in total]
    losses = finite(rn(rational(rn(np.array(logarithms, object))) - finite(d[rows, labels])))
    yield rn(np.array(losses.sum() / len(x), object))
    g = rational(rn(e / total[:, None]))
    g[rows, labels] = rational(rn(g[rows, labels] - 1))
    yield rn(g * dy.item() / len(x)), None


def roi_align(arrays, dy, attrs, rn):
    x, rois = rational(arrays[0]), rational(arrays[1])
    scale, aligned = Fraction(attrs.get("spatial_scale", 1.0)), attrs.get("aligned", False)
    y, dx = np.full(dy.shape, Fraction(0)), np.full(x.shape, Fraction(0))
    for r, t in np.ndindex(dy.shape[0], dy.shape[2]):
        n, (x1, y1, x2, y2) = (
            int(rois[r, 0]),
            (v * scale - aligned * Fraction(1, 2) for v in rois[r, 1 + 4 * t :][:4]),
        )
        reads = []
        for start, end, bins, cells in ((y1, y2, dy.shape[3], x.shape[3]), (x1, x2, dy.shape[4], x.shape[4])):
            width = (end - start if aligned else max(end - start, Fraction(1))) / bins
            count = attrs.get("sampling_ratio", 0) or max(ceil(width), 0)
            reads.append(
                [
                    [
                        sample(start + p * width + (i + Fraction(1, 2)) * width / count, cells)
                        for i in range(count)
                    ]
                    for p in range(bins)
                ]
            )
        for p, q in np.ndindex(*dy.shape[3:]):
            count = len(reads[0][p]) * len(reads[1][q])
            for of_h, of_w in product(reads[0][p], reads[1][q]):
                for (h, a), (w, b) in product(of_h, of_w):
                    y[r, :, t, p, q] += a * b / count * x[n, :, t, h, w]
                    dx[n, :, t, h, w] += a * b / count * dy[r, :, t, p, q]
    yield rn(y)
    yield rn(dx), None


def sample(position, cells):
    """The cells that a sample reads along an axis, with their weights."""
    if not -1 <= position <= cells:
        return []
    position = Fraction(min(max(position, 0), cells - 1))
    below = floor(position)
    return [
        (cell, weight)
        for cell, weight in ((below, 1 - position + below), (below + 1, position - below))
        if weight
    ]


DEFINITIONS = {"add": add_two} | {
    name: globals()[name] for name in KERNELS if name not in ("add", "conv3d", "linear")
}


def compare(op, arrays, attrs, dy):
    """Assert that y and every gradient are as defined; return how many elements were compared."""
    dtype = arrays[0].dtype
    defined = DEFINITIONS[op.name](arrays, rational(dy), attrs, lambda values: nearest_all(values, dtype))
    door = exact[op.name]
    try:
        y = next(defined)
    except TooLargeError:
        with pytest.raises(ValueRangeError):
            door.forward(*arrays, **attrs)
        return 0
    found, context = door.forward(*arrays, **attrs)
    assert same_bits(found, y), f"{op.name} y"
    try:
        gradients = next(defined)
    except TooLargeError:
        with pytest.raises(ValueRangeError):
            door.backward(dy, context)
        return y.size
    if op.name == "add":
        gradients = dy, dy
    for i, (gradient, expected) in enumerate(zip(door.backward(dy, context), gradients, strict=True)):
        if expected is None:
            assert gradient is None
        else:
            assert same_bits(gradient, expected), f"{op.name} gradient {i}"
    return y.size + sum(g.size for g in gradients if g is not None)


def compare_drawn(name, kind, dtype, seed):
    """Small problems of any shape, until some thousand elements have been compared; kinds are mixed."""
    rng, op, compared, tries = np.random.default_rng(seed), OPS[name], 0, 0
    while compared < 1500 and tries < 30:
        tries += 1
        case = op.drawn(rng)
        shape = op.output_shape(case.shapes, case.attrs)
        if sum(np.prod(s) for s in case.shapes) > 1500 or np.prod(shape) > 1500:
            continue
        arrays = drawn(op, case, kind, dtype, rng)
        other = KINDS[rng.integers(len(KINDS))] if rng.random() < 0.5 else kind
        with np.errstate(all="ignore"):
            compared += compare(op, arrays, case.attrs, np.asarray(other(rng, shape, dtype)).astype(dtype))
    return compared
