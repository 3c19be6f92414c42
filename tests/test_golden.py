"""Golden bundles: what is in them, that they verify, and that nothing bad passes or is left behind."""

import json
import os
import shutil
import socket
import struct
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import edit, every_dtype
from threadpoolctl import threadpool_limits

import refnet
from refnet import bounded_json, clip, golden, memory, placing
from refnet.arrays import with_one_nan
from refnet.errors import FileError, RefnetError, TooLargeError
from refnet.golden import candidate
from refnet.golden.bundle import sha
from refnet.golden.recipe import BITS
from refnet.inputs import safetensors_file
from refnet.networks import ARCHITECTURES

RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4, "time_kernel": 1})
SOURCE = {"name": "x.npy", "sha256": "0" * 64, "frames": 2, "stride": 1, "start": 0, "size": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return golden.make(tmp_path_factory.mktemp("golden") / "bundle", RECIPE).path


@pytest.fixture
def bundle(made, tmp_path):
    """A copy to break."""
    import shutil

    return shutil.copytree(made, tmp_path / "copy")


def bad(findings):
    return {(finding.section, finding.name): finding for finding in findings if not finding.equal}


def test_a_bundle_holds_everything_of_a_run(made):
    manifest = json.loads((made / "manifest.json").read_text())
    assert {file.name for file in made.iterdir()} == {
        "manifest.json",
        *(f"{section}.safetensors" for section in golden.SECTIONS),
    }
    net = refnet.build("resnet18_conv4", input=(1, 3, 1, 32, 32), width_per_group=4, time_kernel=1)
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    run = refnet.forward(net, given)
    dy = refnet.fill.output_gradients(net)
    grads = refnet.backward(run, dy)
    expected = {
        "inputs": {"data": given["data"]},
        "params": {name: given[name] for name in net.params},
        "blobs": run.blobs,
        "output_gradients": dy,
        "gradients": dict(grads),
    }
    for section, arrays in expected.items():
        stored = load_file(made / f"{section}.safetensors")
        entries = manifest["tensors"][section]
        assert stored.keys() == arrays.keys() == entries.keys()
        for name, array in arrays.items():
            assert stored[name].tobytes() == array.tobytes()
            assert entries[name] == {
                "shape": list(array.shape),
                "dtype": "float64",
                "sha256": sha256(array.tobytes()).hexdigest(),
                "file": f"{section}.safetensors",
            }
    assert set(manifest["blocked"]) == grads.blocked
    options = manifest["recipe"]["options"]
    assert options == {
        "transformation": "bottleneck",
        "freeze_at": 2,
        "time_kernel": 1,
        "time_stride": False,
        "groups": 1,
        "width_per_group": 4,
        "stride_1x1": True,
        "dilation": 1,
        "batch_norm": False,
        "training": False,
    }
    assert (
        manifest["format_version"] == 3
        and manifest["bits"] == "every machine"
        and manifest["refnet"] == refnet.__version__
    )
    assert manifest["machine"]["numpy"] == np.__version__


def test_it_verifies_bit_for_bit(made):
    findings = golden.verify(made)
    assert len(findings) == 1 + 63 + 69 + 1 + 42
    assert not bad(findings)


@pytest.mark.parametrize("arithmetic", refnet.arithmetic.ARITHMETICS)
@every_dtype
def test_every_arithmetic_and_dtype(tmp_path, arithmetic, dtype):
    recipe = replace(RECIPE, arithmetic=arithmetic, dtype=dtype, seed=3)
    path = golden.make(tmp_path / "b", recipe).path
    assert not bad(golden.verify(path))
    assert load_file(path / "blobs.safetensors")["pool1"].dtype == dtype
    assert golden.Bundle(path).bits == ("one machine" if arithmetic == "reference" else "every machine")


def test_what_needed_integers_is_in_the_manifest(tmp_path):
    """By node and tensor, as forward and backward count; the same for any number of threads; a mere fact."""
    recipe = replace(RECIPE, arithmetic="exact", dtype="float32")
    found = []
    for threads in (1, 3):
        with threadpool_limits(threads):
            path = golden.make(tmp_path / f"{threads}", recipe).path
        found.append(json.loads((path / "manifest.json").read_text())["fallbacks"])
    assert found[0] == found[1]
    net = recipe.net()
    run = refnet.forward(
        net, refnet.fill.params(net, 0, "float32") | refnet.fill.inputs(net, 0, "float32"), "exact"
    )
    gradients = refnet.backward(run, refnet.fill.output_gradients(net, 0, "float32"))
    counted = golden.Bundle(path).fallbacks
    assert counted == {"forward": run.fallbacks, "backward": gradients.fallbacks}
    counts = [c for of in counted.values() for by_what in of.values() for c in by_what.values()]
    assert found[0]["total"] == {
        "elements": sum(c.elements for c in counts),
        "undecided": sum(c.undecided for c in counts),
    }
    conv1 = np.prod(net.nodes[0].shape)
    assert found[0]["forward"]["conv1"]["y"]["elements"] == conv1 and counted["backward"][
        "res4_1_branch2c"
    ].keys() == {"dx", "dw"}

    edit(path, lambda m: m["fallbacks"]["forward"]["conv1"]["y"].update(undecided=1))
    assert not bad(golden.verify(path))
    edit(path, lambda m: m["fallbacks"]["forward"]["conv1"]["y"].update(undecided=int(conv1) + 1))
    with pytest.raises(FileError, match=f"fallbacks of conv1, y, undecided is larger than {conv1}"):
        golden.Bundle(path)
    edit(path, lambda m: m["fallbacks"].pop("forward"))
    with pytest.raises(FileError, match="damaged"):
        golden.Bundle(path)


def test_of_every_arithmetic_it_is_said_to_whom_its_bits_belong():
    assert BITS.keys() == refnet.arithmetic.ARITHMETICS.keys()


@pytest.mark.parametrize("count", [1, 400_000])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", ">f8"])
def test_a_hash_is_of_every_byte_in_c_order(count, dtype):
    """Also of those behind the first megabyte."""
    values = np.arange(count).astype(dtype).reshape(count, 1)
    little = np.dtype(dtype).newbyteorder("<")
    for array in (
        values,
        values.T,
        np.broadcast_to(values, (count, 2)),
        np.asfortranarray(values.reshape(1, -1)),
    ):
        assert sha(array) == sha256(array.astype(little).tobytes()).hexdigest()
    before = sha(values)
    values[-1] += 1
    assert sha(values) != before


def test_without_backward(tmp_path):
    path = golden.make(tmp_path / "b", replace(RECIPE, backward=False)).path
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["blocked"] == []
    assert manifest["tensors"]["gradients"] == manifest["tensors"]["output_gradients"] == {}
    assert not (path / "gradients.safetensors").exists()
    assert not bad(golden.verify(path))


def test_hashes_only_finds_every_change_too(tmp_path):
    path = golden.make(tmp_path / "b", RECIPE, hashes_only=True).path
    assert [file.name for file in path.iterdir()] == ["manifest.json"]
    assert not bad(golden.verify(path))
    edit(path, lambda m: m["tensors"]["blobs"]["pool1"].update(sha256="0" * 64))
    assert set(bad(golden.verify(path))) == {("blobs", "pool1")}
    full = golden.make(tmp_path / "full", RECIPE).path
    found = bad(golden.diff(path, full))
    assert set(found) == {("blobs", "pool1")}
    finding = found["blobs", "pool1"]
    assert finding.note == "other SHA-256; values are not stored" and finding.elements == 64 * 8 * 8
    assert (finding.different, finding.max_ulp) == (None, None)


def test_another_dtype_in_the_manifest_is_found_by_hashes_too(tmp_path):
    """Though the bytes are those of its SHA-256."""
    path = golden.make(tmp_path / "b", RECIPE, hashes_only=True).path
    edit(path, lambda m: m["tensors"]["blobs"]["pool1"].update(dtype="float32"))
    (finding,) = bad(golden.verify(path)).values()
    assert (
        finding.name == "pool1" and finding.note.startswith("float32") and "derived float64" in finding.note
    )


def test_a_clip_is_stored_and_named(tmp_path, video):
    selection = clip.Selection(frames=2, stride=3, start=1, size=(32, 32), resize="area")
    recipe, pixels = golden.clip_recipe(video, selection, RECIPE)
    assert recipe.input == pixels.shape == (1, 3, 2, 32, 32)
    for hashes_only in (False, True):
        path = golden.make(tmp_path / f"{hashes_only}", recipe, pixels=pixels, hashes_only=hashes_only).path
        source = json.loads((path / "manifest.json").read_text())["recipe"]["clip"]
        assert source["name"] == "bigbuckbunny.mp4"
        assert source["sha256"] == sha256(video.read_bytes()).hexdigest()
        assert source["size"] == [32, 32] and source["stride"] == 3 and source["resize"] == "area"
        assert (path / "inputs.safetensors").exists()
        assert not bad(golden.verify(path))
    (path / "inputs.safetensors").unlink()
    with pytest.raises(RefnetError, match="inputs.safetensors is not a file of the bundle"):
        golden.verify(path)


def test_one_changed_bit_is_found_and_measured(bundle):
    file = bundle / "blobs.safetensors"
    blobs = load_file(file)
    blobs["pool1"].ravel()[5] = np.nextafter(blobs["pool1"].ravel()[5], np.inf)
    save_file(blobs, file)
    (finding,) = bad(golden.verify(bundle)).values()
    assert (finding.name, finding.different, finding.max_ulp) == ("pool1", 1, 1)
    assert "SHA-256" in finding.note


def test_a_changed_hash_is_found_though_the_tensor_is_right(bundle):
    edit(bundle, lambda m: m["tensors"]["gradients"]["res4_0_branch2a_w"].update(sha256="f" * 64))
    (finding,) = bad(golden.verify(bundle)).values()
    assert finding.name == "res4_0_branch2a_w" and finding.different == 0


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda m: m["recipe"].update(seed=1), None),
        (lambda m: m["blocked"].remove("data"), {("blocked", "data")}),
        (lambda m: m["blocked"].append("res4_0_branch2a_w"), {("blocked", "res4_0_branch2a_w")}),
        (lambda m: m["tensors"]["blobs"].pop("conv1"), {("blobs", "conv1")}),
        (
            lambda m: m["tensors"]["blobs"].update(more=m["tensors"]["blobs"]["conv1"]),
            {("blobs", "more")},
        ),
        (lambda m: m["tensors"]["params"]["conv1_w"].update(shape=[1]), {("params", "conv1_w")}),
    ],
)
def test_a_manifest_that_says_something_else_is_found(bundle, change, names):
    edit(bundle, change)
    found = set(bad(golden.verify(bundle)))
    assert found == names if names else len(found) > 100


def test_diff_counts_bits_and_ulp(made, bundle):
    assert not bad(golden.diff(made, bundle))
    file = bundle / "gradients.safetensors"
    grads = load_file(file)
    array = grads["res4_1_branch2c_w"].ravel()
    array[:3] *= 1 + 2.0**-50
    save_file({k: v for k, v in grads.items() if k != "res4_1_branch2b_w"}, file)
    edit(bundle, lambda m: m["tensors"]["gradients"].pop("res4_1_branch2b_w"))
    found = bad(golden.diff(made, bundle))
    assert "not those of its SHA-256" in found["gradients", "res4_1_branch2c_w"].note
    right = sha256(grads["res4_1_branch2c_w"].tobytes()).hexdigest()
    edit(bundle, lambda m: m["tensors"]["gradients"]["res4_1_branch2c_w"].update(sha256=right))
    found = bad(golden.diff(made, bundle))
    assert set(found) == {("gradients", "res4_1_branch2b_w"), ("gradients", "res4_1_branch2c_w")}
    finding = found["gradients", "res4_1_branch2c_w"]
    assert finding.different == 3 and 4 <= finding.max_ulp <= 9
    assert "missing from" in found["gradients", "res4_1_branch2b_w"].note


def test_diff_of_other_shapes_says_so(made, tmp_path):
    other = golden.make(tmp_path / "b", replace(RECIPE, input=(1, 3, 2, 32, 32))).path
    found = bad(golden.diff(made, other))
    assert "not comparable: float64 1x3x1x32x32 and float64 1x3x2x32x32" in found["inputs", "data"].note


# Where a difference begins.


def differing(findings):
    """What differs, in order, and whether it may do so for something before it."""
    return [(f.section, f.name, f.node, f.op, f.follows) for f in findings if not f.equal]


def test_tensors_are_compared_in_the_order_of_the_walk(made):
    findings = golden.verify(made)
    net = RECIPE.net()
    computed = [f for f in findings if f.op]
    forward, backward = computed[: len(net.nodes)], computed[len(net.nodes) :]
    assert [(f.name, f.node, f.op) for f in forward] == [
        (node.name, node.name, node.op) for node in net.nodes
    ]
    assert {f.section for f in backward} == {"gradients"} and len(backward) == 42
    places = [next(i for i, node in enumerate(net.nodes) if node.name == f.node) for f in backward]
    assert places == sorted(places, reverse=True)
    assert all(f.name in net.nodes[place].inputs for f, place in zip(backward, places, strict=True))
    assert all(f.elements and f.different == f.max_ulp == 0 and not f.follows for f in findings)
    assert golden.first_difference(findings) is None
    names = [(f.section, f.name) for f in golden.diff(made, made)]
    assert names == [(f.section, f.name) for f in findings]


def test_the_first_node_that_differs_is_named(bundle, monkeypatch):
    """A kernel that is wrong in two elements of one node: what is computed from it follows."""
    kernel = refnet.arithmetic.core.kernels["affine"]
    calls = []

    def wrong(x, s, b):
        y, context = kernel.forward(x, s, b)
        calls.append(x)
        if len(calls) == 3:
            y.ravel()[[3, 7]] = np.nextafter(np.nextafter(y.ravel()[[3, 7]], np.inf), np.inf)
        return y, context

    other = refnet.arithmetic.core.replace(affine=refnet.Kernel(wrong, kernel.backward))
    monkeypatch.setitem(refnet.arithmetic.ARITHMETICS, "core", other)
    findings = golden.verify(bundle)
    affines = [node.name for node in RECIPE.net().nodes if node.op == "affine"]
    first = golden.first_difference(findings)
    assert (first.section, first.name, first.node, first.op) == ("blobs", affines[2], affines[2], "affine")
    assert (first.different, first.elements, first.max_ulp, first.follows) == (2, 4 * 8 * 8, 2, False)
    after = differing(findings)[1:]
    assert len(after) > 3 and all(follows for *_, follows in after)


def test_differences_that_do_not_follow_from_the_first_are_told_apart(bundle):
    def change(manifest):
        for section, name in (
            ("gradients", "res4_0_branch2a_w"),
            ("gradients", "res4_1_branch2c_w"),
            ("blobs", "res2_0_branch2b"),
            ("blobs", "res2_0_branch2b_bn"),
            ("blobs", "res3_0_branch1"),
        ):
            manifest["tensors"][section][name]["sha256"] = "0" * 64

    edit(bundle, change)
    assert differing(golden.verify(bundle)) == [
        ("blobs", "res2_0_branch2b", "res2_0_branch2b", "conv3d", False),
        ("blobs", "res2_0_branch2b_bn", "res2_0_branch2b_bn", "affine", True),
        ("blobs", "res3_0_branch1", "res3_0_branch1", "conv3d", False),
        ("gradients", "res4_1_branch2c_w", "res4_1_branch2c", "conv3d", True),
        ("gradients", "res4_0_branch2a_w", "res4_0_branch2a", "conv3d", True),
    ]


def test_a_gradient_can_be_the_first_to_differ(bundle):
    edit(bundle, lambda m: m["tensors"]["gradients"]["res4_1_branch2c_w"].update(sha256="0" * 64))
    first = golden.first_difference(golden.verify(bundle))
    assert (first.section, first.node, first.op) == ("gradients", "res4_1_branch2c", "conv3d")
    assert not first.follows


def test_a_diff_of_two_networks_says_where_each_tensor_comes_from(made, tmp_path):
    """A batch norm in place of an affine of the same name, with parameters of its own."""
    options = RECIPE.options | {"batch_norm": True}
    other = golden.make(tmp_path / "b", replace(RECIPE, options=options), hashes_only=True).path
    findings = {(f.section, f.name): f for f in golden.diff(made, other)}
    assert findings["blobs", "res_conv1_bn"].op == "affine"
    assert not findings["params", "res_conv1_bn_rm"].equal
    assert "missing from" in findings["params", "res_conv1_bn_rm"].note
    assert findings["blobs", "conv1"].equal and findings["blobs", "conv1_relu"].follows


@every_dtype
def test_ulp_distance_literally(dtype):
    one, tiny = np.array(1, dtype), np.finfo(dtype).smallest_subnormal
    up = np.nextafter(one, np.array(2, dtype))
    down = np.nextafter(one, np.array(0, dtype))
    a = np.array([1, 1, down, 0.0, -0.0, tiny, -1, np.inf], dtype)
    b = np.array([1, up, up, -0.0, tiny, -tiny, -up, np.finfo(dtype).max], dtype)
    assert golden.ulp_distance(a, b).tolist() == [0, 1, 2, 0, 1, 2, 1, 1]
    assert golden.ulp_distance(a.astype(a.dtype.newbyteorder())[::-1], b[::-1])[::-1].tolist()[:3] == [
        0,
        1,
        2,
    ]
    far = golden.ulp_distance(np.array([-np.inf], dtype), np.array([np.inf], dtype)).item()
    assert far == 2 * {"float32": 0x7F800000, "float64": 0x7FF0000000000000}[dtype]


def test_distances_between_what_is_not_alike_are_refused():
    a = np.zeros(3)
    with pytest.raises(RefnetError, match="^b is float32: expected float64, as a$"):
        golden.ulp_distance(a, a.astype("float32"))
    with pytest.raises(RefnetError, match="^b has shape 2: expected 3, that of a$"):
        golden.ulp_distance(a, a[:2])
    with pytest.raises(RefnetError, match="^a is an int: expected float32 or float64$"):
        golden.ulp_distance(3, a)


# NaN: where it is, is promised; its sign and payload are the machine's.


def of_clip(pixels):
    """The recipe of a bundle made from pixels."""
    source = golden.ClipSource("x.npy", "0" * 64, pixels.shape[2], 1, 0, None, "linear")
    return replace(RECIPE, input=pixels.shape, clip=source, dtype=pixels.dtype.name)


@every_dtype
def test_every_nan_is_the_same(tmp_path, dtype):
    bits = np.dtype(dtype.replace("float", "uint"))
    pixels = np.random.default_rng(0).standard_normal((1, 3, 1, 32, 32)).astype(dtype)
    pixels[0, 1, 0, 4:6, 7] = np.nan
    odd = pixels.copy()
    odd.view(bits)[np.isnan(odd)] |= np.array((1 << (8 * bits.itemsize - 1)) + 5, bits)
    assert np.isnan(odd).sum() == 2 and odd.tobytes() != pixels.tobytes()
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, array in zip(paths, (pixels, odd), strict=True):
        golden.make(path, of_clip(pixels), pixels=array, allow_nonfinite=True)
        assert load_file(path / "inputs.safetensors")["data"].tobytes() == pixels.tobytes()
        assert np.isnan(load_file(path / "blobs.safetensors")["conv1"]).any()
    assert not bad(golden.diff(*paths)) and not bad(golden.verify(paths[0]))
    save_file({"data": odd}, paths[0] / "inputs.safetensors")
    assert not bad(golden.verify(paths[0])) and not bad(golden.diff(*paths))


@every_dtype
def test_a_nan_anywhere_is_seen(dtype):
    bits = np.dtype(dtype.replace("float", "uint"))
    for size in (1, 3, 64, 67):
        for place in range(size):
            array = np.full(size, -2.0, dtype)
            array.view(bits)[place] = np.iinfo(bits).max - 4  # negative, and with a payload
            clean = with_one_nan(array)
            assert (
                np.isnan(clean[place])
                and clean[place : place + 1].tobytes() == np.full(1, np.nan, dtype).tobytes()
            )
            assert np.count_nonzero(clean == -2) == size - 1
    assert with_one_nan(clean[:0]).size == 0 and with_one_nan(np.array(2.0, dtype)) == 2


@pytest.mark.parametrize("pixels", [7, "clip.npy", [[1.0]]])
def test_pixels_that_are_no_array_of_that_shape_are_refused(tmp_path, pixels):
    with pytest.raises(RefnetError, match="^data (is an int|is a str|has shape 1x1): expected"):
        golden.make(tmp_path / "a", of_clip(np.zeros((1, 3, 1, 32, 32))), pixels=pixels)
    assert not list(tmp_path.iterdir())


def test_nan_on_one_side_alone_differs(tmp_path):
    pixels = np.random.default_rng(0).standard_normal((1, 3, 1, 32, 32))
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, value in zip(paths, (np.nan, 1.0), strict=True):
        pixels[0, 0, 0, 0, 0] = value
        golden.make(path, of_clip(pixels), pixels=pixels, allow_nonfinite=True)
    finding = bad(golden.diff(*paths))["inputs", "data"]
    assert (finding.different, finding.max_ulp) == (1, None) and "NaN on one side alone" in finding.note
    pixels[0, 0, 0, 0, :2] = np.nan, np.nextafter(pixels[0, 0, 0, 0, 1], np.inf)
    golden.make(paths[1], of_clip(pixels), pixels=pixels, allow_nonfinite=True, force=True)
    finding = bad(golden.diff(*paths))["inputs", "data"]
    assert (finding.different, finding.max_ulp) == (1, 1), "beside a NaN on both sides"


def test_zeros_of_both_signs_differ(tmp_path):
    pixels = np.random.default_rng(0).standard_normal((1, 3, 1, 32, 32))
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, value in zip(paths, (0.0, -0.0), strict=True):
        pixels[0, 0, 0, 0, 0] = value
        golden.make(path, of_clip(pixels), pixels=pixels)
    finding = bad(golden.diff(*paths))["inputs", "data"]
    assert (finding.different, finding.max_ulp) == (1, 0)


# Nothing bad passes.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="else"), "not of format"),
        (lambda m: m.update(format_version=1), "format version 1: expected 2 or 3; make the bundle again"),
        (lambda m: m.update(bits="one machine"), "'one machine': expected every machine, for core"),
        (lambda m: m.update(bits=[]), r"of \[\]: expected every machine"),
        (lambda m: m.pop("bits"), "is damaged"),
        (lambda m: m["recipe"].update(arithmetic=["core"]), r"arithmetic is \['core'\]"),
        (lambda m: m.pop("recipe"), "is damaged"),
        (lambda m: m.update(recipe=[]), "is damaged"),
        (lambda m: m["recipe"].update(more=1), "is damaged"),
        (lambda m: m["recipe"].update(architecture="../../x"), "unknown architecture"),
        (lambda m: m["recipe"].update(architecture=[]), "unknown architecture"),
        (lambda m: m["recipe"].update(arithmetic="quick"), "unknown arithmetic"),
        (lambda m: m["recipe"].update(dtype="object"), "unknown dtype"),
        (lambda m: m["recipe"].update(seed=-5), "seed is -5"),
        (lambda m: m["recipe"].update(input=[1, 3, 10**7, 10**5, 10**5]), "of memory"),
        (lambda m: m["recipe"].update(input=["1", 3, 1, 32, 32]), "size N is '1'"),
        (lambda m: m["recipe"].update(options={"rm": "-rf"}), "unknown option"),
        (lambda m: m["recipe"]["options"].update(time_kernel=10**9 + 1), "of memory"),
        (lambda m: m["recipe"]["options"].update(freeze_at="two"), "freeze_at is 'two'"),
        (lambda m: m["recipe"]["options"].update(freeze_at=2.0), "freeze_at is 2.0"),
        (lambda m: m["recipe"]["options"].update(time_stride="false"), "time_stride is 'false'"),
        (lambda m: m["recipe"]["options"].update(transformation=[]), r"unknown transformation \[\]"),
        (lambda m: m["recipe"]["options"].update(input=[1, 3, 1, 32, 32]), "unknown option of .* 'input'"),
        (lambda m: m["recipe"]["options"].update(groups=10**400), "groups is larger than"),
        (lambda m: m["recipe"].update(backward="no"), "backward is 'no'"),
        (lambda m: m["recipe"].update(clip={"name": 1}), "clip name is 1"),
        (lambda m: m["recipe"].update(clip=SOURCE), "is damaged .KeyError: 'resize'"),
        (lambda m: m["recipe"].update(clip=SOURCE | {"resize": "x"}), "unknown way of resizing 'x'"),
        (lambda m: m.update(machine=[]), r"machine is \[\]"),
        (lambda m: m.update(format_version=True), "format version True"),
        (lambda m: m.update(more="\ud800"), "is not readable JSON"),
        (lambda m: m.update(blocked="conv1_w"), "is damaged"),
        (lambda m: m.update(tensors=None), "is damaged"),
        (lambda m: m["tensors"].pop("blobs"), "is damaged"),
        (lambda m: m["tensors"]["blobs"]["conv1"].pop("sha256"), "is damaged"),
        (lambda m: m["tensors"]["blobs"]["conv1"].update(sha256="x"), "expected 64 hex digits"),
        (lambda m: m["tensors"]["blobs"]["conv1"].update(dtype="object"), "'object': expected float32"),
        (lambda m: m["tensors"]["blobs"]["conv1"].update(shape=[-1]), "is -1: expected a whole number"),
        (
            lambda m: m["tensors"]["blobs"]["conv1"].update(file="../../../etc/passwd"),
            "points to the file '../../../etc/passwd': expected blobs.safetensors, in the bundle",
        ),
        (lambda m: m["tensors"]["blobs"]["conv1"].update(file="/etc/passwd"), "points to the file"),
    ],
)
def test_hostile_manifests_are_refused(bundle, change, message):
    edit(bundle, change)
    with pytest.raises(RefnetError, match=message):
        golden.verify(bundle)
    with suppress(RefnetError):  # what is stored can be compared, whatever could not be run
        golden.diff(bundle, bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"format": NaN}', "\udcff"])
def test_manifests_that_are_no_json_objects_are_refused(bundle, text):
    (bundle / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RefnetError, match=r"manifest\.json is not"):
        golden.verify(bundle)


def lying_header(data):
    """Claims that the header is larger than the file."""
    return struct.pack("<Q", 2**62) + data[8:]


def lying_offsets(data):
    """Claims that a tensor ends far behind the file."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    next(v for k, v in header.items() if k == "pool1")["data_offsets"] = [0, 2**60]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize(
    "damage",
    [
        lying_header,
        lying_offsets,
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:4],
    ],
)
def test_damaged_tensor_files_are_refused(bundle, damage):
    file = bundle / "blobs.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    for check in (golden.verify, lambda path: golden.diff(path, path)):
        with pytest.raises(RefnetError, match=r"blobs\.safetensors cannot be read"):
            check(bundle)


def test_sizes_are_compared_before_anything_is_read(bundle, monkeypatch):
    """A file with no size on a disk says that a tensor has 8 GB; then the manifest says so too."""

    def never(file, tensor):
        raise AssertionError("values were read")

    monkeypatch.setattr(safetensors_file, "read", never)
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    text = json.dumps({"conv1": {"dtype": "F64", "shape": [10**9], "data_offsets": [0, 8 * 10**9]}}).encode()
    with (bundle / "blobs.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 8 * 10**9)
    opened = golden.Bundle(bundle)
    with pytest.raises(
        FileError, match="conv1 is float64 1000000000, expected float64 1x64x1x16x16 as in the"
    ):
        opened.tensor("blobs", "conv1")
    edit(bundle, lambda m: m["tensors"]["blobs"]["conv1"].update(shape=[10**9]))
    with pytest.raises(TooLargeError, match="conv1 needs about 7.5 GiB of memory"):
        golden.Bundle(bundle).tensor("blobs", "conv1")
    with pytest.raises(TooLargeError, match="needs about 7.5 GiB of memory"):
        candidate.read(bundle, RECIPE.net())
    recipe = {"name": "x.npy", "sha256": "0" * 64, "frames": 1, "stride": 1, "start": 0, "size": None}
    edit(bundle, lambda m: m["recipe"].update(clip=recipe | {"resize": "linear"}))
    edit(bundle, lambda m: m["tensors"]["inputs"]["data"].update(shape=[10**9]))
    with pytest.raises(FileError, match="holds pixels of shape 1000000000: expected 1x3x1x32x32"):
        golden.verify(bundle)


def test_a_header_that_no_tensor_has_is_refused(bundle):
    edit(bundle, lambda m: m["tensors"]["blobs"]["conv1"].update(shape=[1] * 33))
    with pytest.raises(FileError, match="blobs conv1 has 33 axes: expected 32 at most"):
        golden.Bundle(bundle)


def test_a_manifest_is_bounded_in_size_and_depth(bundle):
    edit(bundle, lambda m: m.update(more=[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]))
    with pytest.raises(FileError, match="is not readable JSON: it is nested more than 16 deep"):
        golden.Bundle(bundle)
    edit(bundle, lambda m: m.update(more=[" " * 5_000_000]))
    with pytest.raises(FileError, match=r"is larger than 4\.0 MiB: not a manifest"):
        golden.Bundle(bundle)
    with (bundle / "manifest.json").open("wb") as file:
        file.truncate(10**13)
    with pytest.raises(FileError, match=r"is larger than 4\.0 MiB: not a manifest"):
        golden.make(bundle, RECIPE, force=True)


def test_every_network_of_the_catalog_has_room_in_a_manifest():
    most = max(
        len(net.nodes) + 2 * len(net.params) + 2 * len(net.inputs) + len(net.outputs)
        for net in (golden.Recipe(name, known.input).structure() for name, known in ARCHITECTURES.items())
    )
    assert 400 * most < bounded_json.LARGEST / 4  # 300 bytes a tensor, indented


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "link"])
@pytest.mark.parametrize("name", ["manifest.json", "blobs.safetensors", "inputs.safetensors"])
def test_what_is_no_file_is_refused_and_not_waited_for(bundle, tmp_path, monkeypatch, name, kind):
    """Nor where it takes the file's place between two looks at it."""
    file, moved = bundle / name, tmp_path / "moved"

    def replace():
        file.rename(moved)
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "device":
            file.symlink_to("/dev/zero")
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                monkeypatch.chdir(bundle)
                listener.bind(name)
        elif kind == "folder":
            file.mkdir()
        else:
            file.symlink_to(moved)

    def later(path, *arguments, **options):
        found = stat(path, *arguments, **options)
        if path == name and not moved.exists():
            replace()
        return found

    stat = os.stat
    monkeypatch.setattr(os, "stat", later)
    for _ in range(2):
        with pytest.raises(
            RefnetError, match="is not a file of the bundle|has no manifest.json|cannot be read"
        ):
            golden.diff(bundle, bundle)
    assert moved.exists()


def test_files_that_are_elsewhere_are_not_followed(bundle, tmp_path):
    file = bundle / "blobs.safetensors"
    file.rename(tmp_path / "outside.safetensors")
    file.symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(RefnetError, match="is not a file of the bundle"):
        golden.verify(bundle)


def test_tensors_that_are_not_what_the_manifest_says_are_refused(bundle):
    file = bundle / "blobs.safetensors"
    blobs = load_file(file)
    save_file({**blobs, "conv1": blobs["conv1"].astype("float32")}, file)
    with pytest.raises(RefnetError, match="conv1 is float32 .* expected float64 .* as in the manifest"):
        golden.diff(bundle, bundle)
    save_file({name: blob for name, blob in blobs.items() if name != "conv1"}, file)
    with pytest.raises(RefnetError, match="conv1"):
        golden.diff(bundle, bundle)


@pytest.mark.parametrize("path", ["nothing", "."])
def test_what_is_no_bundle_is_refused(tmp_path, path):
    with pytest.raises(RefnetError, match="expected a golden bundle"):
        golden.verify(tmp_path / path)


# Nothing bad is left behind.


def test_a_bundle_is_not_overwritten_unasked(made):
    before = (made / "manifest.json").read_bytes()
    with pytest.raises(RefnetError, match="exists: expected a new folder's name, or force=True"):
        golden.make(made, RECIPE)
    assert (made / "manifest.json").read_bytes() == before


def test_force_does_not_replace_what_only_looks_like_a_bundle(bundle, tmp_path):
    (bundle / "notes.txt").write_text("precious")
    with pytest.raises(RefnetError, match="also holds notes.txt"):
        golden.make(bundle, RECIPE, force=True)
    project = tmp_path / "extension"
    project.mkdir()
    (project / "manifest.json").write_text('{"name": "a browser extension"}')
    with pytest.raises(RefnetError, match="not of format"):
        golden.make(project, RECIPE, force=True)
    assert (bundle / "notes.txt").exists() and (project / "manifest.json").exists()


def test_a_replacement_that_fails_at_the_last_step_gives_the_old_bundle_back(bundle, monkeypatch):
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}

    def failing(new, out):
        raise OSError("no")

    monkeypatch.setattr(placing, "exchange", failing)
    with pytest.raises(RefnetError, match="cannot be written: no"):
        golden.make(bundle, replace(RECIPE, seed=1), force=True)
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before
    assert [file.name for file in bundle.parent.iterdir()] == [bundle.name]


def test_pixels_of_any_layout_make_the_same_bundle(tmp_path):
    source = golden.ClipSource("x.npy", "0" * 64, 2, 1, 0, None, "linear")
    recipe = replace(RECIPE, input=(1, 3, 2, 32, 32), clip=source)
    pixels = np.random.default_rng(0).standard_normal(recipe.input)
    plain = golden.make(tmp_path / "a", recipe, pixels=pixels).path
    odd = golden.make(tmp_path / "b", recipe, pixels=np.asfortranarray(pixels).astype(">f8")).path
    assert not bad(golden.diff(plain, odd)) and not bad(golden.verify(odd))


def test_force_replaces_a_bundle_and_nothing_else(bundle):
    golden.make(bundle, replace(RECIPE, seed=9), force=True)
    assert golden.Bundle(bundle).recipe.seed == 9
    assert [file.name for file in bundle.parent.iterdir()] == [bundle.name]
    other = bundle.parent / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    with pytest.raises(RefnetError, match="is not a golden bundle"):
        golden.make(other, RECIPE, force=True)
    (bundle.parent / "file").write_text("precious")
    with pytest.raises(RefnetError, match="is not a golden bundle"):
        golden.make(bundle.parent / "file", RECIPE, force=True)
    with pytest.raises(RefnetError, match="is not a writable folder"):
        golden.make(bundle.parent / "file" / "below", RECIPE)


@pytest.mark.parametrize("stage", ["forward", "backward", "hash", "write"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_a_run_that_fails_leaves_nothing(tmp_path, bundle, stage, error):
    def progress(found, done, total):
        if found == stage and done == total // 2:
            raise error("stop here")

    raised = RefnetError if (error, stage) == (OSError, "write") else error
    with pytest.raises(raised):
        golden.make(tmp_path / "new", RECIPE, progress=progress)
    assert [file.name for file in tmp_path.iterdir()] == [bundle.name]
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    with pytest.raises(raised):
        golden.make(bundle, replace(RECIPE, seed=1), force=True, progress=progress)
    assert [file.name for file in tmp_path.iterdir()] == [bundle.name]
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before


def test_what_would_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    with pytest.raises(
        RefnetError, match="resnet18_conv4 on 1x3x1x32x32 needs about .* 976.6 KiB is available"
    ):
        golden.make(tmp_path / "b", RECIPE)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(RefnetError, match="of disk, 1000 B is free"):
        golden.make(tmp_path / "b", RECIPE)
    assert not list(tmp_path.iterdir())
    golden.make(tmp_path / "b", RECIPE, hashes_only=True)
