"""`refnet gradcheck`: what it asks for, what it prints, its exit codes, lines that reproduce a failure."""

import json
import re
import shlex
from dataclasses import replace

import pytest
from support import fails

import refnet as package
from refnet.arithmetic import ARITHMETICS, Kernel, core
from refnet.check.report import Report, Verdict
from refnet.cli import gradcheck as command

SMALL = ["--input", "1x3x1x32x32", "--width-per-group", "4", "--time-kernel", "1"]


@pytest.fixture
def checked(monkeypatch):
    """A check that judges nothing: what it was asked, and the verdicts that it is to give."""

    class Checked(dict):
        bad = ()

        def check_net(self, net, blobs, arithmetic, *, tensors, seed, progress):
            progress("forward", 1, 1)
            self.update(net=net, blobs=blobs, arithmetic=arithmetic.name, tensors=tensors, seed=seed)
            right = {name: Verdict(tensor=name, verdict="ok", margin=0.25) for name in ("conv1", "conv1_w")}
            return Report(title="a net", verdicts=right | {v.tensor: v for v in self.bad})

        def check_op(self, name, arithmetic, seed, *, progress, **draws):
            progress(f"check {name}", 1, 1)
            self.update(name=name, arithmetic=arithmetic.name, seed=seed, **draws)
            return Report(
                title=f"{name} in {arithmetic.name}", verdicts={v.tensor: v for v in (DX, *self.bad)}
            )

    made = Checked()
    monkeypatch.setattr(command, "checks", made)
    return made


DX = Verdict(tensor="dx", verdict="ok", margin=0.5, node="strided")
WRONG = Verdict(tensor="res3_0_branch2b_w", verdict="wrong", margin=2.0, node="res3_0_branch2b", op="conv3d")


def test_a_check_that_passes(refnet, checked):
    code, out, err = refnet("gradcheck", "resnet18_conv4", "--freeze-at", "0", *SMALL)
    assert (code, err) == (0, "")
    chosen = "freeze_at 0, time_kernel 1, width_per_group 4"
    assert f"resnet18_conv4 on 1x3x1x32x32, {chosen}, float64, core: ok; 2 ok" in out
    assert "1 ok beside these" in out  # the node's
    assert (checked["arithmetic"], checked["tensors"], checked["seed"]) == ("core", None, 0)
    net = package.build(
        "resnet18_conv4", input=(1, 3, 1, 32, 32), freeze_at=0, width_per_group=4, time_kernel=1
    )
    assert checked["net"].nodes == net.nodes
    assert checked["blobs"].keys() == net.inputs.keys() | net.params.keys()
    assert {blob.dtype.name for blob in checked["blobs"].values()} == {"float64"}
    assert "1 ok beside" not in refnet("gradcheck", "resnet18_conv4", "--all", *SMALL)[1]


def test_what_is_given_is_checked(refnet, checked):
    given = [
        "--dtype",
        "float32",
        "--seed",
        "3",
        "--arithmetic",
        "reference",
        "--tensors",
        "conv1_w,data,conv1_w",
    ]
    assert refnet("gradcheck", "resnet18_conv4", *SMALL, *given)[0] == 0
    assert (checked["arithmetic"], checked["tensors"], checked["seed"]) == (
        "reference",
        ["conv1_w", "data"],
        3,
    )
    assert {blob.dtype.name for blob in checked["blobs"].values()} == {"float32"}


def test_a_planted_mistake_is_found(refnet, monkeypatch, tmp_path):
    """The last column of dx is lost where a convolution strides: a column that only conv1 reads."""

    def backward(dy, context, needs):
        dx, *others = core.kernels["conv3d"].backward(dy, context, needs)
        if dx is not None and dx.shape[4] == 2 * dy.shape[4]:
            dx[..., -1] = 0
        return dx, *others

    net = ["gradcheck", "resnet18_conv4", *SMALL, "--freeze-at", "0"]
    assert refnet(*net, "--html", "a.html")[0] == 0
    broken = core.replace(conv3d=Kernel(core.kernels["conv3d"].forward, backward))
    monkeypatch.setitem(ARITHMETICS, "core", broken)
    code, out, err = refnet(*net, "--html", "b.html", "--json")
    found = json.loads(out)["verdicts"]
    assert (code, err) == (1, "")
    assert [name for name, v in found.items() if v["verdict"] == "wrong"] == ["data"]
    assert found["data"]["node"] == "conv1" and 0 < found["data"]["wrong"] <= 3 * 32
    assert refnet(*shlex.split(found["data"]["reproduce"])[1:])[0] == 1
    good, bad = ((tmp_path / name).read_text() for name in ("a.html", "b.html"))
    assert "v-wrong" in bad.partition("</style>")[2] and 'class="v-wrong"' not in good


MINE = """
from refnet.arithmetic import Kernel, core

def backward(dy, context, needs):
    return tuple(None if dx is None else 1.5 * dx for dx in core.kernels["relu"].backward(dy, context, needs))

arithmetic = core.replace(relu=Kernel(core.kernels["relu"].forward, backward))
"""


def test_an_arithmetic_of_ones_own(refnet, folder):
    """Its wrong gradient is found, in an operator and in a net, and again by the command that is shown."""
    (folder / "mine.py").write_text(MINE)
    for subject in (["relu", "--draws", "1"], ["resnet18_conv4", *SMALL, "--tensors", "res4_0_branch2a_w"]):
        code, out, err = refnet("gradcheck", *subject, "--arithmetic", "mine:arithmetic", "--json")
        found = json.loads(out)["verdicts"].values()
        wrong = [v for v in found if v["verdict"] == "wrong"]
        assert (code, err) == (1, "") and {v["op"] for v in wrong} <= {"relu", ""}
        assert "--arithmetic mine:arithmetic" in wrong[0]["reproduce"]
        assert refnet(*shlex.split(wrong[0]["reproduce"])[1:])[0] == 1
        summary = refnet("gradcheck", *subject, "--arithmetic", "mine:arithmetic", "--html", "a.html")[1]
        assert re.search(rf"^{subject[0]} .*mine:arithmetic: wrong", summary, re.MULTILINE)
        assert "<dt>arithmetic</dt><dd>mine:arithmetic</dd>" in (folder / "a.html").read_text()


@pytest.mark.parametrize("word", ["wrong", "undecided"])
def test_a_check_that_fails(refnet, checked, word):
    checked.bad = [replace(WRONG, verdict=word)]
    code, out, err = refnet("gradcheck", "resnet18_conv4", *SMALL)
    assert (code, err) == (1, "") and f"res3_0_branch2b_w: {word}" in out and f"1 {word}, 2 ok" in out
    code, out, err = refnet("gradcheck", "resnet18_conv4", "--json", *SMALL)
    found = json.loads(out)
    assert (code, err) == (1, "") and not found["ok"]
    assert list(found["verdicts"]) == ["conv1_w", "res3_0_branch2b_w", "conv1"]  # as the net has them
    assert (
        found["verdicts"]["res3_0_branch2b_w"]["reproduce"] and not found["verdicts"]["conv1_w"]["reproduce"]
    )


def test_the_line_of_a_failure_checks_the_same_again(refnet, checked):
    bodies = {
        "resnet18_conv4": [*SMALL, "--freeze-at", "3", "--stride-3x3", "--dtype", "float32", "--seed", "7"],
        "resnet18_conv5": ["--batch-norm", "--training", "--no-time-stride", "--transformation", "basic"],
        "resnet50_conv5": ["--inference", "--batch-norm", "--time-stride", "--arithmetic", "reference"],
    }
    for name, given in bodies.items():
        for tensor, chosen in ((WRONG.tensor, [WRONG.tensor]), ("conv1", None)):
            checked.bad = [replace(WRONG, tensor=tensor)]
            small = [] if "--input" in given else ["--input", "1x3x2x32x32"]
            _, out, _ = refnet("gradcheck", name, *given, *small)
            first = dict(checked)
            line = next(line for line in out.splitlines() if line.startswith("    refnet gradcheck"))
            checked.clear()
            assert refnet(*shlex.split(line)[1:])[0] == 1
            assert checked["net"].nodes == first["net"].nodes and checked["tensors"] == chosen
            assert (checked["arithmetic"], checked["seed"]) == (first["arithmetic"], first["seed"])
            assert all((checked["blobs"][key] == blob).all() for key, blob in first["blobs"].items())


def test_an_operator(refnet, checked, tmp_path):
    code, out, err = refnet("gradcheck", "conv3d", "--html", "a.html")
    assert (code, err) == (0, "") and "conv3d in core: ok; 1 ok" in out and "strided" in out
    assert checked == {"name": "conv3d", "arithmetic": "core", "seed": 0}
    assert "<h2>Graph" not in (tmp_path / "a.html").read_text()
    checked.bad = [Verdict(tensor="dw", verdict="wrong", margin=3.0, reproduce="Python")]
    given = ["--arithmetic", "reference", "--seed", "5", "--draws", "7"]
    code, out, err = refnet("gradcheck", "conv3d", *given)
    first = dict(checked)
    assert first == {"name": "conv3d", "arithmetic": "reference", "seed": 5, "draws": 7}
    assert (code, err) == (1, "") and "dw: wrong" in out
    line = next(line for line in out.splitlines() if line.startswith("    refnet gradcheck"))
    checked.clear()
    assert refnet(*shlex.split(line)[1:])[0] == 1 and checked == first


def test_a_page_is_written(refnet, checked, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    checked.bad = [WRONG]
    code, out, err = refnet("gradcheck", "resnet18_conv4", "--html", "a.html", *SMALL)
    assert (code, err) == (1, "") and out.startswith("a.html: ") and "res3_0_branch2b_w: wrong" in out
    page = (tmp_path / "a.html").read_bytes()
    assert page.startswith(b"<!doctype html>") and b"refnet gradcheck resnet18_conv4" in page
    code, out, _ = refnet("gradcheck", "resnet18_conv4", "--html", "a.html", "--json", *SMALL)
    assert code == 1 and not json.loads(out)["ok"] and (tmp_path / "a.html").read_bytes() == page


def test_help_says_what_there_is(refnet, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = refnet("gradcheck", "--help")
    assert code == 0 and all(
        o in out for o in ("--tensors", "--html", "--all", "--training", "--draws", "which rounds less")
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["ARCH"]),
        (["resnet18_con4"], ["architecture or operator 'resnet18_con4'", "did you mean resnet18_conv4"]),
        (["conv2d"], ["architecture or operator 'conv2d'", "did you mean conv3d"]),
        (["conv3d", "--input", "1x3x2x8x8"], ["--input is given", "conv3d is an operator"]),
        (["conv3d", "--dtype", "float32"], ["--dtype is given", "conv3d is an operator"]),
        (["relu", "--tensors", "x"], ["--tensors is given", "expected an architecture"]),
        (["relu", "--freeze-at", "0"], ["--freeze-at is given", "relu is an operator"]),
        (["relu", "--draws", "0"], ["--draws is 0", "1 to 100000"]),
        (["resnet18_conv4", "--draws", "3"], ["--draws is given", "resnet18_conv4 is an architecture"]),
        (["resnet18_conv4", "--dtype", "float16"], ["dtype 'float16'", "float64"]),
        (["resnet18_conv4", "--arithmetic", "x"], ["arithmetic 'x'", "core"]),
        (["resnet18_conv4", "--seed", "-1", *SMALL], ["seed is -1", "2**64"]),
        (["resnet18_conv4", "--tensors", "conv1_v", *SMALL], ["tensor of --tensors 'conv1_v'", "conv1_w"]),
        (["resnet18_conv4", "--tensors", "", *SMALL], ["tensor of --tensors ''"]),
        (["resnet18_conv4", "--tensors", "conv1", *SMALL], ["tensor of --tensors 'conv1'", "conv1_w"]),
        (["resnet18_conv4", "--html", "a.svg"], ["a.svg cannot be written", ".html"]),
        (["resnet18_conv4", "--html", "no/a.html"], ["no is not a writable folder"]),
        (["resnet18_conv4", "--input", "1x3"], ["--input is '1x3'", "5 whole numbers"]),
        (["resnet18_conv4", "--freeze-at", "1"], ["freeze_at is 1"]),
        (["resnet18_conv4", "--input", "1x3x9999x9999x9999"], ["memory"]),
    ],
)
def test_mistakes_get_one_clear_line(refnet, tmp_path, arguments, words):
    fails(refnet("gradcheck", *arguments), *words)
    assert not list(tmp_path.iterdir())
