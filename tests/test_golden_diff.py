"""What `golden diff` says: the cause, then where and how far; values of two dtypes compared by rounding."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import edit, fails

import refnet as package
from refnet import golden
from refnet.errors import UnknownNameError
from refnet.golden import Finding
from refnet.golden.bundle import sha
from refnet.golden.findings import Findings
from refnet.render import tables, terminal

OPTIONS = {"width_per_group": 4, "time_kernel": 1}
RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), OPTIONS)
SMALL = ["--input", "1x3x1x32x32", "--width-per-group", "4", "--time-kernel", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return golden.make(tmp_path_factory.mktemp("golden") / "bundle", RECIPE)


def changed(made, path, name, change):
    """A copy of which one blob has other values, with their hash."""
    path = shutil.copytree(made.path, path)
    blobs = load_file(path / "blobs.safetensors")
    blobs[name] = change(blobs[name].copy())
    save_file(blobs, path / "blobs.safetensors")
    edit(path, lambda m: m["tensors"]["blobs"][name].update(sha256=sha(blobs[name])))
    return golden.Bundle(path)


def only(findings):
    (finding,) = [finding for finding in findings if not finding.equal]
    return finding


# How far.


def test_what_judges_is_true_only_where_it_is_ok(made, tmp_path):
    other = changed(made, tmp_path / "b", "pool1", lambda blob: blob + 1)
    assert golden.diff(made, made) and golden.diff(made, made).ok
    assert golden.verify(made) and golden.verify(made).ok
    for found in (golden.diff(made, other), golden.verify(other)):
        assert not found and not found.ok and len(found) == 176
    assert not Findings() and not Findings([Finding("inputs", "data", True, derived=False)])
    assert golden.against(made) and golden.against(made).ok
    broken = golden.against(changed(made, tmp_path / "c", "pool1", lambda blob: blob + np.inf))
    assert not broken and not broken.ok


def test_a_section_that_is_none_suggests_one(made):
    with pytest.raises(UnknownNameError, match="^unknown section 'blob': did you mean blobs"):
        made.tensor("blob", "conv1")


def test_absolute_and_relative_error_and_where(made, tmp_path):
    right = made["pool1"]
    biggest = np.unravel_index(np.argmax(right), right.shape)
    small = tuple(np.argwhere((right > 0) & (right < 1))[0])

    def change(blob):
        blob[biggest] += 0.5
        blob[small] *= 1.25
        return blob

    other = changed(made, tmp_path / "b", "pool1", change)
    found = only(golden.diff(made, other))
    values = (float(right[biggest]), float(right[biggest] + 0.5))
    assert (found.name, found.different, found.elements) == ("pool1", 2, right.size)
    assert found.where == tuple(map(int, biggest)) and found.values == values
    assert found.max_abs == abs(values[1] - values[0]) == 0.5
    assert found.max_rel == pytest.approx(0.2, rel=1e-12) and found.max_ulp > 2**50
    assert found == replace(only(golden.diff(other, made)), values=values)


@pytest.mark.parametrize(
    ("value", "note", "expected"),
    [
        (np.nan, "bits differ, with NaN on one side alone", (0.0, 0.0, None)),
        (np.inf, "bits differ, with infinity on one side alone", (0.0, 0.0, "large")),
        (-0.0, "bits differ", (0.0, 0.0, 0)),
    ],
)
def test_what_has_no_finite_error_is_said_so(tmp_path, value, note, expected):
    """One element of a blob that is a rectifier's zero otherwise."""
    made = golden.make(tmp_path / "a", RECIPE)
    zero = tuple(np.argwhere(made["conv1_relu"] == 0)[0])

    def change(blob):
        blob[zero] = value
        return blob

    found = only(golden.diff(made, changed(made, tmp_path / "b", "conv1_relu", change)))
    assert found.note == note and found.where == tuple(map(int, zero)) and found.different == 1
    assert (found.max_abs, found.max_rel) == expected[:2]
    assert found.max_ulp > 2**62 if expected[2] == "large" else found.max_ulp == expected[2]
    assert found.values == ((0.0, -0.0) if value == 0 else None)
    json.dumps(found.values, allow_nan=False)


def test_errors_that_are_too_large_for_a_number_are_none(made, tmp_path):
    other = [changed(made, tmp_path / f"{s}", "pool1", lambda b, s=s: b * 0 + s * 1.7e308) for s in (-1, 1)]
    found = only(golden.diff(*other))
    assert found.max_abs is None and found.values == (-1.7e308, 1.7e308) and found.where == (0, 0, 0, 0, 0)


def test_labels_are_compared_as_numbers(tmp_path):
    paths = []
    for label in (1, 3):
        net = package.Net()
        scores = net.input("scores", (1, 4))
        net.output(net.add("cross_entropy", "loss", (scores, net.input("labels", (1,)))))
        run = package.forward(net, {"scores": np.zeros((1, 4)), "labels": np.array([label])})
        paths.append(run.save(tmp_path / f"{label}").path)
    found = only(golden.diff(*paths))
    assert (found.name, found.max_abs, found.values, found.max_ulp) == ("labels", 2, (1, 3), None)


# Two dtypes.


def test_a_bundle_in_float32_is_the_one_in_float64_rounded(refnet, made, tmp_path):
    small = golden.make(tmp_path / "b", replace(RECIPE, store="float32"))
    for pair in ((made, small), (small, made)):
        findings = golden.diff(*pair)
        assert len(findings) == 176 and all(f.equal and f.rounded == "float32" for f in findings)
    code, out, _ = refnet("golden", "diff", made.path, small.path)
    assert code == 0 and out.startswith("The recipes differ: store none and float32.\n")
    assert "176 of 176 tensors equal once the wider side is rounded to float32." in out
    hashes = golden.make(tmp_path / "h", replace(RECIPE, store="float32"), hashes_only=True)
    assert all(f.equal for f in golden.diff(made, hashes))
    assert "hashed in float32" in tables.summary(hashes) and "stored in float32" in tables.summary(small)
    edit(hashes.path, lambda m: m["tensors"]["blobs"]["pool1"].update(sha256="0" * 64))
    found = only(golden.diff(made, hashes.path))
    assert (found.name, found.note) == ("pool1", "other SHA-256; values are not stored")
    wide = golden.make(tmp_path / "w", RECIPE, hashes_only=True)
    findings = golden.diff(wide, small)
    assert not any(f.equal for f in findings)
    assert {f.note for f in findings} == {
        "not comparable: the values of the wider, to be rounded to float32, are not stored"
    }


def test_a_run_in_float32_is_compared_with_one_in_float64_in_ulp_of_float32(made, tmp_path):
    single = golden.make(tmp_path / "b", replace(RECIPE, dtype="float32"))
    findings = {(f.section, f.name): f for f in golden.diff(made, single)}
    assert findings["params", "conv1_w"].equal and findings["inputs", "data"].equal
    found = findings["blobs", "conv1"]
    a, b = made["conv1"].astype("float32"), single["conv1"]
    assert not found.equal and found.rounded == "float32"
    assert found.different == np.count_nonzero(a != b)
    assert found.max_ulp == int(golden.ulp_distance(a, b).max())
    assert found.max_abs == np.abs(a.astype(float) - b).max() < 1e-3


# Causes.


def test_that_values_are_not_stored_is_said_once(refnet, tmp_path):
    a, b = (golden.make(tmp_path / f"{s}", replace(RECIPE, seed=s), hashes_only=True) for s in (0, 1))
    out = refnet("golden", "diff", a.path, b.path)[1]
    assert out.count("other SHA-256") == out.count("values are not stored") == 1


def test_golden_diff_says_its_exit_codes(refnet):
    said = " ".join(refnet("golden", "diff", "-h")[1].split())
    assert "Exit code 0: all are equal so; 1: one is not; 2: nothing can be compared." in said


@pytest.mark.parametrize(
    ("changes", "causes", "line"),
    [
        ({"seed": 1}, [("seed", 0, 1)], "seed 0 and 1 (what is drawn is other)"),
        (
            {"options": OPTIONS | {"freeze_at": 3}},
            [("freeze_at", 2, 3)],
            "freeze_at 2 and 3 (22 and 43 gradients blocked)",
        ),
        ({"dtype": "float32"}, [("dtype", "float64", "float32")], "dtype float64 and float32"),
        ({"arithmetic": "exact"}, [("arithmetic", "core", "exact")], "arithmetic core and exact"),
        ({"backward": False}, [("backward", True, False)], "backward True and False"),
        (
            {"input": (1, 3, 2, 32, 32), "seed": 2},
            [("input", (1, 3, 1, 32, 32), (1, 3, 2, 32, 32)), ("seed", 0, 2)],
            "input 1x3x1x32x32 and 1x3x2x32x32; seed 0 and 2 (what is drawn is other)",
        ),
        (
            {"architecture": "resnet18_conv5"},
            [("architecture", "resnet18_conv4", "resnet18_conv5")],
            "architecture resnet18_conv4 and resnet18_conv5",
        ),
    ],
)
def test_what_the_recipes_say_differently_comes_first(refnet, made, tmp_path, changes, causes, line):
    other = golden.make(tmp_path / "b", replace(RECIPE, **changes), hashes_only=True)
    assert [cause[:3] for cause in golden.causes(made, other)] == causes
    assert all(cause.recipe for cause in golden.causes(made, other))
    code, out, _ = refnet("golden", "diff", made.path, other.path)
    assert code == 1 and out.startswith(f"The recipes differ: {line}.\n")
    found = json.loads(refnet("golden", "diff", made.path, other.path, "--json")[1])
    said = [[cause["what"], cause["a"], cause["b"]] for cause in found["causes"]]
    assert said == json.loads(json.dumps(causes)) and not found["ok"]


def test_behind_another_stop_what_differs_follows(made, tmp_path):
    """A stop that only one network has is missing from the other, and comes before what reads it."""
    other = golden.make(tmp_path / "b", replace(RECIPE, options=OPTIONS | {"freeze_at": 3, "groups": 2}))
    found = {finding.name: finding for finding in golden.diff(made, other) if finding.section == "blobs"}
    assert not found["res2_1_stop"].equal and "missing from" in found["res2_1_stop"].note
    assert found["res3_0_branch2a"].follows and found["res3_0_branch1"].follows


def test_what_is_ones_own_is_a_cause(made, tmp_path, video):
    params = {name: array * 2 for name, array in package.fill.params(RECIPE.net()).items()}
    one = golden.make(tmp_path / "a", RECIPE, params=params)
    params["conv1_w"] = params["conv1_w"] + 1
    two = golden.make(tmp_path / "b", RECIPE, params=params)
    for pair in ((made, one), (one, two)):
        ((what, a, b, recipe),) = golden.causes(*pair)
        assert what == "own params" and recipe and a != b and b.startswith("unnamed, ")
    small = package.clip.Selection(frames=1, size=(32, 32))
    made_of = []
    for start in (0, 5):
        recipe, pixels = golden.clip_recipe(video, replace(small, start=start), RECIPE)
        made_of.append(golden.make(tmp_path / f"{start}", recipe, pixels=pixels, hashes_only=True))
    assert golden.causes(*made_of) == [("clip start", 0, 5, True)]
    assert {cause.what for cause in golden.causes(made, made_of[0])} >= {"clip name", "clip sha256"}


def test_of_a_run_s_own_values_it_is_said_that_there_is_no_recipe(refnet, made, tmp_path):
    net = RECIPE.net()
    run = package.forward(net, package.fill.inputs(net) | package.fill.params(net))
    gradients = package.backward(run, package.fill.output_gradients(net))
    saved = run.save(tmp_path / "saved", gradients)
    assert golden.causes(saved, made) == [("recipe", None, "resnet18_conv4 on 1x3x1x32x32", True)]
    code, out, _ = refnet("golden", "diff", saved.path, made.path)
    assert code == 0 and out.split("\n", 3)[:3] == [
        f"{saved.path} holds a run's own values and no recipe.",
        "",
        f"{saved.path} and {made.path}: 176 of 176 tensors equal bit for bit.",
    ]
    forward = run.save(tmp_path / "forward", store="float32")
    out = refnet("golden", "diff", made.path, forward.path)[1]
    line = f"{forward.path} holds a run's own values and no recipe; backward True and False; "
    assert out.startswith(f"{line}store none and float32.\n")
    assert "\n  gradients         0   0        none>" in repr(forward)
    assert "core; no gradients\n" in repr(forward) and "SHA-256 only" not in repr(forward)


def test_two_networks_of_ones_own_differ_in_a_node(tmp_path):
    bundles = []
    for pad in (0, 1):
        net = package.Net()
        x, w = net.input("x", (1, 2, 1, 5, 5)), net.param("w", (2, 2, 1, 3, 3))
        net.output(net.add("conv3d", "y", (x, w), pad=(0, pad, pad)))
        run = package.forward(net, {"x": np.ones((1, 2, 1, 5, 5)), "w": np.ones((2, 2, 1, 3, 3))})
        bundles.append(run.save(tmp_path / f"{pad}"))
    assert golden.causes(*bundles) == [
        ("graph", "y = conv3d(x, w)", "y = conv3d(x, w; pad 0x1x1)", True),
    ]


def test_where_the_recipes_are_the_same_what_made_the_bundles_is_the_cause(refnet, made, tmp_path):
    other = changed(made, tmp_path / "b", "pool1", lambda blob: blob + 1)
    code, out, _ = refnet("golden", "diff", made.path, other.path)
    assert code == 1 and golden.causes(made, other) == []
    assert out.startswith(
        "The recipes are the same, so one of the two is wrong: refnet golden verify says which."
    )
    edit(other.path, lambda m: m.update(refnet="9.9"))
    edit(other.path, lambda m: m["machine"].update(cpu="another"))
    ((what, _, b, recipe),) = golden.causes(made, golden.Bundle(other.path))
    assert (what, b, recipe) == ("refnet", "9.9", False)
    out = refnet("golden", "diff", made.path, other.path)[1]
    assert out.startswith(f"The recipes are the same; made with refnet {made.manifest['refnet']} and 9.9.")
    reference = golden.make(tmp_path / "r", replace(RECIPE, arithmetic="reference"), hashes_only=True)
    path = shutil.copytree(reference.path, tmp_path / "s")
    edit(path, lambda m: m["machine"].update(cpu="another"))
    assert [(c.what, c.b) for c in golden.causes(reference, golden.Bundle(path))] == [("cpu", "another")]
    assert refnet("golden", "diff", reference.path, reference.path)[1].startswith(str(reference.path))


def test_the_first_difference_is_said_in_numbers(refnet, made, tmp_path):
    def change(blob):
        blob[0, 0, 0, 1, 2] += 0.25
        return blob

    other = changed(made, tmp_path / "b", "conv1", change)
    out = refnet("golden", "diff", made.path, other.path)[1]
    value = float(made["conv1"][0, 0, 0, 1, 2])
    assert "The first to differ is conv1 of blobs (conv3d): 1 of 16,384 elements (< 0.01 %), by " in out
    relative = 0.25 / max(abs(value), abs(value + 0.25))
    assert (
        f" ulp and {relative:.1e} of their size at most; the largest error is 2.50e-01, at [0, 0, 0, 1, 2]"
        in out
    )
    assert f"[0, 0, 0, 1, 2]: {value!r} and {value + 0.25!r}.\n" in out


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({7: np.nan}, "1 of 16,384 elements (< 0.01 %), with NaN on one side alone, at [0, 0, 0, 0, 7]."),
        ({3: 1e9, 7: np.inf}, " of their size at most, with infinity on one side alone, at [0, 0, 0, 0, 7]."),
        ({7: -0.0}, "1 of 16,384 elements (< 0.01 %), by the signs of zeros alone."),
    ],
)
def test_a_difference_that_is_no_size_is_said(refnet, made, tmp_path, values, said):
    def change(blob):
        blob[0, 0, 0, 0, list(values)] = list(values.values())
        return blob

    def zero(blob):
        blob[0, 0, 0, 0, 7] = 0
        return blob

    first = changed(made, tmp_path / "a", "conv1", zero)
    out = refnet("golden", "diff", first.path, changed(first, tmp_path / "b", "conv1", change).path)[1]
    assert f"The first to differ is conv1 of blobs (conv3d): {'' if said[0] == ' ' else said}" in out
    assert said in out
    assert "0.00e+00" not in out or values.get(7) == 0


def test_at_80_columns_no_name_is_folded(capsys, made, tmp_path):
    other = golden.make(tmp_path / "b", replace(RECIPE, seed=1))
    tables.findings(golden.diff(made, other), "a and b", terminal.Screen(width=80))
    table = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert all(len(line) <= 80 for line in table)
    assert {"tensors", "name", "share", "error", "ulp"} <= {*table[0].split()}
    assert [line.split()[1] for line in table[1:41]] == [f.name for f in golden.diff(made, other)][:40]


def test_what_is_no_bundle_is_refused(refnet, made):
    fails(refnet("golden", "diff", made.path, "none"), "none is not a folder")
