"""A certification on the terminal and as a page: each word, whatever its numbers, whatever it is called."""

import re
from itertools import combinations
from math import inf, nan

import numpy as np
import pytest
from rich.console import Console

from refnet.check.report import Heat, Report, Residual, Verdict
from refnet.render import verdict_facts, verdicts
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


def heat(shape=(3, 6, 10), steps=(1, 1, 1), peak=40.0):
    """Errors that grow along columns, and one cell of the second frame that is beyond the bound."""
    cells = tuple(-(-size // step) for size, step in zip(shape, steps, strict=True))
    values = np.broadcast_to(np.arange(cells[2]) / (2 * cells[2]), cells).copy()
    values[min(1, cells[0] - 1), -1, 0] = peak
    return Heat(shape=shape, steps=steps, values=tuple(tuple(map(tuple, f)) for f in values.tolist()))


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
    verdicts.show(found, Console(width=width, markup=False, highlight=False), **options)
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
2 consistent, 1 exact beside these, largest margin within bounds 0.31, of res2_0_branch2a; \
largest rms 0.74 of the expected error, of res2_0_branch2a (--all lists them)

 blocked  training sees
 d conv1              0
Why: a stop lies on each path to it.

resnet18_conv4 1x3x8x224x224: impossible; 1 impossible, 1 implausible, 1 systematic, 1 refused, \
2 consistent, 1 exact, 1 blocked; largest margin within bounds 0.31, of res2_0_branch2a; \
largest rms 0.74 of the expected error, of res2_0_branch2a.
accumulate float32; store float32; operands float32; delta 1e-06
First failure: res2_0_branch2b (conv3d): systematic, the first column"""
    )
    assert out.startswith("res2_0_branch2b: systematic, at res2_0_branch2b (conv3d)\n")


def test_a_failure_in_full(capsys):
    out = shown(report(failed(tensor="d conv1_w", node="conv1")), capsys, 100)
    assert "rms        186 times the expected error; a plain chain makes 0.735 in sums of 576 terms\n" in out
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
    assert len(out.splitlines()) == 4 and "300 consistent, largest margin within bounds 2.99" in out
    assert "First failure" not in out and "res2_7_branch2a" not in out
    out = shown(found, capsys, folded=found.verdicts, every=True)
    assert all(name in out for name in found.verdicts)


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
    assert verdict_facts.first(each_word()).tensor == "res2_0_branch2b"
    assert verdict_facts.first(report(Verdict(tensor="w", verdict="wrong", margin=2.0))) is None


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
