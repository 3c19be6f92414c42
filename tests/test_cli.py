"""The command line: what it prints, its exit codes, and one clear line for every mistake."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import fails, peer

from refnet import golden, memory
from refnet.arithmetic.core import runtime
from refnet.arrays import DTYPES
from refnet.bench import load
from refnet.cli.bench import measurable, named_problems, words_of_problems
from refnet.cli.options import CHOICES
from refnet.networks import ARCHITECTURES, build
from refnet.ops import OPS
from refnet.render import figure
from refnet.render.facts import short

SMALL = ["--input", "1x3x1x32x32", "--width-per-group", "4", "--time-kernel", "1"]


def test_list(refnet):
    code, out, _ = refnet("list")
    assert code == 0 and "resnet152_conv5" in out and "4.86 M" in out
    found = json.loads(refnet("list", "--json")[1])["architectures"]
    assert len(found) == 25 and found[0]["params"] == 4857152


def test_info(refnet):
    code, out, _ = refnet("info")
    assert (
        code == 0 and "openmp" in out and "conv3d: Cython" in out and "stop_gradient: NumPy definition" in out
    )
    assert json.loads(refnet("info", "--json")[1])["numpy"] == np.__version__


def test_trace(refnet):
    code, out, _ = refnet("trace", "resnet18_conv4")
    assert code == 0 and "944,111,616" in out and "4,857,152 parameters" in out
    rows = json.loads(refnet("trace", "resnet18_conv4", "--freeze-at", "3", "--json")[1])["nodes"]
    flows = {row["name"]: row["gradient"] for row in rows}
    assert flows["res4_0_branch2a"] and not flows["res3_0_branch2a"]


def test_trace_of_freeze_points(refnet):
    code, out, _ = refnet("trace", "resnet18_conv4", "--freeze", "0,2,4", *SMALL)
    assert code == 0 and "100.00 %" in out and "gradient norm" in out
    points = json.loads(refnet("trace", "resnet18_conv4", "--freeze", "0,2", "--json", *SMALL)[1])
    assert [point["freeze_at"] for point in points] == [0, 2]
    fails(refnet("trace", "resnet18_conv4", "--freeze", "0,x"), "--freeze is '0,x'", "such as 0,2,3")
    fails(refnet("trace", "resnet18_conv4", "--freeze", "0,5"), "freeze_at is 5")


def test_freeze_points_are_measured_beside_a_word_on_a_busy_machine(refnet, monkeypatch):
    monkeypatch.setattr(load, "LOOK", 0)
    monkeypatch.setattr(load, "others", lambda since: 0.0)
    freeze = ("trace", "resnet18_conv4", "--freeze", "0,2", *SMALL, "--threads", 1)
    assert refnet(*freeze)[2] == ""
    monkeypatch.setattr(load, "others", lambda since: float(os.cpu_count()))
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = refnet(*freeze)
    assert code == 0 and err.startswith("refnet: the machine is busy: others use ") and err.count("\n") == 1
    assert "of the first" in out.splitlines()[0] and "Not shown in 80 columns: held (" in out
    code, out, err = refnet(*freeze, "--json")
    assert "the machine is busy" in err and len(json.loads(out)) == 2


def test_trace_has_receptive_fields(refnet):
    code, out, _ = refnet("trace", "resnet18_conv4", *SMALL)
    assert code == 0 and "1x11x11" in out
    rows = json.loads(refnet("trace", "fpn_resnet18_conv5", "--json")[1])["nodes"]
    fields = {row["name"]: row["field"] for row in rows}
    assert fields["conv1"]["H"] == {"size": 7, "step": 2, "offset": -3}
    assert fields["fpn_res4_1_sum"]["T"]["step"] == 1


def test_trace_explains_a_node(refnet):
    code, out, err = refnet("trace", "resnet18_conv4", "--explain", "res3_0_branch2b")
    assert (code, err) == (0, "") and "(128 x 3456) times (3456 x 6272) = (128 x 6272)" in out
    assert "t = -1, padding" in out and "350,879,744 of them on padding" in out
    code, out, _ = refnet("trace", "resnet18_conv4", "--explain", "conv1", "--json")
    found = json.loads(out)
    assert found["product"]["R"] == 147 and found["windows"][1]["padded_outputs"] == 3
    assert found["field"]["W"]["size"] == 7 and found["gradient"] is False
    assert "blocked by res2_1_stop" in refnet("trace", "resnet18_conv4", "--explain", "pool1")[1]


def test_trace_writes_a_plot_and_a_page(refnet, tmp_path, monkeypatch):
    peer("matplotlib")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    both = ["trace", "resnet18_conv4", *SMALL, "--plot", "a.svg", "--html", "a.html"]
    code, out, err = refnet(*both)
    assert (code, err) == (0, "") and out.splitlines()[0].startswith("a.svg: ") and "a.html: " in out
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(first) == {"a.svg", "a.html"} and first["a.html"].startswith(b"<!doctype html>")
    page = first["a.html"].decode()
    assert "refnet trace resnet18_conv4 --input 1x3x1x32x32 --width-per-group 4" in page
    assert (
        "--html a.html</pre>" in page
        and "1970-01-02" in page
        and "<dt>freeze-at</dt><dd>2" in page
        and "<dt>time-kernel</dt><dd>1" in page
    )
    code, out, _ = refnet(*both, "--json")
    assert code == 0 and len(json.loads(out)["nodes"]) == 69
    assert first == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    code, out, _ = refnet("trace", "resnet18_conv4", *SMALL, "--freeze", "0,2", "--html", "a.html")
    assert code == 0 and "gradient norm" in out and b"gradient norm" in (tmp_path / "a.html").read_bytes()
    assert refnet("trace", "resnet18_conv4", *SMALL, "--plot", "a.PNG")[0] == 0
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    fails(refnet("trace", "resnet18_conv4", "--html", "b.html"), "SOURCE_DATE_EPOCH is 'soon'")
    fails(refnet("gradcheck", "relu", "--html", "b.html"), "SOURCE_DATE_EPOCH is 'soon'")
    assert refnet("gradcheck", "relu", "--draws", 1)[0] == 0


def test_places_that_cannot_be_written(refnet, tmp_path):
    (tmp_path / "a.svg").mkdir()
    (tmp_path / "a.html").symlink_to(tmp_path)
    fails(refnet("trace", "resnet18_conv4", "--plot", "a.svg"), "a.svg exists and is not a file")
    fails(refnet("trace", "resnet18_conv4", "--html", "a.html"), "a.html exists and is not a file")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.html", "a.svg"]


def test_a_plot_without_matplotlib(refnet, tmp_path, monkeypatch):
    monkeypatch.setattr(figure, "find_spec", lambda name: None)
    plot = refnet("trace", "resnet18_conv4", "--plot", "a.svg", "--html", "a.html")
    fails(plot, "matplotlib", 'pip install "refnet[plots]"')
    assert not list(tmp_path.iterdir())


def test_counts_of_a_narrow_trace():
    assert [short(n) for n in (7, 9408, 944111616, 15150000000)] == ["7", "9.4 k", "944.1 M", "15.2 G"]


def test_version_and_help(refnet):
    code, out, _ = refnet("--version")
    assert code == 0 and out.startswith("refnet 0.")
    code, out, _ = refnet("golden", "make", "--help")
    assert code == 0 and "--hashes-only" in out
    for group in ((), ("golden",), ("bench",)):
        assert "..." not in refnet(*group, "-h")[1].partition("Commands:")[2]


@pytest.mark.parametrize("width", ["40", "80", "160"])
def test_no_line_ends_in_blanks(refnet, monkeypatch, width):
    """Of tables, of text that is folded, of what is drawn."""
    monkeypatch.setenv("COLUMNS", width)
    for command in (["list"], ["info"], ["trace", "resnet18_conv4"], ["list", "resnet18_conv4"]):
        assert not re.search(r" $", refnet(*command)[1], re.MULTILINE)
    out = refnet("trace", "resnet18_conv4", "--explain", "res3_0_branch2a")[1]
    assert not re.search(r" $", out, re.MULTILINE)


@pytest.mark.parametrize(("arch", "op"), [("resnet18_conv4", "conv3d"), ("roi_resnet18_conv4", "roi_align")])
def test_no_formula_is_folded_in_80_columns(refnet, monkeypatch, arch, op):
    monkeypatch.setenv("COLUMNS", "80")
    node = [node.name for node in build(arch).nodes if node.op == op][-1]
    out = refnet("trace", arch, "--explain", node)[1].splitlines()
    definition = sys.modules[OPS[op].forward.__module__].__doc__.splitlines()
    formulas = [f"  {line}" for line in definition if line.startswith("    ")]
    assert formulas and set(formulas) <= set(out)
    sizes = [line for line in out if "floor(" in line]
    assert all(re.search(r"\) \+ 1 = \d+$", line) for line in sizes) and (sizes or op != "conv3d")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("refnet tr", ["trace"]),
        ("refnet golden ma", ["make"]),
        ("refnet trace resnet101", ["resnet101_classifier", "resnet101_conv4", "resnet101_conv5"]),
        ("refnet list fpn_resnet5", ["fpn_resnet50_conv5"]),
        ("refnet gradcheck max", ["max_pool3d"]),
        ("refnet certify conv", ["conv3d"]),
        ("refnet gradcheck relu --arithmetic ", ["core", "exact", "reference"]),
        ("refnet golden make resnet18_conv4 out --dtype float3", ["float32"]),
        ("refnet bench --dtype float64,f", ["float64,float32"]),
        ("refnet trace resnet18_conv4 --transformation b", ["basic", "bottleneck"]),
        ("refnet trace resnet18_conv4 --explain res4_1_branch2c_", ["res4_1_branch2c_bn"]),
        ("refnet golden verify a --th", ["--threads"]),
        ("refnet golden make resnet18_conv4 o --only inputs,p", ["inputs,params"]),
        ("refnet gradcheck resnet18_conv4 --tensors res3_0_branch1_w", ["res3_0_branch1_w"]),
        ("refnet gradcheck resnet18_conv4 --tensors data,conv1", ["data,conv1_w"]),
        ("refnet gradcheck relu --tensors ", []),
        ("refnet bench --only 1x7", ["1x7x7/2"]),
        ("refnet bench --only re", []),
        ("refnet bench --operators --only rel", ["relu"]),
        ("refnet bench --operators --only conv", []),
        ("refnet bench --arch resnet18_conv4 --only s", []),
    ],
)
def test_completion(refnet, monkeypatch, line, words):
    monkeypatch.setenv("_REFNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    code, out, err = refnet()
    assert (code, sorted(out.split()), err) == (0, words, "")


@pytest.mark.parametrize("operators", [False, True])
def test_what_only_completes_is_what_bench_takes(operators):
    context = SimpleNamespace(params={"operators": operators})
    words = words_of_problems(context, "")
    assert {problem.op for problem in measurable(operators)} <= set(words) and len(words) == len(set(words))
    for word in words:
        assert named_problems(operators, word) and shlex.split(word) == [word]


def test_threads_are_those_that_are_asked_for(refnet, monkeypatch):
    """Each command that computes has them, and says so in a bundle; afterwards they are as before."""
    before, most = runtime.threads(), os.cpu_count()
    made = ["golden", "make", "resnet18_conv4", "--hashes-only", "--force", *SMALL]
    for count in {1, min(2, most)}:
        code, out, _ = refnet(*made, "a", "--threads", count, "--json")
        used = json.loads(out)["machine"]["threads"]
        assert code == 0 and used == (count if runtime.openmp_enabled() else 1)
    computing = (
        ["golden", "verify", "a"],
        ["gradcheck", "relu", "--draws", 1],
        ["trace", "resnet18_conv4", "--freeze", "2", *SMALL],
    )
    for command in computing:
        assert refnet(*command, "--threads", 1)[0] == 0
    assert "--threads" in refnet("certify", "-h")[1] and "--threads" in refnet("bench", "-h")[1]
    assert runtime.threads() == before
    for command in (*computing, [*made, "b"], ["certify", "a", "a"]):
        fails(
            refnet(*command, "--threads", most + 1), f"--threads is {most + 1}: expected a whole number from"
        )
    fails(refnet("trace", "resnet18_conv4", "--threads", 1), "nothing is computed: expected --freeze too")
    monkeypatch.setattr(runtime, "openmp_enabled", lambda: False)
    if most > 1:
        fails(refnet(*made, "b", "--threads", 2), "without OpenMP: expected 1")


def test_every_architecture_shows_its_options(refnet, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for name, architecture in ARCHITECTURES.items():
        code, out, _ = refnet("list", name)
        rows = [line.split("  ") for line in out.splitlines() if line.startswith(" --")]
        assert code == 0 and len(rows) == len(architecture.options)
        assert len(json.loads(refnet("list", name, "--json")[1])["architectures"]) == 1
    out = " ".join(refnet("trace", "-h")[1].split())
    assert "0: none. [default: 2; resnet*_classifier: 0]" in out
    assert "[default: bottleneck; resnet18_classifier, resnet34_classifier: basic]" in out
    assert (
        "half-pixel shift. [default: --legacy]" in out and "Tubes of a head over regions. [default: 8]" in out
    )
    fails(refnet("list", "resnet18"), "unknown architecture 'resnet18': did you mean resnet18_conv")


def test_make_verify_diff(refnet, tmp_path):
    code, out, err = refnet("golden", "make", "resnet18_conv4", "a", *SMALL)
    assert code == 0 and "22 gradients blocked" in out and err == ""
    assert refnet("golden", "verify", "a")[:2] == (
        0,
        "a: derived again: 176 of 176 tensors equal bit for bit.\n",
    )
    code, out, _ = refnet("golden", "make", "resnet18_conv4", "b", "--seed", "1", "--json", *SMALL)
    assert code == 0 and json.loads(out)["recipe"]["seed"] == 1
    code, out, _ = refnet("golden", "diff", "a", "b")
    assert code == 1 and out.startswith("The recipes differ: seed 0 and 1 (what is drawn is other).\n")
    assert "0 of 176 tensors equal bit for bit, 176 not" in out
    code, out, _ = refnet("golden", "diff", "a", "b", "--json")
    found = json.loads(out)
    assert code == 1 and not found["ok"] and len(found["tensors"]) == 176
    assert found["first"] == found["tensors"][0] and found["first"]["section"] == "inputs"
    assert json.loads(refnet("golden", "diff", "a", "a", "--json")[1])["first"] is None
    assert refnet("golden", "diff", "a", "a")[0] == 0

    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["machine"]["cpu"] = "another"
    manifest["tensors"]["blobs"]["pool1"]["sha256"] = "0" * 64
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    code, out, _ = refnet("golden", "verify", "b")
    assert code == 1 and "pool1" in out and "made with cpu another, here" in out
    assert "The bits of core belong to every machine: others are of another version of refnet" in out


def test_what_needed_integers_is_shown(refnet):
    code, out, _ = refnet("golden", "make", "resnet18_conv4", "e", *SMALL, "--arithmetic", "exact")
    rows = [line.split() for line in out.splitlines()]
    net = build("resnet18_conv4", input=(1, 3, 1, 32, 32), width_per_group=4, time_kernel=1)
    convolved = sum(int(np.prod(node.shape)) for node in net.nodes if node.op == "conv3d")
    assert code == 0 and ["conv3d", "y", f"{convolved:,}"] == next(
        row[:3] for row in rows if row[:2] == ["conv3d", "y"]
    )
    assert {("conv3d", "dx"), ("conv3d", "dw"), ("affine", "db"), ("add", "y")} <= {
        tuple(row[:2]) for row in rows
    }
    assert " %) needed integers: sums in a few doubles did not decide how they are rounded.\n" in out
    assert refnet("golden", "verify", "e")[0] == 0
    assert "integers" not in refnet("golden", "make", "resnet18_conv4", "c", *SMALL)[1]


def test_where_a_difference_begins(refnet, tmp_path):
    for folder, options in (("a", []), ("h", ["--hashes-only"])):
        assert refnet("golden", "make", "resnet18_conv4", folder, *SMALL, *options)[0] == 0
    assert refnet("golden", "make", "resnet18_conv4", "r", *SMALL, "--arithmetic", "reference")[0] == 0
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    manifest["tensors"]["blobs"]["pool1"]["sha256"] = "0" * 64
    (tmp_path / "r" / "manifest.json").write_text(json.dumps(manifest))
    assert "The bits of reference belong to the machine that made them" in refnet("golden", "verify", "r")[1]
    code, out, _ = refnet("golden", "diff", "a", "r")
    assert code == 1 and "The first to differ is conv1 of blobs (conv3d): " in out
    assert re.search(
        r" of 16,384 elements \([0-9.]+ %\), by [0-9,]+ ulp and .* of their size at most; the", out
    )
    assert " of them computed from something that differs." in out

    unchanged = (tmp_path / "h" / "manifest.json").read_text()
    manifest = json.loads(unchanged)
    for section, name in (
        ("blobs", "pool1"),
        ("blobs", "res3_0_branch1"),
        ("blobs", "res2_0_branch2a"),
        ("gradients", "res4_0_branch1_w"),
    ):
        manifest["tensors"][section][name]["sha256"] = "0" * 64
    (tmp_path / "h" / "manifest.json").write_text(json.dumps(manifest))
    code, out, _ = refnet("golden", "verify", "h")
    assert code == 1 and "172 of 176 tensors equal bit for bit, 4 not" in out
    assert (
        "The first to differ is pool1 of blobs (max_pool3d): derived bits are not those of its SHA-256" in out
    )
    assert "In how many of its 4,096 elements, and by how much: refnet golden diff" in out
    assert "3 more differ after it, 2 of them computed from something that differs." in out
    assert "Computed from what is equal, and different: res3_0_branch1." in out
    code, out, _ = refnet("golden", "verify", "h", "--json")
    first = json.loads(out)["first"]
    assert "belong to" not in out
    assert code == 1 and (first["node"], first["op"], first["different"]) == ("pool1", "max_pool3d", None)

    manifest = json.loads(unchanged)
    manifest["blocked"].append("conv2")
    manifest["tensors"]["gradients"]["bogus"] = manifest["tensors"]["gradients"]["res4_0_branch1_w"]
    (tmp_path / "h" / "manifest.json").write_text(json.dumps(manifest))
    out = refnet("golden", "verify", "h")[1]
    assert "tensors equal bit for bit, 1 not; of the graph and the blocked gradients, 1 differs." in out
    assert "The first to differ is bogus of gradients: in the manifest, but not of this recipe." in out
    assert "1 more differs after it, " in out


@pytest.mark.parametrize(
    ("transformation", "place", "stride_1x1"),
    [("basic", "--stride-1x1", True), ("bottleneck", "--stride-3x3", False)],
)
def test_every_option_reaches_the_bundle(refnet, tmp_path, transformation, place, stride_1x1):
    options = [
        *("--transformation", transformation, "--time-kernel", 5, "--time-stride", "--freeze-at", 5),
        *("--groups", 2, "--width-per-group", 4, place, "--dilation", 2),
        *("--seed", 7, "--dtype", "float32", "--arithmetic", "reference", "--hashes-only"),
        *("--input", "2x3x3x32x48"),
    ]
    code, out, _ = refnet("golden", "make", "resnet18_conv5", "a", *options)
    assert code == 0 and "SHA-256 only" in out
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["manifest.json"]
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["recipe"] == {
        "architecture": "resnet18_conv5",
        "input": [2, 3, 3, 32, 48],
        "options": {
            "transformation": transformation,
            "freeze_at": 5,
            "time_kernel": 5,
            "time_stride": True,
            "groups": 2,
            "width_per_group": 4,
            "stride_1x1": stride_1x1,
            "dilation": 2,
            "batch_norm": False,
            "training": False,
        },
        "seed": 7,
        "clip": None,
        "dtype": "float32",
        "arithmetic": "reference",
        "backward": True,
        "store": None,
        "own": {},
    }
    assert refnet("golden", "verify", "a")[0] == 0


def test_every_option_of_every_architecture_can_be_given(refnet):
    """The terminal's table of options is the catalog's."""
    assert set(CHOICES) == {option for a in ARCHITECTURES.values() for option in a.options}
    code, out, _ = refnet(
        *("golden", "make", "roi_resnet18_conv4", "a", "--hashes-only", "--json", "--input", "1x3x2x32x32"),
        *("--width-per-group", 4, "--batch-norm", "--rois", 2, "--resolution", 7, "--sampling-ratio", 0),
        *("--aligned", "--link", "average"),
    )
    assert code == 0
    options = json.loads(out)["recipe"]["options"]
    given = {"batch_norm": True, "rois": 2, "resolution": 7, "sampling_ratio": 0, "aligned": True}
    assert given.items() <= options.items() and options["link"] == "average"


def test_a_training_step_is_made_and_verified(refnet):
    small = ("--input", "2x3x1x32x32", "--width-per-group", 4, "--classes", 5, "--batch-norm", "--training")
    code, out, _ = refnet("golden", "make", "resnet18_classifier", "a", *small)
    assert code == 0 and "0 gradients blocked (freeze_at 0)" in out
    code, out, _ = refnet("golden", "verify", "a", "--json")
    assert code == 0
    tensors = {(t["section"], t["name"]) for t in json.loads(out)["tensors"]}
    assert {("inputs", "labels"), ("output_gradients", "loss"), ("gradients", "conv1_w")} <= tensors
    assert ("blobs", "res_conv1_bn_running_variance") in tensors
    assert ("output_gradients", "prob") not in tensors and ("gradients", "labels") not in tensors


def test_a_classifier_takes_one_frame_of_a_clip(refnet, video):
    frame = ("--clip", video, "--size", "32x32", "--width-per-group", 4)
    code, out, _ = refnet("golden", "make", "resnet18_classifier", "a", *frame)
    assert code == 0 and "on 1x3x1x32x32" in out
    assert refnet("golden", "verify", "a")[0] == 0


def test_freeze_points_on_a_clip(refnet, video):
    clip = ("--clip", video, "--frames", 2, "--size", "32x32", "--width-per-group", 4)
    shares = []
    for given in (clip, ("--input", "1x3x2x32x32", "--width-per-group", 4)):
        code, out, _ = refnet("trace", "resnet18_conv4", "--freeze", "0,2", "--json", *given)
        assert code == 0
        shares.append([point["gradient_share"] for point in json.loads(out)])
    assert shares[0][0] == shares[1][0] == 0 and shares[0][1] != shares[1][1]
    code, out, _ = refnet("trace", "resnet18_conv4", *clip)
    assert code == 0 and "1x3x2x32x32" in out
    fails(refnet("trace", "resnet18_conv4", "--frames", 2), "--frames is 2, but there is no clip")


def test_a_bundle_without_backward_blocks_nothing(refnet):
    code, out, _ = refnet("golden", "make", "resnet18_conv4", "a", "--no-backward", *SMALL)
    assert code == 0 and "no gradients." in out
    assert refnet("golden", "make", "resnet18_conv4", "b", *SMALL)[0] == 0
    code, out, _ = refnet("golden", "diff", "a", "b", "--json")
    assert code == 1
    sections = {row["section"] for row in json.loads(out)["tensors"] if not row["equal"]}
    assert sections == {"gradients", "output_gradients"}


def test_what_a_clip_of_its_own_size_takes_is_said(refnet, tmp_path):
    """As the checks of memory and disk count it, before anything is computed; of a given size nothing is."""
    np.save("clip.npy", np.zeros((2, 32, 48, 3), np.uint8))
    make = ("golden", "make", "resnet18_conv4", "o", "--force", "--clip", "clip.npy", "--frames", 2)
    recipe = golden.Recipe("resnet18_conv4", (1, 3, 2, 32, 48))
    net = recipe.net()
    needed = memory.text(recipe.needed_bytes(net))
    said = (
        "refnet: the input is 1x3x2x32x48, frames of their own size (--size resizes them): "
        f"a run takes about {needed} of memory"
    )
    stored = {(): golden.SECTIONS, ("--only", "outputs"): ("outputs",), ("--hashes-only",): ()}
    for options, groups in stored.items():
        code, _, err = refnet(*make, *options)
        disk = f" and {memory.text(recipe.stored_bytes(net, groups))} of disk" if groups else ""
        assert (code, err) == (0, f"{said}{disk}\n")
    assert refnet(*make, "--size", "32x48")[2] == ""
    freeze = ("trace", "resnet18_conv4", "--clip", "clip.npy", "--frames", 2)
    assert refnet(*freeze, "--freeze", "2")[2].startswith(f"{said}\n") and refnet(*freeze)[2] == ""
    assert all("[default: their own]" in " ".join(refnet(*c, "-h")[1].split()) for c in (make[:2], ["trace"]))


def test_make_from_a_clip(refnet, video):
    frames = ["--clip", video, "--frames", 2, "--stride", 4, "--start", 3, "--size", "32x32"]
    frames += ["--resize", "area"]
    code, out, _ = refnet("golden", "make", "resnet18_conv4", "a", *frames, *SMALL[2:])
    assert code == 0 and "on 1x3x2x32x32" in out
    assert refnet("golden", "verify", "a")[0] == 0


def test_a_bundle_is_replaced_only_with_force(refnet):
    make = ["golden", "make", "resnet18_conv4", "a", *SMALL]
    assert refnet(*make)[0] == 0
    fails(refnet(*make), "bundle a exists", "--force")
    assert refnet(*make, "--force", "--no-backward")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mak"], ["mak"]),
        (["trace"], ["ARCH"]),
        (["trace", "resnet18_con4"], ["resnet18_con4", "did you mean resnet18_conv4"]),
        (["trace", "ResNet18"], ["'ResNet18': did you mean resnet18_conv4 or resnet18_conv5 or"]),
        (["trace", "resnet18_conv4", "--rois", "8"], ["'rois': it is one of roi_resnet*_conv4"]),
        (
            ["golden", "make", "resnet18_conv4", "o", "--rois", "8"],
            ["'rois': it is one of roi_resnet*_conv4"],
        ),
        (
            ["golden", "make", "resnet18_conv4", "o", "--store", "float32", "--dtype", "float32"],
            ["store is float32 and dtype float32: expected dtype float64", "or no store"],
        ),
        (["trace", "resnet18_conv4", "--bogus"], ["--bogus"]),
        (["trace", "resnet18_conv4", "--freeze-at", "x"], ["--freeze-at", "x"]),
        (["trace", "resnet18_conv4", "--freeze-at", "1"], ["freeze_at is 1", "0 or a stage"]),
        (["trace", "resnet18_conv4", "--input", "1x3x8x224"], ["--input", "1x3x8x224", "5 whole numbers"]),
        (["trace", "resnet18_conv4", "--input", "1x3x0x32x32"], ["size T is 0", "at least 1"]),
        (["trace", "resnet18_conv4", "--input", "1x3x-2x32x32"], ["size T is -2"]),
        (["trace", "resnet18_conv4", "--input", "1x4x2x32x32"], ["size C is 4", "3 channels"]),
        (["trace", "resnet18_conv4", "--transformation", "x"], ["transformation 'x'", "bottleneck, basic"]),
        (["trace", "resnet18_conv4", "--groups", "3", "--transformation", "basic"], ["groups is 3"]),
        (["trace", "resnet18_conv4", "--explain", "res3_0_branch"], ["node 'res3_0_branch'", "did you mean"]),
        (["trace", "resnet18_conv4", "--explain", ""], ["unknown node ''"]),
        (["trace", "resnet18_conv4", "--explain", "conv1", "--freeze", "0,2"], ["--freeze 0,2", "one of"]),
        (
            ["trace", "resnet18_conv4", "--freeze", "2", "--freeze-at", "3"],
            ["--freeze 2 and --freeze-at 3", "expected one of the two"],
        ),
        (
            ["trace", "resnet18_conv4", "--time-stride", "--no-time-stride"],
            ["--time-stride and --no-time-stride contradict each other: expected one"],
        ),
        (
            ["golden", "make", "resnet18_conv4", "o", "--affine", "--batch-norm"],
            ["--batch-norm and --affine"],
        ),
        (["golden", "make", "resnet18_conv4", "o", "--no-backward", "--backward"], ["contradict each other"]),
        (
            ["golden", "make", "resnet18_conv4", "o", "--allow-nonfinite"],
            ["--allow-nonfinite", "expected --clip or --params"],
        ),
        (["trace", "resnet18_conv4", "--plot", "a.gif"], ["a.gif cannot be written", ".svg or .png"]),
        (["trace", "resnet18_conv4", "--plot", "no/a.svg"], ["no/a.svg", "no is not a writable folder"]),
        (["trace", "resnet18_conv4", "--plot", "a" * 300 + ".svg"], ["File name too long"]),
        (["trace", "resnet18_conv4", "--html", "a"], ["a cannot be written", ".html"]),
        (["golden", "make", "resnet18_conv4", "o", "--dtype", "float16"], ["dtype 'float16'", "float64"]),
        (["golden", "make", "resnet18_conv4", "o", "--dtype", "float"], ["--dtype 'float'", *DTYPES]),
        (["golden", "make", "resnet18_conv4", "o", "--dtype", "f16"], ["--dtype 'f16'", *DTYPES]),
        (["gradcheck", "resnet18_conv4", "--dtype", "f8"], ["--dtype 'f8'", *DTYPES]),
        (["golden", "make", "resnet18_conv4", "o", "--arithmetic", "x"], ["arithmetic 'x'", "core"]),
        (["golden", "make", "resnet18_conv4", "o", "--seed", "-1"], ["seed is -1", "2**64"]),
        (["golden", "make", "resnet18_conv4", "o", "--frames", "4"], ["--frames is 4", "--clip"]),
        (["golden", "make", "resnet18_conv4", "o", "--size", "4x4"], ["--size is 4x4", "--clip"]),
        (["golden", "make", "resnet18_conv4", "o", "--resize", "area"], ["--resize is area", "--clip"]),
        (
            ["golden", "make", "resnet18_conv4", "o", "--clip", "no.mp4", "--resize", "area"],
            ["--resize is area", "nothing is resized", "--size"],
        ),
        (
            ["golden", "make", "resnet18_conv4", "o", "--clip", "no.mp4", "--size", "8x8", "--resize", "no"],
            ["way of resizing 'no'", "linear, area"],
        ),
        (["golden", "make", "resnet18_conv4", "o", "--clip", "no.mp4"], ["clip no.mp4", "does not exist"]),
        (
            ["golden", "make", "resnet18_conv4", "o", "--clip", "no.mp4", "--input", "1x3x1x32x32"],
            ["--input is 1x3x1x32x32", "--frames and --size"],
        ),
        (
            ["golden", "make", "resnet18_conv4", "o", "--input", "1x3x9999x9999x9999"],
            ["resnet18_conv4 on 1x3x9999x9999x9999", "memory", "available"],
        ),
        (["trace", "resnet18_conv4", "--input", ""], ["--input is ''"]),
        (["trace", "resnet18_conv4", "--input", "1x3x2x32x--32"], ["--input is '1x3x2x32x--32'"]),
        (["trace", "resnet18_conv4", "--input", "1x3x2x32x\uff13\uff12"], ["5 whole numbers"]),
        (["trace", "resnet18_conv4", "--input", "1x3x2x32x" + "9" * 5000], ["5 whole numbers"]),
        (["trace", "resnet18_conv4", "--groups", "9" * 400], ["groups is larger than 2147483647"]),
        (["golden", "make", "resnet18_conv4", "o" * 300], ["File name too long"]),
        (["golden", "verify", "[/b]"], ["[/b] is not a folder"]),
        (["golden", "verify", "nothing"], ["nothing is not a folder", "golden bundle"]),
        (["golden", "diff", ".", "."], ["no manifest.json"]),
    ],
)
def test_mistakes_get_one_clear_line(refnet, tmp_path, arguments, words):
    fails(refnet(*arguments), *words)
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_a_clip_that_is_too_short_or_broken(refnet, video, tmp_path):
    make = ["golden", "make", "resnet18_conv4", "o", "--size", "32x32", "--clip"]
    fails(
        refnet(*make, video, "--frames", 200),
        "bigbuckbunny.mp4 is too short",
        "has 132 frames, expected at least 200",
    )
    for frames in (["--frames", 99999], ["--frames", 50, "--stride", 10**7], ["--frames", 10**9]):
        fails(refnet(*make, video, *frames), "bigbuckbunny.mp4 is too short: it has 132 frames, expected at")
    np.save(tmp_path / "short.npy", np.zeros((3, 40, 40, 3), np.uint8))
    fails(refnet(*make, "short.npy", "--frames", 10**7), "short.npy is too short: it has 3 frames")
    (tmp_path / "short.npy").unlink()
    fails(refnet(*make, video, "--size", "32"), "--size is '32'", "2 whole numbers, such as 224x224")
    (tmp_path / "a.mp4").write_text("no video")
    fails(refnet(*make, "a.mp4"), "a.mp4 cannot be decoded")
    blob = np.zeros((1, 3, 8, 32, 32))
    blob[0, 0, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", blob)
    fails(refnet(*make, "a.npy"), "a.npy has values that are not finite", "numbers (or --allow-nonfinite)\n")
    trace = ["trace", "resnet18_conv4", *SMALL[2:], "--freeze", "0,2", "--clip", "a.npy"]
    fails(refnet(*trace), "a.npy has values that are not finite", "expected finite numbers\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.npy"]


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_run_leaves_nothing(tmp_path, sent, code):
    ready = "import sys, refnet.cli as cli; print('ready', flush=True); cli.main()"
    make = ["golden", "make", "resnet50_conv5", "out", "--arithmetic", "reference"]
    started = subprocess.Popen(
        [sys.executable, "-c", ready, *make],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline() == "ready\n"
    time.sleep(1)
    assert started.poll() is None, started.stderr.read()
    started.send_signal(sent)
    _, err = started.communicate(timeout=60)
    assert started.returncode == code
    assert err == f"refnet: stopped by {sent.name}\n"
    assert not list(tmp_path.iterdir())


def test_square_brackets_are_only_brackets(refnet):
    assert refnet("golden", "make", "resnet18_conv4", "[/b]", *SMALL)[0] == 0
    code, out, _ = refnet("golden", "verify", "[/b]")
    assert code == 0 and out.startswith("[/b]: derived again")


def test_golden_alone_explains_itself(refnet):
    code, out, err = refnet("golden")
    assert code == 2 and "verify" in out and "diff" in out and err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_said(tmp_path):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "refnet", "list", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "refnet: standard output: No space left on device\n"


def test_a_closed_standard_output_changes_no_exit_code():
    for command, code in ((("info",), 0), (("golden", "verify", "nothing"), 2)):
        call = shlex.join([sys.executable, "-m", "refnet", *command])
        done = subprocess.run(f"{call} >&-", shell=True, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


def test_a_process_with_little_address_space_is_refused_or_runs(tmp_path):
    make = f"{sys.executable} -m refnet golden make resnet18_conv4 out --input 1x3x4x112x112"
    for kilobytes in (400_000, 1_500_000):
        done = subprocess.run(
            ["sh", "-c", f"ulimit -v {kilobytes}; exec {make} --hashes-only --force"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in (0, 2)
        assert done.returncode == 0 or ("memory" in done.stderr and done.stderr.count("\n") == 1)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "reader", "first"),
    [
        ("trace resnet152_conv5 --json", "head -n 1", "{\n"),
        ("trace resnet152_conv5", "head -c 2", " n"),
        ("list", "true", ""),
        ("golden --help", "true", ""),
    ],
)
def test_a_reader_who_has_seen_enough_is_no_news(command, reader, first):
    piped = f"set -o pipefail; {sys.executable} -m refnet {command} | {reader}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, first, "")


def test_who_reads_changes_nothing_of_what_is_found(refnet, tmp_path):
    """A table that nobody reads to its end has the exit code of what it shows."""
    for name, seed in (("a", "0"), ("b", "1")):
        make = ("golden", "make", "resnet18_conv4", str(tmp_path / name), "--hashes-only", "--seed", seed)
        assert refnet(*make, *SMALL)[0] == 0
    piped = f"set -o pipefail; {sys.executable} -m refnet golden diff a b | true"
    done = subprocess.run(["bash", "-c", piped], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")


def test_scipy_is_not_imported_where_a_word_is_completed():
    words = {"_REFNET_COMPLETE": "complete_bash", "COMP_WORDS": "refnet gol", "COMP_CWORD": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "refnet"]
    done = subprocess.run(command, env={**os.environ, **words}, capture_output=True, text=True)
    assert done.stdout.split() == ["golden"] and "numpy" in done.stderr and "scipy" not in done.stderr
