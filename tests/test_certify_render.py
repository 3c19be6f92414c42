"""A certification on the terminal and as a page: each word, whatever its numbers, whatever it is called."""

import re
import subprocess
from itertools import combinations
from math import inf, nan
from shutil import which

import numpy as np
import pytest
from support import page_of_verdicts

import refnet
from refnet.check.report import Heat, Report, Residual, Verdict
from refnet.render import verdict_drawing, verdict_page, verdicts
from refnet.render.terminal import Screen
from refnet.render.words import WORDS

CAUSE = "the operands were rounded to TF32, toward zero: under that the differences are those of rounding"
FACTS = {"accumulate": "float32", "store": "float32", "operands": "float32", "delta": 1e-6}
CERTIFIED = ("exact", "consistent", "refused", "systematic", "implausible", "impossible", "blocked")
LONG = "a_rather_long_name_of_a_node_that_is_wider_than_the_terminal_is_and_must_never_be_cut"


def histogram(*tail, middle=900):
    """Of 41 bins: most in the middle, `tail` in the last ones."""
    counts = [0] * 41
    counts[19:22] = 40, middle, 45
    counts[41 - len(tail) :] = tail
    return tuple(counts)


def residual(rms=0.5, counts=None, heat=None, **fields):
    return Residual(
        rms=rms, terms=576, histogram=histogram() if counts is None else counts, heat=heat, **fields
    )


def heat(peak=40.0):
    """Errors that grow along columns, and one cell of the second frame that is beyond the bound."""
    values = np.broadcast_to(np.arange(10) / 20, (3, 6, 10)).copy()
    values[1, -1, 0] = peak
    return Heat(
        shape=values.shape, steps=(1, 1, 1), values=tuple(tuple(map(tuple, f)) for f in values.tolist())
    )


def consistent(tensor, node=None, margin=0.3, op="conv3d", rms=0.5):
    return Verdict(
        tensor=tensor,
        verdict="consistent",
        margin=margin,
        node=node or tensor,
        op=op,
        where=(0, 1, 0, 2, 3),
        elements=4096,
        residual=residual(rms),
    )


def failed(word="impossible", tensor="res3_0_branch2b", node=None, **fields):
    usual = {
        "margin": 40.0,
        "node": node or tensor,
        "op": "conv3d",
        "where": (0, 3, 1, 5, 0),
        "found": 0.125,
        "expected": 0.25,
        "bound": 0.003125,
        "wrong": 12,
        "elements": 4096,
        "structure": "the first column",
        "cause": CAUSE,
        "hypothesis": "operands tf32 zero",
        "reproduce": "refnet certify bundle candidate.npz --accumulate float32",
        "residual": residual(186.0, histogram(1, 4, 12), heat(), largest=900.0, limit=6.2),
    }
    return Verdict(tensor=tensor, verdict=word, **usual | fields)


def report(*found, title="resnet18_conv4 1x3x8x224x224", facts=FACTS):
    return Report(title=title, verdicts={verdict.tensor: verdict for verdict in found}, facts=facts)


def each_word():
    """One verdict of each word of certification; the first that is wrong is not the worst."""
    return report(
        Verdict(tensor="conv1", verdict="exact", node="conv1", op="conv3d", elements=64),
        consistent("res2_0_branch2a", margin=0.31, rms=0.74),
        failed("systematic", "res2_0_branch2b", margin=0.2, wrong=0, cause="", hypothesis=None),
        failed("implausible", "res2_0_branch2c", margin=0.9, wrong=0),
        failed("impossible", "res3_0_branch2b"),
        Verdict(tensor="d res3_0_sum", verdict="refused", node="res3_0_sum", why="no dump of its reader"),
        consistent("d res3_0_branch2b_w", "res3_0_branch2b", margin=0.25, rms=0.25),
        Verdict(tensor="d conv1", verdict="blocked", node="conv1", why="a stop lies on each path to it"),
    )


def shown(found, capsys, width=80, **options):
    verdicts.show(found, Screen(width=width, markup=False, highlight=False), **options)
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_a_terminal_of_84_columns(capsys):
    found = each_word()
    out = shown(found, capsys, 84, folded=found.verdicts)
    table = out[out.index(" tensor  ") :]
    assert (
        table
        == """\
 tensor           verdict      margin  rms  cause
 res2_0_branch2b  systematic      0.2  186
 res3_0_branch2b  impossible       40  186  the operands were rounded to TF32,
                                            toward zero: under that the differences
                                            are those of rounding
 res2_0_branch2c  implausible     0.9  186  the operands were rounded to TF32,
                                            toward zero: under that the differences
                                            are those of rounding
 d res3_0_sum     refused                   no dump of its reader
Not shown in 84 columns: where (--json has all)
2 consistent, 1 exact, 1 blocked beside these, largest margin within bounds 0.31, of res2_0_branch2a; \
largest rms 0.74 of the expected error, of res2_0_branch2a (--all lists them)

resnet18_conv4 1x3x8x224x224: impossible; 1 impossible, 1 implausible, 1 systematic, 1 refused, \
2 consistent, 1 exact, 1 blocked; largest margin within bounds 0.31, of res2_0_branch2a; \
largest rms 0.74 of the expected error, of res2_0_branch2a.
accumulate float32; store float32; operands float32; delta 1e-06
First failure: res2_0_branch2b (conv3d): systematic, the first column"""
    )
    assert out.startswith("res2_0_branch2b: systematic, at res2_0_branch2b (conv3d)\n")


def test_a_failure_in_full(capsys):
    out = shown(report(failed(tensor="d conv1_w", node="conv1")), capsys, 100)
    assert "rms        186 times the expected error, in sums of 576 terms; a plain chain makes 0.735\n" in out
    assert "largest    900 times the expected error of a result near 0; at most 6.2 is likely\n" in out
    assert "[operands tf32 zero]" in " ".join(out.split())
    assert out.splitlines()[-1] == f"First failure: conv1 (conv3d): d conv1_w is impossible, {CAUSE}"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 300])
@pytest.mark.parametrize("every", [True, False])
def test_no_name_is_cut_in_silence(capsys, width, every):
    found = report(
        *each_word().verdicts.values(),
        failed(tensor=f"d {LONG}_w", node=LONG, cause="one" * 50 + " word"),
        consistent(f"{LONG}_too", margin=0.01),
    )
    out = shown(found, capsys, width, every=every)
    for verdict in found.verdicts.values():
        assert verdict.tensor in out
    assert "…" not in out and "..." not in out
    assert "First failure: res2_0_branch2b" in out.splitlines()[-1]


def test_all_that_passes_is_folded_unless_asked(capsys):
    found = report(*(consistent(f"res2_{i}_branch2a", margin=i / 100) for i in range(300)))
    out = shown(found, capsys, folded=found.verdicts)
    assert len(out.splitlines()) == 2 and "(--all lists them)." in out
    assert out.count("300 consistent") == out.count("largest margin within bounds 2.99") == 1
    assert "First failure" not in out and "res2_7_branch2a" not in out
    out = shown(found, capsys, folded=found.verdicts, every=True)
    assert all(name in out for name in found.verdicts)
    assert "d conv1" in shown(each_word(), capsys, folded=each_word().verdicts, every=True)


def test_the_first_failure_is_said_in_full_however_many_are_worse(capsys):
    later = [failed(tensor=f"res4_{i}_branch2a", margin=100.0 + i) for i in range(20)]
    out = shown(report(consistent("conv1"), failed("systematic", "pool1"), *later), capsys)
    assert out.startswith("pool1: systematic") and "... and 13 more" in out
    assert out.index("res4_19_branch2a") < out.index("res4_18_branch2a")


@pytest.mark.parametrize("margin", [inf, nan])
def test_margins_that_are_no_numbers(capsys, margin):
    bad = failed(margin=margin, found=nan, bound=0.0, residual=residual(nan, histogram(3), largest=inf))
    out = shown(report(bad, consistent("conv1")), capsys, 120)
    assert re.search(r"res3_0_branch2b +impossible +infinite +nan", out)
    assert "no rounding is allowed here" in out


def test_one_verdict_and_none(capsys):
    out = shown(report(consistent("y")), capsys)
    assert re.search(r"^ y +consistent +0.3 +0.5", out, re.M)
    out = shown(report(facts={}), capsys)
    assert out.strip() == "resnet18_conv4 1x3x8x224x224: nothing was judged; none."


NASTY = "conv\x1b[31m\n\u202e\ud800"
HARMLESS = r"conv\x1b[31m\n\u202e\ud800"


def nasty():
    """A report in which everything that is text would steer a terminal."""
    texts = dict.fromkeys(("node", "op", "structure", "cause", "hypothesis", "why", "reproduce"), NASTY)
    return report(
        failed(tensor=NASTY, **texts),
        consistent(f"{NASTY}2", NASTY, op=NASTY),
        *(Verdict(tensor=f"{NASTY}{i}", verdict="blocked", why=f"{NASTY}{i}") for i in (3, 4)),
        title=NASTY,
        facts={NASTY: {NASTY: [NASTY]}},
    )


@pytest.mark.parametrize("width", [30, 300])
def test_control_characters_do_not_reach_a_terminal(capsys, width):
    out = shown(nasty(), capsys, width)
    assert all(character.isprintable() or character == "\n" for character in out)
    assert out.count(HARMLESS) > 12


def test_only_a_certification_has_a_first_failure():
    assert each_word().leading.tensor == "res2_0_branch2b"
    assert report(Verdict(tensor="w", verdict="wrong", margin=2.0)).leading is None


# The page.

NETWORK = "resnet18_conv4"


def of_a_net(net, **words):
    """A value and a gradient of each node and of each filter, as they should be but for `words`, by name."""
    flow, found = net.gradient_flow(), []
    for node in net.nodes:
        found.append(consistent(node.name, op=node.op))
        if node.name in flow:
            found.append(consistent(f"d {node.name}", node.name, op=node.op))
        else:
            found.append(Verdict(tensor=f"d {node.name}", verdict="blocked", node=node.name, why="a stop"))
        if node.op == "conv3d":
            found.append(consistent(f"d {node.name}_w", node.name))
    bad = {
        name: failed(word, name, name.removeprefix("d ").removesuffix("_w")) for name, word in words.items()
    }
    return report(*(bad.get(verdict.tensor, verdict) for verdict in found))


def part(html, title):
    """A section of a page."""
    return next(s for s in html.split("<section>") if s.startswith(f"<h2>{title}</h2>"))


def shapes(html, name):
    """The classes of a node's body and strip, where they lead, and what stands in the body."""
    links = [a for a in re.findall("<a href=.*?</a>", part(html, "Graph")) if f"<title>{name}: " in a]
    kinds = [re.search('class="(v-[a-z ]+)"', a)[1] for a in links]
    where = [re.match('<a href="#([^"]+)"', a)[1] for a in links]
    return kinds, where, re.search("<text[^>]*>(.*?)</text>", links[0])[1]


def test_a_page_of_a_net():
    net = refnet.build(NETWORK)
    bad = {
        "res3_0_branch2b": "impossible",
        "d res4_0_branch2a": "implausible",
        "res4_1_branch2b": "systematic",
    }
    found = of_a_net(net, **bad)
    html = page_of_verdicts(found, net)
    first = part(html, "First failure")
    assert "<b>res3_0_branch2b</b> impossible" in first and CAUSE in first and "[operands tf32 zero]" in first
    assert f'<pre class="copy">{found.verdicts["res3_0_branch2b"].reproduce}</pre>' in first
    assert 'id="res3_0_branch2b"' in first
    assert "186 times the expected error" in first and 'class="histogram"' in first and "frame 2" in first
    others = part(html, "What else is not right")
    assert others.count("<details") == 2 and others.index("d res4_0_branch2a") < others.index(
        "res4_1_branch2b"
    )

    kinds, where, sign = shapes(html, "res3_0_branch2b")
    assert kinds == ["v-impossible bad", "v-consistent"] and sign == "✗ 3x3x3"
    assert where[0] == "res3_0_branch2b" and where[1] in {"d-res3_0_branch2b", "d-res3_0_branch2b_w"}
    kinds, where, sign = shapes(html, "res4_0_branch2a")
    assert kinds == ["v-consistent", "v-implausible bad"] and sign == "d! 1x1x1"
    assert where[1] == "d-res4_0_branch2a"
    assert shapes(html, "res4_1_branch2b")[2] == "~ 3x3x3"
    assert shapes(html, "conv1")[0] == ["v-consistent", "v-consistent"]  # its dw is worse than blocked

    along = part(html, "Along the network")
    assert "values: the largest" in along and "gradients: the largest" in along
    assert along.count("<a ") == 2 * len(net.nodes)
    rows = part(html, "Margins")
    judged = sum(verdict.verdict != "blocked" for verdict in found.verdicts.values())
    assert rows.count('class="spark"') == rows.count(" data-rms=") == judged
    # From the graph to the failure, from the failure and from the rows back to the graph.
    assert 'href="#res3_0_branch2b" id="~res3_0_branch2b"' in html
    assert 'href="#~res3_0_branch2b"' in first and 'href="#~res3_0_branch2b"' in rows


def test_a_page_of_values_alone_has_whole_nodes():
    net = refnet.build(NETWORK)
    html = page_of_verdicts(report(*(consistent(node.name, op=node.op) for node in net.nodes)), net)
    assert shapes(html, "conv1")[0] == ["v-consistent"] and "strip" not in part(html, "Graph")
    assert "gradients: the largest" not in html and "<h2>First failure" not in html
    closest = part(html, "Closest to its bound")
    assert "histogram" in closest and '<tr class="margin"><td>margin<td>0.3' in closest


def test_a_page_of_each_word():
    html = page_of_verdicts(each_word(), refnet.build(NETWORK))
    legend = part(html, "Graph")
    for word in CERTIFIED:
        assert f'<i class="mark v-{word}">{WORDS[word].sign}</i>{word}: {WORDS[word].meaning}' in legend
    assert "undecided" not in legend
    assert "<b>impossible</b> 1 impossible, 1 implausible" in html
    assert re.search('first failure <a href="#res2_0_branch2b">res2_0_branch2b</a>', html)


@pytest.mark.parametrize("word", CERTIFIED)
@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0, 1e300, inf, nan])
def test_a_page_of_one_verdict(word, margin):
    spread = residual(margin, histogram(3), heat(peak=margin), largest=margin, limit=margin)
    html = page_of_verdicts(report(failed(word, "y", "conv3d", margin=margin, residual=spread)))
    assert word in html and "<h2>Graph" not in html and "<h2>Along" not in html
    assert ("<h2>Margins" in html) == (word != "blocked")


def test_a_page_without_verdicts():
    assert "nothing was judged" in page_of_verdicts(report(facts={}), refnet.build(NETWORK))


def test_a_page_of_300_nodes():
    net = refnet.build("resnet101_conv5")
    assert len(net.nodes) > 300
    bad = {node.name: "implausible" for node in net.nodes if node.op == "conv3d"}
    html = page_of_verdicts(of_a_net(net, **bad), net)
    assert part(html, "What else is not right").count("<details") == len(bad) - 1
    assert part(html, "What else is not right").count(" open>") == verdict_page.MOST_OPEN


def test_names_are_escaped_on_a_page():
    markup = NASTY + "<b>&\"'</script><svg onload=x>"
    names = dict.fromkeys(("node", "op", "structure", "cause", "hypothesis", "why", "reproduce"), markup)
    found = report(
        *nasty().verdicts.values(),
        failed(tensor=markup, **names),
        title=markup,
        facts={markup: {markup: markup}},
    )
    net = refnet.Net()
    net.output(net.add("relu", markup, [net.input("data", (1, 1, 1, 1, 1))]))
    html = page_of_verdicts(found, net)
    assert all(character.isprintable() for character in html.replace("\n", ""))
    assert "onload=x>" not in html and '<b>&"' not in html and HARMLESS in html
    assert html.encode()


def test_a_histogram_literally():
    """Heights on a logarithmic scale: 1 of 1 + 1, 3 of 1 + 3; both ends apart."""
    counts = [0] * 41
    counts[0], counts[1], counts[40] = 1, 3, 3
    drawn = verdict_drawing.spark(counts)
    assert '<path class="bin" d="M2 17v-17.0h2v17.0z"/>' in drawn
    assert '<path class="end" d="M0 17v-8.5h2v8.5zM80 17v-17.0h2v17.0z"/>' in drawn
    assert verdict_drawing.spark([0] * 41) == ""
    assert re.findall("<text[^>]*>([0-9,]+)</text>", verdict_drawing.histogram([10**6] * 41)) == [
        *("1", "100", "10,000", "1,000,000"),
        *("0", "1"),
    ]


def test_a_heat_map_literally():
    """Levels are 10 times apart within the bound, here, and twice beyond it; 0 is the ground."""
    values = (((0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0), (1.5, 3.0, 6.0, 12.0, 24.0, 24.0)),)
    drawn = verdict_drawing.heat(Heat(shape=(2, 3, 12), steps=(2, 2, 2), values=values))
    paths = dict(re.findall('<path class="v-([a-z]+)" d="([^"]+)"', drawn))
    assert paths == {
        "faint": "M16 0h32v16h-32z",
        "weak": "M48 0h16v16h-16z",
        "clear": "M64 0h16v16h-16z",
        "strong": "M80 0h16v16h-16z",
        "few": "M0 16h32v16h-32z",
        "some": "M32 16h16v16h-16z",
        "most": "M48 16h16v16h-16z",
        "all": "M64 16h32v16h-32z",
    }
    assert (
        "frames 0 to 1" in drawn
        and "lines 0 to 2 down, columns 0 to 11 across, 2 x 2 elements a cell" in drawn
    )
    assert re.findall("</i>([^<]+)</li>", drawn) == [
        *("0", "0.0001 to 0.001", "0.001 to 0.01", "0.01 to 0.1", "0.1 to 1"),
        *("1.5 to 3", "3 to 6", "6 to 12", "12 to 24"),
    ]


@pytest.mark.parametrize(
    ("value", "levels", "legend"),
    [
        (0.0, [], ["0"]),
        (0.25, ["clear"], ["0.25"]),
        (7.0, ["most"], ["7"]),
        (inf, ["all"], ["infinite, NaN"]),
        (nan, ["all"], ["infinite, NaN"]),
    ],
)
def test_a_heat_map_of_one_value(value, levels, legend):
    drawn = verdict_drawing.heat(Heat(shape=(1, 1, 1), steps=(1, 1, 1), values=(((value,),),)))
    assert re.findall('<path class="v-([a-z]+)"', drawn) == levels
    assert re.findall("</i>([^<]+)</li>", drawn) == legend
    assert "frame 0<" in drawn and "lines 0 to 0 down, columns 0 to 0 across<" in drawn


def test_no_map_of_one_element():
    one = Heat(shape=(1, 1, 1), steps=(1, 1, 1), values=(((2.0,),),))
    assert 'class="heat"' not in page_of_verdicts(report(failed(residual=residual(heat=one))))
    assert 'class="heat"' in page_of_verdicts(report(failed()))


def test_rows_say_what_they_are_sorted_by():
    html = page_of_verdicts(report(failed(margin=inf, residual=residual(nan)), consistent("y")))
    assert re.findall(r'data-verdict="([\d.]+)" data-margin="(\S+)" data-rms="(\S+)"', html) == [
        ("9.0", "Infinity", "Infinity"),
        ("3.0", "0.3", "0.5"),
    ]


CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH; the page's script runs in a browser only")
def test_a_browser_runs_the_page(tmp_path):
    """A link to a failure opens it; the script adds what copies and sorts."""
    net = refnet.build(NETWORK)
    found = of_a_net(net, **{node.name: "implausible" for node in net.nodes if node.op == "conv3d"})
    last = "res4_1_branch2c"
    page = tmp_path / "page.html"
    page.write_text(page_of_verdicts(found, net), encoding="utf-8")
    quiet = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --dump-dom"
    run = subprocess.run(
        [CHROMIUM, *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", f"{page.as_uri()}#{last}"],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    assert re.search(f'<details class="failure" id="{last}" open', run.stdout)
    assert "by margin</button>" in run.stdout and "copy</button>" in run.stdout


# In Python.


def test_a_report_in_python():
    assert (
        repr(each_word())
        == f"""\
<resnet18_conv4 1x3x8x224x224: 1 impossible, 1 implausible, 1 systematic, 1 refused, 2 consistent, 1 exact, \
1 blocked, first failure res2_0_branch2b
  res2_0_branch2b: systematic, the first column
  res3_0_branch2b: impossible, {CAUSE}
  res2_0_branch2c: implausible, {CAUSE}>"""
    )
    unexplained = failed(cause="", structure="", margin=inf)
    assert repr(report(unexplained)).endswith("\n  res3_0_branch2b: impossible, margin inf, rms 186>")
    assert repr(report(consistent("y"), title="conv3d")) == "<conv3d: 1 consistent>"
    assert repr(report(title="conv3d")) == "<conv3d: nothing was judged>"
    assert all(character.isprintable() or character == "\n" for character in repr(nasty()))


# Colours.

LIGHT, DARK = ("#ffffff", ["#fbfbfa", "#ffffff", "#e9ebee"]), ("#10141a", ["#14171c", "#1b1f26", "#262b34"])
# Machado, Oliveira and Fernandes 2009, full severity: what a colour looks like without one kind of cones.
EYES = {
    "all cones": np.eye(3),
    "no long": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour):
    """The linear light of a colour of sRGB."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """Of the Web Content Accessibility Guidelines 2.2."""
    dim, bright = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other))
    return (bright + 0.05) / (dim + 0.05)


def oklab(light):
    """Ottosson's perceptual space, in hundredths."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    found = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return 100 * np.array(found) @ np.cbrt(np.array(cones) @ np.clip(light, 0, 1))


@pytest.mark.parametrize("word", WORDS)
def test_a_sign_can_be_read_on_its_colour_and_the_colour_be_seen(word):
    for colour, (on, grounds) in zip(WORDS[word].colours, (LIGHT, DARK), strict=True):
        assert contrast(colour, on) >= 4.5
        assert all(contrast(colour, ground) >= 3 for ground in grounds)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("words", [CERTIFIED, ("ok", "wrong", "undecided", "blocked")])
def test_words_of_one_kind_differ_in_sign_and_for_every_eye(words, eyes, theme):
    assert len({WORDS[word].sign for word in words}) == len(words)
    seen = {word: oklab(np.array(EYES[eyes]) @ linear(WORDS[word].colours[theme])) for word in words}
    for one, other in combinations(words, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 6, (one, other)
