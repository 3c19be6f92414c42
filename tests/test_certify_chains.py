"""Chains between dumped blobs: what is not dumped is derived, and is off by what rounding can do, no more."""

import numpy as np

import refnet
from refnet.certify import certify
from refnet.net import Net
from refnet.networks.classifier import classifier
from refnet.networks.resnet3d import body


def dumped(net, kinds):
    """A candidate of float32: nodes of some operators, all gradients."""
    given = refnet.fill.params(net, dtype="float32") | refnet.fill.inputs(net, dtype="float32")
    run = refnet.forward(net, given)
    dy = refnet.fill.output_gradients(net, dtype="float32")
    blobs = {node.name: run.blobs[node.name] for node in net.nodes if node.op in kinds}
    return given, blobs, dy, refnet.backward(run, dy)


def test_a_stop_that_was_not_dumped_hands_on_what_it_reads():
    """Where a gradient of weights is made of it."""
    net = body((1, 3, 2, 32, 32), (1, 1), (8, 8, 16), "basic", freeze_at=2, width_per_group=8)
    given, blobs, dy, gradients = dumped(net, ("conv3d", "affine"))
    blobs |= {name: refnet.forward(net, given).blobs[name] for name in net.outputs}
    report = certify(net, given, blobs, output_gradients=dy, gradients=gradients)
    assert report.ok, report
    assert report.verdicts["d res3_0_branch2a_w"].margin < 1
    gradients = dict(gradients) | {"res3_0_branch2a_w": gradients["res3_0_branch2a_w"] * np.float32(1.01)}
    report = certify(net, given, blobs, output_gradients=dy, gradients=gradients)
    assert report.verdicts["d res3_0_branch2a_w"].verdict == "impossible"


def test_a_loss_is_one_number():
    net = classifier((2, 3, 1, 32, 32), (1, 1), (8, 8, 16), "basic", 10, width_per_group=8)
    given, blobs, _, _ = dumped(net, ("conv3d", "affine", "linear", "softmax", "cross_entropy"))
    blobs["loss"] = np.array(blobs["loss"])
    assert certify(net, given, blobs).ok
    blobs["loss"] = blobs["loss"] * np.float32(1.01)
    assert certify(net, given, blobs).first_failure == "loss"


def test_what_cannot_be_derived_is_refused_and_read_all_the_same():
    """Of a softmax whose scores were not dumped nothing is said; its reader is judged on what it has."""
    net = Net()
    x = net.input("x", (3, 4))
    scores = net.add("linear", "scores", (x, net.param("scores_w", (5, 4))))
    net.output(net.add("linear", "y", (net.add("softmax", "p", (scores,)), net.param("y_w", (2, 5)))))
    given = refnet.fill.params(net, dtype="float32") | refnet.fill.inputs(net, dtype="float32")
    run = refnet.forward(net, given)
    report = certify(net, given, {name: run.blobs[name] for name in ("p", "y")})
    assert report.verdicts["p"].verdict == "refused" and not report.ok
    assert report.verdicts["y"].passes
    report = certify(net, given, {"y": run.blobs["y"]})
    assert report.verdicts["y"].verdict == "refused"


def test_a_chain_of_a_whole_network_is_not_accused_of_its_rounding():
    """Its bound is so large that the expected error vanishes beside it in float32: nothing can be said."""
    net = refnet.build("resnet18_conv4", input=(1, 3, 2, 64, 64))
    given = {**refnet.fill.inputs(net, dtype="float32"), **refnet.fill.params(net, dtype="float32")}
    blobs = refnet.forward(net, given).blobs
    for name, word in (("res3_1_relu", "consistent"), ("res4_1_relu", "refused")):
        verdict = certify(net, given, {name: blobs[name]}).verdicts[name]
        assert verdict.verdict == word
    assert verdict.bound > np.abs(blobs[name]).max() and "own scale" in verdict.why
