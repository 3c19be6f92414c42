"""Tables at 60, 80 and 200 columns: no name is folded or cut, what is left out is named."""

import re

import pytest

import refnet
from refnet.bench.measurement import Measurement, Spread
from refnet.check.report import Report, Verdict
from refnet.cli.list import described
from refnet.golden import Finding, Rounding
from refnet.inplace import names as original_names
from refnet.networks import ARCHITECTURES
from refnet.render import columns, explanation, measured, tables, verdicts
from refnet.render.terminal import Screen, table
from refnet.trace import FreezePoint, explain, trace

NETS = {name: refnet.build(name) for name in ("fpn_resnet152_conv5", "roi_resnet152_conv4")}
NET = NETS["fpn_resnet152_conv5"]
LONGEST = sorted([n.name for n in NET.nodes] + list(NET.params) + list(original_names(NET)), key=len)[-40:]
widths = pytest.mark.parametrize("width", [60, 80, 200])


@pytest.fixture
def shown(capsys, request):
    """What is printed on a console that is as wide as the test's parameter: its lines, each within that."""
    width = request.getfixturevalue("width")

    def lines(names, within=True):
        out = capsys.readouterr().out.splitlines()
        assert out and "…" not in "".join(out)
        if within:
            assert max(map(len, out)) <= width, max(out, key=len)
        for name in names:
            assert any(re.search(rf"(?<!\S){re.escape(name)}(?![^\s,;.:])", line) for line in out), name
        return out

    lines.console = Screen(width=width, markup=False, highlight=False)
    return lines


@widths
@pytest.mark.parametrize("name", NETS)
def test_a_trace(shown, width, name):
    net = NETS[name]
    rows = trace(net)
    totals = {"params": 1, "multiply_adds": 1, "blob_bytes_float64": 1}
    tables.trace(rows, totals, shown.console)
    out = shown([node.name for node in net.nodes])
    assert [line.split()[0] for line in out[1 : len(rows) + 1]] == [node.name for node in net.nodes]
    assert ("Not shown in" in "".join(out)) == (width < 200)


@widths
def test_the_catalog(shown, width):
    tables.architectures([described(name) for name in ARCHITECTURES], shown.console)
    shown(ARCHITECTURES)


@widths
@pytest.mark.parametrize("name", LONGEST[-8:-1:2])
def test_an_explanation(shown, width, name):
    node = name.removesuffix("_w").removesuffix("_b")
    found = explain(NET, node)
    explanation.show(found, shown.console)
    shown([node, *found.inputs, *found.params])


@widths
def test_findings_and_roundings(shown, width, tmp_path):
    found = [
        Finding(
            "output_gradients",
            name,
            False,
            "bits differ from what is stored",
            10**9,
            10**12,
            10**9,
            name,
            "conv3d",
        )
        for name in LONGEST
    ]
    tables.findings(found, "a and b", shown.console)
    shown(LONGEST, within=False)
    recipe = refnet.golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4})
    bundle = refnet.golden.make(tmp_path / "b", recipe, hashes_only=True)
    rounded = [
        Rounding(
            "output_gradients",
            name,
            name,
            "batch_norm_training",
            "",
            10**9,
            5,
            3,
            10**12,
            0.5,
            (0, 255, 7, 111, 111),
        )
        for name in LONGEST[:40]
    ]
    tables.roundings(rounded, bundle, "exact", shown.console)
    out = shown(LONGEST, within=False)
    assert all(len(line) <= width for line in out if line.startswith(" "))
    tables.bundle(bundle, shown.console)
    shown(["output_gradients", "SHA-256"], within=False)


@widths
def test_a_report(shown, width):
    fails = {
        name: Verdict(
            tensor=name,
            verdict="impossible",
            margin=3.4e5,
            node=name,
            op="conv3d",
            where=(0, 3, 1, 5, 0),
            found=0.1,
            expected=0.3,
            bound=1e-16,
            cause=f"the values of {name} are there",
            reproduce="refnet certify a b",
        )
        for name in LONGEST
    }
    blocked = {f"d {name}": Verdict(tensor=f"d {name}", verdict="blocked", why="a stop") for name in LONGEST}
    report = Report(title="a", verdicts=fails | blocked)
    verdicts.show(report, shown.console, every=True)
    out = shown(LONGEST, within=False)
    assert all(len(line) <= width for line in out if line.startswith(" "))


@widths
def test_freeze_points_and_measurements(shown, width):
    tables.freeze([FreezePoint(5, 10**12, 2**33, 100.0, 0.5, 0.5)], shown.console)
    out = shown(["gradient norm"])
    assert ("Not shown" in "".join(out)) == (width < 100)
    peers = ("torch", "jax", "onnxruntime", "numpy")
    row = Measurement(
        "fpn_resnet152_conv5 on 1x3x8x224x224, freeze_at 3", "forward + backward", "float64", {},
        {"share of GEMM": Spread((0.5, 0.6))}, dict.fromkeys(peers, Spread((100.0, 1000.0, 2000.0))),
    )  # fmt: skip
    measured.show({"nets": [row]}, ["a line"], shown.console)
    out = shown([row.problem, "numpy"], within=False)
    assert (row.problem in out) == (width < 200), "stacked where there is no room beside it"


@widths
def test_the_machine(shown, width):
    facts = {
        "cpu": "Processor " * 12,
        "memory_available": 1,
        "kernels": dict.fromkeys(refnet.ops.OPS, "NumPy"),
    }
    tables.machine(facts, shown.console)
    shown([f"{op}: NumPy" for op in refnet.ops.OPS])


COMMANDS = [*(["golden", name] for name in ("make", "verify", "diff")), *([name] for name in (
    "list", "info", "trace", "gradcheck", "certify", "bench"))]  # fmt: skip


@widths
@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], ["golden"], *COMMANDS], ids=" ".join)
def test_help(refnet, monkeypatch, width, flag, command):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = refnet(*command, flag)
    assert (code, err) == (0, "") and "…" not in out and "-h, --help" in out
    assert not any(line.endswith("-") for line in out.splitlines()), "an option is folded"


@widths
def test_commands_are_as_wide_as_columns_says(refnet, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (["list"], ["list", "fpn_resnet152_conv5"], ["info"], ["trace", "fpn_resnet152_conv5"]):
        code, out, _ = refnet(*command)
        assert code == 0 and max(map(len, out.splitlines())) <= width
    assert "fpn_inner_res4_35_sum_lateral" in out


def printed(made, width, capsys):
    Screen(width=width, markup=False, highlight=False).print(made)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def filled():
    made = table("name", "size", "empty", "note", numbers=("size",), first=("name", "note"), prose="note")
    made.add_row("res2_0", "12", "", "one and two and three and four and five")
    made.add_row("a", "3", "", "six")
    return made


def test_columns_literally(capsys):
    assert printed(filled(), 80, capsys) == [
        " name    size  note",
        " res2_0    12  one and two and three and four and five",
        " a          3  six",
    ]
    assert printed(filled(), 41, capsys) == [
        " name    size  note",
        " res2_0    12  one and two and three and",
        "               four and five",
        " a          3  six",
    ]
    assert printed(filled(), 35, capsys) == [
        " name    note",
        " res2_0  one and two and three and",
        "         four and five",
        " a       six",
        "Not shown in 35 columns: size",
        "(--json has all)",
    ]
    assert printed(filled(), 12, capsys)[:4] == [" name", " res2_0", " a", "Not shown in"]
    assert printed(filled(), 7, capsys)[:4] == ["name", "res2_0", "  note", "  one"]


def test_rows_below_each_other_keep_their_words(capsys):
    rows = columns.Labelled([("label", "a sentence of words", "note"), ("b", "res4_35_branch2c_bn_relu")])
    assert printed(rows, 80, capsys) == [
        "label  a sentence of words       note",
        "b      res4_35_branch2c_bn_relu",
    ]
    assert printed(rows, 36, capsys) == [
        "label",
        "    a sentence of words",
        "    note",
        "b",
        "    res4_35_branch2c_bn_relu",
    ]
    assert printed(rows, 10, capsys)[-1] == "    res4_35_branch2c_bn_relu"


def test_hostile_cells_are_measured_as_they_are_shown(capsys):
    made = table("name", "size")
    made.add_row("\x1b[2J", "12")
    assert printed(made, 20, capsys) == [" name     size", " \\x1b[2J  12"]
