"""The accumulator of `_core/accumulator.h` against rational arithmetic, rounded once."""

from fractions import Fraction

import numpy as np
import pytest
from rounding import nearest, same_bits

from refnet._core.exact_sums import Sum

LARGEST = {"float32": float(np.finfo(np.float32).max), "float64": float(np.finfo(np.float64).max)}
COUNTS = (1, 2, 3, 7, 96, 2**31 - 1, 2**32 - 1, 2**32, 2**32 + 1, 10**12 + 39, 2**62 + 1, 2**63 - 1)


def check(terms, products=(), counts=(1,)):
    """The sum of the terms and products, over each count, in both formats."""
    found, exact = Sum(), Fraction(0)
    found.add(np.array(terms, np.float64))
    x, y = (np.array(v, np.float64) for v in (zip(*products, strict=True) if products else ((), ())))
    found.add_products(x, y)
    exact = sum(map(Fraction, map(float, terms)), exact)
    exact += sum((Fraction(float(a)) * Fraction(float(b)) for a, b in products), Fraction(0))
    for count in counts:
        expected = [nearest(exact / count, dtype) for dtype in ("float64", "float32")]
        wide, narrow = found.over(count)
        assert same_bits(np.float64(wide), expected[0]), (terms, products, count)
        assert same_bits(np.float32(narrow), expected[1]), (terms, products, count)


def drawn(rng, n, low, high):
    """n doubles with exponents of that range, one in four an integer of few bits."""
    significand = np.where(rng.random(n) < 0.25, rng.integers(-8, 9, n), rng.uniform(-1, 1, n))
    with np.errstate(under="ignore"):
        return np.ldexp(significand, rng.integers(low, high, n))


@pytest.mark.parametrize(
    ("low", "high"),
    [(-10, 10), (-1074, -1000), (-1074, 1015), (-160, -120), (90, 120), (980, 1015), (0, 1), (-540, -500)],
)
def test_random_sums_and_products(low, high):
    rng = np.random.default_rng(low + 2000)
    for n in (1, 2, 3, 10, 40):
        for _ in range(25):
            terms, x, y = (drawn(rng, n, low, high) for _ in range(3))
            check(terms)
            check([], list(zip(x, y, strict=True)))
            check(terms, list(zip(x, y, strict=True)), COUNTS)


def test_sums_that_cancel():
    rng = np.random.default_rng(1)
    for _ in range(200):
        terms = drawn(rng, 12, -60, 60)
        rest = drawn(rng, 1, -1074, -900)
        check(rng.permutation([*terms, *-terms, *rest]), counts=COUNTS)
        x, y = drawn(rng, 6, -540, 400), drawn(rng, 6, -540, 400)
        check([], [*zip(x, y, strict=True), *zip(-x, y, strict=True), (2.0**-500, 3 * 2.0**-574)])
        check(rng.permutation([2.0**200, *terms, -(2.0**200)]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sign", [1, -1])
def test_ties_and_their_neighbours(dtype, sign):
    kind = np.dtype(dtype).type
    tiny = float(np.finfo(kind).smallest_subnormal)
    starts = [1.0, 1.5, 2 - float(np.finfo(kind).eps), float(np.finfo(kind).tiny), 3 * tiny, tiny, 0.0]
    starts.append(LARGEST[dtype])
    for start in starts:
        unit = sign * (
            start - float(np.nextafter(kind(start), kind(-1)))
        )  # that of its last place, or half of it
        for beside in (0.0, 2.0**-600, -(2.0**-600), 2.0**-1074):
            for part in (0.25, 0.5, 1.0, 1.5):
                check([sign * start], [(unit, part), (sign * beside, 2.0**-300)])
                check([sign * start], [(-unit, part), (sign * beside, 2.0**-300)])


def test_the_smallest_and_the_largest():
    tiny, largest = 2.0**-1074, LARGEST["float64"]
    check([], [(tiny, tiny)], COUNTS)
    check([], [(tiny, -tiny)], COUNTS)
    check([], [(largest, largest), (-largest, largest), (tiny, tiny)], COUNTS)
    check([], [(largest, largest)] * 5, COUNTS)
    check([], [(largest, -largest)] * 5, COUNTS)
    check([largest] * 5, counts=(1, 2, 4, 5, 6))
    check([LARGEST["float32"], 2.0**102], counts=(1, 2))
    check([-LARGEST["float32"], -(2.0**103)], counts=(1, 2))


def test_zeros():
    for terms in ([], [0.0], [-0.0], [-0.0, -0.0], [1.0, -1.0], [-1.0, 1.0], [2.0**-1074, -(2.0**-1074)]):
        check(terms, counts=COUNTS)
        check([], [(t, -1.0) for t in terms], COUNTS)
    check([], [(-(2.0**-600), 2.0**-600)])


def test_more_terms_than_wait_for_a_carry():
    rng = np.random.default_rng(2)
    for n in (4095, 4096, 4097, 20000):
        for term in (LARGEST["float64"], -LARGEST["float64"], -(2.0**-1074), 1.0 - 2.0**-53):
            check([term] * n, [(term, term)] * 3)
            check([], [(term, -LARGEST["float64"])] * n, (1, 3))
        terms = drawn(rng, n, -300, 300)
        check([*terms, *-terms[::-1], 1e-300])


def test_a_cleared_sum_begins_with_zero():
    found = Sum()
    found.add(np.array([1e300, -1e-300]))
    found.clear()
    assert found.over(1) == (0, 0)
    found.add(np.array([3.0]))
    assert found.over(2) == (1.5, 1.5)
    with pytest.raises(ValueError, match="do not fit"):
        found.add_products(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="do not fit"):
        found.over(0)
