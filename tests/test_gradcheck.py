"""`check_net`: what is right passes, each planted defect is found, and named."""

import numpy as np
import pytest
from bundles import NETS
from defects import DEFECTS, stopped
from support import every_arithmetic, every_dtype

import refnet
from refnet.arithmetic import core
from refnet.errors import UnknownNameError
from refnet.gradcheck import check_net
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
    report = check_net(net, given(net, dtype), arithmetic)
    assert report.ok, report


@pytest.mark.seeds
@every_arithmetic
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


def test_a_check_changes_neither_the_blobs_nor_the_arithmetic():
    net, kernels = stopped(), dict(core.kernels)
    blobs = given(net)
    before = {name: blob.copy() for name, blob in blobs.items()}
    check_net(net, blobs)
    assert all(np.array_equal(blobs[name], blob) for name, blob in before.items())
    assert core.kernels == kernels
