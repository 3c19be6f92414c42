"""What objects show of themselves: a few lines in a terminal, a small table in a notebook, no values."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import refnet
from refnet.arithmetic import Kernel, core
from refnet.certify import Candidate, Report, Verdict
from refnet.errors import kind_of
from refnet.networks import ARCHITECTURES, fold
from refnet.ops import OPS
from refnet.shown import MOST_LINES, MOST_ROWS, Table, as_html

RECIPE = refnet.golden.Recipe("resnet18_conv4", (1, 3, 2, 32, 32))
HOSTILE = "<script>alert('x')</script>\x1b[31m\n&amp;"


class Cells(HTMLParser):
    """The texts of a table's cells, row by row; every element is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.rows, self.caption = [], [], ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in ("table", "caption", "thead", "tbody", "tr", "td", "th")
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] == "caption":
            self.caption += data
        else:
            self.rows[-1][-1] += data


def of_the_bundle(path):
    bundle = refnet.golden.make(path, replace(RECIPE, dtype="float32"))
    other = refnet.golden.make(path.with_name("other"), replace(RECIPE, dtype="float32", seed=1))
    return {
        "manifest": bundle.manifest,
        "entries": bundle.entries,
        "entries of blobs": bundle.entries["blobs"],
        "graph": bundle.graph,
        "blocked": bundle.blocked,
        "differences": refnet.golden.diff(bundle, other),
        "verified": refnet.golden.verify(bundle),
        "roundings": refnet.golden.against(bundle),
    }


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    net = RECIPE.net()
    params = refnet.fill.params(net, dtype="float32")
    run = refnet.forward(net, {**refnet.fill.inputs(net, dtype="float32"), **params})
    normed = refnet.build("resnet18_conv4", input=(1, 3, 1, 32, 32), batch_norm=True)
    return {
        "net": net,
        "run": run,
        "gradients": refnet.backward(run, refnet.fill.output_gradients(net, dtype="float32")),
        "bundle": refnet.golden.make(tmp_path_factory.mktemp("shown") / "bundle", RECIPE, hashes_only=True),
        **of_the_bundle(tmp_path_factory.mktemp("stored") / "bundle"),
        "nodes": net.nodes,
        "trace": refnet.trace.trace(net),
        "report": refnet.gradcheck.check_op("affine", draws=0),
        "kernel": core.kernels["conv3d"],
        "door": core.conv3d,
        "arithmetic": core,
        "operator": OPS["conv3d"],
        "architecture": ARCHITECTURES["roi_resnet18_conv4"],
        "candidate": Candidate(blobs=run.blobs),
        "folded": fold.fold(normed, refnet.fill.params(normed)),
    }


NAMES = (
    *(
        "net",
        "run",
        "gradients",
        "bundle",
        "report",
        "kernel",
    ),
    *("door", "arithmetic", "operator", "architecture", "candidate", "folded"),
    *("manifest", "entries", "entries of blobs", "graph", "blocked", "nodes", "trace"),
    *("differences", "verified", "roundings"),
)


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_a_few_lines_and_a_small_table(shown, name):
    text = repr(shown[name])
    assert text.startswith("<") and text.endswith(">")
    assert len(text.split("\n")) <= MOST_LINES + 2 and len(text) < 1500
    table = Cells(shown[name]._repr_html_())
    assert table.caption and (table.rows or name == "verified")
    assert len(table.rows) <= MOST_ROWS + 2
    assert len({len(row) for row in table.rows if not row[0].startswith("and ")}) == 1


def test_a_context_holds_arrays_and_shows_shapes():
    x = np.ones((1, 2, 3, 40, 50))
    _, context = core.conv3d.forward(x, np.ones((4, 2, 1, 1, 1)))
    shapes = "1x2x3x40x50 and 4x2x1x1x1 to 1x4x3x40x50"
    assert repr(context) == f"<context of core conv3d, {shapes}, float64>"
    page = Cells(context._repr_html_())
    assert page.caption == "context of core conv3d"
    assert page.rows == [["x", "1x2x3x40x50"], ["w", "4x2x1x1x1"], ["y", "1x4x3x40x50"], ["dtype", "float64"]]


def test_what_a_net_and_its_run_say(shown):
    assert repr(shown["net"]).split("\n") == [
        "<net of 69 nodes, 63 parameters",
        "  input       data 1x3x2x32x32",
        "  output      res4_1_relu 1x256x2x2x2",
        "  parameters  4,857,152 elements",
        "  nodes       21 conv3d, 21 affine, 19 relu, 6 add, 1 max_pool3d, 1 stop_gradient>",
    ]
    assert repr(shown["run"]).split("\n") == [
        "<run of 69 nodes in core",
        "  input   data 1x3x2x32x32",
        "  output  res4_1_relu 1x256x2x2x2",
        "  dtype   float32",
        "  kept    69 blobs, 1.6 MiB>",
    ]
    lines = repr(shown["gradients"]).split("\n")
    assert lines[0] == "<42 gradients computed, 22 blocked" and lines[-1] == "  and 52 more>"
    assert lines[1].split() == ["res3_0_branch2a_w", "128x64x1x1x1", "float32"]
    assert "\n  blobs             69  413,696    SHA-256 only\n" in repr(shown["bundle"])


def test_for_programs_they_are_lists_dicts_and_sets(shown):
    for name in ("nodes", "trace", "differences", "verified", "roundings"):
        assert isinstance(shown[name], list) and shown[name] == list(shown[name])
    for name in ("manifest", "entries", "graph"):
        assert json.loads(json.dumps(shown[name])) == shown[name]
    blocked = shown["gradients"].blocked
    assert isinstance(blocked, frozenset) and repr(blocked).split()[2] == min(blocked)
    assert shown["gradients"]._shown().rows[-1] == (max(blocked), "", "blocked")
    assert repr(shown["verified"]) == "<176 tensors, 0 not equal>"


def test_a_bundle_is_a_mapping_and_a_run_gives_its_values(shown):
    bundle, run = shown["bundle"], shown["run"]
    assert [*bundle.keys()] == [*bundle] and "d conv1" not in bundle and bundle.get("nothing") is None
    assert bundle == bundle and len({bundle, bundle}) == 1
    assert run["conv1"] is run.blobs["conv1"] and run["conv1_w"] is run.given["conv1_w"]
    assert [*run] == [*run.given, *run.blobs] and "conv1" in run
    with pytest.raises(KeyError, match="unknown value of the run 'conv_1': did you mean conv1"):
        run["conv_1"]


def test_what_other_libraries_take_is_a_dict(shown):
    """Of exactly that type: JAX takes a subclass for one value."""
    run, net = shown["run"], shown["net"]
    for arrays in (run.blobs, run.given, refnet.fill.params(net), refnet.interop.caffe2.blobs(run)):
        assert type(arrays) is dict


def test_a_gradient_that_is_not_there_suggests_names(shown):
    with pytest.raises(KeyError, match="unknown gradient 'res3_0_branch2a': did you mean"):
        shown["gradients"]["res3_0_branch2a"]
    assert shown["gradients"].get("conv1_w") is None and "conv1_w" not in shown["gradients"]


def test_names_are_escaped():
    net = refnet.Net()
    net.output(net.add("relu", HOSTILE, (net.input("data", (1, 1, 1, 1, 1)),)))
    x = np.ones((1, 1, 1, 1, 1))
    run = refnet.forward(net, {"data": x})
    own = core.replace(relu=Kernel(lambda x: (x, x), lambda dy, x, needs: (dy,)))
    verdict = Verdict(tensor=HOSTILE, verdict="wrong", cause=HOSTILE)
    report = Report(title=HOSTILE, verdicts={HOSTILE: verdict})
    for thing in (net, run, report, own, own.relu, Candidate(blobs=run.blobs)):
        page = thing._repr_html_()
        assert "<script" not in page and "\x1b" not in page + repr(thing)
    row = Cells(report._repr_html_()).rows[1]
    assert row[0] == "<script>alert('x')</script>\\x1b[31m\\n&amp;"


def test_of_many_rows_the_first_are_shown():
    table = Table("many", ("a", "b"), [(str(i), "x") for i in range(100)])
    rows = Cells(as_html(table)).rows
    assert rows[0] == ["a", "b"] and rows[-2] == [str(MOST_ROWS - 1), "x"]
    assert rows[-1] == [f"and {100 - MOST_ROWS} more"]
    assert Cells(as_html(Table("none", ("", ""), []))).rows == []


def test_a_report_shows_the_worst_first():
    words = {"a": "ok", "b": "wrong", "c": "undecided"}
    verdicts = {name: Verdict(tensor=name, verdict=word, margin=2.5) for name, word in words.items()}
    page = Cells(Report(title="three", verdicts=verdicts)._repr_html_())
    assert page.caption == "three: 1 wrong, 1 undecided, 1 ok"
    assert [row[:3] for row in page.rows[1:]] == [
        ["b", "wrong", "2.5"],
        ["c", "undecided", "2.5"],
        ["a", "ok", "2.5"],
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros(3), "an ndarray"),
        (3, "an int"),
        (np.uint8(3), "a uint8"),
        (np.int64(3), "an int64"),
        (object(), "an object"),
        ({}, "a dict"),
        (core, "an Arithmetic"),
        (None, "None"),
    ],
)
def test_what_an_object_is_has_its_article(value, said):
    assert kind_of(value) == said
