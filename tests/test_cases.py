"""The four networks that an independent implementation ran through the original wiring, in float64."""

import json
from pathlib import Path

import numpy as np
import pytest

import refnet

FOLDER = Path(__file__).parent / "cases"
CASES = sorted(FOLDER.glob("*.npz"))
BOUND = 1e-12


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


def assert_close(ours, theirs, name):
    assert ours.shape == theirs.shape, name
    assert theirs.any(), f"{name}: a comparison with nothing but zeros says nothing"
    assert np.abs(ours - theirs).max() <= BOUND * np.abs(theirs).max(), name


def test_there_are_four_cases():
    assert len(CASES) == 4


@pytest.mark.parametrize("arithmetic", ["reference", "core"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path, arithmetic):
    case = np.load(path, allow_pickle=False)
    meta = json.loads(bytes(case["meta"]))
    net = body(meta)
    params = section(case, "param/")
    assert {name: value.shape for name, value in params.items()} == net.params

    run = refnet.forward(net, {**section(case, "input/"), **params}, arithmetic=arithmetic)
    ours, theirs = refnet.interop.caffe2.blobs(run), section(case, "blob/")
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert_close(ours[name], theirs[name], name)

    node = refnet.interop.caffe2.names(net)
    grads = refnet.backward(run, {node[name]: dy for name, dy in section(case, "dY/").items()})
    theirs = section(case, "grad/")
    assert set(grads) - {"data"} == theirs.keys() - {"data"}
    assert grads.blocked - {"data"} == set(meta["blocked"])
    assert ("data" in grads) == (meta["freeze_at"] == 0)
    assert ("data" in grads.blocked) == (meta["freeze_at"] != 0)
    for name in theirs:
        assert_close(grads[name], theirs[name], name)
