"""How a command ends that is stopped: nothing is left behind, and what was to be ignored is."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from refnet import placing
from refnet.arithmetic import Kernel, core
from refnet.cli import app
from refnet.golden import folder as bundles
from refnet.gradcheck import check_op

OLD, NEW = ({name: f"{word} {name}".encode() for name in bundles.FILES} for word in ("old", "new"))
for written in (OLD, NEW):
    written["manifest.json"] = b'{"format": "refnet golden bundle"}'


@pytest.fixture
def old(tmp_path):
    """A bundle to replace, alone in a folder."""
    out = tmp_path / "place" / "out"
    out.mkdir(parents=True)
    write(out, OLD)
    return out


def write(folder, content):
    for name, data in content.items():
        (folder / name).write_bytes(data)


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def stopped(refnet, monkeypatch):
    """Run a function in place of the command line."""

    def run(action):
        monkeypatch.setattr(app, "app", lambda **options: action())
        return refnet()

    return run


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_an_ignored_signal_stays_ignored(stopped, name):
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_IGN)
    assert stopped(lambda: os.kill(os.getpid(), number)) == (0, "", "")
    signal.signal(number, signal.SIG_DFL)
    assert stopped(lambda: os.kill(os.getpid(), number))[0] == 128 + number


@pytest.mark.parametrize("first", ["unlink", "rmdir", "rename", None])
def test_a_signal_during_clean_up_leaves_nothing(stopped, old, monkeypatch, first):
    """A first one while what was replaced is removed; or one before, and then others at every step."""
    sent = []

    def with_signal(name, send):
        call = getattr(os, name)

        def interrupted(*arguments, **options):
            if send():
                sent.append(name)
                os.kill(os.getpid(), (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[len(sent) % 3])
            return call(*arguments, **options)

        monkeypatch.setattr(os, name, interrupted)

    def action():
        with bundles.beside(old, True) as folder:
            write(folder, NEW)
            if first is None:
                for name in ("unlink", "rmdir"):
                    with_signal(name, lambda: True)
                os.kill(os.getpid(), signal.SIGINT)
            else:
                with_signal(first, lambda: not sent)

    if first == "rename":
        monkeypatch.setattr(placing, "_rename", lambda new, out, flag: False)
    code, _, err = stopped(action)
    monkeypatch.undo()
    assert code == 130 and err == "refnet: stopped by SIGINT\n" and len(sent) >= 1
    assert content(old) in (OLD, NEW) and list(old.parent.iterdir()) == [old]
    assert first is not None or len(sent) > 1


def test_a_signal_that_was_swallowed_does_not_silence_the_next(stopped):
    def action():
        with suppress(app.Stopped):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    assert stopped(action) == (143, "", "refnet: stopped by SIGINT\nrefnet: stopped by SIGTERM\n")


def test_a_signal_is_no_finding_of_a_check(stopped, monkeypatch):
    """One that comes while a kernel computes ends the command, and is no verdict on the kernel."""
    right = core.kernels["relu"]

    def forward(x):
        os.kill(os.getpid(), signal.SIGTERM)
        return right.forward(x)

    wrong = core.replace(relu=Kernel(forward, right.backward))
    ended = stopped(lambda: check_op("relu", wrong, draws=1))
    assert ended == (143, "", "refnet: stopped by SIGTERM\n")


def test_a_signal_whose_message_nobody_can_read(stopped, monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert stopped(lambda: os.kill(os.getpid(), signal.SIGTERM))[0] == 143
        with suppress(OSError):
            full.close()
