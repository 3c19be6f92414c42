"""Seeded values: their definition in exact fractions, and bits that must never change."""

from fractions import Fraction
from hashlib import sha256
from math import isqrt

import numpy as np
import pytest

import refnet
from refnet.errors import RefnetError
from refnet.golden.bundle import sha

NET = refnet.networks.resnet3d.body(
    input=(1, 3, 2, 16, 16), block_counts=(1,), feat_dims=(4, 8), width_per_group=4
)


def words(name, count, seed):
    key = [seed, int.from_bytes(sha256(name.encode()).digest()[:8], "little")]
    return [int(w) for w in np.random.Philox(key=np.array(key, np.uint64)).random_raw(count)]


def uniform(word):
    return Fraction(2 * (word >> 40) + 1 - 2**24, 2**24)


def rounded(value, bits):
    """The number of that many significant bits nearest to a fraction, ties to even."""
    if value == 0:
        return value
    scale = Fraction(1)
    while abs(value) * scale < 2 ** (bits - 1):
        scale *= 2
    while abs(value) * scale >= 2**bits:
        scale /= 2
    return round(value * scale) / scale  # Fraction rounds half to even


def root(value):
    """The float64 nearest to the square root of a fraction between 1/64 and 1."""
    scaled = value * 4**60
    n = isqrt(scaled.numerator // scaled.denominator)
    low = rounded(Fraction(n, 2**60), 53)
    near = [low + Fraction(i, 2**56) for i in (-1, 0, 1)]
    return min((rounded(c, 53) for c in near), key=lambda c: abs(c * c - value))


def test_weights_are_what_the_formula_says_rounded_step_by_step():
    values = refnet.fill.params(NET, seed=7)["res2_0_branch2b_w"]
    fan_in = 4 * 9
    scale = root(rounded(Fraction(6, fan_in), 53))
    for value, word in zip(values.ravel(), words("res2_0_branch2b_w", values.size, 7), strict=True):
        assert Fraction(float(value)) == rounded(uniform(word) * scale, 53)


def test_scales_and_biases_are_exact_dyadic_numbers():
    params = refnet.fill.params(NET, seed=7)
    for name, offset in (("res2_0_branch2b_bn_s", 1), ("res2_0_branch2b_bn_b", 0)):
        found = [Fraction(float(value)) for value in params[name]]
        assert found == [offset + uniform(word) / 8 for word in words(name, 4, 7)]


def test_inputs_and_output_gradients_are_exact_dyadic_numbers():
    data = refnet.fill.inputs(NET, seed=3)["data"]
    dy = refnet.fill.output_gradients(NET, seed=3)["res2_0_stop"]
    assert [Fraction(float(v)) for v in data.ravel()] == [
        128 * uniform(w) for w in words("data", data.size, 3)
    ]
    assert [Fraction(float(v)) for v in dy.ravel()] == [
        uniform(w) for w in words("gradient of res2_0_stop", dy.size, 3)
    ]


def test_float32_is_float64_rounded_once():
    wide, narrow = (refnet.fill.params(NET, seed=5, dtype=d) for d in ("float64", "float32"))
    for name in wide:
        assert narrow[name].dtype == "float32"
        for a, b in zip(wide[name].ravel()[:50], narrow[name].ravel()[:50], strict=True):
            assert Fraction(float(b)) == rounded(Fraction(float(a)), 24)


def test_a_tensor_depends_on_nothing_but_seed_name_and_shape():
    other = refnet.networks.resnet3d.body(
        input=(1, 3, 2, 16, 16), block_counts=(1, 1), feat_dims=(4, 8, 8), width_per_group=4
    )
    ours, theirs = refnet.fill.params(NET), refnet.fill.params(other)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert not np.array_equal(ours["conv1_w"], refnet.fill.params(NET, seed=1)["conv1_w"])
    assert not np.array_equal(ours["res2_0_branch2a_bn_s"] - 1, ours["res2_0_branch2b_bn_s"] - 1)


def test_bits_are_pinned():
    """If these change, every published golden value is void: raise the bundle's format version."""
    params = refnet.fill.params(NET)
    assert sha(params["conv1_w"]) == "3ceeca8015ef9ac8df122d5b1415e9c07ddbb3fb87a5f1ac9a0d9533d7e4fb76"
    assert (
        sha(refnet.fill.params(NET, dtype="float32")["conv1_w"])
        == "335bd3050d829be026476ef722f29ace6638cebbc237d163ac913a3cd9c811b1"
    )
    assert (
        sha(refnet.fill.inputs(NET)["data"])
        == "83588a6de7447a1f4e63664445a0aba97f0e6f4e171acf9de3ab4afa0bd7b32d"
    )
    assert (
        sha(refnet.fill.output_gradients(NET)["res2_0_stop"])
        == "e04106542b96fc3b612e467df4416ce3a11a5a0acea8441a63b70d519c5264d4"
    )


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "0", None])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(RefnetError, match="seed is .*expected a whole number from 0"):
        refnet.fill.params(NET, seed=seed)


def test_other_dtypes_and_endings_are_refused():
    with pytest.raises(RefnetError, match="unknown dtype 'float16'"):
        refnet.fill.inputs(NET, dtype="float16")
    net = refnet.Net()
    net.param("conv1_weight", (1, 1, 1, 1, 1))
    with pytest.raises(RefnetError, match="conv1_weight"):
        refnet.fill.params(net)
