"""What is killed, starved and raced stays whole; what is written under its own name at once is found."""

import shutil
import time

import faults
import pytest

from refnet.golden import folder as bundles
from refnet.render import files

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
PARTS = [pytest.param(part, marks=needs_strace if part == "calls" else ()) for part in faults.PARTS]


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_found(part, capsys):
    code = faults.main(["--only", part, "--tries", "5"])
    said = capsys.readouterr().err
    assert code == 0 and f"{part}: 5 tried, 0 wrong" in said, said


def in_place(out, content):
    """A page written under its name at once."""
    with out.open("wb", buffering=0) as file:
        for start in range(0, len(content), 10_000):
            file.write(content[start : start + 10_000])
            time.sleep(0.01)


def copied(folder, out, force):
    """A bundle written under its name at once."""
    bundles.require_free(out, force)
    shutil.copytree(folder, out, dirs_exist_ok=True)


def found_in_place(part, planted, tries, monkeypatch, capsys):
    if planted == "page":
        monkeypatch.setattr(files, "write", in_place)
    else:
        monkeypatch.setattr(bundles, "_place", copied)
    monkeypatch.setattr(faults, "MOST_WRONG", 1)
    assert faults.main(["--only", part, "--tries", str(tries)]) == 1
    assert "WRONG" in capsys.readouterr().err


@needs_strace
@pytest.mark.parametrize("planted", ["page", "bundle"])
def test_what_is_written_in_place_is_found_at_a_call(planted, monkeypatch, capsys):
    found_in_place("calls", planted, 60, monkeypatch, capsys)


def test_a_page_that_is_written_in_place_is_found_at_a_moment(monkeypatch, capsys):
    found_in_place("moments", "page", 100, monkeypatch, capsys)


def test_makers_that_do_not_look_are_found(capsys, monkeypatch):
    """Each writes over what another has made."""
    monkeypatch.setattr(bundles, "_place", lambda folder, out, force: copied(folder, out, True))
    monkeypatch.setattr(bundles, "require_free", lambda out, force: None)
    monkeypatch.setattr("refnet.golden.derive.require_free", lambda out, force: None)
    monkeypatch.setattr("refnet.cli.golden_make.require_free", lambda out, force: None)
    monkeypatch.setattr(faults, "MOST_WRONG", 1)
    assert faults.main(["--only", "races", "--tries", "40"]) == 1
    assert "races: WRONG" in capsys.readouterr().err
