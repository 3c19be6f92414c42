"""Exact arithmetic, but for products with weights, against rational numbers rounded once, to the last bit."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from exact_operators import (
    DEFINITIONS,
    KINDS,
    compare,
    compare_drawn,
    drawn,
    normal,
    per_channel,
    ties,
    wide,
    zeros,
)
from rounding import nearest, nearest_all, rational, same_bits
from threadpoolctl import threadpool_limits

from refnet.arithmetic.exact import MOVES, add, exact, fallback
from refnet.arithmetic.reference import reference
from refnet.errors import ValueRangeError
from refnet.ops import OPS

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
CASES = [(OPS[name], case) for name in DEFINITIONS for case in OPS[name].cases]
every_case = pytest.mark.parametrize(
    ("op", "case"), [pytest.param(*c, id=f"{c[0].name}: {c[1].name}") for c in CASES]
)


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
