"""A report on the terminal and as a page: nothing cut off, nothing by colour alone, nothing loaded."""

import re
from math import inf, nan

import numpy as np
import pytest
from support import page_of_verdicts

import refnet
from refnet.check.maps import maps
from refnet.check.report import Map, Report, Verdict
from refnet.render import verdict_facts, verdicts
from refnet.render.terminal import Screen
from refnet.render.words import WORDS

LINE = "refnet gradcheck resnet18_conv4 --input 1x3x8x224x224 --dtype float64 --tensors res3_0_branch2b_w"
NUMBERS = "wrong; 1 wrong, 1 undecided, 4 ok, 2 blocked; largest margin within bounds 0.5, of res3_0_sum"
AXES = ("filter", "channel", "tap T", "tap H", "tap W")


def mask(shape, *indices):
    found = np.zeros(shape, bool)
    for index in indices:
        found[index] = True
    return found


def wrong(tensor="res3_0_branch2b_w", **fields):
    there = mask((128, 128, 3, 3, 3), np.s_[..., 2])
    usual = {
        "margin": 3.4e5,
        "node": "res3_0_branch2b",
        "op": "conv3d",
        "where": (105, 0, 1, 2, 2),
        "found": 0.1,
        "expected": 0.30000000000000004,
        "bound": 1e-16,
        "wrong": int(there.sum()),
        "elements": there.size,
        "structure": "the last tap along W",
        "cause": "dw is that of a kernel flipped along W",
        "hypothesis": "kernel flipped W",
        "reproduce": LINE,
        "maps": maps(there, AXES),
    }
    return Verdict(tensor=tensor, verdict="wrong", **usual | fields)


OK = {
    name: Verdict(
        tensor=name,
        verdict="ok",
        margin=share,
        node="res3_0_branch2a_bn",
        where=(3,),
        op="affine",
        elements=9,
    )
    for name, share in (
        ("res3_0_branch2a_bn_s", 0.25),
        ("res3_0_branch2a_bn_b", 0.0),
        ("value of res3_0_branch2a_bn", 0.125),
        ("res3_0_sum", 0.5),
    )
}
FOLDED = ["value of res3_0_branch2a_bn", "res3_0_sum", "res3_0_branch2b_w"]
UNDECIDED = Verdict(tensor="res4_0_branch1_w", verdict="undecided", why="the bound says nothing")
BLOCKED = {
    name: Verdict(tensor=name, verdict="blocked", why="a stop lies on each path to it", through=through)
    for name, through in (("data", 12.5), ("conv1_w", 0.5))
}


def report(*failures, ok=OK, blocked=BLOCKED, facts=None):
    found = {v.tensor: v for v in failures} | ok | blocked
    kernels = {"add": "reference", "relu": "core", "conv3d": "reference"}
    facts = {"oracle": kernels, "seed": 0, "miss": 1e-16} if facts is None else facts
    return Report(title="resnet18_conv4 [/b]", verdicts=found, facts=facts)


def shown(found, capsys, width=80, **options):
    verdicts.show(found, Screen(width=width, markup=False, highlight=False), **options)
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_a_terminal_of_80_columns(capsys):
    out = shown(report(UNDECIDED, wrong()), capsys, folded=FOLDED)
    assert (
        out
        == f"""\
res3_0_branch2b_w: wrong, at res3_0_branch2b (conv3d)
  wrong      147,456 of 442,368 elements are beyond their bounds
  worst at   (105, 0, 1, 2, 2)
  found      0.1
  expected   0.30000000000000004
  bound      1e-16
  error      0.2, 3.4e+05 times the bound
  structure  the last tap along W
  cause      dw is that of a kernel flipped along W [kernel flipped W]
  reproduce
    {LINE}

res4_0_branch1_w: undecided
  why  the bound says nothing

 tensor                verdict     margin  cause
 res3_0_branch2b_w     wrong      3.4e+05  dw is that of a kernel flipped along
                                           W
 res4_0_branch1_w      undecided           the bound says nothing
 res3_0_branch2a_bn_s  ok            0.25
 res3_0_branch2a_bn_b  ok               0
Not shown in 80 columns: node, where (--json has all)
2 ok beside these, largest margin within bounds 0.5, of res3_0_sum (--all lists them)

 blocked  training sees  through the block
 data                 0               12.5
 conv1_w              0                0.5
Why: a stop lies on each path to it.
Through the block: the Euclidean norm of the derivative if nothing were stopped.

resnet18_conv4 [/b]: {NUMBERS}.
oracle reference for add, conv3d and core for relu; seed 0; miss 1e-16"""
    )


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 300])
def test_nothing_is_cut_in_silence(capsys, width):
    found = report(wrong(), UNDECIDED, wrong("a" * 60, node="b" * 70, margin=inf))
    out = shown(found, capsys, width, every=True)
    for verdict in found.verdicts.values():
        assert verdict.tensor in out
        assert verdict.node in out  # the failures' heading has it where the table does not
    assert LINE in out and "…" not in out and "..." not in out
    left = re.findall(r"Not shown in \d+ columns: (.*) \(", out)
    assert ("where" in " ".join(left)) == ("(3)" not in out)
    assert all(w in out for w in ("infinite", "12.5", "undecided"))


def test_all_shows_what_is_folded_and_every_failure(capsys):
    many = [wrong(f"res3_{i}_w", margin=100.0 - i) for i in range(20)]
    out = shown(report(*many), capsys, 300, folded=FOLDED)
    assert out.count("worst at") == verdicts.MOST_IN_FULL and "... and 12 more (--all" in out
    assert out.count("flipped along W") == verdicts.MOST_IN_FULL + 20  # the table says the causes
    assert out.index("res3_0_w: wrong") < out.index("res3_1_w: wrong")
    assert "value of" not in out and "2 ok beside these" in out
    out = shown(report(*many), capsys, 300, folded=FOLDED, every=True)
    assert out.count("worst at") == 20 and "value of" in out and "beside" not in out
    assert out.count("flipped along W") == 20 + 20


def test_a_report_of_one_kind(capsys):
    assert "ok; 4 ok; largest margin within bounds 0.5" in shown(report(blocked={}), capsys)
    out = shown(report(ok={}), capsys)
    assert "ok; 2 blocked." in out and "margin" not in out
    assert shown(report(ok={}, blocked={}, facts={}), capsys).strip() == (
        "resnet18_conv4 [/b]: nothing was judged; none."
    )
    differ = {"a": BLOCKED["data"], "b": Verdict(tensor="b", verdict="blocked", why="another stop")}
    out = shown(report(blocked=differ), capsys, 120)
    assert "another stop" in out and "Why:" not in out


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.12345, "0.123"),
        (340000.0, "3.4e+05"),
        (1.0, "1"),
        (1.0000001, "1.0000001"),
        (0.9999999, "0.9999999"),
        (inf, "infinite"),
        (nan, "infinite"),
    ],
)
def test_a_margin_shows_on_which_side_of_1_it_is(value, written):
    assert verdict_facts.margin(wrong(margin=value)) == written


def test_no_margin_where_nothing_was_compared():
    assert verdict_facts.margin(UNDECIDED) == verdict_facts.margin(BLOCKED["data"]) == ""


def test_nan_and_exact_comparisons(capsys):
    out = shown(report(wrong(found=nan, bound=0.0, margin=inf)), capsys)
    assert (
        "found      nan" in out and "bound      0: no rounding is allowed here" in out and "error" not in out
    )
    assert "error      0.2\n" in shown(report(wrong(bound=0.0, margin=inf)), capsys)


def node_class(html, name):
    """The class of a node's shape in the graph, and its sign."""
    node = next(a for a in re.findall("<a href.*?</a>", html, re.S) if f"<title>{name}:" in a)
    sign = re.search("<text[^>]*>(.*?)</text>", node)
    return re.search('class="(v-[a-z]+)(?: bad)?"', node)[1], sign[1] if sign else ""


def test_a_page_of_a_net():
    net = refnet.build("resnet18_conv4")
    html = page_of_verdicts(report(wrong(), UNDECIDED), net, FOLDED)
    assert "<b>wrong</b> 1 wrong, 1 undecided, 4 ok, 2 blocked" in html
    assert f'<pre class="copy">{LINE}</pre>' in html
    assert node_class(html, "res3_0_branch2b") == ("v-wrong", "✗ 3x3x3")
    assert node_class(html, "res3_0_branch2a_bn")[0] == "v-ok"
    assert node_class(html, "conv1")[0] == "v-blocked"
    assert node_class(html, "res4_1_branch2b") == ("v-none", "3x3x3")
    assert node_class(html, "res4_0_branch1") == ("v-undecided", "? 1x1x1")  # it reads the tensor
    assert "✓</i> 2 ok beside these" in html
    for word in ("ok", "wrong", "undecided", "blocked"):
        assert f'v-{word}">{WORDS[word].sign}</i>' in html
    assert "tap H 0 to 2 (down)<br>tap W 0 to 2" in html and "filter 0 to 127, 2 a cell" in html
    assert html.count('<circle class="ring"') == 0


def test_the_worst_verdict_colours_a_node():
    net = refnet.build("resnet18_conv4")
    bad = [
        wrong(name, node="res3_0_branch2a_bn", margin=m) for name, m in (("a", 2.0), ("b", 9.0), ("c", 3.0))
    ]
    html = page_of_verdicts(report(*bad), net)
    assert node_class(html, "res3_0_branch2a_bn")[0] == "v-wrong"
    assert ": affine, 1x128x8x28x28; b wrong, margin 9" in html


def test_a_page_of_an_operator_and_of_nothing():
    html = page_of_verdicts(report(wrong(where=None, found=None, expected=None, bound=None, maps=())))
    assert "<h2>Graph" not in html and "<h2>Worst failure" in html and "Maps:" not in html
    html = page_of_verdicts(report())
    assert "<h2>Worst failure" not in html and "<b>ok</b>" in html
    assert "nothing was judged" in page_of_verdicts(report(ok={}, blocked={}, facts={}))


def test_names_are_escaped_on_a_page():
    nasty = "<b>&\"'</script><svg onload=x>"
    texts = dict.fromkeys(("node", "op", "structure", "cause", "hypothesis", "reproduce"), nasty)
    stopped = {
        n: Verdict(tensor=n, verdict="blocked", why=nasty + n) for n in (f"{nasty}stopped", f"{nasty}too")
    }
    fine = {nasty + "fine": Verdict(tensor=nasty + "fine", verdict="ok", node=nasty, where=(1,))}
    axes = (nasty, "channel", "tap T", "tap H", "tap W")
    there = maps(np.ones((2, 3, 1, 1, 1), bool), axes)
    found = report(wrong(nasty, maps=there, **texts), ok=fine, blocked=stopped, facts={nasty: nasty})
    html = page_of_verdicts(found)
    assert '<b>&"' not in html and "onload=x>" not in html.replace("&lt;svg onload=x&gt;", "")


def test_the_scale_holds_every_margin():
    """Widths of bars, literally: 10**-3 to 10**2 on a scale of five decades."""
    values = {"a": 1e-3, "b": 0.1, "c": 1.0, "d": 0.0}
    ok = {name: Verdict(tensor=name, verdict="ok", margin=m) for name, m in values.items()}
    html = page_of_verdicts(report(wrong("e", margin=100.0), wrong("f", margin=inf), ok=ok, blocked={}))
    widths = [float(w) for w in re.findall(r"--v:([\d.]+)%", html)]
    assert widths == [100, 100, 1, 40, 60]
    assert "--one:60.00%" in html
    assert re.findall(r'left:([\d.]+)%">([^<]+)<', html) == [
        *(("0.00", "0.001"), ("20.00", "0.01"), ("40.00", "0.1")),
        *(("60.00", "1"), ("80.00", "10"), ("100.00", "100")),
    ]


def test_a_map_literally():
    """Two lines of five cells; the last cell of a line holds one index of a column, the others two."""
    counts = ((0, 1, 1, 200, 100), (0, 1, 100, 199, 100))
    found = Map(axes=("line", "column"), shape=(2, 9), steps=(1, 2), counts=counts, depth=100)
    html = page_of_verdicts(report(wrong(maps=(found,))))
    paths = dict(re.findall(r'<path class="v-([a-z]+)" d="([^"]+)"', html))
    assert paths == {
        "few": "M16 0h32v16h-32zM16 16h16v16h-16z",
        "all": "M48 0h32v16h-32zM64 16h16v16h-16z",
        "most": "M32 16h32v16h-32z",
    }
    assert 'width="80" height="32"' in html and "column 0 to 8, 2 a cell" in html


def test_a_lonely_element_is_ringed():
    html = page_of_verdicts(report(wrong(maps=maps(mask((1, 256, 1, 1, 56), np.s_[0, 200, 0, 0, 1]), AXES))))
    assert 'class="ring"' in html
