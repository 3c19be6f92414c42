"""Bundles of what is one's own: parameters, an arithmetic, a network; and bundles that hold a part."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import edit, fails

import refnet
from refnet import golden
from refnet.errors import DTypeError, FileError, RefnetError, UnknownNameError, ValueRangeError
from refnet.golden import candidate
from refnet.golden.bundle import sha

OPTIONS = {"width_per_group": 4, "time_kernel": 1}
RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), OPTIONS)
SMALL = ["--input", "1x3x1x32x32", "--width-per-group", "4", "--time-kernel", "1"]
NET = RECIPE.net()
# Half of core's product, from a module as somebody writes it.
MODULE = """
from refnet.arithmetic import Kernel, core

conv = core.kernels["conv3d"]

def forward(x, w, b=None, **attrs):
    y, context = conv.forward(x, w, **attrs) if b is None else conv.forward(x, w, b, **attrs)
    return y / 2, context

halved = core.replace(conv3d=Kernel(forward, conv.backward))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return golden.make(tmp_path_factory.mktemp("golden") / "bundle", RECIPE)


@pytest.fixture
def module(folder):
    Path("halves.py").write_text(MODULE)


def halved():
    """The arithmetic of MODULE."""
    found = {}
    exec(MODULE, found)
    return found["halved"]


def bad(findings):
    return [(f.section, f.name, f.note) for f in findings if not f.equal]


def doubled(dtype="float64"):
    return {name: array * 2 for name, array in refnet.fill.params(NET, 5, dtype).items()}


# Parameters.


@pytest.mark.parametrize("hashes_only", [False, True])
def test_parameters_of_ones_own_are_stored_and_the_rest_is_derived_from_them(tmp_path, hashes_only):
    bundle = golden.make(tmp_path / "b", RECIPE, params=doubled(), hashes_only=hashes_only)
    run = refnet.forward(NET, doubled() | refnet.fill.inputs(NET))
    assert bundle.entries["blobs"]["res4_1_relu"]["sha256"] == sha(run.blobs["res4_1_relu"])
    assert all(entry["file"] for entry in bundle.entries["params"].values())
    assert bundle.manifest["recipe"]["own"] == {"params": None}
    findings = golden.verify(bundle)
    assert not bad(findings)
    assert {f.section for f in findings if not f.derived} == {"params"}
    assert sum(not f.derived for f in findings) == len(NET.params)
    assert candidate.given(bundle, NET)["params"]["conv1_w"].tobytes() == doubled()["conv1_w"].tobytes()

    file = bundle.path / "params.safetensors"
    stored = load_file(file)
    save_file({**stored, "conv1_w": stored["conv1_w"] + 1}, file)
    found = bad(golden.verify(bundle.path))
    assert found[0] == ("params", "conv1_w", "stored bits are not those of its SHA-256")
    assert ("blobs", "conv1") in [(section, name) for section, name, _ in found]
    file.unlink()
    with pytest.raises(FileError, match=r"params\.safetensors is not a file of the bundle"):
        golden.verify(bundle.path)


def test_parameters_that_are_not_stored_are_missed(tmp_path):
    bundle = golden.make(tmp_path / "b", RECIPE, params=doubled(), hashes_only=True)
    edit(bundle.path, lambda m: m["tensors"]["params"]["conv1_w"].update(file=None))
    with pytest.raises(FileError, match="holds no params conv1_w, and nobody can derive them: expected"):
        golden.verify(bundle.path)


@pytest.mark.parametrize("form", ["npz", "safetensors", "folder", "prefixed"])
def test_parameters_are_read_from_a_file(refnet, tmp_path, form):
    params = doubled("float32")
    where = tmp_path / f"mine.{'npz' if form == 'prefixed' else form}"
    if form == "folder":
        where.mkdir()
        for name, array in params.items():
            np.save(where / f"{name}.npy", array)
    elif form == "safetensors":
        save_file(params, where)
    else:
        np.savez(where, **{f"param/{n}" if form == "prefixed" else n: a for n, a in params.items()})
    code, out, _ = refnet("golden", "make", "resnet18_conv4", "b", *SMALL, "--params", where.name)
    assert code == 0 and f"parameters of {where.name}" in out
    bundle = golden.Bundle("b")
    assert bundle.recipe.own["params"].name == where.name
    assert (bundle.recipe.own["params"].sha256 is None) == (form == "folder")
    assert bundle["conv1_w"].dtype == "float64"
    assert all(np.array_equal(bundle[name], params[name]) for name in NET.params)
    code, out, _ = refnet("golden", "verify", "b")
    assert code == 0 and "b: derived again: 113 of 113 tensors equal bit for bit." in out
    assert "Not derived, but taken as stored: 63 params." in out


def test_a_file_of_other_parameters_is_refused(refnet, tmp_path):
    params = doubled()
    make = ["golden", "make", "resnet18_conv4", "b", *SMALL, "--params"]

    def refused(params, *words):
        np.savez("mine.npz", **params)
        fails(refnet(*make, "mine.npz"), "mine.npz", *words)
        assert [file.name for file in tmp_path.iterdir()] == ["mine.npz"]

    few = {name: params[name] for name in list(params)[2:]}
    refused(few, "lacks conv1_w and 1 more", "expected all 63 parameters of resnet18_conv4")
    refused(params | {"conv1_v": params["conv1_w"]}, "unknown parameter", "conv1_v", "did you mean conv1_w")
    refused(params | {"param/conv1_w": params["conv1_w"]}, "holds conv1_w twice")
    refused(params | {"conv1_w": params["conv1_w"][:3]}, "conv1_w has shape 3x3x1x7x7", "64x3x1x7x7")
    refused(params | {"conv1_w": params["conv1_w"].astype(int)}, "conv1_w is int64", "float32 or float64")
    nan = np.full(params["conv1_w"].shape, 0x7FA00000, np.uint32).view(np.float32)  # signalling ones
    np.savez("mine.npz", **params | {"conv1_w": nan})
    fails(refnet(*make, "mine.npz"), "conv1_w has", "non-finite", "numbers (or --allow-nonfinite)\n")
    assert refnet(*make, "mine.npz", "--allow-nonfinite")[0] == 0
    shutil.rmtree("b")
    np.savez("mine.npz", **params)
    fails(
        refnet(*make, "mine.npz", "--dtype", "float32"), "conv1_w is float64", "expected float32", "--dtype"
    )
    fails(refnet(*make, "none.npz"), "none.npz does not exist")


# An arithmetic.


def test_of_an_arithmetic_of_ones_own_what_it_was_given_is_derived(tmp_path):
    bundle = golden.make(tmp_path / "b", replace(RECIPE, arithmetic=halved()))
    assert bundle.recipe.arithmetic == "core with conv3d replaced" and bundle.bits == "unknown"
    assert bundle.recipe.owns_arithmetic and bundle.manifest["recipe"]["own"] == {"arithmetic": None}
    right = golden.make(tmp_path / "c", RECIPE)
    assert np.array_equal(bundle["conv1"], right["conv1"] / 2)

    findings = golden.verify(bundle)
    assert not bad(findings)
    assert {f.section for f in findings if f.derived} == {"inputs", "params", "output_gradients"}
    assert len(findings) == 176
    findings = golden.verify(bundle, halved())
    assert not bad(findings) and all(f.derived for f in findings) and len(findings) == 176
    assert bad(golden.verify(bundle, refnet.arithmetic.core))[0][:2] == ("blobs", "conv1")
    with pytest.raises(ValueRangeError, match="was made by core: expected an arithmetic only where"):
        golden.verify(right, halved())

    edit(bundle.path, lambda m: m["tensors"]["params"]["conv1_w"].update(sha256="0" * 64))
    edit(bundle.path, lambda m: m["tensors"]["blobs"]["pool1"].update(sha256="0" * 64))
    edit(bundle.path, lambda m: m["tensors"]["blobs"].pop("res4_1_sum"))
    assert bad(golden.verify(bundle.path)) == [
        ("params", "conv1_w", "stored bits are not those of its SHA-256"),
        ("blobs", "pool1", "stored bits are not those of its SHA-256"),
        ("blobs", "res4_1_sum", "missing from the manifest"),
    ]


def test_an_arithmetic_of_ones_own_on_the_command_line(refnet, module):
    own = ("--arithmetic", "halves:halved")
    code, out, _ = refnet("golden", "make", "resnet18_conv4", "b", *SMALL, *own)
    assert code == 0 and "core with conv3d replaced" in out
    source = {"arithmetic": {"name": "halves:halved", "sha256": None}}
    assert json.loads(Path("b/manifest.json").read_text())["recipe"]["own"] == source
    code, out, _ = refnet("golden", "verify", "b")
    assert code == 0 and "b: derived again: 65 of 65 tensors equal bit for bit." in out
    assert "Not derived: 69 blobs, 42 gradients, computed by an arithmetic of somebody's own" in out
    assert "--arithmetic halves:halved derives by it" in out
    code, out, _ = refnet("golden", "verify", "b", *own)
    assert code == 0 and out == "b: derived again: 176 of 176 tensors equal bit for bit.\n"
    fails(refnet("golden", "verify", "b", "--against", "exact", *own), "--against and --arithmetic")
    fails(refnet("golden", "verify", "b", "--arithmetic", "halves:none"), "none")


def test_a_bundle_that_says_that_known_bits_are_unknown_is_refused(made, tmp_path):
    path = shutil.copytree(made.path, tmp_path / "copy")
    edit(path, lambda m: m.update(bits="unknown"))
    with pytest.raises(FileError, match="'unknown': expected every machine, for core"):
        golden.Bundle(path)
    edit(path, lambda m: m["recipe"]["own"].update(arithmetic=None))
    assert golden.Bundle(path).recipe.owns_arithmetic
    edit(path, lambda m: m.update(bits="every machine"))
    with pytest.raises(FileError, match="'every machine': expected unknown, for core"):
        golden.Bundle(path)


# A run.


def of_two_inputs():
    """A network of nobody's catalog: two inputs, one of them labels, two outputs, a stop."""
    net = refnet.Net()
    x = net.input("video", (2, 3, 2, 6, 6))
    w, v = net.param("first", (4, 3, 1, 3, 3)), net.param("second", (5, 8))
    y = net.add("relu", "rectified", (net.add("conv3d", "filtered", (x, w), pad=(0, 1, 1)),))
    net.output(net.add("stop_gradient", "stopped", (y,)))
    pooled = net.add("global_average_pool", "pooled", (y,))
    scores = net.add("linear", "scores", (pooled, v))
    net.output(net.add("cross_entropy", "loss", (scores, net.input("classes", (2,)))))
    rng = np.random.default_rng(0)
    shapes = net.inputs | net.params
    given = {name: rng.standard_normal(shape) for name, shape in shapes.items() if name != "classes"}
    return net, given | {"classes": np.array([1, 4])}


@pytest.mark.parametrize("arithmetic", ["core", "exact", "reference"])
def test_a_run_is_saved_with_all_that_it_was_given(tmp_path, arithmetic):
    net, given = of_two_inputs()
    run = refnet.forward(net, given, arithmetic)
    dys = {"loss": np.array(2.0), "pooled": np.full((2, 4, 2, 1, 1), 3.0)}
    gradients = refnet.backward(run, dys)
    bundle = run.save(tmp_path / "b", gradients)
    assert bundle.path == tmp_path / "b" and bundle.recipe.arithmetic == arithmetic
    for name, array in (given | run.blobs).items():
        assert bundle[name].tobytes() == array.tobytes() and bundle[name].dtype == array.dtype
    assert all(bundle[f"d {name}"].tobytes() == array.tobytes() for name, array in gradients.items())
    assert {"d output loss", "d output pooled", "d first", "d video"} <= {*bundle}
    assert bundle.blocked == gradients.blocked
    twin = bundle.net()
    assert (twin.nodes, twin.outputs, twin.inputs) == (
        [node._replace(attrs=other.attrs) for node, other in zip(net.nodes, twin.nodes, strict=True)],
        net.outputs,
        net.inputs,
    )
    findings = golden.verify(bundle)
    assert not bad(findings)
    computed = {f.section for f in findings if f.derived}
    assert computed == {"blobs", "gradients"} and sum(not f.derived for f in findings) == 6
    assert all(rounding.explained for rounding in golden.against(bundle))
    assert not bad(golden.diff(bundle.path, bundle.path))


def test_a_run_without_gradients_or_by_an_arithmetic_of_ones_own_is_saved(tmp_path):
    net, given = of_two_inputs()
    plain = refnet.forward(net, given).save(tmp_path / "a")
    assert not plain.recipe.backward and not plain.entries["gradients"] and not bad(golden.verify(plain))
    run = refnet.forward(net, given, halved())
    saved = run.save(tmp_path / "b", refnet.backward(run, {"loss": np.array(1.0)}))
    findings = golden.verify(saved)
    assert not bad(findings) and not any(f.derived for f in findings)
    assert not bad(golden.verify(saved, halved()))


def test_where_nothing_can_be_derived_nothing_is_verified(refnet, tmp_path):
    import refnet as package

    net, given = of_two_inputs()
    package.forward(net, given, halved()).save("b")
    code, out, _ = refnet("golden", "verify", "b")
    assert code == 1 and "0 of 0 tensors equal" in out and "Not derived: 6 blobs" in out
    assert json.loads(refnet("golden", "verify", "b", "--json")[1])["ok"] is False
    package.forward(net, given).save("c")
    assert refnet("golden", "verify", "c")[0] == 0
    claims = [word for claim in ("store", "accumulate", "operands") for word in (f"--{claim}", "float64")]
    code, _, _ = refnet("certify", "c", "c", *claims, "--html", "c.html")
    page = Path("c.html").read_text()
    assert code == 0 and "a network of its own" in page


def test_what_cannot_be_saved_is_refused(tmp_path):
    net, given = of_two_inputs()
    run = refnet.forward(net, given)
    gradients = refnet.backward(run, {"loss": np.array(1.0)})
    lean = refnet.forward(net, given, keep="outputs")
    with pytest.raises(ValueRangeError, match=r"did not keep filtered: expected one of forward\(..., keep="):
        lean.save(tmp_path / "b")
    with pytest.raises(DTypeError, match="gradients is a dict: expected a Gradients, as refnet"):
        run.save(tmp_path / "b", dict(gradients))
    with pytest.raises(UnknownNameError, match="unknown group of tensors to store 'blob'"):
        run.save(tmp_path / "b", only=["blob"])
    with pytest.raises(ValueRangeError, match=r"only is 'blobs': expected a list of names"):
        run.save(tmp_path / "b", only="blobs")
    with pytest.raises(UnknownNameError, match="unknown format to store values in 'float16'"):
        run.save(tmp_path / "b", store="float16")
    single = {name: a.astype("float32") if a.dtype == float else a for name, a in given.items()}
    with pytest.raises(ValueRangeError, match="store is float32 and dtype float32"):
        refnet.forward(net, single).save(tmp_path / "b", store="float32")
    for name in ("__metadata__", "half \ud800"):
        odd = refnet.Net()
        odd.output(odd.add("relu", name, (odd.input("x", (1, 1, 1, 1, 1)),)))
        with pytest.raises(ValueRangeError, match="which no file can hold"):
            refnet.forward(odd, {"x": np.ones((1, 1, 1, 1, 1))}).save(tmp_path / "b")
    assert not list(tmp_path.iterdir())
    run.save(tmp_path / "b")
    with pytest.raises(FileError, match="exists: expected a new folder's name"):
        run.save(tmp_path / "b", gradients)
    assert run.save(tmp_path / "b", gradients, force=True).recipe.backward


def test_a_kernel_that_returns_columns_first_is_saved_right(tmp_path):
    core = refnet.arithmetic.core
    kernel = core.kernels["relu"]
    other = refnet.Kernel(lambda x: (np.asfortranarray(kernel.forward(x)[0]), x > 0), kernel.backward)
    net, given = of_two_inputs()
    run = refnet.forward(net, given, core.replace(relu=other))
    assert not run.blobs["rectified"].flags.c_contiguous
    bundle = run.save(tmp_path / "b")
    assert np.array_equal(bundle["rectified"], run.blobs["rectified"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["recipe"].update(input=[1]), "architecture is null: expected null for input"),
        (lambda m: m["recipe"].update(seed=0), "architecture is null: expected null for input"),
        (lambda m: m["recipe"].update(options={"groups": 1}), "architecture is null: .* no options"),
        (
            lambda m: m["recipe"]["own"].pop("params"),
            "is null: expected params among what is own",
        ),
        (lambda m: m["recipe"]["own"].update(params={"name": 1, "sha256": None}), "name of own params is 1"),
        (lambda m: m["recipe"]["own"].update(params={"name": "x", "sha256": "x"}), "expected 64 hex digits"),
        (lambda m: m["recipe"]["own"].update(params={"path": "x"}), "is damaged"),
        (lambda m: m["recipe"]["own"].update(more=None), "unknown thing of somebody's own 'more'"),
        (lambda m: m["recipe"].update(own=[]), r"own is \[\]: expected a JSON dict"),
        (lambda m: m["recipe"].update(store="float16"), "unknown format to store values in 'float16'"),
        (lambda m: m.pop("graph"), "is damaged"),
        (lambda m: m.update(graph=[]), "graph has no nodes and outputs"),
        (lambda m: m["graph"].update(more=1), "graph has no nodes and outputs"),
        (lambda m: m["graph"].update(outputs=[1]), "graph has no nodes and outputs"),
        (lambda m: m["graph"].update(outputs=["none"]), "the graph is of no network: unknown node 'none'"),
        (lambda m: m["graph"]["nodes"].append(3), "node 6 of the graph is another thing than expected"),
        (lambda m: m["graph"]["nodes"][0].pop("inputs"), "node 0 of the graph is another thing"),
        (lambda m: m["graph"]["nodes"][0].update(operator="eval"), "unknown operator of filtered 'eval'"),
        (lambda m: m["graph"]["nodes"][0].update(operator=[]), "unknown operator of filtered"),
        (lambda m: m["graph"]["nodes"][0].update(inputs=["video", "none"]), "unknown blob 'none'"),
        (
            lambda m: m["graph"]["nodes"][0]["attributes"].update(pad="x"),
            "pad of filtered is 'x': expected",
        ),
        (lambda m: m["graph"]["nodes"][0]["attributes"].update(pad=[0, 1]), "of no network: .* three whole"),
        (lambda m: m["graph"]["nodes"][0]["attributes"].update(pad=[0, 1, 10**30]), "of no network"),
        (lambda m: m["graph"]["nodes"][0]["attributes"].update(groups=True), "groups of filtered is True"),
        (lambda m: m["graph"]["nodes"][0]["attributes"].update(more=1), "of no network: .* 'more'"),
        (lambda m: m["graph"]["nodes"][0].update(name="video"), "'video' is written twice"),
        (lambda m: m["tensors"]["inputs"]["video"].update(shape=[2, 3, 2, 10**8, 10**8]), "of memory"),
        (lambda m: m["tensors"]["inputs"]["video"].update(dtype="float32"), "is float64 .* expected float32"),
    ],
)
def test_hostile_manifests_of_runs_are_refused(tmp_path, change, message):
    net, given = of_two_inputs()
    path = refnet.forward(net, given).save(tmp_path / "b").path
    edit(path, change)
    with pytest.raises(RefnetError, match=message):
        golden.verify(path)


# A part of it, or rounded.


def test_values_of_named_groups_alone_are_stored(tmp_path):
    for only, files in (
        (["outputs", "gradients"], {"blobs": ["res4_1_relu"], "gradients": None}),
        (["inputs"], {"inputs": None}),
        (["params", "output_gradients"], {"params": None, "output_gradients": None}),
        (["blobs", "outputs"], {"blobs": None}),
        ([], {}),
    ):
        bundle = golden.make(tmp_path / "b", RECIPE, only=only, force=True)
        found = {file.stem for file in bundle.path.glob("*.safetensors")}
        assert found == files.keys()
        for section, names in files.items():
            stored = load_file(bundle.path / f"{section}.safetensors")
            assert sorted(stored) == sorted(bundle.entries[section] if names is None else names)
        assert not bad(golden.verify(bundle)) and len(golden.verify(bundle)) == 176
    with pytest.raises(ValueRangeError, match="only and hashes_only are given: expected one"):
        golden.make(tmp_path / "c", RECIPE, only=["blobs"], hashes_only=True)


def test_a_bundle_of_a_part_is_a_candidate(tmp_path):
    bundle = golden.make(tmp_path / "b", RECIPE, only=["outputs", "gradients"])
    found = candidate.read(bundle.path, NET)
    assert [*found.blobs] == ["res4_1_relu"] and found.gradients.keys() == bundle.entries["gradients"].keys()
    with pytest.raises(
        FileError,
        match=r"holds only the hash of conv1: .* or only=\[...\]; refnet.golden.make",
    ):
        bundle["conv1"]
    with pytest.raises(FileError, match="holds only the hash of inputs data"):
        golden.against(bundle)


def test_values_are_rounded_once_when_they_are_stored(tmp_path, made):
    bundle = golden.make(tmp_path / "b", replace(RECIPE, store="float32"))
    for name in made:
        assert bundle[name].dtype == "float32"
        assert np.array_equal(bundle[name], made[name].astype("float32"))
    assert not bad(golden.verify(bundle)) and len(golden.verify(bundle)) == 176
    start = candidate.given(bundle, NET)
    assert start["params"]["conv1_w"].tobytes() == made["conv1_w"].tobytes()
    with pytest.raises(FileError, match="holds values rounded to float32"):
        golden.against(bundle)
    files = [sum(f.stat().st_size for f in b.path.glob("*.safetensors")) for b in (bundle, made)]
    assert files[0] < 0.52 * files[1]


def test_what_nobody_could_derive_is_not_rounded(tmp_path):
    params = {name: array / 3 for name, array in doubled().items()}
    bundle = golden.make(tmp_path / "b", replace(RECIPE, store="float32"), params=params)
    assert bundle["conv1_w"].tobytes() == params["conv1_w"].tobytes()
    assert bundle["conv1"].dtype == bundle["d output res4_1_relu"].dtype == "float32"
    assert not bad(golden.verify(bundle))
    edit(bundle.path, lambda m: m["recipe"].update(own={}))
    assert bad(golden.verify(bundle.path))[0][:2] == ("params", "conv1_w")


def test_parts_and_rounding_on_the_command_line(refnet):
    make = ("golden", "make", "resnet18_conv4")
    code, out, _ = refnet(*make, "b", *SMALL, "--only", "outputs,gradients", "--store", "float32")
    assert code == 0 and "float64, stored in float32, core" in out
    assert "blobs.safetensors, SHA-256 only" in out
    assert refnet("golden", "verify", "b")[0] == 0
    fails(refnet(*make, "c", "--only", "output"), "unknown group of --only 'output'", "outputs")
    fails(refnet(*make, "c", "--only", "outputs", "--hashes-only"), "--only outputs and --hashes-only")
    fails(refnet(*make, "c", "--only", "gradients", "--no-backward"), "there are no gradients")
    fails(refnet(*make, "c", "--store", "float16"), "'float16'", "float32")
    fails(
        refnet(*make, "c", "--store", "float32", "--dtype", "float32"), "store is float32 and dtype float32"
    )
    assert not Path("c").exists()


# Names.


def test_a_tensor_is_found_by_its_name(made, tmp_path):
    run = refnet.forward(NET, refnet.fill.params(NET) | refnet.fill.inputs(NET))
    dys = refnet.fill.output_gradients(NET)
    gradients = refnet.backward(run, dys)
    expected = run.given | run.blobs
    expected |= {f"d {name}": array for name, array in gradients.items()}
    expected |= {f"d output {name}": array for name, array in dys.items()}
    assert {*made} == expected.keys() == {*made._ipython_key_completions_()} and len(made) == len(expected)
    assert all(made[name].tobytes() == array.tobytes() for name, array in expected.items())
    assert "conv1" in made and "conv" not in made and 3 not in made
    with pytest.raises(UnknownNameError, match="unknown tensor of .* 'conv0': did you mean conv1"):
        made["conv0"]
    original, expected = refnet.interop.caffe2.blobs(made), refnet.interop.caffe2.blobs(run)
    assert original.keys() == expected.keys() and np.array_equal(original["conv1"], made["conv1_relu"])
    assert all(original[name].tobytes() == array.tobytes() for name, array in expected.items())
    path = shutil.copytree(made.path, tmp_path / "copy")
    edit(path, lambda m: m["tensors"]["blobs"]["pool1"].update(sha256="0" * 64))
    with pytest.raises(FileError, match="is damaged: the bits of blobs pool1 are not those of its SHA-256"):
        golden.Bundle(path)["pool1"]


def test_a_bundle_of_hashes_says_how_its_tensors_are_derived(tmp_path):
    """What its message says works; where something is somebody's own, it says nothing of the kind."""
    bundle = golden.make(tmp_path / "b", RECIPE, hashes_only=True)
    with pytest.raises(FileError, match=r"; refnet.golden.make\(folder, bundle.recipe\) derives one$"):
        bundle["conv1"]
    again = golden.make(tmp_path / "c", bundle.recipe)
    assert again.entries["blobs"]["conv1"]["sha256"] == bundle.entries["blobs"]["conv1"]["sha256"]
    assert again["conv1"].shape == tuple(again.entries["blobs"]["conv1"]["shape"])
    own = golden.make(tmp_path / "d", RECIPE, params=doubled(), hashes_only=True)
    with pytest.raises(FileError, match=r"made without hashes_only=True or only=\[...\]$"):
        own["conv1"]


def test_messages_name_parameters_in_python_and_options_in_a_terminal(refnet, tmp_path):
    bundle = golden.make(tmp_path / "b", RECIPE, hashes_only=True)
    with pytest.raises(FileError, match="expected a new folder's name, or force=True to replace it"):
        golden.make(tmp_path / "b", RECIPE)
    fails(refnet("golden", "make", "resnet18_conv4", "b"), "a new folder's name, or --force to replace it")
    with pytest.raises(FileError, match=r"without hashes_only=True or only=\[...\]$"):
        candidate.read(bundle.path, NET)
    fails(refnet("certify", "b", "b"), "made without --hashes-only or --only")
    save_file(doubled(), tmp_path / "w.safetensors")
    with pytest.raises(DTypeError, match='is float64: expected float32, or a run of dtype="float64"$'):
        golden.params_recipe(tmp_path / "w.safetensors", replace(RECIPE, dtype="float32"))
    make = ("golden", "make", "resnet18_conv4", "c", *SMALL, "--dtype", "float32")
    fails(refnet(*make, "--params", "w.safetensors"), "or a run of --dtype float64")


def test_a_recipe_is_asked_for_by_one(tmp_path):
    words = "recipe is a str: expected a Recipe, as refnet.golden.Recipe"
    with pytest.raises(DTypeError, match=words) as found:
        golden.make("resnet18_conv4", str(tmp_path / "b"))
    example = str(found.value).partition(", as ")[2]
    assert eval(example, {"refnet": refnet}).structure().outputs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": None}, "input has shape None: expected 5 whole numbers, in a tuple"),
        ({"input": (1, 3, 32, 32)}, "rank 4"),
        ({"options": None}, 'options is None: expected a dict, as {"time_kernel": 3}'),
        ({"options": [("time_kernel", 3)]}, "options is a list: expected a dict"),
    ],
)
def test_a_recipe_of_other_kinds_gets_a_line(tmp_path, changes, words):
    with pytest.raises(RefnetError, match=re.escape(words)):
        golden.make(tmp_path / "b", replace(RECIPE, **changes))


def test_a_run_is_saved_by_its_hashes_alone(tmp_path):
    run = refnet.forward(NET, refnet.fill.inputs(NET) | doubled())
    bundle = run.save(tmp_path / "b", hashes_only=True)
    whole = run.save(tmp_path / "c")
    assert {e["sha256"] for e in bundle.entries["blobs"].values()} == {
        e["sha256"] for e in whole.entries["blobs"].values()
    }
    assert all(e["file"] is None for e in bundle.entries["blobs"].values())
