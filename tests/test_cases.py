"""The four networks that an independent implementation ran through the original wiring, in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import (
    assert_all_within,
    assert_within,
    carried_error,
    every_arithmetic,
    rounding_bound,
    run_bound,
)

import refnet
from refnet.ops import OPS

FOLDER = Path(__file__).parent / "cases"
CASES = sorted(FOLDER.glob("*.npz"))
PROMISED = 1e-12  # in README.md, of each blob's largest magnitude


def body(meta):
    return refnet.networks.resnet3d.body(
        input=tuple(meta["input"]),
        block_counts=meta["block_counts"],
        feat_dims=meta["feat_dims"],
        transformation=meta["trans"].removesuffix("_transformation"),
        freeze_at=meta["freeze_at"],
        time_kernel=meta["time_kernel"],
        time_stride=meta["time_stride"],
        groups=meta["groups"],
        width_per_group=meta["width"],
        stride_1x1=meta["stride1x1"],
        dilation=meta["dilation"],
    )


def section(case, prefix):
    return {key.removeprefix(prefix): case[key] for key in case.files if key.startswith(prefix)}


def test_there_are_four_cases():
    assert len(CASES) == 4


@pytest.mark.parametrize("arithmetic", refnet.arithmetic.ARITHMETICS)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path, arithmetic):
    case = np.load(path, allow_pickle=False)
    meta = json.loads(bytes(case["meta"]))
    net = body(meta)
    params = section(case, "param/")
    assert {name: value.shape for name, value in params.items()} == net.params

    run = refnet.forward(net, {**section(case, "input/"), **params}, arithmetic=arithmetic)
    ours, theirs = refnet.interop.caffe2.blobs(run), section(case, "blob/")
    bound = run_bound(net)
    assert bound <= PROMISED
    assert_all_within(ours, theirs, bound)

    node = refnet.interop.caffe2.names(net)
    grads = refnet.backward(run, {node[name]: dy for name, dy in section(case, "dY/").items()})
    theirs = section(case, "grad/")
    assert set(grads) - {"data"} == theirs.keys() - {"data"}
    assert grads.blocked - {"data"} == set(meta["blocked"])
    assert ("data" in grads) == (meta["freeze_at"] == 0)
    assert ("data" in grads.blocked) == (meta["freeze_at"] != 0)
    bound = run_bound(net, backward=True)
    assert bound <= PROMISED
    assert_all_within({name: grads[name] for name in theirs}, theirs, bound)


@every_arithmetic
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case_op_for_op(path, arithmetic):
    """Each op, or what wrote in place one after the other, on the case's own blobs, within its own bound.

    Both implementations round: each is within the bound of the exact value.
    """
    case = np.load(path, allow_pickle=False)
    net = body(json.loads(bytes(case["meta"])))
    blobs = section(case, "blob/")
    stored = {node: blobs[blob] for blob, node in refnet.interop.caffe2.names(net).items()}
    values = section(case, "input/") | section(case, "param/")
    errors = dict.fromkeys(values, 0.0)
    for node in net.nodes:
        op, arrays = OPS[node.op], [values[name] for name in node.inputs]
        y, _ = arithmetic[node.op].forward(*arrays, **node.attrs)
        before = [np.broadcast_to(errors[name], a.shape) for name, a in zip(node.inputs, arrays, strict=True)]
        bound = rounding_bound(op, [np.abs(a) + e for a, e in zip(arrays, before, strict=True)], node.attrs)
        bound = bound + carried_error(op, arrays, before, node.attrs)
        values[node.name], errors[node.name] = y, bound
        if node.name in stored:
            assert_within(y, stored[node.name], 2 * bound, node.name, mostly_zero=True)
            values[node.name], errors[node.name] = stored[node.name], 0.0
