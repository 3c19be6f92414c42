"""The machinery of checks: comparisons, bounds, who judges whom, where gradients should arrive."""

from fractions import Fraction

import numpy as np
import pytest
from bundles import NETS
from support import CASES, every_dtype, reals
from threadpoolctl import threadpool_limits

import refnet
from refnet import certify
from refnet.arithmetic import Kernel, core, exact, reference
from refnet.arithmetic.exact import ROUNDED_ONCE
from refnet.check import Report, Verdict
from refnet.check.bounds import Bound, Claim, bound, plain
from refnet.check.compare import beyond, compare
from refnet.check.diagnosis import verdict_of
from refnet.check.flow import flow, without_stops
from refnet.check.judge import EXACT_ALONE, oracle_of
from refnet.check.network import check_net
from refnet.errors import DTypeError, RefnetError, ValueRangeError
from refnet.net import Net
from refnet.op import Magnitude


def by_loop(found, expected, absolute, relative):
    """The largest ratio, its first index and how many are beyond their bounds, one element at a time."""
    largest, place, wrong = 0.0, (0,) * found.ndim, 0
    for index in np.ndindex(found.shape):
        off = abs(float(found[index]) - float(expected[index]))
        allowed = relative * abs(float(expected[index])) + float(
            np.broadcast_to(absolute, found.shape)[index]
        )
        wrong += not off <= allowed
        ratio = 0.0 if off == 0 else off / allowed if allowed > 0 and off == off else np.inf
        if ratio > largest:
            largest, place = ratio, index
    return largest, place, wrong


@every_dtype
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 2), (2, 3, 4, 50, 60)])
def test_a_comparison_looks_at_every_element(dtype, shape):
    rng = np.random.default_rng(0)
    expected = rng.standard_normal(shape)
    found = (expected + 1e-6 * rng.standard_normal(shape)).astype(dtype)
    absolute = np.abs(rng.standard_normal(shape)) * 1e-6
    for spoil in (None, np.nan, np.inf):
        if spoil is not None:
            found[tuple(n // 2 for n in shape)] = spoil
        for given in (absolute, np.array(1e-6), absolute.max(axis=-1, keepdims=True)):
            result = compare(found, expected, Bound(given, 1e-7))
            assert (result.margin, result.where, result.wrong) == by_loop(found, expected, given, 1e-7)
            assert result.elements == found.size
            assert result.wrong == np.count_nonzero(beyond(found, expected, Bound(given, 1e-7)))


def test_one_wrong_element_of_a_million_is_seen():
    expected = np.ones((1, 100, 10, 100, 100))
    found = expected.copy()
    found[0, 77, 3, 99, 98] += 1e-9
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            result = compare(found, expected, Bound(np.zeros(()), 1e-12))
        assert (result.wrong, result.where) == (1, (0, 77, 3, 99, 98))


def test_what_is_too_large_for_float32_may_be_infinite():
    expected = np.array([1e39, -1e39, 1.0])
    found = np.array([np.inf, -np.inf, 1.0], "float32")
    assert compare(found, expected, Bound(np.zeros(()), 0.0)).ok
    assert not compare(-found, expected, Bound(np.ones(()), 1.0)).ok


def test_what_overflows_says_nothing():
    expected, found = np.ones(3), np.ones(3)
    assert compare(found, expected, Bound(np.ones(3), 0.0)).says
    for unbounded in (np.inf, np.nan):
        assert not compare(found, expected, Bound(np.array([1, unbounded, 1]), 0.0)).says
    expected[1] = found[1] = np.nan
    result = compare(found, expected, Bound(np.zeros(()), 0.0))
    assert result.ok and not result.says
    assert verdict_of("x", "n", "op", result).verdict == "undecided"
    found[1] = 1
    assert verdict_of("x", "n", "op", compare(found, expected, Bound(np.ones(()), 1.0))).verdict == "wrong"


def test_a_net_whose_numbers_overflow_is_undecided():
    net = Net()
    x, w = net.input("data", (1, 2, 1, 3, 3)), net.param("w", (2, 2, 1, 1, 1))
    net.output(net.add("conv3d", "y", (x, w)))
    huge = {"data": np.full((1, 2, 1, 3, 3), 1e200), "w": np.full((2, 2, 1, 1, 1), 1e-200)}
    assert check_net(net, huge).ok
    net.output(net.add("affine", "z", ("y", net.param("s", (2,)), net.param("b", (2,)))))
    huge |= {"w": np.full((2, 2, 1, 1, 1), 1e200), "s": np.ones(2), "b": np.ones(2)}
    report = check_net(net, huge)
    assert not report.ok and {v.verdict for v in report.failures} == {"undecided"}


@every_dtype
def test_sums_in_any_order_are_within_their_bound(dtype):
    """Against Fractions: forwards, backwards, by size, pairwise; cancelling; with subnormal products."""
    rng = np.random.default_rng(0)
    finfo = np.finfo(dtype)
    for scale in (1.0, float(finfo.tiny) ** 0.5 * 2.0**-10):
        x, w = (rng.standard_normal(300) * scale for _ in range(2))
        x[150:], w[150:] = x[:150], -w[:150] * (1 + 1e-6)
        x, w = x.astype(dtype), w.astype(dtype)
        terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, w, strict=True)]
        exact, m = sum(terms), np.array(float(sum(map(abs, terms))))
        allowed = bound(Magnitude(m, np.array(300)), plain(dtype))
        total = Fraction(float(allowed.absolute)) + Fraction(allowed.relative) * abs(exact)
        for order in (np.arange(300), np.arange(300)[::-1], np.argsort(x * w)):
            products = x[order] * w[order]
            for found in (np.add.accumulate(products)[-1], products.sum()):
                assert abs(Fraction(float(found)) - exact) <= total


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("terms", [1, 300, 70_000])
@pytest.mark.parametrize(
    ("claim", "u_a", "eta_a", "u_s", "eta_s"),
    [
        (plain("float32"), -24, -149, -24, -149),
        (plain("float64"), -53, -1074, -53, -1074),
        (Claim("float32", "float16"), -24, -149, -11, -24),
    ],
)
def test_the_bound_is_that_of_the_formula(claim, u_a, eta_a, u_s, eta_s, terms, chained):
    """Neither larger nor smaller, but for six roundings: (K + 1) u_a m + K eta_a + eta_s + h u m; u_s |r|."""
    m = np.array([0.0, 2.0**-1000, 0.7, 3e5])
    found = bound(Magnitude(m, np.array(terms)), claim, 256 if chained else None)
    height = min(terms + 1, 256 + -(-terms // 256)) if chained else terms + 1
    two = Fraction(2)
    for of_element, size in zip(found.absolute, m, strict=True):
        right = (
            ((terms + 1) * two**u_a + height * two**-53) * Fraction(size) + terms * two**eta_a + two**eta_s
        )
        assert abs(Fraction(of_element) - right) <= 6 * two**-53 * right
    assert found.relative == 2.0**u_s


def test_nothing_judges_itself():
    mine = core.replace(conv3d=Kernel(core.kernels["conv3d"].forward, lambda *a: None))
    for op in core:
        for dtype in ("float32", "float64"):
            assert oracle_of(core, op, dtype) is reference
            if op in EXACT_ALONE:
                with pytest.raises(ValueRangeError, match="no other arithmetic judges it"):
                    oracle_of(exact, op, dtype)
            else:
                assert oracle_of(exact, op, dtype) is reference
            same = reference.kernels[op] == core.kernels[op]
            once = dtype == "float64" and op in ROUNDED_ONCE
            assert oracle_of(reference, op, dtype) is (reference if same else exact if once else core)
    assert oracle_of(mine, "conv3d", "float32") is core and oracle_of(mine, "conv3d", "float64") is exact
    assert oracle_of(mine, "affine", "float64") is reference


def test_what_is_rounded_once_is_off_by_half_a_unit_of_its_own():
    """(K + 1) u_a m + K eta_a + 2 eta_s; (u_s + u) |r|."""
    m, terms = np.array([0.0, 0.7, 3e5]), np.array(1000)
    found = bound(Magnitude(m, terms), plain("float64"), 0)
    assert found.relative == 2.0**-52
    assert found.absolute.tolist() == (1001 * 2.0**-53 * m + 1002 * 2.0**-1074).tolist()


@pytest.mark.parametrize(("op", "case"), [p for p in CASES if p.values[0].norms is not None])
def test_norms_bound_magnitudes(op, case):
    for seed in range(3):
        arrays = reals(op, case, seed=seed)
        exact, quick = op.magnitude(*arrays, **case.attrs), op.norms(*arrays, **case.attrs)
        assert (quick.sum_abs >= exact.sum_abs).all() and (quick.terms >= exact.terms).all()
        if "pad" not in case.attrs:  # or weights that meet no value count too
            assert quick.sum_abs.sum() <= 2.5 * exact.sum_abs.sum()
        dy = np.random.default_rng(seed).standard_normal(exact.sum_abs.shape)
        needs = (True,) * len(arrays)
        for exact, quick in zip(
            op.gradient_magnitude(dy, *arrays, needs=needs, **case.attrs),
            op.gradient_norms(dy, *arrays, needs=needs, **case.attrs),
            strict=True,
        ):
            assert (quick.sum_abs >= exact.sum_abs).all() and (quick.terms >= exact.terms).all()


@pytest.mark.parametrize("name", NETS)
def test_gradients_arrive_where_the_graph_says(name):
    net = NETS[name]()
    given = {**refnet.fill.inputs(net), **refnet.fill.params(net)}
    dy = refnet.fill.output_gradients(net)
    gradients = refnet.backward(refnet.forward(net, given), dy)
    expected = flow(net, dy)
    assert set(gradients) == expected.reached & {*net.inputs, *net.params}
    assert gradients.blocked == expected.blocked


def test_a_stop_on_one_of_two_paths_blocks_nothing():
    net = Net()
    x, s, b = net.input("data", (1, 2, 1, 2, 2)), net.param("s", (2,)), net.param("b", (2,))
    y = net.add("affine", "y", (x, s, b))
    stop = net.add("stop_gradient", "stop", (y,))
    net.output(net.add("add", "sum", (y, net.add("relu", "relu", (stop,)))))
    assert flow(net, ["sum"]).reached == {"sum", "y", "data", "s", "b"}
    assert flow(net, ["relu"]).reached == frozenset() and flow(net, ["relu"]).blocked == {"data", "s", "b"}
    open_net, reads = without_stops(net)
    assert reads == {"stop": "y"}
    assert [node.inputs for node in open_net.nodes] == [("data", "s", "b"), ("y",), ("y", "relu")]


def test_reports_pass_only_what_was_decided():
    def report(*words):
        return Report(title="t", verdicts={w: Verdict(tensor=w, verdict=w, margin=0.5) for w in words})

    for words in (("ok",), ("ok", "blocked"), ("blocked",)):
        assert report(*words).ok and report(*words)
    for words in ((), ("ok", "undecided"), ("ok", "wrong"), ("undecided",)):
        assert not report(*words).ok and not report(*words)
    assert report("ok", "wrong", "undecided").worst.verdict == "wrong"
    assert [v.verdict for v in report("undecided", "ok", "wrong").failures] == ["wrong", "undecided"]
    plain_values = report("ok").record()
    assert plain_values["ok"] is True and plain_values["verdicts"]["ok"]["margin"] == 0.5


def test_what_forward_returns_is_no_y():
    x = np.ones((1, 1, 1, 2, 2))
    with pytest.raises(DTypeError, match="y is a tuple of 2: expected an array, of what forward returns the"):
        certify.check("relu", (x,), core.relu.forward(x))
    with pytest.raises(RefnetError, match="unknown attribute of relu 'rtol': expected none"):
        certify.check("relu", (x,), x, rtol=1e-3)
