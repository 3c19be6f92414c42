"""Bundles compared with correctly rounded values: errors by rational arithmetic, and what none explains."""

import json
from dataclasses import replace

import numpy as np
import pytest
from exact_products import oracle
from rounding import nearest_all, rational
from safetensors.numpy import load_file, save_file
from support import fails

from refnet import golden
from refnet.errors import FileError, UnknownNameError
from refnet.golden.bundle import sha

OPTIONS = {"width_per_group": 4, "time_kernel": 1}
RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), OPTIONS, dtype="float32")
BLOB = "res3_0_branch2a_bn"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of core, and what it holds."""
    path = golden.make(tmp_path_factory.mktemp("against") / "bundle", RECIPE).path
    return path, {section: load_file(path / f"{section}.safetensors") for section in golden.SECTIONS}


@pytest.fixture
def changed(made, tmp_path):
    """A bundle of somebody else's, some of its tensors other ones, or missing."""
    path, tensors = made

    def write(section, hashed=True, **others):
        manifest = json.loads((path / "manifest.json").read_text())
        entries, arrays = manifest["tensors"][section], tensors[section] | others
        for name, array in others.items():
            if array is None:
                del entries[name], arrays[name]
            elif hashed:
                entries[name] |= {"sha256": sha(array), "shape": list(array.shape), "dtype": array.dtype.name}
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
        for each in golden.SECTIONS:
            save_file(arrays if each == section else tensors[each], tmp_path / "b" / f"{each}.safetensors")
        return tmp_path / "b"

    return write


def judged(path):
    found = golden.against(path)
    return {(rounding.section, rounding.name): rounding for rounding in found}


def units(found, right):
    """Distances in units in the last place of float32, of numbers of either sign."""
    lines = (
        np.where(of < 0, -(of.view(np.int32) & 0x7FFFFFFF).astype(int), of.view(np.int32))
        for of in (found, right)
    )
    return np.abs(np.subtract(*lines))


def test_errors_are_those_of_each_node_on_the_bundles_own_inputs(made):
    path, tensors = made
    found, net, blobs = judged(path), RECIPE.net(), tensors["blobs"]
    right = {}
    for node in net.nodes:
        x, *others = (
            blobs[name] if name in blobs else (tensors["params"] | tensors["inputs"])[name]
            for name in node.inputs
        )
        if node.op == "affine":
            s, b = (rational(of)[:, None, None, None] for of in others)
            right[node.name] = nearest_all(s * rational(x) + b, "float32")
        elif node.op == "conv3d" and x.size * others[0].size < 2e6:
            y, *_ = oracle(x, others[0], None, np.zeros_like(blobs[node.name]), **node.attrs)
            right[node.name] = y
    assert {node.op for node in net.nodes if node.name in right} == {"affine", "conv3d"} and len(right) > 20
    for name, expected in right.items():
        errors, rounding = units(blobs[name], expected), found["blobs", name]
        assert (rounding.elements, rounding.correct) == (errors.size, np.count_nonzero(errors == 0))
        assert (rounding.worst, rounding.typical) == (errors.max(), np.median(errors))
        assert rounding.worst == 0 or errors[rounding.where] == errors.max()
        assert rounding.explained and not rounding.derived
    assert sum(rounding.worst > 0 for rounding in found.values()) > 40


def test_what_exact_makes_is_correctly_rounded(tmp_path):
    for name, recipe in {
        "a": replace(RECIPE, arithmetic="exact"),
        "b": golden.Recipe(
            "resnet18_classifier",
            (2, 3, 1, 32, 32),
            {"width_per_group": 4, "classes": 5, "batch_norm": True, "training": True},
            arithmetic="exact",
        ),
        "c": replace(RECIPE, arithmetic="exact", backward=False, dtype="float64"),
    }.items():
        path = golden.make(tmp_path / name, recipe).path
        found = golden.against(path)
        assert all(
            r.correct == r.elements > 0 and r.worst == r.typical == 0 and r.where is None for r in found
        )
        assert {r.section for r in found} == ({"blobs"} if name == "c" else {"blobs", "gradients"})


def test_gradients_go_back_from_the_bundles_own_outputs(made, changed):
    """A blob that is another, within what rounding explains, does not spoil those before it."""
    _, tensors = made
    before = judged(made[0])
    other = tensors["gradients"]["res3_0_branch2a_w"].copy()
    at = np.unravel_index(np.abs(other).argmax(), other.shape)
    for _ in range(1000):
        other[at] = np.nextafter(other[at], np.float32(np.inf))
    after = judged(changed("gradients", res3_0_branch2a_w=other))
    name = "gradients", "res3_0_branch2a_w"
    assert after[name].where == tuple(map(int, at)) and 900 < after[name].worst < 1100 and after[name].derived
    assert {k: r for k, r in after.items() if k != name} == {k: r for k, r in before.items() if k != name}


def test_an_element_that_is_another_number_is_an_error_of_its_own_node(made, changed):
    other = made[1]["blobs"][BLOB].copy()
    other[0, 2, 0, 1, 1] = np.float32(3e30)
    found = judged(changed("blobs", **{BLOB: other}))
    assert found["blobs", BLOB].where == (0, 2, 0, 1, 1) and found["blobs", BLOB].worst > 10**8
    assert found["blobs", BLOB].unexplained == 0
    before = judged(made[0])
    after = [
        name
        for (section, name), r in found.items()
        if section == "blobs" and r.worst > before[section, name].worst
    ]
    assert BLOB in after and "res3_0_branch1_bn" not in after and len(after) < 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_explained(made, changed, value):
    other = made[1]["blobs"][BLOB].copy()
    other[0, 2, 0, 1, 1] = value
    found = judged(changed("blobs", **{BLOB: other}))
    rounding = found["blobs", BLOB]
    assert (rounding.unexplained, rounding.where, rounding.explained) == (1, (0, 2, 0, 1, 1), False)
    assert rounding.worst == judged(made[0])["blobs", BLOB].worst
    refused = [r for r in found.values() if r.section == "blobs" and r.note]
    assert len(refused) == 1 and refused[0].note.startswith(
        f"not compared: {BLOB} is {value} at (0, 2, 0, 1, 1): "
    )
    lost = [r for r in found.values() if r.section == "gradients"]
    assert lost and all(
        r.note == f"not compared: {refused[0].name} has no correctly rounded value to go back through"
        for r in lost
    )


def test_what_is_missing_or_damaged_is_named(made, changed):
    found = judged(changed("blobs", **{BLOB: None}))
    assert [(key, r.note) for key, r in found.items() if not r.explained] == [(("blobs", BLOB), "missing")]
    assert len(found) == len(judged(made[0]))


@pytest.mark.parametrize(
    ("section", "name", "change", "hashed", "note"),
    [
        ("gradients", "res3_0_branch2a_w", None, True, "missing"),
        ("gradients", "res3_0_branch2a_w", lambda a: a[:1], True, "not compared: float32 1x"),
        (
            "gradients",
            "res3_0_branch2a_w",
            lambda a: a + 1,
            False,
            "stored bits are not those of its SHA-256",
        ),
        ("blobs", BLOB, lambda a: a.astype("float64"), True, "not compared: float64 1x"),
        ("blobs", BLOB, lambda a: a + 1, False, "stored bits are not those of its SHA-256"),
    ],
)
def test_what_is_no_tensor_of_the_run_is_named(made, changed, section, name, change, hashed, note):
    other = None if change is None else np.ascontiguousarray(change(made[1][section][name]))
    found = judged(changed(section, hashed, **{name: other}))
    bad = {key: r.note for key, r in found.items() if r.note}
    assert bad.keys() == {(section, name)} and bad[section, name].startswith(note)


def test_a_bundle_must_hold_what_it_starts_from(made, changed, tmp_path):
    with pytest.raises(FileError, match=r"params conv1_w: stored bits are not those of its SHA-256"):
        golden.against(changed("params", False, conv1_w=made[1]["params"]["conv1_w"] + 1))
    golden.make(tmp_path / "h", RECIPE, hashes_only=True)
    with pytest.raises(
        FileError, match="holds only the hash of inputs data: expected a bundle with its tensors"
    ):
        golden.against(tmp_path / "h")
    with pytest.raises(
        UnknownNameError,
        match="unknown arithmetic to compare with 'core': expected exact, every value correctly rounded",
    ):
        golden.against(made[0], "core")


def test_the_command_shows_errors_and_ends_with_1_where_none_explains(refnet, made, changed):
    code, out, _ = refnet("golden", "verify", made[0], "--against", "exact")
    rounding = judged(made[0])["blobs", "conv1"]
    row = next(line.split() for line in out.splitlines() if line.split()[:3] == ["blobs", "conv1", "conv3d"])
    share = f"{100 * rounding.correct / rounding.elements:.2f}"
    assert code == 0 and row[3:7] == ["16,384", f"{rounding.worst:,}", f"{rounding.typical:.0f}", share]
    assert "made by core, against exact: " in out and "It holds no gradients of blobs" in out
    code, out, _ = refnet("golden", "verify", made[0], "--against", "exact", "--json")
    found = json.loads(out)
    assert code == 0 and found["ok"] and found["against"] == "exact" and len(found["tensors"]) == 69 + 42
    other = made[1]["blobs"][BLOB].copy()
    other[0, 0, 0, 0, 0] = np.nan
    path = changed("blobs", **{BLOB: other})
    code, out, _ = refnet("golden", "verify", path, "--against", "exact")
    assert code == 1 and "not finite: 1" in out and f"No rounding explains {BLOB}, " in out
    assert not json.loads(refnet("golden", "verify", path, "--against", "exact", "--json")[1])["ok"]
    fails(
        refnet("golden", "verify", path, "--against", "core"),
        "unknown arithmetic to compare with 'core'",
        "exact",
    )
