"""No text of a file controls the terminal, and a terminal that lacks a character is no reason to fail."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from support import edit

from refnet import golden
from refnet.errors import FileError, UnknownNameError, require_known
from refnet.render import terminal

RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4, "time_kernel": 1})
SMALL = ["--input", "1x3x1x32x32", "--width-per-group", "4", "--time-kernel", "1"]
# Clears a screen, says that all is well, hides the rest; from right to left; a terminal's title; half a pair.
HOSTILE = "\x1b[2J\x1b[Hb: 176 of 176 tensors equal\x1b[8m \u202e \x9b31m \x07\x00\x7f \u2028 \ud800"
CONTROLS = set(map(chr, (*range(32), *range(127, 160), 0x202E, 0x2028, 0xD800))) - {"\n"}


@pytest.fixture
def bundle(tmp_path):
    return golden.make(tmp_path / "b", RECIPE, hashes_only=True).path


def section(name, **changes):
    """Give a manifest a tensor more, of a hostile name."""

    def change(manifest):
        entries = manifest["tensors"][name]
        entries[HOSTILE[:-2]] = next(iter(entries.values())) | changes

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m: m.update(bits=HOSTILE[:-2]), 2),
        (lambda m: m.update(format=HOSTILE), 2),
        (lambda m: m.update(format_version=HOSTILE), 2),
        (lambda m: m.update(more=HOSTILE), 2),
        (lambda m: m["recipe"].update(architecture=HOSTILE[:-2]), 2),
        (lambda m: m["recipe"].update({HOSTILE[:-2]: 1}), 2),
        (lambda m: m["recipe"]["options"].update({HOSTILE[:-2]: 1}), 2),
        (lambda m: m.update(blocked=[HOSTILE[:-2]]), 1),
        (section("blobs"), 1),
        (section("blobs", file=HOSTILE[:-2]), 2),
        (section("blobs", sha256=HOSTILE[:-2]), 2),
        (section("blobs", dtype=HOSTILE[:-2]), 2),
        (section("blobs", shape=[HOSTILE[:-2]]), 2),
        (section("blobs", shape=[0]), 2),
        (section("gradients", shape=[7]), 1),
    ],
)
def test_no_text_of_a_manifest_controls_a_terminal(refnet, bundle, change, code):
    edit(bundle, lambda m: m["machine"].update(numpy=HOSTILE[:-2]))
    edit(bundle, change)
    for command in (
        ["golden", "verify", bundle],
        ["golden", "diff", bundle, bundle],
        ["certify", bundle, bundle],
    ):
        ended, out, err = refnet(*command)
        assert not CONTROLS.intersection(out + err)
        assert ended == code or command[1] != "verify"


VERDICT = "b: derived again: 176 of 176 tensors equal bit for bit."
LINES = f"x\n\n{VERDICT}\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: (
            m.update(bits="unknown", refnet=LINES)
            or m["recipe"].update(own={"arithmetic": {"name": LINES, "sha256": None}}, arithmetic=LINES)
        ),
        lambda m: m.update(refnet=LINES) or m["machine"].update(cpu=LINES),
        lambda m: m["tensors"]["blobs"].update({LINES: {**m["tensors"]["blobs"]["conv1"], "shape": [1]}}),
        lambda m: m["recipe"].update(architecture=LINES),
        lambda m: m["tensors"]["blobs"]["conv1"].update(file=LINES),
        lambda m: m["graph"]["nodes"][0].update(name=LINES),
    ],
)
def test_no_text_of_a_manifest_prints_a_line_of_its_own(refnet, bundle, tmp_path, change):
    other = golden.make(tmp_path / "other", RECIPE).path
    edit(bundle, change)
    for command in (
        ["golden", "verify", bundle],
        ["golden", "diff", bundle, other],
        ["golden", "show", bundle],
        ["golden", "show", bundle, LINES],
        ["certify", bundle, other],
        ["certify", other, bundle],
    ):
        _, out, err = refnet(*command)
        assert VERDICT not in {line.strip() for line in (out + err).splitlines()}, command


def test_no_text_of_a_manifest_controls_a_terminal_through_json(refnet, bundle):
    edit(bundle, section("blobs"))
    code, out, _ = refnet("golden", "verify", bundle, "--json")
    assert code == 1 and not CONTROLS.intersection(out)
    assert HOSTILE[:-2] in {tensor["name"] for tensor in json.loads(out)["tensors"]}


def test_what_another_machine_is_called_is_seen_as_it_is(refnet, tmp_path):
    bundle = golden.make(tmp_path / "b", golden.Recipe(**vars(RECIPE) | {"arithmetic": "reference"})).path
    edit(bundle, lambda m: m["machine"].update(numpy=HOSTILE[:-2]))
    edit(bundle, lambda m: m["tensors"]["blobs"]["conv1"].update(sha256="0" * 64))
    code, out, _ = refnet("golden", "verify", bundle)
    assert code == 1 and not CONTROLS.intersection(out)
    assert "made with numpy \\x1b[2J\\x1b[Hb: 176 of 176 tensors equal\\x1b[8m \\u202e" in out


def test_no_message_controls_a_terminal():
    for error in (FileError(f"{HOSTILE} is\nwrong"), UnknownNameError(HOSTILE, HOSTILE, [HOSTILE])):
        assert not CONTROLS.intersection(str(error))
    assert str(FileError(f"{HOSTILE[:4]} is\nwrong")) == "\\x1b[2J is\\nwrong"
    with pytest.raises(UnknownNameError, match=r"^unknown a '\\x1b': expected one of \\x1b"):
        require_known("a", "\x1b", ["\x1b[31m", "b"])


@pytest.mark.parametrize("put", [str, Text, lambda text: Text(text, "bold"), None])
def test_a_screen_shows_every_text_as_it_is(capsys, put):
    shown = Table.grid() if put is None else put(HOSTILE)
    if put is None:
        shown.add_row("a", HOSTILE)
    terminal.screen().print(shown, soft_wrap=True)
    out = capsys.readouterr().out
    assert not CONTROLS.intersection(out) and "\\x1b[2J\\x1b[Hb: 176 of 176 tensors equal" in out
    terminal.screen().print("a\nb \u00e9 \u25a0")
    assert capsys.readouterr().out == "a\nb \u00e9 \u25a0\n"


def test_a_screens_own_colours_stay(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    terminal.screen().print(Text("red\x1b[2J", "red"))
    assert sys.stdout.getvalue() == "\x1b[31mred\\x1b[2J\x1b[0m\n"


# Terminals that lack characters.


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["trace", "resnet18_conv4", "--explain", "res3_0_branch2b"], 0),
        (["golden", "verify", "\u00e9\u4e16\u25a0"], 0),
        (["golden", "diff", "\u00e9\u4e16\u25a0", "b"], 1),
        (["golden", "verify", "\u4e16\u4e16"], 2),
    ],
)
def test_a_terminal_that_lacks_characters(refnet, monkeypatch, bundle, encoding, command, code):
    golden.make(Path("\u00e9\u4e16\u25a0"), RECIPE, hashes_only=True)
    edit(bundle, lambda m: m["tensors"]["blobs"]["conv1"].update(sha256="0" * 64))
    stream = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    ended, _, err = refnet(*command)
    assert ended == code and err.count("\n") == (code == 2)
    assert ("?" in stream.buffer.getvalue().decode(encoding)) == (code != 2)


def test_who_asks_for_other_replacements_gets_them(refnet, monkeypatch, tmp_path):
    golden.make(tmp_path / "\u4e16", RECIPE, hashes_only=True)
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", "backslashreplace", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert refnet("golden", "verify", "\u4e16")[0] == 0
    assert stream.buffer.getvalue().startswith(b"\\u4e16: derived again")


def test_an_output_that_is_no_terminal_and_no_file(refnet, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert refnet("list")[0] == 0 and "resnet18_conv4" in sys.stdout.getvalue()
