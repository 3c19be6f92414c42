"""Limits of memory: control groups of both versions, the address space of the process."""

import subprocess
import sys

import pytest

from refnet import memory
from refnet.errors import TooLargeError

LARGE = 1 << 50


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A folder in place of the mounted groups; returns what writes a group and the memberships."""
    monkeypatch.setattr(memory, "MOUNT", tmp_path)
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": LARGE}))
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (memory.resource.RLIM_INFINITY,) * 2)

    def write(membership, **files):
        (tmp_path / "membership").write_text(membership)
        for group, (names, limit, used, cache) in files.items():
            folder = tmp_path / group.replace("__", "/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / names[0]).write_text(f"{limit}\n")
            (folder / names[1]).write_text(f"{used}\n")
            (folder / "memory.stat").write_text(f"{names[2]} {cache}\nother 7\n")

    return write


def test_version_1(groups):
    membership = "3:cpu,cpuacct:/\n2:memory:/outer/inner\n0::/\n"
    groups(membership, memory__outer__inner=(memory.VERSION_1, 10_000, 4_000, 1_000))
    assert memory.available() == 7_000
    groups(membership, memory__outer=(memory.VERSION_1, 9_000, 4_000, 0))
    assert memory.available() == 5_000, "the group around it has less left"
    groups(membership, memory=(memory.VERSION_1, 9_223_372_036_854_771_712, 4_000, 0))
    assert memory.available() == 5_000


def test_version_1_in_a_container_that_sees_its_group_as_the_mount(groups):
    groups("4:memory:/docker/0123\n", memory=(memory.VERSION_1, 10_000, 4_000, 0))
    assert memory.available() == 6_000
    with pytest.raises(TooLargeError, match="a run needs about 5.9 KiB of memory, 5.9 KiB is available"):
        memory.require(6_001, "a run")


def test_version_2(groups):
    groups("0::/user.slice/job\n", user__slice=(memory.VERSION_2, "max", 4_000, 0))
    assert memory.available() == LARGE
    folder = memory.MOUNT / "user.slice" / "job"
    folder.mkdir(parents=True)
    for name, value in (
        ("memory.max", 10_000),
        ("memory.current", 4_000),
        ("memory.stat", "inactive_file 500"),
    ):
        (folder / name).write_text(f"{value}\n")
    assert memory.available() == 6_500


def test_groups_that_say_nothing_limit_nothing(groups):
    groups("2:memory:/a\n", memory__a=(memory.VERSION_1, "nothing", 0, 0))
    assert memory.available() == LARGE
    memory.MEMBERSHIP.unlink()
    assert memory.available() == LARGE


def test_the_address_space_is_a_limit_too():
    """With 2 GiB of addresses, a net that needs 4 is refused by name, in one line, before it is computed."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))\n"
    script = limit + "from refnet import memory\nassert 0 < memory.available() < 1 << 31\n"
    script += "from refnet import cli\ncli.main()"
    arguments = ("golden", "make", "resnet50_conv4", "out", "--input", "1x3x8x512x512")
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "of memory" in done.stderr and "is available" in done.stderr
