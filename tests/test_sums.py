"""Every operator that sums: within its stated bound of the exact sum, however many terms there are."""

from fractions import Fraction
from math import fsum, inf, isqrt, nan

import numpy as np
import pytest
from support import every_arithmetic, every_dtype, of_formulas, reals, rounding_bound, unit

from refnet.arithmetic import core, reference
from refnet.ops import OPS
from refnet.ops.batch_norm import EPSILON

TINY = unit("float64")
# A plane of less than a chain, of blocks with and without a rest, and one whose chains used to grow.
SIZES = [7, 1024, 3 * 1024 + 5, 200 * 1024 + 3]


def plane(values):
    """Values (N, C, P) as a blob."""
    return values.reshape(*values.shape[:2], 1, 1, -1)


def numbers(shape, dtype, seed=0):
    """Of sixteen binades, of both signs, shifted: their sum is much less than that of their magnitudes."""
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal(shape) * 2.0 ** rng.integers(-8, 8, shape)) - 3).astype(dtype)


def exact(values):
    """The sum of floating-point numbers, rounded once to float64: within 2^-53 of it."""
    return fsum(values.ravel().tolist())


def sum_bound(arithmetic, values, products=False):
    """How far a sum in float64 may be from the exact one: `_core/sums.h`, `refnet.arrays.channel_sums`."""
    n, size = values.size, fsum(np.abs(values).ravel().tolist())
    if arithmetic is not core:
        return (19 + max(0, np.log2(n / 64)) + products) * TINY * size
    return (36 + products + 2 * TINY * n / 512) * TINY * size


@every_arithmetic
@every_dtype
@pytest.mark.parametrize("size", SIZES)
def test_sums_of_channels_are_within_their_bounds(arithmetic, dtype, size):
    """Biases' and scales' gradients, means: one rounding to the dtype, beside the bound in float64."""
    x, dy = (plane(numbers((2, 2, size), dtype, seed)) for seed in (0, 1))
    s, u = np.ones(2, dtype), unit(dtype)
    _, context = arithmetic.affine.forward(x, s, s)
    _, ds, db = arithmetic.affine.backward(dy, context)
    pooled, _ = arithmetic.global_average_pool.forward(x, over_time=True)
    kept, _ = arithmetic.running_mean.forward(x, s, momentum=0.25)
    for c in range(2):
        right = exact(dy[:, c])
        assert abs(db[c] - right) <= 2 * u * abs(right) + sum_bound(arithmetic, dy[:, c])
        if dtype == "float32":  # products are exact in float64
            products = dy[:, c].astype("float64") * x[:, c]
            right = exact(products)
        else:
            pairs = zip(dy[:, c].ravel().tolist(), x[:, c].ravel().tolist(), strict=True)
            right = float(sum(Fraction(a) * Fraction(b) for a, b in pairs)) if size < 5000 else None
            products = dy[:, c] * x[:, c]
        if right is not None:
            assert abs(ds[c] - right) <= 2 * u * abs(right) + sum_bound(arithmetic, products, products=True)
        right = exact(x[:, c]) / x[:, c].size
        off = sum_bound(arithmetic, x[:, c]) / x[:, c].size
        assert abs(kept[c] - (0.25 + 0.75 * right)) <= 4 * u * (0.25 + 0.75 * abs(right)) + off
        for n in range(2):
            right = exact(x[n, c]) / size
            off = sum_bound(arithmetic, x[n, c]) / size
            assert abs(pooled[n, c].item() - right) <= 3 * u * abs(right) + off


def normalised(values, epsilon=1e-5):
    """(x - mean) / sqrt(variance + epsilon), exact but for a root of 40 digits and a rounding."""
    values = [Fraction(v) for v in values.ravel().tolist()]
    mean = sum(values) / len(values)
    square = sum((v - mean) ** 2 for v in values) / len(values) + Fraction(epsilon)
    shift = max(0, 320 - square.numerator.bit_length() + square.denominator.bit_length()) // 2
    root = Fraction(isqrt((square.numerator << 2 * shift) // square.denominator), 1 << shift)
    return np.array([float((v - mean) / root) for v in values])


@of_formulas
@pytest.mark.parametrize(
    ("dtype", "grid"), [("float32", 0.0), ("float32", 1024.0), ("float64", 1e-5), ("float64", 2.0**-19)]
)
def test_batch_norm_of_a_large_mean_is_within_its_bound(arithmetic, dtype, grid):
    """Around 1e10, on a grid that can be represented there, with a deviation of a hundred steps."""
    steps = np.rint(np.random.default_rng(0).standard_normal(2000) * 100)
    x = plane((1e10 + grid * steps).astype(dtype).reshape(2, 1, -1))
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    y, context = arithmetic.batch_norm_training.forward(x, one, zero)
    right = normalised(x)
    bound = rounding_bound(OPS["batch_norm_training"], (x, one, zero), {}, dtype).ravel()
    assert (np.abs(y.ravel() - right) <= bound + unit("float64")).all()
    _, ds, _ = arithmetic.batch_norm_training.backward(y, context)
    assert abs(ds[0] - np.square(right).sum()) <= 2 * 48 * unit(dtype) * (np.square(right).sum() + x.size)


@every_arithmetic
@every_dtype
@pytest.mark.parametrize("start", [0, 1, 64, 100])
def test_batch_norm_does_not_depend_on_what_a_channel_begins_with(arithmetic, dtype, start):
    """The first values are nothing like the mean, from which they are a few deviations, or many."""
    x = numbers((2, 1, 1500), dtype)
    x[0, 0, :start] += np.dtype(dtype).type(1e6)
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    y, _ = arithmetic.batch_norm_training.forward(plane(x), one, zero)
    bound = rounding_bound(OPS["batch_norm_training"], (plane(x), one, zero), {}, dtype).ravel()
    assert (np.abs(y.ravel() - normalised(x)) <= bound + unit("float64")).all()


@every_arithmetic
@every_dtype
def test_a_constant_plane_has_its_mean_and_no_variance(arithmetic, dtype):
    """Sixteen chains in float32 gave a mean of 100.049, and 0.998 in place of 0."""
    x = np.full((1, 1, 16, 224, 224), 100.1, dtype)
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    y, context = arithmetic.batch_norm_training.forward(x, one, zero)
    assert not y.any()
    dx, ds, db = arithmetic.batch_norm_training.backward(x, context)
    # Sums of as many floats are exact in float64; those of doubles are rounded.
    off = sum_bound(arithmetic, x) / x.size if dtype == "float64" else 0
    assert np.abs(dx).max() <= off * (1 + 4 * TINY) / np.sqrt(1e-5) and not ds.any()
    off += 2 * TINY * x.flat[0] if dtype == "float64" else 0
    assert abs(db[0] - np.dtype(dtype).type(exact(x))) <= off * x.size
    assert abs(arithmetic.global_average_pool.forward(x, over_time=True)[0].item() - x.flat[0]) <= off
    assert abs(arithmetic.running_mean.forward(x, x[0, :, 0, 0, 0], momentum=0.5)[0] - x.flat[0]) <= off
    assert arithmetic.running_variance.forward(x, one, momentum=0.5)[0] == 0.5


@of_formulas
@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", 1e30), ("float32", 3e38), ("float64", 1e300), ("float64", 1.7e308)]
)
def test_squares_that_overflow_do_not_matter(arithmetic, dtype, value):
    """Two values of opposite signs become 1 and -1, beside channels of other sizes; so backward."""
    x = np.array([[value, -value], [value, value], [3, 1]], dtype).reshape(1, 3, 1, 1, 2)
    one, zero = np.ones(3, dtype), np.zeros(3, dtype)
    y, context = arithmetic.batch_norm_training.forward(x, one, zero)
    assert y[0, :2].ravel().tolist() == [1, -1, 0, 0]
    alone, _ = arithmetic.batch_norm_training.forward(x[:, 2:], one[:1], zero[:1])
    assert y[:, 2:].tobytes() == alone.tobytes(), "a channel's bits do not depend on the others"
    dx, ds, db = arithmetic.batch_norm_training.backward(
        np.array([1, 0] * 3, dtype).reshape(x.shape), context
    )
    assert not dx[0, 0].any() and ds[:2].tolist() == [1, 0] and db.tolist() == [1, 1, 1]
    # A constant channel: scale (dy - 1/2), with the scale 1 / sqrt(epsilon).
    half = 0.5 / np.sqrt(1e-5)
    assert np.abs(dx[0, 1].ravel() - [half, -half]).max() <= 4 * unit(dtype) * half
    kept, _ = arithmetic.running_variance.forward(x, one)
    assert kept[0] == inf and kept[1] == one.dtype.type(0.9)


@of_formulas
@pytest.mark.parametrize(
    ("x", "s", "dy"),
    [(1e250, 1e250, 1e-250), (1e307, 1e300, 1e-300), (1e307, 1e300, 1e-200), (1e250, 1, 1e100)],
)
def test_gradients_of_large_values_may_be_small(arithmetic, x, s, dy):
    """What is multiplied by x may underflow where its product with x does not."""
    rng = np.random.default_rng(0)
    xs, dys, scale = rng.standard_normal(9) * x, rng.standard_normal(9) * dy, np.array([s / 3])
    _, context = arithmetic.batch_norm_training.forward(xs.reshape(1, 1, 1, 3, 3), scale, np.zeros(1))
    dx, ds, db = arithmetic.batch_norm_training.backward(dys.reshape(1, 1, 1, 3, 3), context)
    values, given = ([Fraction(v) for v in some.tolist()] for some in (xs, dys))
    mean, total = sum(values) / 9, sum(given)
    variance = sum((v - mean) ** 2 for v in values) / 9 + Fraction(EPSILON)
    deviation = Fraction(isqrt(int(variance * 2**200)), 2**100)
    product = sum(g * (v - mean) for g, v in zip(given, values, strict=True)) / deviation
    right = [
        Fraction(scale[0]) / deviation * (g - total / 9 - (v - mean) / deviation * product / 9)
        for g, v in zip(given, values, strict=True)
    ]
    limit = Fraction(1, 2**49) * max(map(abs, right))
    assert all(abs(Fraction(found) - r) <= limit for found, r in zip(dx.ravel().tolist(), right, strict=True))
    most = Fraction(1, 2**49) * sum(map(abs, given))
    assert abs(Fraction(ds[0]) - product) <= most and abs(Fraction(db[0]) - total) <= most


@every_arithmetic
@every_dtype
def test_running_variance_is_within_its_bound(arithmetic, dtype):
    x, one = plane(numbers((3, 1, 1234), dtype) + np.dtype(dtype).type(1e4)), np.ones(1, dtype)
    values = [Fraction(v) for v in x.ravel().tolist()]
    mean = sum(values) / len(values)
    right = float(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / 2 + Fraction(1, 2))
    y, _ = arithmetic.running_variance.forward(x, one, momentum=0.5)
    assert abs(y[0] - right) <= rounding_bound(OPS["running_variance"], (x, one), {"momentum": 0.5}, dtype)


@of_formulas
@every_dtype
@pytest.mark.parametrize("special", [inf, -inf, nan])
@pytest.mark.parametrize("at", [0, 20, 1030])
def test_infinity_and_nan_are_summed_as_they_are(arithmetic, dtype, special, at):
    x = numbers((1, 2, 1040), dtype)
    x[0, 0, at] = special
    x = plane(x)
    one = np.ones(2, dtype)
    _, context = arithmetic.affine.forward(np.ones_like(x), one, one)
    with np.errstate(invalid="ignore"):
        _, ds, db = arithmetic.affine.backward(x, context)
        mean, _ = arithmetic.global_average_pool.forward(x, over_time=True)
    for found in (ds, db, mean.ravel()):
        assert np.array_equal(found[0], special, equal_nan=True) and np.isfinite(found[1])


@of_formulas
def test_infinities_of_both_signs_are_nan(arithmetic):
    x = np.array([inf, 1, -inf]).reshape(1, 1, 1, 1, 3)
    with np.errstate(invalid="ignore"):
        assert np.isnan(arithmetic.global_average_pool.forward(x)[0]).all()


@every_arithmetic
@every_dtype
def test_pools_add_up_windows_as_large_as_the_plane(arithmetic, dtype):
    """Means of whole planes; gradients where thousands of windows overlap: within the bound of `Totals`."""
    x = np.full((1, 1, 2, 200, 300), 100.1, dtype)
    y, _ = arithmetic.average_pool3d.forward(x, kernel=(2, 200, 300))
    assert abs(y.item() - x.flat[0]) <= 18 * TINY * x.flat[0]
    x, attrs = numbers((1, 1, 1, 60, 70), dtype), {"kernel": (1, 40, 50), "pad": (0, 20, 20)}
    y, context = arithmetic.average_pool3d.forward(x, **attrs)
    dy = numbers(y.shape, dtype, 1)
    (dx,) = arithmetic.average_pool3d.backward(dy, context)
    shares = {}
    for h, w in np.ndindex(y.shape[3:]):
        rows, columns = (max(h - 20, 0), min(h + 20, 60)), (max(w - 20, 0), min(w + 30, 70))
        window = x[0, 0, 0, slice(*rows), slice(*columns)]
        shares[rows, columns] = dy[0, 0, 0, h, w] / np.dtype(dtype).type(window.size)
        if h % 20 == w % 20 == 0:
            off = 2 * unit(dtype) * abs(exact(window)) + 17 * TINY * exact(np.abs(window))
            assert abs(y[0, 0, 0, h, w] - exact(window) / window.size) <= off * (1 + TINY) / window.size
    for h, w in ((0, 0), (30, 35), (59, 69)):
        terms = [float(s) for (i, j), s in shares.items() if i[0] <= h < i[1] and j[0] <= w < j[1]]
        right = fsum(terms)
        off = unit(dtype) * abs(right) + 17 * TINY * fsum(map(abs, terms))
        assert abs(dx[0, 0, 0, h, w] - right) <= off * (1 + 4 * unit(dtype))


@every_arithmetic
@every_dtype
def test_a_convolutions_bias_has_the_sum_of_dy(arithmetic, dtype):
    x, w = np.zeros((2, 1, 1, 100, 300), dtype), np.zeros((1, 1, 1, 1, 1), dtype)
    y, context = arithmetic.conv3d.forward(x, w, np.zeros(1, dtype))
    dy = numbers(y.shape, dtype)
    db = arithmetic.conv3d.backward(dy, context)[2]
    assert abs(db[0] - exact(dy)) <= 2 * unit(dtype) * abs(exact(dy)) + sum_bound(arithmetic, dy)


@every_arithmetic
@every_dtype
def test_upsampling_adds_up_large_squares(arithmetic, dtype):
    dy = numbers((1, 1, 1, 80, 40), dtype)
    _, context = arithmetic.upsample_nearest.forward(dy[..., :2, :1], scale=40)
    (dx,) = arithmetic.upsample_nearest.backward(dy, context)
    for i in range(2):
        square = dy[0, 0, 0, 40 * i : 40 * (i + 1)]
        off = unit(dtype) * (abs(exact(square)) + 16 * exact(np.abs(square)))
        assert abs(dx[0, 0, 0, i, 0] - exact(square)) <= off


@every_arithmetic
@every_dtype
def test_a_cell_of_many_regions_has_the_sum_of_their_gradients(arithmetic, dtype):
    """2,000 tubes whose bins all lie in one cell: 18,000 terms, each a weight of 1 times dy."""
    x, rois = np.zeros((1, 1, 1, 3, 3), dtype), np.tile(np.array([0, 1, 1, 1, 1], dtype), (2000, 1))
    y, context = arithmetic.roi_align.forward(x, rois, output=(3, 3), sampling_ratio=1, aligned=True)
    dy = numbers(y.shape, dtype)
    dx, _ = arithmetic.roi_align.backward(dy, context)
    # Positions are 0.5 along both axes: a quarter of it goes to each of four cells.
    right, size = exact(dy) / 4, exact(np.abs(dy)) / 4
    chains = (64 + 3 + 3 + 2) if arithmetic is core else 2000 * 3
    for h, w in np.ndindex(2, 2):
        assert abs(dx[0, 0, 0, h, w] - right) <= unit(dtype) * abs(right) + chains * TINY * size


SUMMING = [
    op for op in OPS.values() if op.family in ("norm", "pooling", "other") or op.name == "upsample_nearest"
]


@pytest.mark.parametrize("op", SUMMING, ids=lambda op: op.name)
@every_dtype
@pytest.mark.parametrize("special", [inf, -inf, nan])
def test_core_and_the_definition_have_infinity_and_nan_at_the_same_places(op, dtype, special):
    """Planted into one of the inputs, into dy, and into both; forward and backward."""

    def planted(array):
        spoilt = np.array(array)
        spoilt.reshape(-1)[rng.integers(0, array.size, 2)] = special
        return spoilt

    for seed, case in enumerate(op.cases * 4):
        rng = np.random.default_rng(seed)
        arrays = reals(op, case, dtype, seed)
        free = [i for i in range(len(arrays)) if op.domain(i).draw is None]
        if seed % 3 < 2:
            i = free[rng.integers(len(free))]
            arrays[i] = planted(arrays[i])
        with np.errstate(invalid="ignore", over="ignore"):
            results = []
            for arithmetic in (core, reference):
                y, context = arithmetic[op.name].forward(*arrays, **case.attrs)
                dy = np.random.default_rng(seed).standard_normal(y.shape).astype(dtype)
                rng = np.random.default_rng(seed)
                dy = planted(dy) if seed % 3 else dy
                results.append([y, *arithmetic[op.name].backward(dy, context)])
        for ours, theirs in zip(*results, strict=True):
            for is_special in (np.isnan, np.isposinf, np.isneginf):
                assert ours is None or np.array_equal(is_special(ours), is_special(theirs)), case.name


LARGE = {"float32": 2.0**127, "float64": 2.0**1023}  # of which no two can be added


@every_dtype
@of_formulas
def test_no_mean_and_no_gradient_overflows_on_the_way(arithmetic, dtype):
    """What is finite in real numbers is finite, though a sum on the way is not."""
    m = np.dtype(dtype).type(LARGE[dtype])
    x = np.full((1, 1, 2, 4, 4), m)
    means = [
        arithmetic.global_average_pool.forward(x)[0],
        arithmetic.average_pool3d.forward(x, kernel=(1, 2, 2))[0],
    ]
    means.append(arithmetic.average_pool3d.forward(x, kernel=(2, 4, 4))[0])
    assert all((mean == m).all() for mean in means)
    for dy in ([m, m, -m, -m], [m, -m, m, -m]):
        _, context = arithmetic.upsample_nearest.forward(np.zeros((1, 1, 1, 1, 1), dtype), scale=2)
        squares = np.array(dy).reshape(1, 1, 1, 2, 2)
        assert arithmetic.upsample_nearest.backward(squares, context)[0].item() == 0
    _, context = arithmetic.max_pool3d.forward(
        np.array([0, 0, 1, 0, 0], dtype).reshape(1, 1, 1, 1, 5), kernel=(1, 1, 3)
    )
    dy = np.array([m, m, -m]).reshape(1, 1, 1, 1, 3)
    assert arithmetic.max_pool3d.backward(dy, context)[0].ravel().tolist() == [0, 0, m, 0, 0]
    _, context = arithmetic.average_pool3d.forward(np.zeros((1, 1, 1, 1, 3), dtype), kernel=(1, 1, 1))
    assert (arithmetic.average_pool3d.backward(np.full((1, 1, 1, 1, 3), m), context)[0] == m).all()
    infinite = x.copy()
    infinite[0, 0, 0, 0, 0] = np.inf
    assert np.isposinf(arithmetic.global_average_pool.forward(infinite)[0]).sum() == 1


@every_arithmetic
def test_the_mean_of_losses_does_not_overflow(arithmetic):
    scores = np.array([[np.finfo(np.float32).max, 0, 1]] * 2, np.float32)
    assert arithmetic.cross_entropy.forward(scores, np.array([1, 1]))[0] == np.finfo(np.float32).max
