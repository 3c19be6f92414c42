"""What a person looks at: terminal, figure and page. Complete, well-formed, the same twice."""

import re
from datetime import UTC, datetime
from importlib.metadata import version
from typing import get_args
from xml.etree import ElementTree

import pytest
from rich.console import Console
from support import Page, peer

import refnet
from refnet.errors import FileError, RefnetError, ValueRangeError
from refnet.networks import ARCHITECTURES
from refnet.op import Family
from refnet.ops import OPS
from refnet.render import document, drawing, explanation, figure, files, page
from refnet.render.document import anchors
from refnet.render.made import Made, today
from refnet.render.palette import FAMILIES, bands, places
from refnet.trace import FreezePoint, trace
from refnet.trace.explanation import explain_all


def check_page(html, net):
    found = Page(html)
    assert found.loaded == [] and not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert found.summaries == [node.name for node in net.nodes]
    assert all(link[0] == "#" and link[1:] in found.ids for link in found.links)
    places = {link[1:] for link in found.links if not link.startswith("#~")}
    assert len(places) == len(net.nodes)
    plain = {node.name for node in net.nodes if re.fullmatch("[A-Za-z0-9_.:/-]+", node.name)}
    assert plain <= places
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_page_has_every_node_and_needs_nothing_else(name):
    net = refnet.build(name)
    html = page.html(name, net)
    check_page(html, net)
    assert html == page.html(name, net)
    assert len(html) < 1_500_000


def test_anchors_are_names():
    found = anchors(["conv1", "gpu_0/res4_35_sum", "d c_w", "d-c_w", "d.c_w", "a b", "a~b", "", "-"])
    assert list(found.values()) == [
        *("conv1", "gpu_0/res4_35_sum", "d-c_w", "d-c_w.2", "d.c_w", "a-b", "a-b.2", "-", "-.2")
    ]


def test_a_page_says_how_it_was_made(monkeypatch):
    net = refnet.build("resnet18_conv4")
    made = Made("refnet trace <b> --html 'a b.html'", "2020-02-03", {"freeze-at": 2, "clip": "<none>"})
    html = page.html("a", net, made=made)
    check_page(html, net)
    foot = html[html.index("<footer") :]
    assert "refnet trace &lt;b&gt; --html &#x27;a b.html&#x27;</pre>" in foot and "<dd>2020-02-03" in foot
    assert f"<dt>refnet</dt><dd>{version('refnet')}</dd>" in foot and "<dt>freeze-at</dt><dd>2</dd>" in foot
    assert "&lt;none&gt;" in foot and "<footer" not in page.html("a", net)
    for given, date in (("0", "1970-01-01"), ("86399", "1970-01-01"), ("86400", "1970-01-02")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
        assert today() == date
    for given in ("x", "", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
        with pytest.raises(ValueRangeError, match="SOURCE_DATE_EPOCH is '.*': expected seconds since 1970"):
            today()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    before, found, after = datetime.now(UTC), today(), datetime.now(UTC)
    assert found in {moment.date().isoformat() for moment in (before, after)}


def test_a_page_shows_freeze_points():
    net = refnet.build("resnet18_conv4")
    assert "Why stop the gradient" not in page.html("a", net)
    points = [FreezePoint(0, 30, 2**20, 2.0, 0, 0), FreezePoint(2, 20, 2**19, 1.0, 0.02, 0.2)]
    html = page.html("a", net, points)
    check_page(html, net)
    assert "Why stop the gradient" in html and "<td>0.50</td>" in html and "<td>20.00 %</td>" in html


def test_names_are_escaped():
    nasty = "<b>&\"'</script><svg onload=x>"
    net = refnet.Net()
    x = net.input(f"in{nasty}", (1, 2, 2, 4, 4))
    x = net.add("relu", f"first{nasty}", (x,))
    y = net.add("max_pool3d", f"second{nasty}", (x,), kernel=(1, 2, 2))
    net.add("relu", f"third{nasty}", (x,))
    net.output(y)
    html = page.html(f"title {nasty}", net)
    check_page(html, net)
    assert '<b>&"' not in html and "onload=x>" not in html.replace("&lt;svg onload=x&gt;", "")


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_operator_has_a_page_and_a_terminal(op, capsys):
    net = refnet.Net()
    case = op.cases[0]
    names = [net.input(f"x{i}", shape) for i, shape in enumerate(case.shapes)]
    net.output(net.add(op.name, "y", names, **case.attrs))
    check_page(page.html(op.name, net), net)
    (found,) = explain_all(net)
    for width in (40, 80, 200):
        explanation.show(found, Console(width=width, markup=False, highlight=False))
        out = capsys.readouterr().out
        assert f"y: {op.name}" in out and "backward" in out


def test_the_gather_on_the_terminal(capsys):
    """A stride of 2 and a dilation of 2, padding of 1; literally."""
    net = refnet.Net()
    x = net.input("data", (1, 1, 1, 6, 7))
    w = net.param("w", (1, 1, 1, 2, 3))
    net.output(net.add("conv3d", "y", (x, w), stride=(1, 2, 1), pad=(0, 0, 1), dilation=(1, 1, 2)))
    explanation.show(explain_all(net)[0], Console(width=80, markup=False, highlight=False))
    out = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert (
        """\
  along H
        0 1 2 3 4 5
  out 0 ● ● · · · ·
  out 1 · · ● ● · ·
  out 2 · · · · ● ●

  along W
        -1  0  1  2  3  4  5  6  7
  out 0  ○  ·  ●  ·  ●  ·  ·  ·  ░
  out 1  ░  ●  ·  ●  ·  ●  ·  ·  ░
  out 2  ░  ·  ●  ·  ●  ·  ●  ·  ░
  out 3  ░  ·  ·  ●  ·  ●  ·  ●  ░
  out 4  ░  ·  ·  ·  ●  ·  ●  ·  ○

  output (t, h, w) = (0, 0, 0), a corner, along H (down) and W:

  t = 0
    -1  0  1  2  3  4
  0  ○  ·  ●  ·  ●  ·
  1  ○  ·  ●  ·  ●  ·
  2  ░  ·  ·  ·  ·  ·
"""
        in out
    )
    assert "floor((6 + 2*0 - 1*(2 - 1) - 1) / 2) + 1 = 3" in out
    assert "x[n, c, t, 2h + kh, w + 2kw - 1], 0 in padding" in out


@pytest.mark.parametrize("name", ["resnet18_conv4", "resnet152_conv5", "fpn_resnet50_conv5"])
def test_a_figure_is_xml_and_the_same_twice(name):
    peer("matplotlib")
    rows = trace(refnet.build(name))
    svg = figure.drawn(name, rows)
    assert svg == figure.drawn(name, rows)
    png = figure.drawn(name, rows, "png")
    assert png == figure.drawn(name, rows, "png") and png.startswith(b"\x89PNG") and b"tIME" not in png
    assert ElementTree.fromstring(svg).tag.endswith("svg") and b"<dc:date>" not in svg


def test_a_figure_of_a_small_net_whose_fields_are_all():
    peer("matplotlib")
    net = refnet.Net()
    x = net.add("global_average_pool", "mean", (net.input("data", (1, 2, 1, 2, 2)),))
    net.output(net.add("linear", "scores", (x, net.param("w", (3, 2)))))
    assert figure.drawn("<&>", trace(net))


def test_without_matplotlib_one_line_says_so(monkeypatch):
    monkeypatch.setattr(figure, "find_spec", lambda name: None)
    with pytest.raises(RefnetError, match=r'pip install "refnet\[plots\]"'):
        figure.drawn("a", [])


def test_stages():
    names = ["conv1", "pool1", "res2_0_sum", "res2_1_stop", "fpn_inner_res2_1_sum", "fpn_res2_1_sum", "score"]
    assert bands(names) == [("stem", 0, 2), ("res2", 2, 4), ("fpn", 4, 6), ("head", 6, 7)]
    assert places(names)[4] == places(names)[5] == ("fpn", "fpn_res2")


def test_every_family_has_colours_and_operators():
    assert {op.family for op in OPS.values()} == set(get_args(Family)) == set(FAMILIES)


def test_files_are_complete_or_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileError, match=r"expected a file name that ends in .svg or .png"):
        files.require_writable(tmp_path / "a.gif", ".svg", ".png")
    out = tmp_path / "a.svg"
    files.require_writable(out, ".svg")
    files.write(out, b"one")
    files.require_writable(out, ".svg")
    files.write(out, b"two")
    assert out.read_bytes() == b"two" and [file.name for file in tmp_path.iterdir()] == ["a.svg"]

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(FileError, match=r"a.svg cannot be written: .*No space left"):
        files.write(out, b"three")
    assert out.read_bytes() == b"two" and [file.name for file in tmp_path.iterdir()] == ["a.svg"]
    with pytest.raises(FileError, match="cannot be written"):
        files.write(tmp_path / "none" / "a.svg", b"")


def test_a_narrow_page_has_charts_whose_type_can_be_read():
    """They are as wide as their least width then, and scroll."""
    css = document.asset("page.css")
    least = 16 * float(re.search(r"\.chart {[^}]*min-width: ([\d.]+)rem", css)[1])
    narrow = re.search(r"@media \(max-width: \d+rem\) {(.*)}", css)[1]
    sizes = [float(size) for size in re.findall(r"\.chart \.\w { font-size: ([\d.]+)px }", narrow)]
    assert len(sizes) == 2 and all(size * least / drawing.WIDTH >= 8.5 for size in sizes)
    assert "local" in re.search(r"main \.wide {([^}]*)}", css)[1]  # a shadow where more is
