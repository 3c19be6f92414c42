"""The fixture `golden`, as a project's tests use it: each test here runs a project's pytest in a process."""

import json
import re
import shutil
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest

from refnet import errors, pinned
from refnet.errors import UnknownNameError
from refnet.golden import Recipe, make
from refnet.golden.folder import MANIFEST
from refnet.golden.recipe import BITS, EVERY_MACHINE

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "exact.md").read_text()
SMALL = {"width_per_group": 4}


def example(marker):
    (found,) = re.findall(rf"<!-- example: {marker} -->\n```\w*\n(.*?)```\n", PAGE, re.DOTALL)
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pinned.sys, "platform", "linux")
    return tmp_path / "cache" / "refnet" / "golden"


@pytest.fixture
def pin(tmp_path):
    """A manifest in a project's repository."""

    def write(arithmetic="core", dtype="float32", **changes):
        recipe = Recipe(
            "resnet18_conv4", (1, 3, 2, 16, 16), SMALL, dtype=dtype, arithmetic=arithmetic, **changes
        )
        bundle = make(tmp_path / "made", recipe, hashes_only=True, force=True)
        to = tmp_path / "res18.json"
        shutil.copy(bundle.path / MANIFEST, to)
        return to

    return write


@pytest.fixture
def project(pytester, monkeypatch, cache):
    """A project that has refnet installed: its entry points are those of pyproject.toml."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    site = pytester.path / "site"
    info = site / "refnet-0.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: refnet\nVersion: 0.0.0\n")
    lines = ["[pytest11]", *(f"{name} = {module}" for name, module in declared.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    return pytester


def edited(path, edit):
    """The manifest, changed."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_the_example_does_what_it_says(project, pin, cache):
    (project.path / "tests").mkdir()
    shutil.copy(pin(), project.path / "tests" / "res18.json")
    (project.path / "port.py").write_text(example("port"))
    project.makepyfile(**{"tests/test_port": example("pytest")})
    for _ in range(2):
        project.runpytest_subprocess("--rootdir", project.path).assert_outcomes(passed=2)
    assert len(list(cache.iterdir())) == 1


def test_every_example_is_run():
    assert PAGE.count("```python\n") == len([example("port"), example("pytest")])


def test_the_fixture_is_found_and_described(project):
    shown = project.runpytest_subprocess("--fixtures", "-v").stdout.str()
    assert "golden [session scope]" in shown and "Golden values of a network" in shown


def test_a_failure_names_the_array_and_the_place(project, pin):
    shutil.copy(pin(), project.path)
    project.makepyfile(
        """
        def test_bits(golden):
            wrong = golden("res18.json")["conv1"].copy()
            wrong[0, 1, 0, 2, 3] *= 1 + 2**-20
            golden("res18.json").same({"conv1": wrong})

        def test_rounding(golden):
            wrong = golden("res18.json")["conv1"].copy()
            wrong[0, 1, 0, 2, 3] += 1
            golden("res18.json").check({"conv1": wrong})
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=2)
    shown = result.stdout.str()
    assert "1 of 1 arrays are not those of" in shown
    assert re.search(
        r"conv1: 1 of [\d,]+ elements differ, by [\d,]+ ulp at most; first at \[0, 1, 0, 2, 3\]", shown
    )
    assert re.search(r"conv1: impossible", shown)
    assert "pinned.py" not in shown  # the project's own line is what is shown


@pytest.mark.parametrize("arithmetic", [a for a, bits in BITS.items() if bits == EVERY_MACHINE])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_derived_once_as_the_manifest_says(cache, pin, monkeypatch, arithmetic, dtype):
    path, calls = pin(arithmetic, dtype), []
    monkeypatch.setattr(pinned, "make", lambda *a, **k: calls.append(a) or make(*a, **k))
    first, second = pinned.pinned(path), pinned.pinned(path)
    assert len(calls) == 1 and first.recipe == second.recipe and first.recipe.arithmetic == arithmetic
    assert first.bundle.path.parent == cache
    names = [node.name for node in first.net.nodes]
    second.same({name: first[name] for name in names})
    gradients = {name: first[name] for name in first.names if name in {f"d {n}" for n in first.net.params}}
    assert len(gradients) > 20
    second.same(gradients)
    claims = {"accumulate": dtype, "store": dtype}
    report = second.check({name: first[name] for name in names}, **claims)
    assert report.ok and set(report.verdicts) == set(names)
    assert second.check({name: first[name] for name in names} | gradients, **claims).ok


def test_a_folder_of_hashes_is_a_pin_too(cache, pin, tmp_path):
    pin()
    golden = pinned.pinned(tmp_path / "made")
    golden.same(golden.given)
    assert set(golden.given) == {*golden.net.inputs, *golden.net.params}
    assert set(golden.output_gradients) == set(golden.net.outputs)


def test_a_run_on_its_own_inputs_is_judged_on_these(cache, pin):
    golden = pinned.pinned(pin())
    doubled = golden.given["data"] * 2
    golden.check({"data": doubled, "conv1": golden["conv1"] * 2})
    with pytest.raises(AssertionError, match="not what .* gives, but for rounding"):
        golden.check({"data": doubled, "conv1": golden["conv1"]})


def test_a_tampered_cache_is_noticed(cache, pin):
    path = pin()
    golden = pinned.pinned(path)
    file = golden.bundle.path / "blobs.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    again, damaged = pinned.pinned(path), []
    for node in again.net.nodes:
        try:
            again[node.name]
        except errors.FileError as error:
            damaged.append(str(error))
    assert len(damaged) == 1 and "is damaged" in damaged[0] and str(again.bundle.path) in damaged[0]


@pytest.mark.parametrize("damage", ["manifest", "hash"])
def test_a_cache_that_is_no_such_bundle_is_derived_again(cache, pin, damage):
    path = pin()
    place = pinned.pinned(path).bundle.path
    if damage == "hash":
        edited(place / MANIFEST, lambda m: m["tensors"]["blobs"]["conv1"].update(sha256="0" * 64))
    else:
        edited(place / MANIFEST, lambda m: m.update(format_version=1))
    golden = pinned.pinned(path)
    golden.same({"conv1": golden["conv1"]})


def test_other_bits_than_pinned_are_refused(cache, pin):
    path = pin()
    edited(path, lambda m: m["tensors"]["blobs"]["conv1"].update(sha256="0" * 64))
    for _ in range(2):  # what was derived for a wrong pin stays refused
        with pytest.raises(errors.FileError, match="pins other bits of blobs conv1 than core gives here"):
            pinned.pinned(path)


def test_what_is_no_manifest_is_refused_by_its_own_name(cache, tmp_path):
    path = tmp_path / "res18.json"
    with pytest.raises(errors.FileError, match=r"res18\.json cannot be read"):
        pinned.pinned(path)
    path.write_text("{")
    with pytest.raises(errors.FileError, match=rf"^{re.escape(str(path))} is not readable JSON"):
        pinned.pinned(path)


def test_arrays_are_compared_by_shape_dtype_and_bits(cache, pin):
    golden = pinned.pinned(pin())
    conv1 = golden["conv1"]
    golden.same({"conv1": np.asfortranarray(conv1)})
    golden.same({"conv1": conv1.astype(">f4").astype("<f4")})
    for wrong in (conv1[..., 1:], conv1.astype(np.float64), conv1[None]):
        with pytest.raises(AssertionError, match="conv1: .*expected float32 1x"):
            golden.same({"conv1": wrong})
    zeros = golden["res_conv1_bn"] * 0
    with pytest.raises(AssertionError, match="elements differ"):
        golden.same({"res_conv1_bn": zeros})
    with pytest.raises(AssertionError, match="nothing to compare"):
        golden.same({})
    with pytest.raises(errors.UnknownNameError, match="conv2"):
        golden.same({"conv2": conv1})


def test_an_architecture_is_a_recipe(cache):
    options = {"input": (1, 3, 2, 16, 16), "options": SMALL, "arithmetic": "core", "dtype": "float32"}
    golden = pinned.recipe("resnet18_conv4", **options)
    assert pinned.recipe("resnet18_conv4", **options).bundle.path == golden.bundle.path
    assert pinned.recipe("resnet18_conv4", **options, seed=1).bundle.path != golden.bundle.path
    golden.same({"conv1": golden["conv1"]})


def test_other_code_derives_a_recipe_anew(cache, tmp_path, monkeypatch):
    """A module, or a kernel, of the same version: what Python writes beside them says nothing."""
    package = tmp_path / "package"
    states = []
    for name in ("a.py", f"inner/kernel{EXTENSION_SUFFIXES[0]}", "inner/__pycache__/a.pyc", "py.typed"):
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for content in (b"1", b"2"):
            file.write_bytes(content)
            pinned.code_of.cache_clear()
            states.append(pinned.code_of(package))
    assert len(set(states[:4])) == 4
    assert set(states[4:]) == {states[3]}

    options = {"input": (1, 3, 2, 16, 16), "options": SMALL, "arithmetic": "core"}
    before = pinned.recipe("resnet18_conv4", **options).bundle.path
    monkeypatch.setattr(pinned, "code_of", lambda package: states[0])
    assert pinned.recipe("resnet18_conv4", **options).bundle.path != before


def test_every_name_that_a_bundle_has_is_judged_or_given(cache, pin):
    golden = pinned.pinned(pin())
    report = golden.check({name: golden[name] for name in golden.names})
    computed = {
        name for name, (section, _) in golden.bundle.places.items() if section in ("blobs", "gradients")
    }
    assert {*report.verdicts} == computed
    (start,) = (name for name in golden.names if name.startswith("d output "))
    doubled = {name: 2 * golden[name] for name in golden.names if name.startswith("d ")}
    blobs = {name: golden[name] for name in golden.names if not name.startswith("d ")}
    assert golden.check(blobs | doubled).ok
    with pytest.raises(AssertionError, match="not what .* gives, but for rounding"):
        golden.check(blobs | doubled | {start: golden[start]})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet18_conv9", {}, "did you mean resnet18_conv4"),
        ("resnet18_conv4", {"transformation": "basic"}, r"expected it in options=\{'transformation': ...\}"),
        ("resnet18_conv4", {"dtypes": "float32"}, "did you mean dtype"),
    ],
)
def test_mistakes_get_one_line(cache, name, options, said):
    with pytest.raises(UnknownNameError, match=said):
        pinned.recipe(name, **options)


def test_a_pinned_recipe_takes_no_options(project, pin):
    shutil.copy(pin(), project.path)
    project.makepyfile(
        """
        def test_options(golden):
            golden("res18.json", dtype="float64")

        def test_a_misspelt_architecture(golden):
            golden("resnet18_conv9")
        """
    )
    shown = project.runpytest_subprocess().stdout.str()
    assert "res18.json pins its recipe: expected no dtype beside" in shown
    assert "unknown architecture 'resnet18_conv9': did you mean resnet18_conv4" in shown


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "/x", "/x/refnet/golden"),
        ("linux", "XDG_CACHE_HOME", "relative", "/home/a/.cache/refnet/golden"),
        ("linux", "XDG_CACHE_HOME", None, "/home/a/.cache/refnet/golden"),
        ("darwin", "XDG_CACHE_HOME", "/x", "/home/a/Library/Caches/refnet/golden"),
        ("win32", "LOCALAPPDATA", "/l", "/l/refnet/golden"),
        ("win32", "LOCALAPPDATA", None, "/home/a/AppData/Local/refnet/golden"),
    ],
)
def test_the_folder_is_the_systems(monkeypatch, platform, variable, value, expected):
    monkeypatch.setattr(pinned.sys, "platform", platform)
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    assert pinned.cache_folder() == Path(expected)
