"""`golden show`: what a bundle holds, for people and programs."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support import edit, fails

import refnet
from refnet import golden
from refnet.errors import FileError, UnknownNameError

OPTIONS = {"width_per_group": 4, "time_kernel": 1}
RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), OPTIONS)
HOSTILE = "\x1b[2J\x1b[Hconv1\x1b[8m \u202e \x9b31m \x07\x7f \u2028"
CONTROLS = set(map(chr, (*range(32), *range(127, 160), 0x202E, 0x2028))) - {"\n"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return golden.make(tmp_path_factory.mktemp("golden") / "bundle", RECIPE)


def test_statistics_are_those_of_the_values(made):
    found = golden.statistics(made)
    names = [(f.section, f.name) for f in golden.diff(made, made)]
    assert [(tensor.section, tensor.name) for tensor in found] == names
    for tensor, name in zip(found, names, strict=True):
        array = made.tensor(*name)
        assert (tensor.shape, tensor.dtype, tensor.stored) == (array.shape, "float64", True)
        assert (tensor.min, tensor.max) == (array.min(), array.max())
        assert tensor.max_abs == np.abs(array).max()
        assert tensor.mean == pytest.approx(array.mean(), rel=1e-9, abs=1e-12)
        assert tensor.zeros == np.count_nonzero(array == 0) and tensor.nonfinite == 0
        assert tensor.sha256 == made.entries[tensor.section][tensor.name]["sha256"] and not tensor.damaged
    relu = next(tensor for tensor in found if tensor.name == "conv1_relu")
    assert relu.zeros > 1000 and (relu.node, relu.op) == ("conv1_relu", "relu")
    assert golden.statistics(made, "conv1_relu") == [relu]
    (gradient,) = golden.statistics(made, "d res4_0_branch2a_w")
    assert (gradient.section, gradient.node, gradient.op) == ("gradients", "res4_0_branch2a", "conv3d")
    with pytest.raises(UnknownNameError, match="'conv0': did you mean conv1"):
        golden.statistics(made, "conv0")
    with pytest.raises(FileError, match="has no d conv1_w: a stop blocks that gradient"):
        golden.statistics(made, "d conv1_w")


def test_what_is_not_finite_is_counted(tmp_path):
    net = refnet.Net()
    net.output(net.add("relu", "y", (net.input("x", (1, 1, 1, 1, 6)),)))
    x = np.array([np.nan, np.inf, -np.inf, -4.0, -0.0, 1.0]).reshape(1, 1, 1, 1, 6)
    bundle = refnet.forward(net, {"x": x}, allow_nonfinite=True).save(tmp_path / "b")
    (found,) = golden.statistics(bundle, "x")
    assert (found.nonfinite, found.zeros, found.min, found.max, found.max_abs, found.mean) == (
        3,
        1,
        -4,
        1,
        4,
        -1,
    )
    x[:] = np.nan
    bundle = refnet.forward(net, {"x": x}, allow_nonfinite=True).save(tmp_path / "c")
    (found,) = golden.statistics(bundle, "x")
    assert found.nonfinite == 6 and found.min is found.max is found.mean is found.max_abs is None
    x[:] = 1.7e308
    bundle = refnet.forward(net, {"x": x}).save(tmp_path / "d")
    assert golden.statistics(bundle, "x")[0].mean is None


def test_a_bundle_is_shown(refnet, made):
    code, out, _ = refnet("golden", "show", made.path)
    assert code == 0 and out.startswith(
        f"{made.path}: resnet18_conv4 on 1x3x1x32x32, float64, core; 22 gradients"
    )
    rows = [line.split() for line in out.splitlines()]
    pool = made["pool1"]
    (row,) = [row for row in rows if row[:2] == ["blobs", "pool1"]]
    assert row[2:4] == ["1x64x1x8x8", "float64"] and row[-1] == made.entries["blobs"]["pool1"]["sha256"][:12]
    assert row[5] == f"{pool.max():.6g}"
    assert "176 tensors, 275,712 elements; values of 176 are stored." in out
    assert "freeze_at 2" in out and "every machine" in out
    found = json.loads(refnet("golden", "show", made.path, "--json")[1])
    assert len(found["tensors"]) == 176 and found["recipe"] == made.manifest["recipe"]
    assert found["tensors"][0]["name"] == "data" and found["graph"] == made.graph


def test_one_tensor_is_shown(refnet, made):
    code, out, _ = refnet("golden", "show", made.path, "conv1")
    assert code == 0 and "conv1 = conv3d(data, conv1_w; stride 1x2x2, pad 0x3x3)" in out
    assert made.entries["blobs"]["conv1"]["sha256"] in out and f"{made['conv1'].min():.6g}" in out
    code, out, _ = refnet("golden", "show", made.path, "d res4_0_branch2a_w")
    assert code == 0 and "gradient of res4_0_branch2a_w" in out and "backward of res4_0_branch2a = " in out
    found = json.loads(refnet("golden", "show", made.path, "data", "--json")[1])
    assert found["section"] == "inputs" and found["max"] == made["data"].max()
    fails(refnet("golden", "show", made.path, "conv0"), "unknown tensor", "did you mean conv1")
    fails(refnet("golden", "show", "none"), "none is not a folder")


def test_of_hashes_nothing_but_hashes_is_shown(refnet, tmp_path):
    bundle = golden.make(tmp_path / "h", replace(RECIPE, store="float32"), only=["outputs"])
    code, out, _ = refnet("golden", "show", "h")
    assert code == 0 and "values of 1 are stored" in out and out.count("SHA-256 only") == 175
    code, out, _ = refnet("golden", "show", "h", "conv1")
    assert code == 0 and "not stored, the SHA-256 alone" in out and "min" not in out
    (found,) = golden.statistics(bundle, "conv1")
    assert not found.stored and found.min is found.zeros is None and found.dtype == "float32"


def test_damage_is_shown(refnet, made, tmp_path):
    path = shutil.copytree(made.path, tmp_path / "b")
    edit(path, lambda m: m["tensors"]["blobs"]["pool1"].update(sha256="0" * 64))
    for name in ([], ["pool1"]):
        code, out, _ = refnet("golden", "show", path, *name)
        assert code == 1 and "stored bits are not" in out
    assert refnet("golden", "show", path, "conv1")[0] == 0


@pytest.mark.parametrize("version", [2, 3])
def test_bundles_of_every_version_are_shown(refnet, made, tmp_path, version):
    path = shutil.copytree(made.path, tmp_path / "b")
    if version == 2:
        edit(path, lambda m: (m.update(format_version=2), m.pop("graph")))
    code, out, _ = refnet("golden", "show", path, "conv1")
    assert code == 0 and "conv1 = conv3d(data, conv1_w; stride 1x2x2, pad 0x3x3)" in out
    assert f"version {version}, by refnet" in refnet("golden", "show", path)[1]


def test_no_text_of_a_bundle_controls_a_terminal(refnet, tmp_path):
    path = golden.make(tmp_path / "b", RECIPE, hashes_only=True).path

    def change(manifest):
        entries = manifest["tensors"]["blobs"]
        entries[HOSTILE] = entries["conv1"]
        manifest["machine"]["cpu"] = manifest["refnet"] = HOSTILE
        manifest["graph"]["nodes"][0]["name"] = HOSTILE
        manifest["recipe"]["own"] = {"params": {"name": HOSTILE, "sha256": None}}

    edit(path, change)
    for arguments in ((), (HOSTILE,), ("pool1",), ("--json",), (HOSTILE, "--json")):
        code, out, err = refnet("golden", "show", path, *arguments)
        assert code == 0 and not CONTROLS.intersection(out + err)


def test_a_saved_run_is_shown(refnet, tmp_path):
    import refnet as package

    net = package.Net()
    net.output(net.add("relu", "y", (net.input("x", (1, 1, 1, 1, 2)),)))
    package.forward(net, {"x": np.ones((1, 1, 1, 1, 2))}).save("b")
    code, out, _ = refnet("golden", "show", "b")
    assert code == 0 and out.startswith("b: a network of its own, float64, core; no gradients.")
    assert "y = relu(x)" in refnet("golden", "show", "b", "y")[1]


@pytest.mark.parametrize("width", ["40", "60", "80"])
def test_a_narrow_terminal_keeps_names_beside_values(refnet, made, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    out = refnet("golden", "show", made.path)[1]
    words = {word.rstrip(",") for word in out.split()}
    assert {f"{name}={value}" for name, value in made.recipe.record()["options"].items()} <= words
    listed = " ".join(refnet("list", "resnet18_conv4")[1].split())
    assert "meaning" in listed and ("batch's own statistics." in listed or width == "80")
    one = refnet("golden", "show", made.path, "d res4_1_branch2c_w")[1].splitlines()
    assert made.entries["gradients"]["res4_1_branch2c_w"]["sha256"] in " ".join(one)
    assert width != "80" or (max(map(len, one)) <= 80 and one[0].startswith(" tensor       gradient of"))
