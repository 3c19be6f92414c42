"""`check_net`: what is right passes, each planted defect is found, and named."""

import numpy as np
import pytest
from bundles import NETS
from defects import DEFECTS, stopped
from support import every_arithmetic, every_dtype, of_formulas

import refnet
from refnet.arithmetic import Kernel, core, exact
from refnet.check.judge import EXACT_ALONE
from refnet.errors import KernelError, UnknownNameError, ValueRangeError
from refnet.gradcheck import check_net
from refnet.net import Net
from refnet.networks.resnet3d import body


def given(net, dtype="float64", seed=0):
    return {**refnet.fill.inputs(net, seed, dtype), **refnet.fill.params(net, seed, dtype)}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_defect_is_found_and_named(defect):
    net = defect.net()
    with defect.walk():
        report = check_net(net, given(net, defect.dtype), defect.arithmetic)
    wrong = {name: verdict for name, verdict in report.verdicts.items() if verdict.verdict == "wrong"}
    assert not report.ok
    assert set(defect.tensors) <= set(wrong)
    assert defect.node in {verdict.node for verdict in wrong.values()}
    assert all(verdict.reproduce for verdict in wrong.values())
    if defect.alone:
        assert {name for name in wrong if not name.startswith("value of ")} <= set(defect.tensors)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_without_its_defect_the_net_passes(defect):
    net = defect.net()
    assert check_net(net, given(net, defect.dtype)).ok


@every_arithmetic
@every_dtype
@pytest.mark.parametrize("name", NETS)
def test_what_is_right_passes(name, dtype, arithmetic):
    net = NETS[name]()
    if arithmetic is exact and any(node.op in EXACT_ALONE for node in net.nodes):
        with pytest.raises(ValueRangeError, match="no other arithmetic judges it"):
            check_net(net, given(net, dtype), arithmetic)
        return
    report = check_net(net, given(net, dtype), arithmetic)
    assert report.ok, report


@pytest.mark.seeds
@of_formulas
@every_dtype
@pytest.mark.parametrize("name", NETS)
def test_no_false_alarm_over_200_seeds(name, dtype, arithmetic):
    net = NETS[name]()
    for seed in range(200):
        report = check_net(net, given(net, dtype, seed), arithmetic, seed=seed)
        assert report.ok, (seed, report)


def test_every_tensor_has_a_verdict():
    net = stopped()
    report = check_net(net, given(net))
    dy = refnet.fill.output_gradients(net)
    gradients = refnet.backward(refnet.forward(net, given(net)), dy)
    of_tensors = {n: v for n, v in report.verdicts.items() if n in {*net.inputs, *net.params}}
    assert {name for name, verdict in of_tensors.items() if verdict.verdict == "ok"} == set(gradients)
    assert {name for name, verdict in of_tensors.items() if verdict.verdict == "blocked"} == gradients.blocked
    for name, gradient in gradients.items():
        assert report.verdicts[name].elements == gradient.size


def test_the_derivative_through_a_stop_stands_beside_the_zero():
    """It is that of the same net without a stop, to rounding."""
    net = stopped()
    through = check_net(net, given(net)).verdicts
    counts, feat_dims = (1, 1, 1), (4, 4, 8, 16)
    same = body((1, 3, 3, 32, 32), counts, feat_dims, width_per_group=4, freeze_at=0)
    gradients = refnet.backward(refnet.forward(same, given(same)), refnet.fill.output_gradients(same))
    blocked = [name for name, verdict in through.items() if verdict.verdict == "blocked"]
    assert len(blocked) == 1 + 3 + 9
    for name in blocked:
        expected = np.linalg.norm(gradients[name])
        assert abs(through[name].through - expected) <= 1e-12 * expected and expected > 0


def test_some_tensors_alone():
    net = stopped()
    report = check_net(net, given(net), tensors=["res4_0_branch2b_w"])
    assert report.ok
    assert report.verdicts["res4_0_branch2b_w"].verdict == "ok"
    assert "res4_0_branch2a_w" not in report.verdicts and "res4_0_branch2c" in report.verdicts
    with pytest.raises(UnknownNameError, match="did you mean .*res4_0_branch2b_w"):
        check_net(net, given(net), tensors=["res4_0_branch2_w"])


def small():
    """Two convolutions with rectifiers, a sum of both, an affine."""
    net = Net()
    x = net.input("data", (2, 3, 2, 6, 6))
    x = net.add("conv3d", "c1", (x, net.param("a_w", (4, 3, 1, 3, 3))), pad=(0, 1, 1))
    r1 = net.add("relu", "r1", (x,))
    x = net.add("conv3d", "c2", (r1, net.param("v_w", (4, 4, 3, 3, 3))), pad=(1, 1, 1))
    x = net.add("add", "s", (net.add("relu", "r2", (x,)), r1))
    net.output(net.add("affine", "af", (x, net.param("sc_s", (4,)), net.param("sc_b", (4,)))))
    return net


def wrong_names(report):
    return {name for name, verdict in report.verdicts.items() if verdict.verdict == "wrong"}


@pytest.mark.parametrize("change", [lambda y: y * (1 + 1e-9), lambda y: y + 1e-3], ids=["larger", "shifted"])
def test_fractions_of_one_forward_accuse_no_other_node(change):
    right = core.kernels["conv3d"]

    def forward(*arrays, **attrs):
        y, context = right.forward(*arrays, **attrs)
        return change(y), context

    net = small()
    report = check_net(net, given(net), core.replace(conv3d=Kernel(forward, right.backward)))
    assert wrong_names(report) == {"value of c1", "value of c2"}


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float32", 1e15), ("float32", 1e30), ("float64", 1e150), ("float64", 1e300)],
)
def test_overflow_is_no_false_alarm(dtype, scale):
    net = small()
    blobs = {name: (blob * scale).astype(dtype) for name, blob in given(net).items()}
    assert not wrong_names(check_net(net, blobs))


def test_a_nan_is_blamed_on_who_made_it():
    kernel = Kernel(lambda x: (np.maximum(x, 0), x > 0), lambda dy, context, needs: (dy * np.nan,))
    net = small()
    report = check_net(net, given(net), core.replace(relu=kernel))
    assert {report.verdicts[name].op for name in wrong_names(report)} == {"relu"}


def test_stops_as_outputs():
    """On an input; twice on one value, whose derivatives add up; read by a layer that learns."""
    net = Net()
    x = net.input("data", (1, 2, 1, 3, 3))
    stop = net.add("stop_gradient", "stop", (x,))
    net.output(stop)
    c = net.add("conv3d", "c", (x, net.param("u_w", (2, 2, 1, 1, 1))))
    for name in ("s1", "s2"):
        net.output(net.add("stop_gradient", name, (c,)))
    net.output(net.add("conv3d", "read", (stop, net.param("v_w", (2, 2, 1, 1, 1)))))
    blobs, dy = given(net), refnet.fill.output_gradients(net)
    report = check_net(net, blobs)
    assert report.ok and report.verdicts["v_w"].verdict == "ok"
    _, context = core.conv3d.forward(blobs["data"], blobs["u_w"])
    through_c, dw = core.conv3d.backward(dy["s1"] + dy["s2"], context)
    _, context = core.conv3d.forward(blobs["data"], blobs["v_w"])
    through_read, _ = core.conv3d.backward(dy["read"], context)
    expected = {"u_w": dw, "data": dy["stop"] + through_c + through_read}
    for name, gradient in expected.items():
        norm = np.linalg.norm(gradient)
        assert abs(report.verdicts[name].through - norm) <= 1e-12 * norm


def test_a_kernel_that_raises_is_named():
    def backward(dy, context, needs):
        dy *= context
        return (dy,)

    net = small()
    mine = core.replace(relu=Kernel(lambda x: (np.maximum(x, 0), x > 0), backward))
    with pytest.raises(KernelError, match="relu backward raised ValueError: .* read-only"):
        check_net(net, given(net), mine)


def test_what_cannot_be_checked_is_refused():
    net = Net()
    net.input("data", (1, 2, 1, 3, 3))
    with pytest.raises(ValueRangeError, match="the net has no nodes"):
        check_net(net, given(net))
    with pytest.raises(ValueRangeError, match="no tensors to judge"):
        check_net(small(), given(small()), tensors=[])
    assert set(check_net(stopped(), given(stopped()), tensors="data").verdicts) == {"data"}


def test_a_check_changes_neither_the_blobs_nor_the_arithmetic():
    net, kernels = stopped(), dict(core.kernels)
    blobs = given(net)
    before = {name: blob.copy() for name, blob in blobs.items()}
    check_net(net, blobs)
    assert all(np.array_equal(blobs[name], blob) for name, blob in before.items())
    assert core.kernels == kernels
