"""docs/exact.md: its proofs, in rationals, and how the errors that it shows are counted."""

import doctest
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.arithmetic import exact

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import anatomy

TWO = Fraction(2)


def test_the_example_prints_what_it_says():
    found = doctest.testfile(str(Path(__file__).parents[1] / "docs" / "exact.md"), module_relative=False)
    assert (found.attempted, found.failed) == (8, 0)


def bound(chains):
    """What the steps of the proof add up to, in units of M."""
    n = Fraction(chains)
    return (
        Fraction("1.012") * TWO**-91
        + ((n + 1) * TWO**-108 + TWO**-98)
        + (1 + TWO**-20) * ((n + 1) * (n + 2) / 3 * TWO**-108 + (n + 1) * TWO**-99)
    )


def taken(chains):
    """`error_of` of _core/exact_tiles.pyx, likewise."""
    return TWO**-88 + chains * TWO**-95 + Fraction(chains) ** 2 * TWO**-105


@pytest.mark.parametrize("chains", [1, 2, 3, 14, 100, 392, 10**4, 10**6, 2**31])
def test_the_error_that_is_taken_is_seven_times_what_is_proved(chains):
    assert 7 * bound(chains) <= taken(chains)


def test_the_error_of_a_chain():
    additions = sum(range(2, 257)) * TWO**-106
    assert additions == 32895 * TWO**-106
    assert additions + 256 * TWO**-106 + 256 * TWO**-1075 * TWO**790 < Fraction("1.012") * TWO**-91


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("exponents", [(0, 0), (-30, 5), (-400, -395), (-600, -350), (300, 310)])
def test_a_chain_of_an_offset_accumulator_is_as_proved(seed, exponents):
    """(4) and (5), in rationals: `float` of a fraction rounds once."""
    rng = np.random.default_rng(seed)
    x, w = np.ldexp(rng.uniform(0.5, 1, (2, 256)), rng.integers(*exponents, (2, 256), endpoint=True))
    if seed % 2:
        w *= rng.choice([-1, 1], 256)
    r, c = (max(Fraction(2) ** int(np.frexp(np.abs(v).max())[1]), TWO**-400) for v in (w, x))
    k = 1024 * r * c
    start = float(Fraction(3, 2) * k)
    s, low = start, 0.0
    for a, b in zip(x.tolist(), w.tolist(), strict=True):
        product = Fraction(a) * Fraction(b)
        following = float(Fraction(s) + product)
        d = following - s
        assert Fraction(d) == Fraction(following) - Fraction(s)  # exact
        assert k < following < 2 * k  # one binade
        low += float(product - Fraction(d))
        s = following
    total = sum(Fraction(a) * Fraction(b) for a, b in zip(x.tolist(), w.tolist(), strict=True))
    assert Fraction(s - start) == Fraction(s) - Fraction(start)
    assert abs(total - Fraction(s - start) - Fraction(low)) <= Fraction("1.012") * TWO**-91 * k


def test_the_anatomy_counts_numbers_between_what_core_and_exact_give():
    net = refnet.build(
        "resnet18_conv4", input=(1, 3, 2, 16, 16), transformation="basic", time_kernel=3, freeze_at=0
    )
    given = refnet.fill.params(net, dtype="float32") | refnet.fill.inputs(net, dtype="float32")
    found = defaultdict(anatomy.Errors)
    run = refnet.forward(net, given, anatomy.compared(found))
    core = refnet.forward(net, given)
    expected = Counter()
    for node in net.nodes:
        assert np.array_equal(run.blobs[node.name], core.blobs[node.name])
        if node.op == "conv3d":
            x = given["data"] if node.inputs[0] == "data" else core.blobs[node.inputs[0]]
            y, _ = exact.conv3d.forward(x, given[node.inputs[1]], **node.attrs)
            pairs = zip(core.blobs[node.name].ravel(), y.ravel(), strict=True)
            expected.update(apart(one, other) for one, other in pairs if one or other)
    errors = found["conv3d", "y"]
    assert errors.worst == max(expected) > 100
    for distance, bin in ((0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11), (10**6, 11)):
        single = anatomy.Errors()
        single.add(np.float32([2]) + np.float32(2**-22) * np.float32(distance), np.float32([2]))
        assert single.bins[bin] == 1 == single.bins.sum()
    assert errors.bins.sum() == expected.total()
    assert errors.bins[0] == expected[0] and errors.bins[1] == expected[1]
    assert errors.within(1) == (expected[0] + expected[1]) / expected.total()


def apart(a, b):
    """How many floats b is from a."""
    one, other = (int(np.float32(abs(v)).view(np.int32)) for v in (a, b))
    return abs(one - other) if np.signbit(a) == np.signbit(b) else one + other
