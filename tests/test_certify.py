"""Certification: what it accepts, what it refuses, and that its bounds are those of the page."""

from dataclasses import replace
from fractions import Fraction
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from support import peer

import refnet
from refnet import certify
from refnet._core import residual
from refnet.arithmetic import reference
from refnet.check.claims import claimed
from refnet.check.expected import Known, Oracle
from refnet.check.plausible import Levels
from refnet.check.problems import problem
from refnet.errors import RefnetError, UnknownNameError, ValueRangeError
from refnet.inputs.candidate import Candidate
from refnet.net import Net, learns_from
from refnet.networks.fpn3d import fpn
from refnet.networks.resnet3d import body
from refnet.ops import OPS
from refnet.remat import planned

F32 = np.float32
U = 2.0**-24


def dump(net, given, dy, arithmetic="reference"):
    """A candidate: every value and gradient of a run."""
    run = refnet.forward(net, given, arithmetic)
    pending, blobs = {name: [value] for name, value in dy.items()}, {}
    trainable = planned(net).trainable
    run._tape.start()
    for node in reversed(net.nodes):
        learns = trainable.intersection(learns_from(node))
        if node.name in pending and learns:
            blobs[node.name] = run.arithmetic.total(pending.pop(node.name))
            needs = tuple(name in learns for name in node.inputs)
            found = run.arithmetic[node.op].backward(blobs[node.name], run._tape.context(node), needs)
            for name, gradient in zip(node.inputs, found, strict=True):
                if gradient is not None and name in learns:
                    pending.setdefault(name, []).append(gradient)
        run._tape.done(node)
    gradients = {name: run.arithmetic.total(parts) for name, parts in pending.items()}
    return Candidate(
        blobs=dict(run.blobs), gradients=gradients, blob_gradients=blobs, output_gradients=dict(dy)
    )


def small(**options):
    shapes = {"input": (1, 3, 2, 32, 32), "block_counts": (1, 1), "feat_dims": (8, 8, 16)}
    return body(**{**shapes, "transformation": "basic", "freeze_at": 0, "width_per_group": 8, **options})


def started(net, seed=0, dtype="float32"):
    given = refnet.fill.params(net, seed, dtype) | refnet.fill.inputs(net, seed, dtype)
    return given, refnet.fill.output_gradients(net, seed, dtype)


@pytest.fixture(scope="module")
def honest():
    net = small()
    given, dy = started(net)
    return net, given, dump(net, given, dy)


def without(mapping, *names):
    return {name: value for name, value in mapping.items() if name not in names}


# One array.


def judged_slowly(found, expected, absolute, spread, relative, rule):
    """What the kernel finds of one plane, element by element."""
    scale, per, least, spread_per, plain, floor = rule
    top, tail, wrong, unjudged = 0.0, 0.0, 0, 0
    histogram, sums = [0] * 41, {}
    height, width = found.shape
    for h in range(height):
        for w in range(width):
            r, d = float(expected[h, w]), float(found[h, w]) - float(expected[h, w])
            if not np.isfinite(r):
                unjudged += 1
                continue
            bound = relative * abs(r) + scale * per * float(absolute[h, w]) + least
            ratio = 0.0 if d == 0 else np.inf if np.isnan(d) or bound == 0 else d / bound
            wrong += not abs(d) <= bound
            histogram[
                int(min(max(np.floor((ratio + 1.025) * 20), 0), 40))
                if np.isfinite(ratio)
                else (40 if ratio > 0 else 0)
            ] += 1
            top = max(top, abs(ratio))
            if not np.isfinite(d):
                continue
            r, d = r / scale, d / scale
            v = plain * r * r + spread_per * float(spread[h, w]) / 6 + floor
            t = plain * r * r + spread_per * float(spread[h, w]) / 2 + floor
            if v > 0:
                tail = max(tail, abs(d) / sqrt(t))
                border = h in (0, height - 1) or w in (0, width - 1)
                key = 2 * (h * 2 // height * 2 + w * 2 // width) + border
                terms = np.array([1, d * d / v, d * r / v, r * r / v, d / v, 1 / v, r / v])
                sums[key] = sums.get(key, np.zeros(7)) + terms
    return top, tail, wrong, unjudged, histogram, sums


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_pass_over_an_array_is_what_loops_find(dtype):
    rng = np.random.default_rng(0)
    shape = (3, 6, 7)
    expected = rng.standard_normal(shape)
    found = (expected + 1e-3 * rng.standard_normal(shape)).astype(dtype)
    found[0, 0, 0], expected[0, 1, 1], found[1, 2, 2], found[2, 5, 6] = (
        np.nan,
        np.inf,
        np.inf,
        expected[2, 5, 6],
    )
    absolute, spread = (rng.random(shape).astype(F32) for _ in range(2))
    rule = (4.0, 1e-3, 1e-6, 1e-6, 1e-7, 1e-12)
    tops, counts, sums = np.zeros((3, 6)), np.zeros((3, 43), np.intp), np.zeros((3, 8, 7))
    of_line = np.arange(6) * 2 // 6 * 2
    tile = np.arange(7) * 2 // 7
    ends = np.array([1, 4, 6, 7])
    stretches = np.array([ends, tile[ends - 1], [1, 0, 0, 1]], np.intp)
    residual.residual(
        found,
        expected,
        absolute.ravel(),
        spread.ravel(),
        1e-4,
        *rule,
        of_line.astype(np.intp),
        stretches,
        tops,
        counts,
        sums,
    )
    for plane in range(3):
        top, tail, wrong, unjudged, histogram, regions = judged_slowly(
            found[plane], expected[plane], absolute[plane], spread[plane], 1e-4, rule
        )
        assert tops[plane, 0] == pytest.approx(top, rel=1e-12)
        assert tops[plane, 2] == pytest.approx(tail, rel=1e-12)
        assert counts[plane, 0] == wrong and counts[plane, 1] == unjudged
        assert counts[plane, 2:].tolist() == histogram
        for region in range(8):
            assert sums[plane, region] == pytest.approx(regions.get(region, np.zeros(7)), rel=1e-9)


def in_order(x, w):
    """Dot products, product after product, in float32: (rows, K) by (columns, K)."""
    total = np.zeros((len(x), len(w)), F32)
    for k in range(x.shape[1]):
        total += x[:, k, None] * w[:, k]
    return total


def in_pairs(x, w):
    products = x[:, None] * w
    while products.shape[-1] > 1:
        products = products[..., ::2] + products[..., 1::2]
    return products[..., 0]


@pytest.mark.parametrize("k", [16, 256, 2048])
def test_a_plain_chain_has_the_expected_error_and_other_sums_less(k):
    """The root mean square is sqrt(3 / (8 ln 2)) = 0.735 where mantissas are spread as Benford's law says."""
    rng = np.random.default_rng(k)
    x, w = (rng.standard_normal((n, k)).astype(F32) for n in (64, 48))
    chain = certify.check("linear", (x, w), in_order(x, w)).verdicts["y"]
    assert chain.verdict == "consistent"
    assert 0.6 < chain.residual.rms < 0.85
    pairs = certify.check("linear", (x, w), in_pairs(x, w)).verdicts["y"]
    assert pairs.verdict == "consistent" and pairs.residual.rms < chain.residual.rms
    assert chain.residual.terms == k


@settings(max_examples=200, deadline=None)
@drawn(st.data())
def test_no_order_of_a_sum_exceeds_the_bound(data):
    """Any tree of additions, in float32 with separate products, against fractions."""
    k = data.draw(st.integers(1, 12))
    number = st.floats(-4, 4, width=32)
    x, w = (np.array(data.draw(st.lists(number, min_size=k, max_size=k)), F32) for _ in range(2))
    parts = list(x * w)
    while len(parts) > 1:
        i = data.draw(st.integers(0, len(parts) - 2))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    exact = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, w, strict=True)), Fraction(0))
    claim = claimed("float32", "float32", "float32", None, False, "direct")
    expected = Oracle(claim).forward("linear", [Known(x[None]), Known(w[None])], {}).stored(claim)
    bound = Fraction(float(expected.error()[0, 0]))
    off = abs(Fraction(float(parts[0])) - exact)
    assert off <= bound
    # It is B as the page has it, and not much more: (K + 1) u m + u |r|, and what underflow adds.
    m = float(np.abs(x.astype(float) * w).sum())
    assert float(bound) <= 1.01 * ((k + 1) * U * m + U * abs(float(exact))) + (k + 2) * 2.0**-149


def test_the_largest_error_that_chance_makes():
    levels = Levels.of([(10, 10), (900,)], 1e-6)
    assert levels.largest == pytest.approx(sqrt(2 * log(2 * 1000 / 1e-6)))


@pytest.mark.parametrize("exponent", [-138, -142, -146, -150, -154, -158, -162])
def test_values_whose_squares_underflow_beside_others_are_no_failure(exponent):
    """Their expected error has a square that is subnormal, or zero; right they are all the same."""
    x, w = np.random.default_rng(0).standard_normal((1, 8, 2, 16, 16)), np.eye(8)[:, :, None, None, None]
    x[:, :, 1] *= 10.0**exponent
    y = reference.conv3d.forward(x, w)[0]
    y[0, 0, 0, 0, 0] = np.nextafter(y[0, 0, 0, 0, 0], np.inf)
    report = certify.check("conv3d", (x, w), y, accumulate="float64", store="float64", operands="float64")
    (verdict,) = report.verdicts.values()
    assert verdict.verdict == "consistent" and 0 < verdict.residual.rms <= 1


def test_what_is_correctly_rounded_is_exact():
    rng = np.random.default_rng(0)
    x, w = rng.integers(-8, 9, (4, 20)).astype(F32), rng.integers(-8, 9, (6, 20)).astype(F32)
    report = certify.check("linear", (x, w), x @ w.T)
    assert report.verdicts["y"].verdict == "exact" and report.ok


# Values whose order is tied to them.


TIED = {
    "sorted": lambda rng, k: np.sort(rng.standard_normal(k)),
    "blocks of one sign": lambda rng, k: np.repeat([1.0, -1.0], k // 2) * rng.random(k),
    "one value": lambda rng, k: np.full(k, 0.1),
}


@pytest.mark.parametrize("along", ["channels", "positions"])
def test_what_is_rounded_twice_is_not_exact(along):
    # 1 + 2**-24 + 2**-80 is above a tie of float32; in float64 it is the tie, which goes down.
    terms = np.array([1, 2.0**-24, 2.0**-80], np.float32)
    above, twice = np.float32(1 + 2.0**-23), np.float32(1)
    assert sum(map(Fraction, terms.tolist())) > Fraction(1 + 2.0**-24)
    for found, word in ((above, "exact"), (twice, "consistent")):
        if along == "channels":
            x, w = terms.reshape(1, 3, 1, 1, 1), np.ones((1, 3, 1, 1, 1), np.float32)
            report = certify.check("conv3d", (x, w), np.full((1, 1, 1, 1, 1), found))
            assert report.verdicts["y"].verdict == word
        else:
            x, w = terms.reshape(1, 1, 1, 1, 3), np.ones((1, 1, 1, 1, 1), np.float32)
            dw = np.full(w.shape, found)
            report = certify.check("conv3d", (x, w), dy=np.ones_like(x), gradients=(None, dw))
            assert report.verdicts["dw"].verdict == word


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("k", [1024, 8192])
def test_sums_whose_order_is_tied_to_their_values_are_honest(tied, k):
    rng = np.random.default_rng(0)
    x = np.stack([TIED[tied](rng, k) for _ in range(24)]).astype(F32)
    w = np.ones((9, k), F32) if tied == "one value" else (1 + rng.random((9, k)) / 64).astype(F32)
    verdict = certify.check("linear", (x, w), in_order(x, w)).verdicts["y"]
    assert verdict.passes, verdict
    assert verdict.why


def test_a_bug_is_no_order():
    """A factor of 4e-6 is within the bound of any order of 8,192 terms, and no order makes it."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((n, 8192)).astype(F32) for n in (24, 16))
    y = in_pairs(x, w) * F32(1 + 4e-6)
    verdict = certify.check("linear", (x, w), y).verdicts["y"]
    assert verdict.margin < 1
    assert verdict.verdict in ("implausible", "systematic") and verdict.hypothesis == "scaled"


# Claims.


def convolution(seed=0, c=16, k=8):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, c, 2, 9, 9)).astype(F32)
    return x, (rng.standard_normal((k, c, 1, 3, 3)) / np.sqrt(9 * c)).astype(F32), {"pad": (0, 1, 1)}


def truncated(a, bits):
    return (a.view(np.uint32) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)).view(F32)


def to_nearest(a, bits):
    """Ties to even."""
    raw = a.view(np.uint32).astype(np.uint64)
    raw += (1 << bits - 1) - 1 + (raw >> bits & 1)
    return truncated(raw.astype(np.uint32).view(F32), bits)


def ties_away(a, bits):
    return truncated((a.view(np.uint32) + np.uint32(1 << bits - 1)).view(F32), bits)


WAYS = {"nearest": to_nearest, "away": ties_away, "zero": truncated}


@pytest.mark.parametrize(("operands", "bits"), [("tf32", 13), ("bfloat16", 16)])
@pytest.mark.parametrize("way", WAYS)
def test_operands_are_rounded_in_the_oracle(operands, bits, way):
    x, w, attrs = convolution()
    y, _ = reference.conv3d.forward(WAYS[way](x, bits), WAYS[way](w, bits), **attrs)
    silent = certify.check("conv3d", (x, w), y, **attrs).verdicts["y"]
    assert not silent.passes and silent.hypothesis.startswith(f"operands {operands}")
    assert certify.check("conv3d", (x, w), y, operands=operands, **attrs).ok
    assert certify.check("conv3d", (x, w), y, operands=operands, operand_rounding=way, **attrs).ok
    other = "zero" if way != "zero" else "nearest"
    assert not certify.check("conv3d", (x, w), y, operands=operands, operand_rounding=other, **attrs).ok


def test_more_precision_than_claimed_is_no_failure():
    x, w, attrs = convolution()
    y, _ = reference.conv3d.forward(x, w, **attrs)
    assert certify.check("conv3d", (x, w), y, operands="tf32", **attrs).ok


@pytest.mark.parametrize("store", ["bfloat16", "float16"])
def test_what_is_stored_in_a_narrow_format_says_so(store):
    ml_dtypes = peer("ml_dtypes") if store == "bfloat16" else None
    dtype = ml_dtypes.bfloat16 if store == "bfloat16" else np.float16
    x, w, attrs = convolution()
    y = reference.conv3d.forward(x, w, **attrs)[0].astype(dtype)
    assert certify.check("conv3d", (x, w), y, store=store, **attrs).ok
    verdict = certify.check("conv3d", (x, w), y, **attrs).verdicts["y"]
    assert verdict.verdict == "impossible" and verdict.hypothesis == f"result {store}"


def test_arrays_stored_with_more_precision_than_claimed_are_consistent(honest):
    net, given, candidate = honest
    assert certify.certify(net, given, candidate, store="bfloat16").ok


def test_what_is_flushed_to_zero_is_claimed():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((4, 30)) * 2.0**-130).astype(F32)
    w = rng.standard_normal((5, 30)).astype(F32)
    flushed = np.where(np.abs(x) < 2.0**-126, F32(0), x)
    y = in_order(flushed, w)
    y[np.abs(y) < 2.0**-126] = 0
    assert not certify.check("linear", (x, w), y).ok
    assert certify.check("linear", (x, w), y, flush_to_zero=True).verdicts["y"].verdict in (
        "consistent",
        "refused",
    )


def test_infinity_is_allowed_where_a_sum_may_overflow():
    x = np.full((1, 4), 3e38, F32)
    w = np.array([[1, 1, -1, -0.5], [1, -1, 0.5, -0.25]], F32)
    with np.errstate(over="ignore", invalid="ignore"):
        y = in_order(x, w)
    assert np.isinf(y[0, 0])
    assert certify.check("linear", (x, w), y).verdicts["y"].verdict != "impossible"
    y[0, 0] = np.nan
    assert certify.check("linear", (x, w), y).verdicts["y"].verdict != "impossible"
    small = x / F32(1e10)
    y = in_order(small, w)
    y[0, 0] = np.inf
    assert certify.check("linear", (small, w), y).verdicts["y"].verdict == "impossible"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_element_that_is_not_finite_fails(value):
    x, w, attrs = convolution()
    y, _ = reference.conv3d.forward(x, w, **attrs)
    y[1, 2, 0, 3, 4] = value
    verdict = certify.check("conv3d", (x, w), y, **attrs).verdicts["y"]
    assert verdict.verdict == "impossible" and verdict.where == (1, 2, 0, 3, 4)
    assert verdict.hypothesis == "not finite"


def test_a_run_is_a_candidate(honest):
    net, given, candidate = honest
    run = refnet.forward(net, given, "reference")
    report = certify.certify(net, given, run)
    assert report == certify.certify(net, given, Candidate(blobs=candidate.blobs)) and report.ok
    assert certify.certify(net, {}, run).ok
    of_gradients = certify.certify(
        net,
        given,
        run,
        output_gradients=candidate.output_gradients,
        gradients=refnet.backward(run, candidate.output_gradients),
    )
    assert of_gradients.ok and "d conv1_w" in of_gradients.verdicts


def test_a_report_in_which_everything_is_zero_says_nothing():
    x, w, attrs = convolution()
    report = certify.check("conv3d", (0 * x, w), np.zeros((2, 8, 2, 9, 9), F32), **attrs)
    assert report.verdicts["y"].verdict == "refused" and not report.ok


def test_branches_that_begin_at_zero_are_right(honest):
    """Residual branches whose last scale is zero, as many networks start: zeros, forward and backward."""
    net, given, _ = honest
    given = given | {
        f"res{stage}_0_branch2b_bn_{p}": np.zeros(c, F32) for stage, c in ((2, 8), (3, 16)) for p in "sb"
    }
    report = certify.certify(net, given, dump(net, given, started(net)[1]))
    assert report.ok, report
    assert "zero everywhere" in report.verdicts["res3_0_branch2b_bn"].why


def test_a_bound_above_the_scale_of_an_array_says_nothing():
    """In bfloat16, sums of 65,536 terms may be anything."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((n, 1 << 16)).astype(F32) for n in (3, 4))
    y = (1.5 * (x.astype(float) @ w.T.astype(float))).astype(F32)
    verdict = certify.check("linear", (x, w), y, accumulate="bfloat16").verdicts["y"]
    assert verdict.verdict == "refused" and "bound" in verdict.why


@pytest.mark.parametrize(
    ("claim", "named"),
    [
        ({"accumulate": "float8"}, "accumulate"),
        ({"store": "tf32"}, "store"),
        ({"operands": "int8"}, "operands"),
        ({"operand_rounding": "up"}, "rounding"),
        ({"algorithm": "strassen"}, "algorithm"),
    ],
)
def test_an_unknown_claim_is_refused_by_name(claim, named):
    x, w, attrs = convolution()
    with pytest.raises(UnknownNameError, match=named):
        certify.check("conv3d", (x, w), np.zeros((2, 8, 2, 9, 9), F32), **claim, **attrs)


# One operator.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", OPS)
def test_the_definition_of_every_operator_passes(op, dtype):
    record = OPS[op]
    claims = {"accumulate": dtype, "store": dtype, "operands": dtype}
    for index in range(len(record.cases)):
        one = problem(op, dtype, "reals", index, 0)
        y, context = reference[op].forward(*one.arrays, **one.case.attrs)
        found = reference[op].backward(one.dy, context, one.needs)
        gradients = [g if need else None for g, need in zip(found, one.needs, strict=True)]
        more = {"dy": one.dy, "gradients": gradients} if any(g is not None for g in gradients) else {}
        report = certify.check(op, one.arrays, y, **more, **claims, **one.case.attrs)
        bad = [v for v in report.verdicts.values() if not v.passes and v.verdict != "refused"]
        assert not bad, bad


def test_parts_of_a_call_may_be_left_out():
    x, w, attrs = convolution()
    y, context = reference.conv3d.forward(x, w, **attrs)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(F32)
    dx, dw = reference.conv3d.backward(dy, context, (True, True))
    assert list(certify.check("conv3d", (x, w), y, **attrs).verdicts) == ["y"]
    report = certify.check("conv3d", (x, w), dy=dy, gradients=(None, dw), **attrs)
    assert list(report.verdicts) == ["dw"] and report.ok
    report = certify.check("conv3d", (x, w), y, dy=dy, gradients=(dx, dw[:, ::-1]), **attrs)
    assert report.verdicts["dx"].passes and report.verdicts["dw"].verdict == "impossible"
    assert "verdicts['dw']" in report.verdicts["dw"].reproduce
    for bad in ({}, {"gradients": (dx, dw)}, {"dy": dy, "gradients": (dx,)}):
        with pytest.raises(ValueRangeError):
            certify.check("conv3d", (x, w), **bad, **attrs)


def test_a_result_of_another_shape_or_dtype_is_a_finding():
    x, w, attrs = convolution()
    y, _ = reference.conv3d.forward(x, w, **attrs)
    for found, said in ((y[:, :4], "shape"), (y.astype(np.int32), "dtype")):
        verdict = certify.check("conv3d", (x, w), found, **attrs).verdicts["y"]
        assert verdict.verdict == "impossible" and verdict.hypothesis == said and verdict.cause


# Choices.


def test_a_rectifier_may_choose_its_gradient_at_zero():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, 2, 5, 5)).astype(F32)
    x[0, 1] = 0
    dy = rng.standard_normal(x.shape).astype(F32)
    for at_zero in (0, 1, 0.5):
        dx = np.where(x > 0, dy, np.where(x == 0, F32(at_zero) * dy, 0)).astype(F32)
        assert certify.check("relu", (x,), dy=dy, gradients=(dx,)).ok
    dx = np.where(x > 0, dy, np.where(x == 0, 2 * dy, 0)).astype(F32)
    assert not certify.check("relu", (x,), dy=dy, gradients=(dx,)).ok


def pool_gradient(x, dy, share):
    """Of a 1x2x2 pool with stride 2: what each of a window's largest values has, by how many there are."""
    n, c, t, h, w = x.shape
    windows = x.reshape(n, c, t, h // 2, 2, w // 2, 2)
    largest = windows == windows.max(axis=(4, 6), keepdims=True)
    flat = np.moveaxis(largest, 5, 4).reshape(n, c, t, h // 2, w // 2, 4)
    parts = share(flat) * dy[..., None]
    parts = parts.reshape(n, c, t, h // 2, w // 2, 2, 2)
    return np.ascontiguousarray(np.moveaxis(parts, 5, 4).reshape(x.shape)).astype(F32)


def first(flat):
    return flat & (flat.cumsum(axis=-1) == 1)


SHARES = {
    "first": (first, True),
    "last": (lambda flat: first(flat[..., ::-1])[..., ::-1], True),
    "split": (lambda flat: flat / flat.sum(axis=-1, keepdims=True), True),
    "to every one": (lambda flat: flat, False),
    "to none": (lambda flat: flat & (flat.sum(axis=-1, keepdims=True) == 1), False),
}


@pytest.mark.parametrize("share", SHARES)
def test_a_pool_may_choose_among_equal_values(share):
    chosen, right = SHARES[share]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 3, 2, 8, 8)).astype(F32)
    dy = rng.standard_normal((2, 3, 2, 4, 4)).astype(F32)
    dx = pool_gradient(x, dy, chosen)
    attrs = {"kernel": (1, 2, 2), "stride": (1, 2, 2)}
    report = certify.check("max_pool3d", (x,), dy=dy, gradients=(dx,), **attrs)
    assert report.ok == right, report
    if not right:
        assert report.verdicts["dx"].hypothesis == "every tie"


# Nets.


def test_an_honest_candidate_is_consistent(honest):
    net, given, candidate = honest
    report = certify.certify(net, given, candidate)
    assert report.ok and report.first_failure is None
    assert {node.name for node in net.nodes} <= report.verdicts.keys()
    assert {f"d {name}" for name in candidate.gradients} <= report.verdicts.keys()
    values = [name for name in report.verdicts if not name.startswith("d ")]
    assert list(report.verdicts)[: len(values)] == values  # forward before backward


@pytest.mark.parametrize("seed", range(12))
def test_any_blob_may_be_missing(honest, seed):
    """Chains reach up to the next dumped blob, forward and backward; what no dump is behind is not judged."""
    net, given, candidate = honest
    rng = np.random.default_rng(seed)
    lost = [node.name for node in net.nodes if rng.random() < 0.6 and node.name not in net.outputs]
    gone = [node.name for node in net.nodes if rng.random() < 0.6]
    partial = Candidate(
        blobs=without(candidate.blobs, *lost),
        gradients=candidate.gradients,
        blob_gradients=without(candidate.blob_gradients, *gone),
        output_gradients=candidate.output_gradients,
    )
    report = certify.certify(net, given, partial)
    assert report.ok, report
    assert report.facts["not dumped"] == lost


def test_a_bug_inside_a_chain_is_found_at_its_end(honest):
    net, given, candidate = honest
    blobs = without(candidate.blobs, "res3_0_branch2a", "res3_0_branch2a_bn")
    blobs["res3_0_branch2a_relu"] = blobs["res3_0_branch2a_relu"] * F32(1.001)
    report = certify.certify(net, given, blobs)
    assert report.first_failure == "res3_0_branch2a_relu"
    assert "res3_0_branch2a_bn" in report.verdicts["res3_0_branch2a_relu"].why


def test_what_an_output_is_has_to_be_dumped(honest):
    net, given, candidate = honest
    (output,) = net.outputs
    report = certify.certify(net, given, without(candidate.blobs, output))
    assert report.verdicts[output].verdict == "refused" and not report.ok
    assert report.first_failure is None


@pytest.mark.parametrize("axes", ["NTHWC", "NTCHW", "TNCHW"])
def test_a_candidate_of_other_axes(honest, axes):
    net, given, candidate = honest
    order, kernel = ["NCTHW".index(letter) for letter in axes], [2, 3, 4, 1, 0]

    def laid(arrays, order):
        return {n: a.transpose(order) if a.ndim == 5 else a for n, a in arrays.items()}

    gradients = laid(without(candidate.gradients, "data"), kernel)
    gradients |= laid({"data": candidate.gradients["data"]}, order)
    turned = Candidate(
        blobs=laid(candidate.blobs, order),
        gradients=gradients,
        blob_gradients=laid(candidate.blob_gradients, order),
        output_gradients=laid(candidate.output_gradients, order),
        given=laid(without(given, "data"), kernel) | laid({"data": given["data"]}, order),
    )
    assert certify.certify(net, given, turned, axes=axes, kernel_axes="THWCK").ok
    assert certify.certify(net, {}, turned, axes=axes, kernel_axes="THWCK").ok
    looks = rf"looks like {axes}: conv1 is .*; expected NCTHW, or --axes {axes} \(in Python axes='{axes}'\)"
    for found in (turned, turned.blobs):
        with pytest.raises(ValueRangeError, match=looks):
            certify.certify(net, given, found)
    with pytest.raises(ValueRangeError, match="looks like THWCK: .* expected KCTHW, or --kernel-axes THWCK"):
        certify.certify(net, given, turned, axes=axes)
    with pytest.raises(ValueRangeError, match="looks like NCTHW"):
        certify.certify(net, given, candidate, axes="NTHWC")
    one = candidate.blobs | {"conv1": turned.blobs["conv1"]}
    assert certify.certify(net, given, one).verdicts["conv1"].verdict == "impossible", "one is a finding"
    with pytest.raises(ValueRangeError, match="permutation"):
        certify.certify(net, given, turned, axes="NCHW")


def test_what_every_name_has_before_it_is_taken_off_and_said(honest, tmp_path):
    net, given, candidate = honest
    theirs = {f"module.{name}": blob for name, blob in candidate.blobs.items()}
    np.savez(tmp_path / "dump.npz", **theirs, **{f"d module.{n}": g for n, g in candidate.gradients.items()})
    read = certify.read(tmp_path / "dump.npz", net)
    assert read.gradients.keys() == candidate.gradients.keys() and read.prefix == "module."
    for found in (theirs, Candidate(blobs=theirs), replace(read, gradients={})):
        report = certify.certify(net, given, found)
        assert report.ok and report.facts["names without"] == "module."
    assert "names without" not in certify.certify(net, given, candidate.blobs).facts
    with pytest.raises(UnknownNameError, match="unknown node of the candidate 'module.conv1'"):
        certify.certify(net, given, theirs | {"conv1": theirs["module.conv1"]})


def test_the_original_s_names(honest):
    net, given, candidate = honest
    names = refnet.interop.caffe2.names(net)
    in_place = {blob: candidate.blobs[node] for blob, node in names.items()}
    report = certify.certify(net, given, in_place)
    assert report.ok and set(names.values()) <= report.verdicts.keys()


def test_a_gradient_that_several_readers_make_is_their_sum(honest):
    net, given, candidate = honest
    name = "res2_0_relu"
    readers = [node.name for node in net.nodes if name in node.inputs]
    assert len(readers) == 2
    half = candidate.blob_gradients | {name: candidate.blob_gradients[name] * F32(0.5)}
    report = certify.certify(
        net, given, candidate.blobs, output_gradients=candidate.output_gradients, blob_gradients=half
    )
    assert report.first_failure == name and not report.verdicts[f"d {name}"].passes


def test_gradients_need_what_they_started_from(honest):
    net, given, candidate = honest
    with pytest.raises(ValueRangeError, match="output_gradients"):
        certify.certify(net, given, candidate.blobs, gradients=candidate.gradients)


def test_a_missing_gradient_is_said(honest):
    net, given, candidate = honest
    lost = without(candidate.gradients, "res3_0_branch2a_w")
    report = certify.certify(
        net, given, candidate.blobs, output_gradients=candidate.output_gradients, gradients=lost
    )
    assert report.verdicts["d res3_0_branch2a_w"].verdict == "refused" and not report.ok


@pytest.mark.parametrize("zeros", [False, True])
def test_blocked_gradients_are_absent_or_zero(zeros):
    net = small(freeze_at=2)
    given, dy = started(net)
    candidate = dump(net, given, dy)
    blocked = next(name for name in net.params if name not in candidate.gradients)
    gradients = dict(candidate.gradients)
    gradients[blocked] = np.zeros(net.params[blocked], F32) + F32(0 if zeros else 1e-30)
    report = certify.certify(
        net,
        given,
        candidate.blobs,
        output_gradients=dy,
        gradients=gradients,
        blob_gradients=candidate.blob_gradients,
    )
    verdict = report.verdicts[f"d {blocked}"]
    assert verdict.verdict == ("blocked" if zeros else "impossible")
    assert report.ok == zeros


def test_a_fused_group_reads_what_was_not_rounded():
    """A kernel that norms, adds and rectifies, in bfloat16: it dumps each step rounded, and reads none."""
    ml_dtypes = peer("ml_dtypes")
    net = small()
    given, _ = started(net)
    given = {name: a.astype(ml_dtypes.bfloat16) for name, a in given.items()}
    blobs, unrounded, fused = {}, {}, ("affine", "add", "relu")
    for node in net.nodes:
        known = {n: np.asarray(a, float) for n, a in (given | blobs).items()}
        known |= unrounded if node.op in fused else {}
        unrounded[node.name], _ = reference[node.op].forward(*(known[n] for n in node.inputs), **node.attrs)
        blobs[node.name] = unrounded[node.name].astype(ml_dtypes.bfloat16)
    claims = {"store": "bfloat16", "operands": "bfloat16"}
    assert not certify.certify(net, given, blobs, **claims).ok
    groups = [[node.name for node in net.nodes if node.op in fused]]
    report = certify.certify(net, given, blobs, fused=groups, **claims)
    assert report.ok, report
    with pytest.raises(UnknownNameError):
        certify.certify(net, given, blobs, fused=[["conv9"]])


def test_several_outputs_and_shared_blobs():
    net = fpn(small(freeze_at=2), dim=8, time_kernel=1)
    given, dy = started(net)
    report = certify.certify(net, given, dump(net, given, dy))
    assert report.ok, report


def test_integer_probes_are_exact():
    """x up to 4,095 and w of -1, 0, 1: any order of float32 gives the same bits; rounded operands do not."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4095, 4096, (1, 16, 2, 9, 9)).astype(F32)
    w = rng.integers(-1, 2, (8, 16, 1, 3, 3)).astype(F32)
    y, _ = reference.conv3d.forward(x, w, pad=(0, 1, 1))
    assert certify.check("conv3d", (x, w), y, pad=(0, 1, 1)).verdicts["y"].verdict == "exact"
    y, _ = reference.conv3d.forward(to_nearest(x, 13), w, pad=(0, 1, 1))
    assert not certify.check("conv3d", (x, w), y, pad=(0, 1, 1)).ok


@pytest.mark.parametrize(
    "wrong",
    [
        lambda net, given: (net, given, {"conv9": np.zeros(1, F32)}),
        lambda net, given: (net, without(given, "data"), {}),
        lambda net, given: (net, given, 3),
    ],
)
def test_what_does_not_fit_is_refused(honest, wrong):
    net, given, _ = honest
    with pytest.raises(RefnetError):
        certify.certify(*wrong(net, given))


def test_a_net_of_one_value():
    net = Net()
    x = net.input("x", (1, 1, 1, 1, 1))
    net.add("relu", "y", (x,))
    one = np.ones((1, 1, 1, 1, 1), F32)
    assert certify.certify(net, {"x": one}, {"y": one}).ok
    assert not certify.certify(net, {"x": one}, {"y": -one}).ok


def test_a_bias_may_be_added_to_what_was_stored():
    """In bfloat16, as JAX writes it: conv(x) + b rounds twice."""
    bfloat16 = peer("ml_dtypes").bfloat16
    x, w, attrs = convolution()
    x, w = x.astype(bfloat16), w.astype(bfloat16)
    b = np.random.default_rng(1).standard_normal(8).astype(bfloat16)
    y, _ = reference.conv3d.forward(x.astype(F32), w.astype(F32), **attrs)
    y = y.astype(bfloat16) + b[:, None, None, None]
    assert y.dtype == bfloat16
    claims = {"store": "bfloat16", "operands": "bfloat16"}
    assert certify.check("conv3d", (x, w, b), y, **claims, **attrs).ok
    assert not certify.check("conv3d", (x, w, b), y * bfloat16(1.01), **claims, **attrs).ok


def test_padding_as_tensorflow_has_it_is_named():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(F32) for s in ((1, 3, 2, 16, 16), (8, 3, 1, 7, 7)))
    attrs = {"stride": (1, 2, 2), "pad": (0, 3, 3)}
    later = np.pad(x, [(0, 0)] * 3 + [(2, 4)] * 2)
    y, _ = reference.conv3d.forward(later, w, stride=(1, 2, 2))
    verdict = certify.check("conv3d", (x, w), np.ascontiguousarray(y[..., :8, :8]), **attrs).verdicts["y"]
    assert verdict.hypothesis == "pad same", verdict


def test_the_cause_at_the_end_of_a_chain_is_named(honest):
    """What the convolution read was not dumped; that its kernel is turned over is seen all the same."""
    net, given, candidate = honest
    node = next(node for node in net.nodes if node.name == "res3_0_branch2b")
    x, w = candidate.blobs[node.inputs[0]], given[node.inputs[1]]
    y, _ = reference.conv3d.forward(x, np.ascontiguousarray(w[..., ::-1, :]), **node.attrs)
    blobs = without(candidate.blobs, "res3_0_branch2a_relu", "res3_0_branch2a_bn") | {node.name: y}
    report = certify.certify(net, given, blobs)
    assert report.first_failure == node.name
    assert report.verdicts[node.name].hypothesis == "kernel flipped H", report


ULP = F32(1 + 2.0**-23)


@pytest.mark.parametrize("op", ["relu", "max_pool3d", "stop_gradient", "slice_keyframe", "channels_to_time"])
def test_what_is_handed_on_may_not_be_off_by_one_bit(op):
    one = problem(op, "float32", "reals", 0, 0)
    y, _ = reference[op].forward(*one.arrays, **one.case.attrs)
    assert certify.check(op, one.arrays, y, **one.case.attrs).verdicts["y"].verdict == "exact"
    assert certify.check(op, one.arrays, y * ULP, **one.case.attrs).verdicts["y"].verdict == "impossible"


def test_a_gradient_that_is_handed_on_may_not_be_off_by_one_bit():
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((1, 3, 2, 6, 6)).astype(F32) for _ in range(2))
    dx = np.where(x > 0, dy, 0)
    assert certify.check("relu", (x,), dy=dy, gradients=(dx,)).ok
    assert not certify.check("relu", (x,), dy=dy, gradients=(dx * ULP,)).ok
    attrs = {"kernel": (1, 2, 2), "stride": (1, 2, 2)}
    dy = rng.standard_normal((1, 3, 2, 3, 3)).astype(F32)
    dx = pool_gradient(x, dy, first)
    assert certify.check("max_pool3d", (x,), dy=dy, gradients=(dx,), **attrs).ok
    assert not certify.check("max_pool3d", (x,), dy=dy, gradients=(dx * ULP,), **attrs).ok


SLIPS = {
    "average for maximum": (
        "max_pool3d",
        {"kernel": (1, 3, 3), "stride": (1, 2, 2), "pad": (0, 1, 1)},
        lambda x, attrs: _averaged_with_padding(x),
    ),
    "ReLU6": ("relu", {}, lambda x, attrs: x.clip(0, 6)),
}


def _averaged_with_padding(x):
    padded = np.pad(x, [(0, 0)] * 3 + [(1, 1)] * 2)
    n = (x.shape[-1] + 1) // 2
    total = sum(padded[..., i : i + 2 * n : 2, j : j + 2 * n : 2] for i in range(3) for j in range(3))
    return np.ascontiguousarray(total / F32(9))


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_of_frameworks_are_named(slip):
    op, attrs, wrong = SLIPS[slip]
    x = (4 * np.random.default_rng(0).standard_normal((1, 3, 2, 9, 9))).astype(F32)
    assert certify.check(op, (x,), wrong(x, attrs), **attrs).verdicts["y"].hypothesis == slip


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("scale after shift", lambda x, s, b: s * (x + b)),
        ("scale inverted", lambda x, s, b: x / s + b),
        ("scale and shift swapped", lambda x, s, b: b * x + s),
    ],
)
def test_affines_of_another_form_are_named(name, formula):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 5, 2, 4, 4)).astype(F32)
    s, b = (rng.standard_normal(5).astype(F32) + 2 for _ in range(2))
    y = formula(x, *(v[:, None, None, None] for v in (s, b)))
    assert certify.check("affine", (x, s, b), y).verdicts["y"].hypothesis == name


@pytest.mark.parametrize("axes", ["T", "H", "HW"])
def test_padding_that_repeats_the_border_along_some_axes_is_named(axes):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(F32) for s in ((1, 4, 3, 6, 7), (5, 4, 3, 3, 3)))
    padded = np.pad(x, [(0, 0), (0, 0)] + [(int(a in axes),) * 2 for a in "THW"], mode="edge")
    y, _ = reference.conv3d.forward(padded, w, pad=tuple(int(a not in axes) for a in "THW"))
    found = certify.check("conv3d", (x, w), y, pad=(1, 1, 1)).verdicts["y"].hypothesis
    assert found == f"pad replicated {axes}"


def test_a_dilation_of_another_axis_is_named():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(F32) for s in ((1, 4, 5, 7, 7), (5, 4, 3, 3, 3)))
    y, _ = reference.conv3d.forward(x, w, pad=(2, 1, 1), dilation=(2, 1, 1))
    verdict = certify.check("conv3d", (x, w), y, pad=(1, 2, 2), dilation=(1, 2, 2)).verdicts["y"]
    assert verdict.hypothesis == "dilation moved", verdict


def test_two_affines_swapped_are_named(honest):
    net, given, _ = honest
    one, other = "res3_0_branch2a_bn", "res3_0_branch2b_bn"
    swapped = given | {f"{a}_{p}": given[f"{b}_{p}"] for p in "sb" for a, b in ((one, other), (other, one))}
    report = certify.certify(net, given, refnet.forward(net, swapped, "reference").blobs)
    assert report.first_failure == one
    assert report.verdicts[one].hypothesis == f"s and b of {other}"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda net, given, x: certify.check("relu", None, x), "arrays is None"),
        (lambda net, given, x: certify.check("relu", (x,), dy=x, gradients={"x": x}), "gradients is a dict"),
        (lambda net, given, x: certify.check("relu", (x,), x, delta=1e-320), "delta"),
        (lambda net, given, x: certify.check("relu", (x,), x, flush_to_zero="no"), "flush_to_zero"),
        (lambda net, given, x: certify.certify("resnet18_conv4", given, {}), "net is a str"),
        (lambda net, given, x: certify.certify(net, None, {}), "given is None"),
        (lambda net, given, x: certify.certify(net, given, {}, fused="conv1"), "fused"),
        (lambda net, given, x: certify.certify(net, given, {}, fused=None), "fused"),
        (lambda net, given, x: certify.certify(net, given, {}, axes=None), "axes"),
        (lambda net, given, x: certify.certify(net, given, {}, axes="KCTHW"), "axes"),
        (lambda net, given, x: certify.examine("relu", None), "kernel is None"),
        (lambda net, given, x: certify.examine("relu", np.abs, draws=1.5), "draws"),
    ],
)
def test_nonsense_gets_one_line(honest, call, said):
    net, given, _ = honest
    with pytest.raises(RefnetError, match=said) as caught:
        call(net, given, np.ones((1, 1, 1, 2, 2), F32))
    assert "\n" not in str(caught.value)


def test_a_kernel_that_leaves_python_is_a_finding():
    def leave(x):
        raise SystemExit(0)

    report = certify.examine("relu", leave, draws=1)
    assert not report.ok
    assert "SystemExit" in report.verdicts["integers y"].cause
