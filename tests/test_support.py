"""The comparisons that other tests rest on: what they accept, and that they reject what is wrong."""

import numpy as np
import pytest
from support import (
    CASES,
    amplification,
    assert_agree,
    assert_all_within,
    assert_both_within,
    assert_within,
    carried_error,
    gradient_bounds,
    integers,
    reals,
    rounding_bound,
    run_bound,
    unit,
    whole_numbers,
)

import refnet
from refnet.ops import OPS


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_within_takes_a_difference_as_large_as_the_bound():
    theirs = np.array([1.0, -2, 4])
    bound = np.array([0.25, 0, 0.5])
    assert_within(theirs + bound, theirs, bound)
    with pytest.raises(AssertionError, match=r"blob: off by up to 0\.5, of 4\.0"):
        assert_within(theirs + bound, theirs, bound / [1, 1, 1 + 2**-52], "blob")


def test_one_wrong_element_is_rejected():
    theirs = normal(2, 3, 4)
    for i in np.ndindex(theirs.shape):
        ours = theirs.copy()
        ours[i] *= 1 + 2**-50
        with pytest.raises(AssertionError, match="off by up to"):
            assert_within(ours, theirs, 2 * unit("float64") * np.abs(theirs))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_rejected(value):
    theirs, other = normal(5), normal(5)
    other[3] = value
    for ours, expected in ((other, theirs), (theirs, other), (other, other)):
        with np.errstate(invalid="ignore"), pytest.raises(AssertionError, match="off by up to"):
            assert_within(ours, expected, 1e9)
    with pytest.raises(AssertionError, match="off by up to"):
        assert_within(theirs, theirs, np.full(5, np.nan))


def test_another_shape_is_rejected_even_where_it_could_be_broadcast():
    for ours in (normal(1, 3), normal(3)[:1], np.float64(1)):
        with pytest.raises(AssertionError, match="shape"):
            assert_within(ours, normal(3), 9)
        with pytest.raises(AssertionError, match="shape"):
            assert_both_within(ours, normal(3), 9)


def test_a_comparison_of_mostly_zeros_is_rejected_unless_it_is_expected():
    theirs = np.array([0.0, 0, 0, 1, 2])
    with pytest.raises(AssertionError, match="2 of 5 are not 0"):
        assert_within(theirs, theirs, 0)
    assert_within(theirs, theirs, 0, mostly_zero=True)
    assert_within(theirs[1:], theirs[1:], 0)
    for mostly_zero in (False, True):
        with pytest.raises(AssertionError, match="0 of 5 are not 0"):
            assert_within(0 * theirs, 0 * theirs, 0, mostly_zero=mostly_zero)


def test_sums_without_terms_are_zeros_and_say_nothing():
    theirs, bound = np.array([0.0, 0, 0, 1, 2]), np.array([0, 0, 0, 0.5, 0.5])
    assert_both_within(theirs + 2 * bound, theirs, bound)
    assert_both_within(0 * theirs, 0 * theirs, 0 * bound)
    for off in (1.5, np.array([0, 0, 0, 0, 1.5]), np.array([2.0**-1074, 0, 0, 0, 0])):
        with pytest.raises(AssertionError):
            assert_both_within(theirs + off, theirs, bound)
    with pytest.raises(AssertionError, match="0 of 2 are not 0"):
        assert_both_within(0 * theirs, 0 * theirs, bound)


def test_blobs_are_compared_by_name_each_on_its_own_scale():
    theirs = {"large": 1e9 * normal(3), "small": normal(3)}
    assert_all_within({k: v * (1 + 2**-40) for k, v in theirs.items()}, theirs, 2**-39)
    with pytest.raises(AssertionError, match="small"):
        assert_all_within(theirs | {"small": theirs["small"] + 1e-3}, theirs, 2**-39)
    with pytest.raises(AssertionError):
        assert_all_within(theirs | {"more": normal(3)}, theirs, 1)
    sparse = {str(i): np.eye(8) for i in range(len(theirs) + 1)}
    with pytest.raises(AssertionError, match="are not mostly zeros"):
        assert_all_within(theirs | sparse, theirs | sparse, 0)
    assert_all_within(theirs | sparse, theirs | sparse, 0, mostly_zero=True)


@pytest.mark.parametrize(("op", "case"), [p for p in CASES if p.values[0].divides])
def test_a_gradient_that_is_wrong_by_a_thousand_millionth_is_rejected(op, case):
    arrays = integers(op, case)
    y, context = op.forward(*arrays, **case.attrs)
    dy = np.asarray(np.random.default_rng(2).integers(1, 5, y.shape), "float64")
    right = (y, *op.backward(dy, context, tuple(op.domain(i).gradient for i in range(len(arrays)))))
    assert_agree(op, case, arrays, dy, right, right)
    for i, array in enumerate(right):
        if array is None or not np.any(array):
            continue
        for factor in (1 + 1e-9, np.where(np.abs(array) == np.abs(array).max(), 1 + 1e-9, 1)):
            wrong = tuple(a * factor if i == j else a for j, a in enumerate(right))
            with pytest.raises(AssertionError):
                assert_agree(op, case, arrays, dy, wrong, right)
        missing = tuple(None if i == j else a for j, a in enumerate(right))
        with pytest.raises(AssertionError):
            assert_agree(op, case, arrays, dy, missing, right)


def test_bounds_literally():
    """Two products and a bias: three terms; a gradient of four numbers and a sum, through 1 and -3."""
    op, (x, w, b) = OPS["linear"], (np.array([[1.0, -2]]), np.array([[4.0, 5]]), np.array([3.0]))
    u = unit("float32")
    assert u == 2.0**-24
    assert rounding_bound(op, (x, w, b), {}, "float32").tolist() == [[3 * u * 17 * (1 + 3 * 2.0**-53)]]
    dx, dw, db = gradient_bounds(op, (x, w, b), {}, np.array([[-2.0]]))
    n = 1 + 2 + 2 + 1
    assert dx.tolist() == [[n * 2.0**-53 * 8, n * 2.0**-53 * 10]]
    assert dw.tolist() == [[n * 2.0**-53 * 2, n * 2.0**-53 * 4]] and db.tolist() == [n * 2.0**-53 * 2]


def test_carried_errors_literally():
    """An affine multiplies the error of its input by |s|, a sum adds those of both."""
    x = np.array([1.0, 2]).reshape(1, 1, 1, 1, 2)
    tiny = 2.0**-60 * x
    s, b = np.array([-3.0]), np.array([7.0])
    nothing = [np.zeros(1), np.zeros(1)]
    assert np.array_equal(carried_error(OPS["affine"], (x, s, b), [tiny, *nothing], {}), 3 * tiny)
    assert np.array_equal(carried_error(OPS["add"], (x, x), [tiny, 2 * tiny], {}), 3 * tiny)
    assert carried_error(OPS["add"], (x, x), [0 * x, 0 * x], {}) == 0


def small(**options):
    return refnet.networks.resnet3d.body(
        input=(1, 3, 2, 32, 32),
        block_counts=(2, 2),
        feat_dims=(4, 4, 8),
        width_per_group=4,
        freeze_at=0,
        **options,
    )


@pytest.mark.parametrize("change", ["weight", "tap", "epsilon"])
def test_the_model_of_a_run_sees_what_is_no_rounding(change):
    """A weight off by 2e-10 of itself, one of a kernel's taps left out, a scale off by 1e-11 everywhere."""
    net = small()
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    right = refnet.forward(net, given).blobs
    other = {name: value.copy() for name, value in given.items()}
    if change == "weight":
        other["res2_0_branch2a_w"].flat[0] *= 1 + 2e-10
    elif change == "tap":
        other["res3_1_branch2b_w"][0, 0, 1, 1, 1] = 0
    else:
        other["res_conv1_bn_s"] *= 1 + 1e-11
    assert_all_within(refnet.forward(net, given, "reference").blobs, right, run_bound(net))
    with pytest.raises(AssertionError, match="off by up to"):
        assert_all_within(refnet.forward(net, other).blobs, right, run_bound(net))


def test_a_backward_run_errs_more_than_a_forward_run_and_a_deep_net_more_than_a_shallow_one():
    net, deep = small(), refnet.build("resnet50_conv5", input=(1, 3, 2, 32, 32))
    assert unit("float64") < run_bound(net) < run_bound(net, backward=True) < run_bound(deep, backward=True)


def test_amplification_is_what_a_net_does_to_small_errors():
    """Of values near 2**20 and 1 apart, the norm leaves the differences: errors grow by about 2**20."""
    net = refnet.Net()
    x, s, b = net.input("data", (1, 1, 1, 1, 8)), net.param("s", (1,)), net.param("b", (1,))
    net.output(net.add("batch_norm_training", "y", (x, s, b)))
    given = {"data": 2.0**20 + np.arange(8.0).reshape(1, 1, 1, 1, 8), "s": np.ones(1), "b": np.zeros(1)}
    run, dys = refnet.forward(net, given), {"y": normal(1, 1, 1, 1, 8)}
    assert 2**18 < amplification(run, refnet.backward(run, dys), dys) < 2**22
    plain = small()
    run, dys = refnet.forward(plain, refnet.fill.params(plain) | refnet.fill.inputs(plain)), {}
    assert 1 <= amplification(run, {}, dys) < 8


def test_whole_numbers_stay_whole_under_every_arithmetic():
    net = small()
    given = whole_numbers(net)
    runs = [refnet.forward(net, given, name) for name in ("reference", "core")]
    for name, blob in runs[0].blobs.items():
        assert np.array_equal(blob, np.rint(blob)) and blob.any() and np.abs(blob).max() < 2**53
        assert np.array_equal(blob, runs[1].blobs[name])
    weights = [value for name, value in given.items() if name.endswith("_w")]
    assert all((np.count_nonzero(w, axis=(1, 2, 3, 4)) == 2).all() for w in weights)


def test_values_of_cases_are_legal_and_repeatable():
    for op in OPS.values():
        for case in op.cases:
            for values in (integers, reals):
                first, again = values(op, case), values(op, case)
                assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
                if op.check is not None:
                    op.check(*first, **case.attrs)
