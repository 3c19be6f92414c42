"""A recorded training step: here one of refnet's own, of which the calls with parameters are recorded."""

from dataclasses import replace

import numpy as np
import pytest
from bundles import NETS
from support import every_dtype, of_formulas, reals

import refnet
from refnet.arithmetic import Arithmetic, Kernel, core
from refnet.check import enclosure
from refnet.check.bounds import plain
from refnet.check.captured import Call, Capture, judge_capture
from refnet.check.enclosure import Enclosure
from refnet.errors import ValueRangeError
from refnet.ops import OPS


def recorded(net, dtype="float64", arithmetic=core, seed=0):
    """The step as a capture."""
    last = {}

    def watched(kernel):
        def backward(dy, context, needs):
            last["dy"], last["gradients"] = dy, kernel.backward(dy, context, needs)
            return last["gradients"]

        return Kernel(kernel.forward, backward)

    watch = Arithmetic("watched", {op: watched(kernel) for op, kernel in arithmetic.kernels.items()})
    given = {**refnet.fill.inputs(net, seed, dtype), **refnet.fill.params(net, seed, dtype)}
    run, calls = refnet.forward(net, given, watch), {}
    for node in net.nodes:
        if not node.op.startswith("running") and any(name in net.params for name in node.inputs):
            read = [name for name in node.inputs if name not in net.params]
            arrays = [run.given[n] if n in run.given else run.blobs[n] for n in read]
            calls[node.name] = Call(arrays, run.blobs[node.name], None, [None] * len(arrays))

    def keep(node):
        if node.name in calls:
            call = calls[node.name]
            call.dy, call.gradients = last["dy"], list(last["gradients"][: len(call.arrays)])

    dy = refnet.fill.output_gradients(net, seed, dtype)
    gradients = refnet.backward(run, dy, on_node=keep)
    outputs = {name: run.blobs[name] for name in net.outputs}
    return Capture(calls, run.given, outputs, dy, dict(gradients), {})


def judged(net, capture):
    dtype = next(iter(capture.outputs.values())).dtype
    return judge_capture(net, capture, plain(dtype))


def wrong(verdicts):
    return {name for name, verdict in verdicts.items() if verdict.verdict == "wrong"}


@of_formulas
@every_dtype
@pytest.mark.parametrize("name", NETS)
def test_what_is_right_passes(name, dtype, arithmetic):
    net = NETS[name]()
    capture = recorded(net, dtype, arithmetic)
    verdicts = judged(net, capture)
    assert not wrong(verdicts), [v for v in verdicts.values() if v.verdict == "wrong"][:3]
    assert set(capture.gradients) | set(capture.calls) & capture.gradients.keys() <= set(verdicts)


@pytest.mark.parametrize("dtype", ["float64"])
@pytest.mark.parametrize("factor", [1 + 1e-9, 0, -1, 2])
def test_a_gradient_that_arrives_changed_is_found(factor, dtype):
    """Behind rectifiers, sums and a fan-out, none of which is recorded."""
    net = NETS["18 conv4"]()
    for name in ("res4_1_branch2c_bn", "res3_1_branch2c_bn", "res4_0_branch1_bn", "res4_0_branch2a_bn"):
        capture = recorded(net, dtype)
        call = capture.calls[name]
        changed = {**capture.calls, name: replace(call, dy=call.dy * factor)}
        verdicts = judged(net, replace(capture, calls=changed))
        assert name in wrong(verdicts) and verdicts[name].node == name
        own = {n for node in net.nodes if node.name == name for n in node.inputs}
        assert wrong(verdicts) <= {name, *own}


def test_one_wrong_element_is_found():
    net = NETS["18 conv4"]()
    capture = recorded(net)
    capture.calls["res3_1_branch2c_bn"].dy.flags.writeable = True
    place = np.unravel_index(
        np.abs(capture.calls["res3_1_branch2c_bn"].dy).argmax(), net.shape("res3_1_relu")
    )
    capture.calls["res3_1_branch2c_bn"].dy[place] *= 1 + 1e-12
    verdict = judged(net, capture)["res3_1_branch2c_bn"]
    assert verdict.verdict == "wrong" and verdict.where == place and verdict.wrong == 1


def test_gradients_that_are_missing_or_too_many():
    net = NETS["18 conv4"]()
    capture = recorded(net)
    lacking = {name: g for name, g in capture.gradients.items() if name != "res4_0_branch2b_w"}
    assert wrong(judged(net, replace(capture, gradients=lacking))) == {"res4_0_branch2b_w"}
    why = {"res4_0_branch2b_w": "not learnt"}
    found = judged(net, replace(capture, gradients=lacking, constant=why))["res4_0_branch2b_w"]
    assert (found.verdict, found.why) == ("blocked", "not learnt")
    more = {**capture.gradients, "conv1_w": capture.given["conv1_w"]}
    assert wrong(judged(net, replace(capture, gradients=more))) == {"conv1_w"}


def test_values_that_readers_did_not_read():
    net = NETS["18 conv4"]()
    capture = recorded(net)
    call = capture.calls["res4_0_branch2a"]
    shifted = replace(call, arrays=[np.roll(call.arrays[0], 1, axis=-1)])
    verdicts = judged(net, replace(capture, calls={**capture.calls, "res4_0_branch2a": shifted}))
    assert "value of res3_1_relu" in wrong(verdicts) and "relu" in verdicts["value of res3_1_relu"].cause


# What stands between layers, and curves nowhere.
BETWEEN = [
    name
    for name, op in OPS.items()
    if not op.smooth and op.family in ("activation", "sum", "pooling", "move")
]


def enclosed(rng, shape):
    """An enclosure, and its ends in float32."""
    low = rng.standard_normal(shape).astype("float32")
    high = low + rng.random(shape).astype("float32") / 8
    value = (low.astype("float64") + high) / 2
    return Enclosure(value, high - value), low, high


def test_enclosures_hold_what_float32_makes_of_their_ends():
    rng = np.random.default_rng(0)
    claim = plain("float32")
    for name in BETWEEN:
        op = OPS[name]
        for case in op.cases:
            inputs = [enclosed(rng, case.shapes[i]) for i in range(len(case.shapes))]
            for i, array in enumerate(reals(op, case, "float32")):
                if not op.domain(i).gradient:
                    inputs[i] = Enclosure(array, np.zeros(())), array, array
            found = enclosure.forward(op, claim, tuple(x for x, _, _ in inputs), case.attrs)
            for end in (1, 2):
                arrays = [ends[end] for ends in inputs]
                y, context = core[name].forward(*arrays, **case.attrs)
                assert (np.abs(y - found.value) <= found.error).all(), name
            dy, *ends = enclosed(rng, y.shape)
            needs = tuple(op.domain(i).gradient for i in range(len(arrays)))
            gradients = enclosure.backward(op, claim, dy, tuple(arrays), needs, case.attrs)
            for end in ends:
                for g, around in zip(core[name].backward(end, context), gradients, strict=True):
                    assert g is None or (np.abs(g - around.value) <= around.error).all(), name


def test_curved_operators_want_the_record_of_their_inputs():
    x = Enclosure(np.ones((2, 3)), np.full((2, 3), 1e-9))
    with pytest.raises(ValueRangeError, match="softmax reads what was not recorded"):
        enclosure.forward(OPS["softmax"], plain("float32"), (x,), {})
