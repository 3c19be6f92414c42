"""A bundle's maker, killed before each call that changes something on the disk, and what comes after it.

    python tests/killed.py FOLDER

forks a child for each such call, so it runs where no thread has been started. It prints one line of JSON: how
often a child was killed, by what was being done.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

from refnet import golden, placing
from refnet.golden import derive

RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4, "time_kernel": 1})
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}


class Countdown:
    """Kills this process before its n-th change of the disk."""

    def __init__(self, left):
        self.left = left

    def __call__(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self):
        """Count what Python announces, and what is called besides: before, and once more after."""
        sys.addaudithook(self.announced)
        for owner, name in ((os, "fsync"), (derive, "save_file"), (placing, "_rename")):
            setattr(owner, name, self.counted(getattr(owner, name)))

    def announced(self, event, arguments):
        if event in CHANGES or (
            event == "open" and arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            self()

    def counted(self, call):
        def counted(*arguments):
            self()
            result = call(*arguments)
            self()
            return result

        return counted


def content(folder):
    """Of every file of a folder its SHA-256, by name; None where there is no folder."""
    if not folder.exists():
        return None
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def forked(action):
    """What becomes of a child: its signal, or its exit code."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_everywhere(place, old, recipe, force):
    """Kill makers until one gets through; the next command finds a whole bundle and nothing else."""
    out, kills, survivors = place / "out", 0, Counter()
    while True:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(old, out) if force else place.mkdir()

        def make(change=kills + 1):
            Countdown(change).watch()
            golden.make(out, recipe, force=force)

        if (ended := forked(make)) == 0:
            break
        assert ended == -signal.SIGKILL, f"the maker exits with {ended} before change {kills + 1}"
        kills += 1
        before = content(out)
        placing.tidy(place)
        after = content(out)
        which = next(name for name, known in KNOWN.items() if after == known)
        assert which != "none" or not force, f"nothing is there after kill {kills}"
        assert [file.name for file in place.iterdir()] == ["out"] * (which != "none"), (
            f"left over by kill {kills}"
        )
        survivors[which + ("" if before == after else ", restored")] += 1
    assert content(out) == KNOWN["new"] and len(list(place.iterdir())) == 1
    return survivors


def two_step(new, out, flag):
    """A system that knows no flags of a rename."""
    return False


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    other = golden.Recipe(**vars(RECIPE) | {"seed": 1})
    old = golden.make(folder / "old", RECIPE).path
    new = golden.make(folder / "new", other).path
    KNOWN = {"none": None, "old": content(old), "new": content(new)}
    net = other.net()
    found = derive.derive(other, net, {}, False, lambda *_: None)
    derive.derive = lambda *_: found
    os.fsync = lambda handle: None  # what is killed here is a process, not the machine
    counts = {"new": kill_everywhere(folder / "a", old, other, False)}
    counts["force"] = kill_everywhere(folder / "a", old, other, True)
    placing._rename = two_step
    counts["force, two steps"] = kill_everywhere(folder / "a", old, other, True)
    print(json.dumps(counts))
