"""What operators state of their gradients: no less than the truth, little more, and above every rounding."""

from decimal import Decimal

import numpy as np
import pytest
from exact import gradients
from support import CASES, every_arithmetic, every_case, every_dtype, reals, unit

from refnet.arithmetic import exact
from refnet.check.judge import EXACT_ALONE
from refnet.ops import OPS

SEEDS = range(200)
DIFFERENTIABLE = [
    op for op in OPS.values() if any(op.domain(i).gradient for i in range(len(op.cases[0].shapes)))
]


def wanted(op, arrays):
    return tuple(op.domain(i).gradient for i in range(len(arrays)))


def derivatives(op, arrays, attrs, dy):
    """For each input the sum over y of |dy| times |derivative|: column by column, or in so many products."""
    if op.family == "product":
        exact = gradients(op, [np.abs(a) for a in arrays], attrs, np.abs(dy))
        return [a.astype("float64") for a in exact]
    _, context = op.forward(*arrays, **attrs)
    sums = [np.zeros(a.shape) if need else None for a, need in zip(arrays, wanted(op, arrays), strict=True)]
    for o in np.ndindex(dy.shape):
        one = np.zeros(dy.shape)
        one[o] = dy[o]
        for total, column in zip(sums, op.backward(one, context, wanted(op, arrays)), strict=True):
            if total is not None:
                total += np.abs(column)
    return sums


# By how much sum_abs may exceed |J|' |dy|, over a tensor of normal values: what an operator's own roundings
# need beside. All others add up what they state, and nothing else.
LOOSE = {"softmax": 30, "cross_entropy": 15, "batch_norm_training": 15}


@every_case
def test_magnitudes_are_sums_of_derivatives(op, case):
    arrays = reals(op, case, seed=3)
    dy = np.asarray(np.random.default_rng(4).standard_normal(op.output_shape(case.shapes, case.attrs)))
    found = op.gradient_magnitude(dy, *arrays, needs=wanted(op, arrays), **case.attrs)
    for magnitude, right, a in zip(found, derivatives(op, arrays, case.attrs, dy), arrays, strict=True):
        assert (magnitude is None) == (right is None)
        if magnitude is None:
            continue
        sum_abs, terms = magnitude
        assert sum_abs.shape == a.shape and terms.dtype == np.int64
        assert np.broadcast_shapes(terms.shape, a.shape) == a.shape
        slack = 1 + (2 * dy.size + 20) * unit("float64")  # both are rounded
        assert (right <= sum_abs * slack).all()
        assert ((sum_abs == 0) == (right == 0)).all() or op.name in LOOSE
        assert (np.broadcast_to(terms, a.shape)[sum_abs > 0] > 0).all()
        if op.name in LOOSE:
            assert sum_abs.sum() <= LOOSE[op.name] * right.sum() or not right.any()
        else:
            assert (sum_abs <= right * slack).all()


def counts_terms_alone(op):
    """Whether the terms of a gradient are all that is counted, no quotient and no average."""
    return not op.divides and not op.name.endswith(("average_pool", "average_pool3d"))


@pytest.mark.parametrize(("op", "case"), [p for p in CASES if counts_terms_alone(p.values[0])])
def test_the_number_of_terms_is_that_of_derivatives(op, case):
    """How many outputs have a derivative that is not 0, of weights that are not."""
    # Derivatives are 1, or of a winner; so are their sums how many there are.
    arrays = [np.ones(shape) for shape in case.shapes]
    dy = np.ones(op.output_shape(case.shapes, case.attrs))
    found = op.gradient_magnitude(dy, *arrays, needs=wanted(op, arrays), **case.attrs)
    for magnitude, count in zip(found, derivatives(op, arrays, case.attrs, dy), strict=True):
        if magnitude is not None:
            assert np.array_equal(np.where(magnitude.sum_abs > 0, magnitude.terms, 0), count)


@every_case
def test_only_what_is_needed_is_computed(op, case):
    arrays = reals(op, case, seed=3)
    dy = np.ones(op.output_shape(case.shapes, case.attrs))
    everything = op.gradient_magnitude(dy, *arrays, needs=wanted(op, arrays), **case.attrs)
    for i, full in enumerate(everything):
        needs = tuple(i == j for j in range(len(arrays)))
        found = op.gradient_magnitude(dy, *arrays, needs=needs, **case.attrs)
        assert [m is not None for m in found] == [
            need and m is not None for need, m in zip(needs, everything, strict=True)
        ]
        if full is not None:
            assert np.array_equal(found[i].sum_abs, full.sum_abs) and np.array_equal(
                found[i].terms, full.terms
            )


KINDS = {
    "normal": lambda op, a, rng: a,
    "large mean": lambda op, a, rng: a + a.dtype.type(10.0 ** (3 if a.dtype == np.float32 else 8)),
    "tiny variance": lambda op, a, rng: 1 + a * a.dtype.type(unit(a.dtype) * 64),
    "large": lambda op, a, rng: a * a.dtype.type(300),
    "one value of 2^60": lambda op, a, rng: np.where(
        np.arange(a.size).reshape(a.shape) == rng.integers(a.size), a.dtype.type(2.0**60), a
    ),
}


def problem(op, seed, dtype):
    """A drawn problem of at most a few hundred values, of the seed's kind."""
    rng = np.random.default_rng(seed)
    small = (case for case in iter(lambda: op.drawn(rng), None) if weight(op, case) <= 4000)
    case = next(small)
    arrays, kind = reals(op, case, dtype, seed), list(KINDS.values())[seed % len(KINDS)]
    if op.domain(0).draw is None:
        arrays[0] = kind(op, arrays[0], rng).astype(dtype)
    dy = np.asarray(rng.standard_normal(op.output_shape(case.shapes, case.attrs))).astype(dtype)
    return case, arrays, dy


def weight(op, case):
    """How long the exact gradients take, by columns or by terms."""
    sizes = [int(np.prod(s)) for s in case.shapes]
    y = int(np.prod(op.output_shape(case.shapes, case.attrs)))
    if op.name in ("conv3d", "linear"):
        return op.cost(*case.shapes, itemsize=1, **case.attrs).multiply_adds
    return 4 * sizes[0] if op.smooth or op.family == "norm" else y * sizes[0]


@every_dtype
@every_arithmetic
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_gradients_are_within_their_bounds(op, arithmetic, dtype):
    if arithmetic is exact and op.name in EXACT_ALONE:
        pytest.skip("the bounds are those of the others' definition: test_exact_operators.py")
    for seed in SEEDS:
        case, arrays, dy = problem(op, seed, dtype)
        _, context = arithmetic[op.name].forward(*arrays, **case.attrs)
        assert_within_stated(op, case, arrays, dy, arithmetic[op.name].backward(dy, context), f"seed {seed}")


def assert_within_stated(op, case, arrays, dy, found, what):
    """(terms + 1) u sum_abs, and what is lost where an exponential or a product underflows."""
    u, least = unit(dy.dtype), float(np.finfo(dy.dtype).smallest_subnormal)
    wide = [a if a.dtype == np.int64 else a.astype("float64") for a in arrays]
    stated = op.gradient_magnitude(dy.astype("float64"), *wide, needs=wanted(op, arrays), **case.attrs)
    lost = least * (1 + np.abs(dy).sum()) * (dy.size + 1)
    for ours, magnitude, right in zip(found, stated, gradients(op, wide, case.attrs, dy), strict=True):
        assert (ours is None) == (magnitude is None) == (right is None)
        if ours is None:
            continue
        bound = (magnitude.terms + 1) * u * magnitude.sum_abs + lost * op.smooth
        off = np.array(
            [abs(float(Decimal(float(v)) - r)) for v, r in zip(ours.flat, right.flat, strict=True)]
        )
        assert (off.reshape(ours.shape) <= bound).all(), f"{what}: {case.name}"


def chain(values):
    """The sum along the last axis, one after the other, in the dtype."""
    return np.add.accumulate(values, axis=-1)[..., -1]


def two_passes(x):
    mean = chain(x) / x.dtype.type(x.shape[1])
    return mean, chain(np.square(x - mean[:, None])) / x.dtype.type(x.shape[1])


def value_by_value(x):
    """Welford's updates of mean and sum of squares, *Technometrics* 4(3), 1962."""
    mean, squares = np.zeros_like(x[:, 0]), np.zeros_like(x[:, 0])
    for count, value in enumerate(x.T, 1):
        before = value - mean
        mean = mean + before / x.dtype.type(count)
        squares = squares + before * (value - mean)
    return mean, squares / x.dtype.type(x.shape[1])


@every_dtype
@pytest.mark.parametrize("statistics", [two_passes, value_by_value])
def test_batch_norm_in_training_all_in_the_dtype(statistics, dtype):
    """PyTorch's formula, dx = (dy - db / n - (x - mean) k) / deviation s, with k = dot / deviation^2 / n."""
    op, number = OPS["batch_norm_training"], np.dtype(dtype).type
    for seed in SEEDS:
        case, (x, s, b), dy = problem(op, seed, dtype)
        rows, dys = (a.swapaxes(0, 1).reshape(len(s), -1) for a in (x, dy))
        n, (mean, variance) = number(rows.shape[1]), statistics(rows)
        inverse = number(1) / np.sqrt(variance + number(case.attrs["epsilon"]))
        centred = rows - mean[:, None]
        dot, db = chain(dys * centred), chain(dys)
        k = dot * inverse * inverse / n
        dx = (dys - (db / n)[:, None] - centred * k[:, None]) * inverse[:, None] * s[:, None]
        dx = dx.reshape(x.swapaxes(0, 1).shape).swapaxes(0, 1)
        assert_within_stated(op, case, (x, s, b), dy, (dx, dot * inverse, db), f"seed {seed}")


@every_dtype
def test_cross_entropy_by_way_of_logarithms(dtype):
    """PyTorch's: exp of the logarithms of the softmax, times dy / N, less that at the label."""
    op = OPS["cross_entropy"]
    for seed in SEEDS:
        case, (x, labels), dy = problem(op, seed, dtype)
        d = x - x.max(axis=1, keepdims=True)
        logarithms = d - np.log(chain(np.exp(d)))[:, None]
        each = dy / dy.dtype.type(len(x))
        dx = np.exp(logarithms) * each
        dx[np.arange(len(x)), labels] -= each
        assert_within_stated(op, case, (x, labels), dy, (dx, None), f"seed {seed}")


def test_a_gradient_that_is_wrong_is_outside():
    """By a thousand-millionth in float64, in one element, at one place or everywhere."""
    for op in DIFFERENTIABLE:
        case, arrays, dy = problem(op, 0, "float64")
        _, context = op.forward(*arrays, **case.attrs)
        right = op.backward(dy, context, wanted(op, arrays))
        assert_within_stated(op, case, arrays, dy, right, "right")
        for i, gradient in enumerate(right):
            if gradient is None or not gradient.any():
                continue
            one = np.where(np.abs(gradient) == np.abs(gradient).max(), 1 + 1e-9, 1)
            for wrong in (gradient * (1 + 1e-9), gradient * one):
                with pytest.raises(AssertionError):
                    planted = [wrong if i == j else g for j, g in enumerate(right)]
                    assert_within_stated(op, case, arrays, dy, planted, "wrong")
