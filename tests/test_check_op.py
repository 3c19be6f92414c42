"""`check_op`: every operator of both arithmetics passes, and planted defects are found in what they spoil."""

from math import inf, nan

import numpy as np
import pytest
from defects import (
    aligned,
    batch_norm_dx,
    both,
    changed,
    conv_dx,
    conv_y,
    flipped_in_time,
    odd_planes,
    planted,
    pool_to_every_tie,
    strided,
    without_label,
)
from support import every_arithmetic, every_dtype, of_formulas

import refnet
from refnet.arithmetic import Kernel, core, exact, reference
from refnet.arithmetic.exact import ROUNDED_ONCE
from refnet.check.judge import EXACT_ALONE
from refnet.check.problems import COUNTABLE, exact_on_integers, kinds_of, problem
from refnet.errors import UnknownNameError, ValueRangeError
from refnet.gradcheck import check_op
from refnet.ops import OPS


def wrong_of(report):
    return {name for name, verdict in report.verdicts.items() if verdict.verdict == "wrong"}


@every_arithmetic
@pytest.mark.parametrize("name", OPS)
def test_every_operator_passes(name, arithmetic):
    if arithmetic is exact and name in EXACT_ALONE:
        with pytest.raises(ValueRangeError, match="no other arithmetic judges it"):
            check_op(name, arithmetic)
        return
    report = check_op(name, arithmetic, draws=8)
    assert report.ok, report
    op = OPS[name]
    names = [n for n, p in zip(report.verdicts, report.verdicts, strict=True) if n.startswith("d")]
    inputs = max((case.shapes for case in op.cases), key=len)
    assert len(names) == sum(op.domain(i).gradient for i in range(len(inputs)))
    assert {"y", "inputs", "needs"} <= report.verdicts.keys()
    adjoint = {n.removeprefix("adjoint ") for n in report.verdicts if n.startswith("adjoint")}
    assert adjoint == (set() if op.smooth else set(names))
    # What passes has been computed, and compared.
    assert all(report.verdicts[n].elements > 0 for n in ["y", *names])
    for dtype, oracle in report.facts["oracle"].items():
        right = "exact" if dtype == "float64" and name in ROUNDED_ONCE else "core"
        assert oracle == ("reference" if arithmetic in (core, exact) or name in SHARED else right)


SHARED = [name for name in OPS if core.kernels[name] == reference.kernels[name]]


@pytest.mark.seeds
@of_formulas
@pytest.mark.parametrize("name", OPS)
def test_no_false_alarm_over_200_seeds(name, arithmetic):
    for seed in range(200):
        report = check_op(name, arithmetic, seed, draws=3)
        assert report.ok, (seed, report)


# What is planted: in which operator, and what of it must be wrong, and nothing else.


def scaled(index, factor):
    return changed(index, lambda g: g * factor)


def one_element(index):
    """The largest element of a gradient, off by a millionth."""

    def change(g):
        g = g.copy()
        g.flat[np.abs(g).argmax()] *= 1 + 1e-6
        return g

    return changed(index, change)


def zeros(index):
    return changed(index, np.zeros_like)


def padded_on_one_side(y, arrays, attrs):
    """All of the padding before x."""
    x, *others = arrays
    pads = attrs.get("pad", (0, 0, 0))
    moved = np.pad(x, [(0, 0), (0, 0), *((2 * p, 0) for p in pads)])
    return core.conv3d.forward(moved, *others, **(attrs | {"pad": (0, 0, 0)}))[0]


def bias_over_other_axes(gradients, dy, arrays, attrs):
    """Of the first column alone."""
    *rest, db = gradients
    return [*rest, db if db is None or len(arrays) < 3 else dy[..., 0].sum(axis=(0, 2, 3))]


def square(arrays, attrs):
    w = arrays[1]
    return w.shape[0] == w.shape[1] > 1


def transposed_dx(gradients, dy, arrays, attrs):
    return conv_dx(lambda dy, w: (dy, w.swapaxes(0, 1)))(gradients, dy, arrays, attrs)


def with_time(arrays, attrs):
    return arrays[1].shape[2] > 1


def last_column_lost(g):
    g = g.copy()
    g[..., -1] = 0
    return g


def has_bias(arrays, attrs):
    return len(arrays) == 3


def same_flip():
    """Forward, dx and dw alike, where there are no groups: the adjoint identity cannot see it."""
    return planted("conv3d", **both(flipped_in_time), on=lambda a, t: with_time(a, t) and not has_bias(a, t))


def relu_of_the_other_side(gradients, dy, arrays, attrs):
    return [np.where(arrays[0] >= 0, dy, 0)]


def softmax_without_sum(gradients, dy, arrays, attrs):
    return [core.softmax.forward(arrays[0])[0] * dy]


def all_of_adjoint(*names):
    return {n for name in names for n in (name, f"adjoint {name}")}


CONV = "conv3d"
DEFECTS = {
    "kernel transposed in dx": (CONV, planted(CONV, backward=transposed_dx, on=square), all_of_adjoint("dx")),
    "time flipped in dx": (
        CONV,
        planted(CONV, backward=conv_dx(flipped_in_time), on=with_time),
        all_of_adjoint("dx"),
    ),
    "time flipped, forward and backward": (CONV, same_flip(), {"y", "dx", "dw"}),
    "time flipped forward": (
        CONV,
        planted(
            CONV, forward=conv_y(flipped_in_time), on=lambda a, t: with_time(a, t) and not has_bias(a, t)
        ),
        {"y", "adjoint dx", "adjoint dw"},
    ),
    "padding on one side": (
        CONV,
        planted(CONV, forward=padded_on_one_side),
        {"y", "adjoint dx", "adjoint dw"},
    ),
    "dx wrong at odd sizes": (
        CONV,
        planted(CONV, backward=changed(0, last_column_lost), on=odd_planes),
        all_of_adjoint("dx"),
    ),
    "dx wrong where strided": (
        CONV,
        planted(CONV, backward=changed(0, last_column_lost), on=strided),
        all_of_adjoint("dx"),
    ),
    "bias over other axes": (
        CONV,
        planted(CONV, backward=bias_over_other_axes, on=has_bias),
        all_of_adjoint("db"),
    ),
    "one element of dw": (CONV, planted(CONV, backward=one_element(1)), all_of_adjoint("dw")),
    "dx by a thousand-millionth": (CONV, planted(CONV, backward=scaled(0, 1 + 1e-9)), all_of_adjoint("dx")),
    "y by a thousand-millionth": (
        CONV,
        planted(CONV, forward=lambda y, a, t: y * np.asarray(1 + 1e-9, y.dtype)),
        {"y", "adjoint dx", "adjoint dw", "adjoint db"},
    ),
    "dw of linear": ("linear", planted("linear", backward=one_element(1)), all_of_adjoint("dw")),
    "no ds": ("affine", planted("affine", backward=zeros(1)), all_of_adjoint("ds")),
    "no db": ("affine", planted("affine", backward=zeros(2)), all_of_adjoint("db")),
    "relu of the other side": ("relu", planted("relu", backward=relu_of_the_other_side), {"dx"}),
    "pool to every tie": (
        "max_pool3d",
        planted("max_pool3d", backward=pool_to_every_tie),
        all_of_adjoint("dx"),
    ),
    "average not divided": (
        "global_average_pool",
        planted("global_average_pool", backward=scaled(0, 2)),
        all_of_adjoint("dx"),
    ),
    "overlaps by a thousand-millionth": (
        "average_pool3d",
        planted("average_pool3d", backward=scaled(0, 1 + 1e-9)),
        all_of_adjoint("dx"),
    ),
    "squares halved": (
        "upsample_nearest",
        planted("upsample_nearest", backward=scaled(0, 0.5)),
        all_of_adjoint("dx"),
    ),
    "second gradient negative": ("add", planted("add", backward=scaled(1, -1)), all_of_adjoint("dx2")),
    "frames in the wrong order": (
        "batch_to_time",
        planted("batch_to_time", forward=lambda y, a, t: y[:, :, ::-1]),
        {"y", "adjoint dx"},
    ),
    "another convention": ("roi_align", planted("roi_align", backward=aligned), all_of_adjoint("dx")),
    "kept once too often": ("dropout", planted("dropout", backward=scaled(0, 2)), all_of_adjoint("dx")),
    "statistics as if given": (
        "batch_norm_training",
        planted("batch_norm_training", backward=batch_norm_dx(False, False)),
        {"dx"},
    ),
    "variance as if given": (
        "batch_norm_training",
        planted("batch_norm_training", backward=batch_norm_dx(True, False)),
        {"dx"},
    ),
    "ds of batch norm": (
        "batch_norm",
        planted("batch_norm", backward=scaled(1, 1 + 1e-9)),
        all_of_adjoint("ds"),
    ),
    "no sum over the row": ("softmax", planted("softmax", backward=softmax_without_sum), {"dx"}),
    "no label": ("cross_entropy", planted("cross_entropy", backward=without_label), {"dx"}),
    "biased variance": (
        "running_variance",
        planted("running_variance", forward=lambda y, a, t: y * np.asarray(1 - 1e-6, y.dtype)),
        {"y"},
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found_in_what_it_spoils(name):
    op, arithmetic, spoilt = DEFECTS[name]
    report = check_op(op, arithmetic)
    assert wrong_of(report) == spoilt, report
    assert not report.ok
    for tensor in spoilt:
        verdict = report.verdicts[tensor]
        assert verdict.margin > 1 and verdict.wrong and verdict.op == op
        assert verdict.node and verdict.reproduce and verdict.structure
        assert verdict.found != verdict.expected


def test_the_worst_is_the_worst_and_can_be_made_again():
    op, arithmetic, _ = DEFECTS["one element of dw"]
    verdict = check_op(op, arithmetic).verdicts["dw"]
    scope = {"arithmetic": arithmetic}
    exec(verdict.reproduce, scope)
    assert scope["gradients"][1][verdict.where] == verdict.found
    assert scope["p"].case.name == verdict.node
    right = core[op].backward(scope["p"].dy, core[op].forward(*scope["p"].arrays, **scope["p"].case.attrs)[1])
    assert abs(right[1][verdict.where] - verdict.found) <= 2e-6 * abs(verdict.expected)


def test_a_call_for_some_gradients_alone_can_be_made_again():
    def backward(dy, context, needs):
        dx, dw, *db = core.kernels["conv3d"].backward(dy, context, needs)
        return dx, dw * 1.01 if dw is not None and not needs[0] else dw, *db

    mine = core.replace(conv3d=Kernel(core.kernels["conv3d"].forward, backward))
    verdict = check_op("conv3d", mine, draws=4).verdicts["dw"]
    assert verdict.verdict == "wrong"
    scope = {"arithmetic": mine}
    exec(verdict.reproduce, scope)
    assert scope["gradients"][1][verdict.where] == verdict.found


def test_a_line_for_a_named_arithmetic_is_complete(monkeypatch):
    wrong = planted("relu", backward=scaled(0, 2)).kernels["relu"]
    spoilt = core.replace(relu=wrong)
    spoilt.name = "core"
    monkeypatch.setitem(refnet.arithmetic.ARITHMETICS, "core", spoilt)
    verdict = check_op("relu", "core").verdicts["dx"]
    scope = {}
    exec(verdict.reproduce, scope)
    assert set(scope) >= {"p", "y", "gradients"}


def test_what_only_some_problems_show_is_said():
    for name, trait in (
        ("dx wrong at odd sizes", "a size is odd"),
        ("dx wrong where strided", "a stride is above 1"),
    ):
        op, arithmetic, _ = DEFECTS[name]
        assert f"only where {trait}" in check_op(op, arithmetic).verdicts["dx"].structure


def kernel(forward=None, backward=None, op="affine"):
    right = core.kernels[op]
    return core.replace(**{op: Kernel(forward or right.forward, backward or right.backward)})


def test_a_kernel_that_writes_into_what_it_is_given_is_found():
    def writes(dy, context, needs):
        gradients = core.kernels["affine"].backward(dy, context, needs)
        mine = dy.view()
        mine.flags.writeable = True
        mine *= 2
        return gradients

    report = check_op("affine", kernel(backward=writes))
    assert "inputs" in wrong_of(report)
    assert "the call changed dy" in report.verdicts["inputs"].cause


def test_gradients_that_nobody_needs_are_found():
    def all_of_them(dy, context, needs):
        return core.kernels["affine"].backward(dy, context, (True, True, True))

    report = check_op("affine", kernel(backward=all_of_them))
    assert wrong_of(report) == {"needs"}
    assert "which nobody needed" in report.verdicts["needs"].cause
    open_stop = kernel(backward=lambda dy, context, needs: (dy,), op="stop_gradient")
    assert wrong_of(check_op("stop_gradient", open_stop)) == {"needs"}


def test_errors_and_missing_gradients_are_findings():
    def odd_fails(x, s, b):
        if x.shape[4] % 2:
            raise RuntimeError("odd sizes are not implemented\nand more")
        return core.kernels["affine"].forward(x, s, b)

    report = check_op("affine", kernel(forward=odd_fails))
    assert {"y", "dx", "ds", "db"} <= wrong_of(report)
    assert report.verdicts["y"].cause == "the call ended with RuntimeError: odd sizes are not implemented"
    report = check_op("affine", kernel(backward=lambda dy, context, needs: (None, None, None)))
    assert wrong_of(report) == {"dx", "ds", "db"}
    assert "is None: expected a NumPy array" in report.verdicts["dx"].cause
    report = check_op("affine", kernel(backward=lambda dy, context, needs: (dy[:1], None, None)))
    assert wrong_of(report) == {"dx", "ds", "db"}


@pytest.mark.parametrize("value", [nan, inf])
def test_what_is_not_finite_is_wrong(value):
    def spoil(g):
        g = g.copy()
        g.flat[g.size // 2] = value
        return g

    report = check_op("affine", planted("affine", backward=changed(0, spoil)))
    assert wrong_of(report) == {"dx", "adjoint dx"} and report.verdicts["dx"].margin == inf


def test_names_that_are_none_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean conv3d"):
        check_op("conv3")
    with pytest.raises(UnknownNameError, match="did you mean core"):
        check_op("conv3d", "cor")


@every_dtype
@pytest.mark.parametrize("name", OPS)
def test_problems_are_repeatable_and_legal(name, dtype):
    op = OPS[name]
    for index in range(len(op.cases) + 8):
        for kind in kinds_of(name, index, 0):
            given, again = problem(name, dtype, kind, index, 0), problem(name, dtype, kind, index, 0)
            pairs = zip((*given.arrays, given.dy), (*again.arrays, again.dy), strict=True)
            assert all(a.tobytes() == b.tobytes() for a, b in pairs)
            assert tuple(a.shape for a in given.arrays) == given.case.shapes
            if op.check is not None:
                op.check(*given.arrays, **given.case.attrs)
            other = problem(name, dtype, kind, index, 1)
            assert (
                other.dy.shape != given.dy.shape
                or other.dy.tobytes() != given.dy.tobytes()
                or given.dy.size < 9
            )


@pytest.mark.parametrize("name", OPS)
def test_sums_of_whole_numbers_can_be_counted_in_float32(name):
    op = OPS[name]
    wide_ones = 0
    for index in range(len(op.cases) + 16):
        if "integers" not in kinds_of(name, index, 0):
            continue
        given = problem(name, "float64", "integers", index, 0)
        arrays = (*given.arrays, given.dy)
        assert all((a == np.rint(a)).all() for a in arrays)
        wide_ones += max(np.abs(a).max() for a in arrays) > 2**11
        sums = [
            op.magnitude(*given.arrays, **given.case.attrs),
            *op.gradient_magnitude(given.dy, *given.arrays, needs=given.needs, **given.case.attrs),
        ]
        assert all(found is None or (found.sum_abs < COUNTABLE).all() for found in sums)
    assert wide_ones or op.divides or op.smooth, "operands of fewer bits would pass"


def test_averages_are_exact_by_powers_of_two():
    op = OPS["average_pool3d"]
    exact = [exact_on_integers(op, case) for case in op.cases]
    assert exact == [True, True, True]
    rng = np.random.default_rng(0)
    assert {exact_on_integers(op, op.drawn(rng)) for _ in range(50)} == {True, False}
