"""What a GPU computed, under true claims and false ones: `cases/gpu/README.md` says what the files are."""

from pathlib import Path

import numpy as np
import pytest
from honest import gpu_body

from refnet import certify, fill

CASES = Path(__file__).parent / "cases" / "gpu"
MODES = {
    "fp32": {},
    "fp32cl": {},
    "tf32": {"operands": "tf32"},
    "bf16": {"operands": "bfloat16", "store": "bfloat16"},
    "fp16": {"operands": "float16", "store": "float16"},
}


@pytest.fixture(scope="module")
def tf32():
    """What the TF32 dump is certified by, but for the claim."""
    net = gpu_body()
    given = fill.inputs(net, 7, "float32") | fill.params(net, 7, "float32")
    candidate = certify.read(CASES / "a_tf32.npz", net)
    return net, given, candidate, fill.output_gradients(net, 7, "float32")


def test_silent_tf32_fails_and_is_named(tf32):
    net, given, candidate, dy = tf32
    report = certify.certify(net, given, candidate, output_gradients=dy)
    assert not report.ok and report.first_failure == "conv1"
    products = [v for v in report.failures if v.op == "conv3d"]
    assert len(products) > 30
    assert all(v.hypothesis.startswith("operands tf32") and "TF32" in v.cause for v in products)
    # Whatever is no convolution is computed in float32, but for gradients that two of them make.
    others = {v.node for v in report.failures} - {v.node for v in products}
    assert others <= {"res3_0_relu", "res3_1_relu", "res4_0_relu"}


def test_tf32_as_claimed_is_consistent(tf32):
    net, given, candidate, dy = tf32
    report = certify.certify(net, given, candidate, output_gradients=dy, operands="tf32")
    assert report.ok, report


@pytest.fixture(scope="module")
def calls():
    with np.load(CASES / "ops_k1x1.npz") as file:
        return {name.removeprefix("k1x1/"): file[name] for name in file.files}


def judged(calls, mode, **claims):
    y, dx, dw = (calls[f"{mode}/{name}"] for name in ("y", "dx", "dw"))
    arrays = calls["x"], calls["w"]
    return certify.check("conv3d", arrays, y, dy=calls["dy"], gradients=(dx, dw), **claims)


@pytest.mark.parametrize("mode", MODES)
def test_a_call_under_its_true_claim_is_consistent(calls, mode):
    report = judged(calls, mode, **MODES[mode])
    assert report.ok, report
    assert set(report.verdicts) == {"y", "dx", "dw"}


@pytest.mark.parametrize("mode", ["tf32", "bf16", "fp16"])
def test_a_call_of_lower_precision_than_claimed_fails(calls, mode):
    report = judged(calls, mode)
    assert not any(verdict.passes for verdict in report.verdicts.values())
    said = {"tf32": "tf32", "bf16": "bfloat16", "fp16": "float16"}[mode]
    assert {said} <= {word for v in report.verdicts.values() for word in (v.hypothesis or "").split()}
