"""Exact arithmetic, but for products with weights, against rational arithmetic rounded once, to the last bit.

The formulas are written down here once more, as loops over `Fraction`; what an operator states in steps is
computed in those steps.
"""

from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import product
from math import ceil, floor

import numpy as np
import pytest
from rounding import nearest, nearest_all, rational, same_bits
from support import legal
from threadpoolctl import threadpool_limits

from refnet.arithmetic.exact import KERNELS, MOVES, add, exact, fallback
from refnet.arithmetic.reference import reference
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
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


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
CASES = [(OPS[name], case) for name in DEFINITIONS for case in OPS[name].cases]
every_case = pytest.mark.parametrize(
    ("op", "case"), [pytest.param(*c, id=f"{c[0].name}: {c[1].name}") for c in CASES]
)


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


@every_dtype
@every_kind
@every_case
def test_operators_are_their_formulas_rounded_once(op, case, kind, dtype):
    rng = np.random.default_rng(len(case.name))
    arrays = drawn(op, case, kind, dtype, rng)
    shape = op.output_shape(case.shapes, case.attrs)
    with np.errstate(all="ignore"):
        compare(op, arrays, case.attrs, np.asarray(kind(rng, shape, dtype)).astype(dtype))


@every_dtype
@every_kind
@pytest.mark.parametrize("name", DEFINITIONS)
def test_drawn_problems(name, kind, dtype):
    compare_drawn(name, kind, dtype, 3)


@pytest.mark.seeds
@every_dtype
@every_kind
@pytest.mark.parametrize("name", DEFINITIONS)
def test_problems_drawn_for_200_seeds(name, kind, dtype):
    for seed in range(100, 300):
        compare_drawn(name, kind, dtype, seed)


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


@every_dtype
@every_kind
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_arrays_added_up(count, kind, dtype):
    rng = np.random.default_rng(count)
    with np.errstate(all="ignore"):
        arrays = [kind(rng, (3, 150), dtype).astype(dtype) for _ in range(count)]
    expected = nearest_all(sum(map(rational, arrays)), dtype)
    assert same_bits(add.total("y", arrays), expected)


@every_dtype
@every_kind
def test_long_sums(kind, dtype):
    """Channels of many values: those of affine, and means; planes that are no whole number of lanes."""
    rng = np.random.default_rng(9)
    shape = (2, 3, 5, 11, 17)
    with np.errstate(all="ignore"):
        x, dy = (kind(rng, shape, dtype).astype(dtype) for _ in range(2))
        s, b = (kind(rng, (3,), dtype).astype(dtype) for _ in range(2))
        compare(OPS["affine"], [x, s, b], {}, dy)
        for over_time in (False, True):
            mean = kind(rng, (2, 3, 1 if over_time else 5, 1, 1), dtype).astype(dtype)
            compare(OPS["global_average_pool"], [x], {"over_time": over_time}, mean)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (2, 5, 4), (1, 19, 20)])
def test_windows_of_many_counts(kernel):
    """Shares of windows at the border: the common multiple of the last kernel's counts is beyond 2^53."""
    rng = np.random.default_rng(4)
    attrs = {"kernel": kernel, "stride": (1, 1, 1), "pad": tuple(k - 1 for k in kernel)}
    op, x = OPS["average_pool3d"], rng.standard_normal((1, 1, 3, *kernel[1:])).astype("float32")
    dy = rng.standard_normal(op.output_shape((x.shape,), attrs)).astype("float32")
    compare(op, [x], attrs, dy)


@every_dtype
@pytest.mark.parametrize("start", [2.0**-1000, 2.0**-60, 3 * 2.0**-30, 1 / 3])
def test_boxes_beside_the_corner_of_a_cell(start, dtype):
    """Weights near 0 and 1, whose products underflow, beside cells of all magnitudes; a turned box."""
    rng = np.random.default_rng(11)
    turned = [0, 3.25, 2.5, 0.5 + start, 1]
    rois = np.array([[0, start, start, start + 2, start + 2], [0, 1 + start, start, 3, 3], turned]).astype(
        dtype
    )
    attrs = {"output": (2, 2), "sampling_ratio": 1, "aligned": True}
    for kind in (normal, ties, zeros, wide):
        with np.errstate(all="ignore"):
            x, dy = (kind(rng, shape, dtype).astype(dtype) for shape in ((1, 3, 1, 4, 4), (3, 3, 1, 2, 2)))
            compare(OPS["roi_align"], [x, rois], attrs, dy)


@every_dtype
@pytest.mark.parametrize("name", MOVES)
def test_what_computes_nothing_hands_on(name, dtype):
    """relu, moves and stops: signs of zeros too."""
    op = OPS[name]
    for case in op.cases:
        rng = np.random.default_rng(1)
        x = zeros(rng, case.shapes[0], dtype).astype(dtype)
        y, context = exact[name].forward(x, **case.attrs)
        expected, known = reference[name].forward(x, **case.attrs)
        dy = zeros(rng, y.shape, dtype).astype(dtype)
        assert same_bits(y, expected)
        pairs = zip(exact[name].backward(dy, context), reference[name].backward(dy, known), strict=True)
        assert all((g is None and e is None) or same_bits(g, e) for g, e in pairs)


@every_case
def test_threads_change_no_bit(op, case):
    rng = np.random.default_rng(5)
    for dtype, kind in product(("float32", "float64"), (normal, ties)):
        arrays = drawn(op, case, kind, dtype, rng)
        dy = np.asarray(kind(rng, op.output_shape(case.shapes, case.attrs), dtype)).astype(dtype)
        bits = []
        for threads in (1, 2, 3):
            with threadpool_limits(threads):
                y, context = exact[op.name].forward(*arrays, **case.attrs)
                bits.append(
                    [a.tobytes() for a in (y, *exact[op.name].backward(dy, context)) if a is not None]
                )
        assert bits[0] == bits[1] == bits[2]


@every_dtype
def test_large_arrays_in_threads(dtype):
    """Enough work for a team of threads: sums of both dtypes, by way of Python's own exact sums."""
    rng = np.random.default_rng(6)
    shape = (2, 4, 4, 64, 40)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    x[:, 1] = -dy[:, 1] * np.where(np.arange(40) % 2, 1, -1)
    s, b = (rng.standard_normal(4).astype(dtype) for _ in range(2))
    found = []
    for threads in (1, 3):
        with threadpool_limits(threads):
            y, context = exact["affine"].forward(x, s, b)
            found.append([y, *exact["affine"].backward(dy, context)])
            pool, context = exact["max_pool3d"].forward(x, kernel=(1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 1))
            found[-1] += [pool, *exact["max_pool3d"].backward(pool, context)]
    assert all(map(same_bits, *found))
    totals = [sum(map(Fraction, map(float, dy[:, c].ravel()))) for c in range(4)]
    assert same_bits(found[0][3], nearest_all(totals, dtype))


@pytest.mark.parametrize("name", [*DEFINITIONS, *MOVES])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(name, bad):
    op = OPS[name]
    case = op.cases[0]
    rng = np.random.default_rng(7)
    arrays = drawn(op, case, normal, "float64", rng)
    y, context = exact[name].forward(*arrays, **case.attrs)
    dy = np.array(rng.standard_normal(y.shape))
    dy.reshape(-1)[-1] = bad
    with pytest.raises(
        ValueRangeError, match=rf"^{name} dy is {bad}.*: exact arithmetic expects finite numbers"
    ):
        exact[name].backward(dy, context)
    x = arrays[0]
    at = np.unravel_index(x.size // 2, x.shape)
    x[at] = x.reshape(-1)[-1] = bad
    place = ", ".join(map(str, at))
    with pytest.raises(ValueRangeError, match=rf"^{name} x1? is {bad} at \({place}\): exact arithmetic"):
        exact[name].forward(*arrays, **case.attrs)


def test_what_needed_integers_is_counted():
    half = 2.0**-53
    arrays = [np.array([[1.0, 1.0, 3.0]]), np.array([[half, half, 1.0]]), np.array([[half**3, 0.0, 1.0]])]
    with fallback.counted() as counts:
        y = add.total("dx", arrays)
        with fallback.counted() as inner:
            fallback.note("y", 5, 1)
    assert same_bits(y, np.array([[1 + 2 * half, 1.0, 5.0]]))
    # The first is a tie but for what an addition has lost; the others are decided.
    assert counts.of == {"dx": fallback.Count(3, 1)} and inner.of == {"y": fallback.Count(5, 1)}
    fallback.note("y", 5, 1)
    assert "y" not in counts.of


@every_dtype
def test_a_unit_in_the_last_place_is_seen(dtype):
    """The comparison itself: it is exact, and zeros have signs."""
    one, zero = np.array([1.0], dtype), np.array([0.0], dtype)
    assert not same_bits(one, np.nextafter(one, 2).astype(dtype)) and not same_bits(zero, -zero)
    op, case = OPS["affine"], OPS["affine"].cases[0]
    arrays = drawn(op, case, normal, dtype, np.random.default_rng(8))
    y, _ = exact["affine"].forward(*arrays)
    x, s, b = map(rational, arrays)
    expected = nearest_all(per_channel(s) * x + per_channel(b), dtype)
    at = (1, 2, 0, 3, 4)
    assert y[at] == nearest(x[at] * s[2] + b[2], dtype)
    y[at] = np.nextafter(y[at], np.inf)
    assert not same_bits(y, expected)
