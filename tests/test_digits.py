"""The oracle in digits is itself right, by rational arithmetic; and draws find what is wrong."""

import digits
import exact_draws
import numpy as np
import pytest
from digits import added, multiplied, rounded, summed, whole
from exact_operators import KINDS as OF_OPERATORS
from exact_products import DTYPES, arrays, oracle, small
from exact_products import KINDS as OF_PRODUCTS
from rounding import nearest_all, rational, same_bits

from refnet.arithmetic.exact import conv3d
from refnet.ops import OPS


@pytest.mark.parametrize("kind", OF_OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_products_in_digits_are_the_rational_ones(kind, dtype):
    rng = np.random.default_rng(len(kind.__name__))
    with np.errstate(all="ignore"):
        given = [kind(rng, (3, 60), dtype).astype(dtype) for _ in range(3)]
    a, b, c = map(whole, given)
    x, y, z = map(rational, given)
    product = multiplied(a, b)
    for number, value in (
        (a, x),
        (added(a, b, c), x + y + z),
        (added(product, c), x * y + z),
        (summed(product, (1,)), (x * y).sum(axis=1)),
    ):
        for count in (1, 3, 7, 2**32 + 1):
            for result in DTYPES:
                found = rounded(number, result, count)
                assert same_bits(found, nearest_all(value / count, result)), (count, result)


@pytest.mark.parametrize("kind", OF_PRODUCTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convolutions_in_digits_are_those_of_pythons_numbers(kind, dtype):
    rng = np.random.default_rng([1, len(kind.__name__)])
    case = small(rng)
    x, w = arrays(kind, dtype, case.shapes[:2], rng)
    (dy,) = arrays(kind, dtype, [OPS["conv3d"].output_shape(case.shapes[:2], case.attrs)], rng)
    found = digits.convolved(*map(whole, (x, w, dy)), digits.MOST_TERMS, **case.attrs)
    for sums, expected in zip(found, oracle(x, w, None, dy, **case.attrs), strict=True):
        assert same_bits(rounded(sums, dtype), expected)


def test_digits_of_too_many_terms_are_refused():
    one = whole(np.ones((1, 1, 1, 1, 1)))
    with pytest.raises(AssertionError, match="8193 products of digits do not fit"):
        digits.convolved(one, one, one, digits.MOST_TERMS + 1)


@pytest.mark.parametrize("index", range(2 * len(exact_draws.FAMILIES) + 2))
def test_drawn_problems_of_every_family(index):
    elements, undecided = exact_draws.compare(3, index)
    assert elements.total() > 0 and 0 <= undecided <= elements.total()


def test_a_difference_ends_the_draws(monkeypatch, capsys):
    """One unit in the last place of one element, named with the arguments that draw it again."""

    def off(*given, **attrs):
        y, context = conv3d.forward(*given, **attrs)
        y.ravel()[-1] = np.nextafter(y.ravel()[-1], np.float32(np.inf))
        return y, context

    monkeypatch.setattr(
        exact_draws, "conv3d", type("wrong", (), {"forward": off, "backward": conv3d.backward})
    )
    monkeypatch.setattr("sys.argv", ["exact_draws.py", "--seed", "3", "--elements", "10"])
    assert exact_draws.main() == 1
    out = capsys.readouterr().out
    assert out.startswith("conv3d y, float32: 1 elements, the first at (")
    assert out.endswith("again: --seed 3 --first 0 --elements 1\n")


def test_the_draws_end_when_enough_is_compared_or_the_time_is_over(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["exact_draws.py", "--seed", "3", "--elements", "10"])
    assert exact_draws.main() == 0
    assert "elements of 1 problems: no difference." in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["exact_draws.py", "--minutes", "0"])
    assert exact_draws.main() == 0
    assert "0 elements of 0 problems: no difference." in capsys.readouterr().out
