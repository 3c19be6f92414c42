"""Others' rules, each on arrays that lie just inside it and just beyond."""

import numpy as np
import pytest
import rules
from bugs import BUGS, basics
from ports import Port, given_of
from support import peer

import refnet
from refnet.ops import OPS

U = 2.0**-24
RULES = {rule.name: rule for rule in rules.RULES}


def one(found, right, *calls):
    return rules.Compared("y", "y", np.asarray(found, float), np.asarray(right, float), list(calls))


@pytest.mark.parametrize(
    ("name", "error", "accepted"),
    [
        ("assert_close", 1e-5 + 1.29e-6, True),
        ("assert_close", 1e-5 + 1.31e-6, False),
        ("ONNX", 1e-3, True),
        ("ONNX", 1.002e-3, False),
        ("cosine 0.99", 1e9, True),
    ],
)
def test_a_tolerance(name, error, accepted):
    assert RULES[name].accepts(one([1 + error], [1]), {}) == accepted


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("exponent", range(-20, 1))
def test_the_defaults_of_assert_close_are_those_of_pytorch(dtype, exponent):
    """Of numbers of different sizes, errors of which become too large somewhere in between."""
    torch = peer("torch")
    right = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64).to(getattr(torch, dtype))
    found = (right.double() * (1 + 2.0**exponent)).to(right.dtype)
    try:
        torch.testing.assert_close(found, right)
        accepted = True
    except AssertionError:
        accepted = False
    both = one(found.double().numpy(), right.double().numpy())
    assert RULES["assert_close"].accepts(both, {"store": dtype}) == accepted


def test_a_cosine():
    assert RULES["cosine 0.99"].accepts(one([1, 0.14], [1, 0]), {})  # 1 / sqrt(1 + 0.14**2) = 0.9903
    assert not RULES["cosine 0.99"].accepts(one([1, 0.15], [1, 0]), {})


def convolution():
    """One filter of K = 4 products of 1: all outputs are 4."""
    x, w = np.ones((1, 4, 2, 5, 5)), np.ones((1, 4, 1, 1, 1))
    return rules.Call(OPS["conv3d"], [x, w], {}), np.full((1, 1, 2, 5, 5), 4.0)


def test_hipdnn_allows_twice_n_epsilon_of_the_largest_products_there_could_be():
    call, y = convolution()
    gamma = 8 * 2 * U / (1 - 8 * 2 * U)
    most = 4 * gamma + 4 * gamma * 4  # atol, and rtol of 4
    for by, accepted in ((0.999, True), (1.001, False)):
        found = y.copy()
        found[0, 0, 1, 2, 3] += by * most
        assert RULES["hipDNN"].accepts(one(found, y, call), {}) == accepted


def test_tosa_looks_at_each_error_at_their_squares_and_at_their_sum():
    call, y = convolution()
    unit, signs = 4 * U, np.resize([1, -1], y.shape)

    def accepted(errors):
        return RULES["TOSA"].accepts(one(y + unit * errors, y, call), {})

    single = np.zeros(y.shape)
    single[0, 0, 0, 0, 0] = 1
    assert accepted(7.99 * single) and not accepted(8.01 * single)  # 2 K
    assert accepted(np.sqrt(6.39) * signs) and not accepted(np.sqrt(6.41) * signs)  # 1.6 K
    assert accepted(1.13 * np.ones(y.shape)) and not accepted(1.14 * np.ones(y.shape))  # sqrt(16 K / 50)


def test_tosa_has_moves_exact():
    call = rules.Call(OPS["relu"], [np.array([[[[[-1.0, 2.0]]]]])], {})
    right = np.array([[[[[0.0, 2.0]]]]])
    assert RULES["TOSA"].accepts(one(right, right, call), {})
    assert not RULES["TOSA"].accepts(one(right - 1e-7, right, call), {})


@pytest.mark.parametrize("end_to_end", [True, False])
def test_everything_that_is_dumped_is_compared_with_what_it_should_be(end_to_end):
    """In float64 a port is right, in every array, both ways."""
    net = basics()
    given = given_of(net, 0, "float64")
    candidate = Port().candidate(net, given, refnet.fill.output_gradients(net))
    rows = rules.compared(net, given, candidate, end_to_end=end_to_end)
    dumped = [*candidate.blobs, *(f"d {n}" for n in (*candidate.blob_gradients, *candidate.gradients))]
    assert sorted(row.name for row in rows) == sorted(dumped)
    for row in rows:
        assert np.abs(row.found - row.right).max() <= 1e-12 * max(np.abs(row.right).max(), 1e-300), row.name


def test_what_should_not_be_there_is_rejected():
    bug = next(bug for bug in BUGS if bug.name == "gradient leaking into stage 2")
    rows = rules.compared(*bug.arguments(), end_to_end=False)
    found = rules.first_rejected(RULES["cosine 0.99"], rows, {})
    assert found.name == bug.verdict and found.node == bug.node
