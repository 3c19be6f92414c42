"""Nothing is lost: bundles and files are whole, whoever writes or reads at the same time or is killed."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refnet import clip, golden, placing
from refnet.errors import FileError, RefnetError
from refnet.golden import folder as bundles
from refnet.golden.bundle import sha
from refnet.render import files

RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4, "time_kernel": 1})
OTHER = replace(RECIPE, seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two bundles to copy."""
    folder = tmp_path_factory.mktemp("made")
    return [golden.make(folder / str(recipe.seed), recipe).path for recipe in (RECIPE, OTHER)]


@pytest.fixture
def old(made, tmp_path):
    """A bundle to replace, alone in a folder."""
    return copied(made[0], tmp_path / "place" / "out")


def copied(source, out):
    out.mkdir(parents=True)
    for file in source.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def written(source, out, force=False):
    """What `golden.make` writes in the end, without computing it."""
    with bundles.beside(out, force) as folder:
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())


def without_flags(monkeypatch):
    """A system that cannot exchange two folders in one step, nor refuse a name that is taken."""
    monkeypatch.setattr(placing, "_rename", lambda new, out, flag: False)


two_systems = pytest.mark.parametrize(
    "system", [lambda monkeypatch: None, without_flags], ids=["flags", "none"]
)


# Several writers.


@two_systems
def test_the_second_maker_is_refused(made, tmp_path, monkeypatch, system):
    """The other one is ready between the last check and the rename."""
    system(monkeypatch)
    out, put = tmp_path / "place" / "out", placing.put

    def late(new, place):
        monkeypatch.setattr(placing, "put", put)
        written(made[0], out)
        put(new, place)

    monkeypatch.setattr(placing, "put", late)
    with pytest.raises(FileError, match="exists: expected a new folder's name, or force=True"):
        written(made[1], out)
    assert content(out) == content(made[0]) and list(out.parent.iterdir()) == [out]


def test_of_two_makers_one_exits_with_2(refnet, made, tmp_path, monkeypatch):
    """From the outside, whatever the rename is called."""
    check = bundles.require_free
    makes = []

    def slow(out, force):
        check(out, force)
        makes.append(out)
        if len(makes) == 3:  # of the command, of make, and of what makes the name its own
            copied(made[0], Path(out))

    monkeypatch.setattr(bundles, "require_free", slow)
    monkeypatch.setattr("refnet.golden.derive.require_free", slow)
    monkeypatch.setattr("refnet.cli.golden_make.require_free", slow)
    small = ["--input", "1x3x1x32x32", "--width-per-group", 4, "--time-kernel", 1, "--seed", 7]
    code, _, err = refnet("golden", "make", "resnet18_conv4", "out", *small)
    assert code == 2 and "bundle out exists" in err
    assert content(tmp_path / "out") == content(made[0])


@two_systems
def test_what_came_into_a_bundle_meanwhile_is_not_deleted(made, old, monkeypatch, system):
    system(monkeypatch)
    exchange = placing.exchange

    def late(new, out):
        monkeypatch.setattr(placing, "exchange", exchange)
        (old / "thesis.tex").write_text("precious")
        exchange(new, out)

    monkeypatch.setattr(placing, "exchange", late)
    with pytest.raises(FileError, match="also holds thesis.tex"):
        written(made[1], old, force=True)
    assert (old / "thesis.tex").read_text() == "precious" and list(old.parent.iterdir()) == [old]


@two_systems
def test_a_bundle_that_goes_meanwhile_is_made_all_the_same(made, old, monkeypatch, system):
    system(monkeypatch)
    exchange = placing.exchange

    def late(new, out):
        monkeypatch.setattr(placing, "exchange", exchange)
        old.rename(old.with_name("moved"))
        exchange(new, out)

    monkeypatch.setattr(placing, "exchange", late)
    written(made[1], old, force=True)
    assert content(old) == content(made[1])
    assert sorted(file.name for file in old.parent.iterdir()) == ["moved", "out"]


def test_an_empty_folder_is_not_taken(made, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "x").write_text("x")
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        placing.put(tmp_path / "new", tmp_path / "out")


# Processes that are killed.


def test_a_maker_that_is_killed_leaves_the_old_bundle_or_the_new_one(tmp_path):
    """Before each change of the disk, with and without force, and where folders cannot be exchanged."""
    script = Path(__file__).with_name("killed.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert all(sum(survivors.values()) > 30 for survivors in counts.values())
    assert counts["new"].keys() == {"none", "new"} and counts["force"].keys() == {"old", "new"}
    assert counts["force, two steps"]["old, restored"] >= 1


def abandoned(place):
    """What a dead process left: a workspace that nobody holds."""
    folder = place / ".refnet-0123456789abcdef.work"
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "manifest.json").write_text("{")
    return folder


def test_the_next_command_clears_what_the_dead_left_and_nothing_else(made, old):
    others = [old.parent / name for name in (".refnet-x.work", ".refnet-0123456789abcdef.work.txt", ".other")]
    for other in others:
        other.mkdir()
    abandoned(old.parent)
    golden.Bundle(old)
    assert sorted(old.parent.iterdir()) == sorted([old, *others])
    abandoned(old.parent)
    files.write(old.parent / "page.html", b"page")
    assert sorted(old.parent.iterdir()) == sorted([old, old.parent / "page.html", *others])


@pytest.mark.parametrize("written", ["a pipe", b"", b"a\0b", b"../b", b"..", b"x" * 300, "a link", "endless"])
def test_a_workspace_that_no_process_of_ours_has_left_stays_as_it_is(old, tmp_path, written):
    """As an archive may bring it: nothing is waited for, read without end, or put where it says."""
    folder = abandoned(old.parent)
    (folder / "old").mkdir()
    place = folder / "place"
    if written == "a pipe":
        os.mkfifo(place)
    elif written == "a link":
        place.symlink_to("/dev/zero")
    elif written == "endless":
        with place.open("wb") as file:
            file.truncate(1 << 40)
    else:
        place.write_bytes(written)
    golden.Bundle(old)
    assert {path.name for path in folder.iterdir()} == {"new", "old", "place"}
    assert sorted(old.parent.iterdir()) == sorted([old, folder])
    place.unlink()
    place.write_bytes(b"b")
    golden.Bundle(old)
    assert sorted(old.parent.iterdir()) == sorted([old, old.parent / "b"])


def test_what_a_living_process_holds_stays(old):
    folder = abandoned(old.parent)
    holder = os.open(folder, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    golden.Bundle(old)
    assert (folder / "new" / "manifest.json").exists()
    os.close(holder)
    golden.Bundle(old)
    assert not folder.exists()


def test_a_workspace_that_was_taken_for_a_dead_ones_is_made_again(made, tmp_path, monkeypatch):
    """Another process finds it between its making and its locking."""
    lock, taken = placing._locked, []

    def late(handle):
        monkeypatch.setattr(placing, "_locked", lock)
        taken.extend(tmp_path.glob(".refnet-*"))
        placing.tidy(tmp_path)
        return lock(handle)

    monkeypatch.setattr(placing, "_locked", late)
    written(made[0], tmp_path / "out")
    assert len(taken) == 1 and [file.name for file in tmp_path.iterdir()] == ["out"]


def test_file_systems_without_locks(made, tmp_path, monkeypatch):
    def lacking(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", lacking)
    folder = abandoned(tmp_path)
    written(made[0], tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == [folder.name, "out"]


# What reaches the disk, and when.


def recorded(monkeypatch):
    """The calls that write names and content down, in order."""
    calls, fsync = [], os.fsync

    def synced(handle):
        calls.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    rename = placing._rename

    def renamed(new, out, flag):
        calls.append(("rename", out.absolute()))
        return rename(new, out, flag)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(placing, "_rename", renamed)
    return calls


@pytest.mark.parametrize("force", [False, True])
def test_files_and_folder_reach_the_disk_before_the_name_does(made, old, monkeypatch, force):
    out = old if force else old.parent / "a" / "b" / "new"
    calls = recorded(monkeypatch)
    golden.make(out, OTHER, force=force)
    last = max(i for i, call in enumerate(calls) if call == ("rename", out))
    before = [path for what, path in calls[:last] if what == "fsync"]
    assert {path.name for path in before} >= {*bundles.FILES, "new"}
    assert ("fsync", out.parent) in calls[last:]
    if not force:
        assert {old.parent, old.parent / "a"} <= set(before)


def test_a_page_reaches_the_disk_before_its_name_does(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    files.write(tmp_path / "page.html", b"page")
    assert [path.name for what, path in calls] == ["new", tmp_path.name]


@pytest.mark.parametrize("force", [False, True])
@two_systems
def test_a_disk_that_fails_keeps_what_was_there(made, old, monkeypatch, system, force):
    """Each fsync of a make, one after the other."""
    system(monkeypatch)
    out, before = old if force else old.parent / "new", content(old)
    for failing in range(1, 100):
        left = iter(range(failing - 1, -1, -1))

        def fsync(handle, left=left):
            if next(left, None) == 0:
                raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            written(made[1], out, force)
        except FileError as error:
            assert "cannot be written: Input/output error" in str(error)
        else:
            break
        assert content(old) == before and list(old.parent.iterdir()) == [old]
    assert failing > len(bundles.FILES) + 2 and content(out) == content(made[1])


def test_file_systems_that_cannot_wait_for_folders(tmp_path, monkeypatch):
    def lacking(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", lacking)
    placing.sync(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="Invalid argument"):
        placing.sync(tmp_path / "file")


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o077, 0o600, 0o700), (0o022, 0o644, 0o755), (0o002, 0o664, 0o775)]
)
def test_the_umask_is_obeyed(tmp_path, umask, file, folder):
    before = os.umask(umask)
    try:
        out = golden.make(tmp_path / "out", RECIPE).path
        files.write(tmp_path / "page.html", b"page")
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == folder
    found = {found.name: found.stat().st_mode & 0o777 for found in (*out.iterdir(), tmp_path / "page.html")}
    assert found == dict.fromkeys([*bundles.FILES, "page.html"], file)


# Readers.


def consistent(bundle):
    """Whether every stored tensor is the one of the manifest."""
    return all(
        sha(bundle.tensor(section, name)) == entry["sha256"]
        for section, entries in bundle.entries.items()
        for name, entry in entries.items()
    )


def test_a_bundle_that_is_replaced_is_read_as_it_was(made, old):
    opened = golden.Bundle(old)
    written(made[1], old, force=True)
    assert opened.recipe.seed == 0 and consistent(opened)
    assert all(finding.equal for finding in golden.verify(opened))
    assert golden.Bundle(old).recipe.seed == 1


def test_a_bundle_that_is_replaced_while_it_is_verified_is_no_false_alarm(made, old):
    def progress(stage, done, total):
        if (stage, done) == ("compare", 1):
            written(made[1], old, force=True)

    assert all(finding.equal for finding in golden.verify(old, progress=progress))


def test_a_bundle_that_is_replaced_while_it_is_compared_is_no_false_alarm(made, old):
    def progress(stage, done, total):
        if (stage, done) == ("compare", 1):
            written(made[1], old, force=True)

    assert all(finding.equal for finding in golden.diff(old, made[0], progress=progress))


def test_a_bundle_that_is_replaced_while_it_is_opened_is_opened_again(made, old, monkeypatch):
    opening, times = bundles.open_regular, []

    def late(name, **options):
        if name == "blobs.safetensors" and len(times) < most:
            times.append(name)
            monkeypatch.setattr(bundles, "open_regular", opening)
            written(made[len(times) % 2], old, force=True)
            monkeypatch.setattr(bundles, "open_regular", late)
        return opening(name, **options)

    monkeypatch.setattr(bundles, "open_regular", late)
    most = 3
    bundle = golden.Bundle(old)
    assert bundle.recipe.seed == 1 and consistent(bundle)
    most = 10**9
    monkeypatch.setattr(bundles, "ATTEMPTS", 3)
    with pytest.raises(RefnetError, match="changed while it was read"):
        golden.Bundle(old)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_opened_is_closed(old):
    before = descriptors()
    bundle = golden.Bundle(old)
    assert descriptors() == before + len(bundles.FILES)
    del bundle
    (old / "manifest.json").write_text("[]")
    for refused in (old, old.parent / "none", old.parent):
        with suppress(RefnetError):
            golden.Bundle(refused)
    assert descriptors() == before


# Names.


def test_a_clips_name_need_not_be_utf8(refnet, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.npy"))
    np.save(path, np.zeros((1, 3, 1, 32, 32)))
    recipe, pixels = golden.clip_recipe(path, clip.Selection(frames=1), RECIPE)
    for force in (False, True):
        out = golden.make(tmp_path / "out", recipe, pixels=pixels, force=force).path
        assert golden.Bundle(out).recipe.clip.name == "caf\\xe9.npy"
        assert all(finding.equal for finding in golden.verify(out))
    assert refnet("golden", "verify", "out")[0] == 0


def test_a_bundles_name_need_not_be_utf8(refnet, tmp_path):
    name = os.fsdecode(b"b\xff")
    small = ["--input", "1x3x1x32x32", "--width-per-group", 4, "--time-kernel", 1]
    for force in ([], ["--force"]):
        code, out, _ = refnet("golden", "make", "resnet18_conv4", name, *small, *force)
        assert code == 0 and "b\\udcff: resnet18_conv4" in out
    assert refnet("golden", "verify", name)[:2] == (
        0,
        "b\\udcff: derived again: 176 of 176 tensors equal bit for bit.\n",
    )


@pytest.mark.parametrize("damage", [{"more": "\udcff"}, {"format_version": 1}, {"recipe": None}])
def test_force_replaces_a_bundle_that_cannot_be_verified(made, old, damage):
    manifest = json.loads((old / "manifest.json").read_text())
    (old / "manifest.json").write_text(json.dumps(manifest | damage))
    with pytest.raises(RefnetError):
        golden.Bundle(old)
    written(made[1], old, force=True)
    assert content(old) == content(made[1])


# A disk that fails where folders cannot be exchanged in one step, and below pages.


def failing(monkeypatch, owner, name, first, last=None):
    """A call that fails from the first-th on, to the last-th if there is one."""
    call, calls = getattr(owner, name), []

    def fails(*arguments, **options):
        calls.append(arguments)
        if len(calls) >= first and (last is None or len(calls) <= last):
            raise OSError(errno.EIO, "Input/output error")
        return call(*arguments, **options)

    monkeypatch.setattr(owner, name, fails)
    return calls


@pytest.mark.parametrize("last", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize("first", range(1, 5))
def test_what_was_taken_from_its_place_is_never_deleted_before_it_is_back(
    made, old, monkeypatch, first, last
):
    """Renames fail; the next command, on a disk that does not, finds the old bundle whole."""
    without_flags(monkeypatch)
    before = content(old)
    failing(monkeypatch, os, "rename", first, first if last else None)
    try:
        written(made[1], old, force=True)
    except FileError as error:
        assert "Input/output error" in str(error)
    else:
        assert content(old) == content(made[1])
        before = content(made[1])
    monkeypatch.undo()
    without_flags(monkeypatch)
    with suppress(RefnetError):
        golden.Bundle(old)
    assert content(old) in (before, content(made[1])) if not last else content(old) == before
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("there", [True, False])
@two_systems
def test_an_fsync_that_fails_from_the_last_on_is_taken_back(made, old, monkeypatch, system, there):
    system(monkeypatch)
    out, before = old if there else old.parent / "new", content(old)
    calls = recorded(monkeypatch)
    written(made[1], out, force=there)
    count = sum(what == "fsync" for what, _ in calls)
    monkeypatch.undo()
    system(monkeypatch)
    again = [old] if there else [old, out]
    assert sorted(old.parent.iterdir()) == sorted(again)
    other = copied(made[0], old.parent.parent / "again" / "out")
    failing(monkeypatch, os, "fsync", count)
    with pytest.raises(FileError, match="Input/output error"):
        written(made[1], other if there else other.parent / "new", force=there)
    assert content(other) == before and list(other.parent.iterdir()) == [other]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("failing_fsync", [1, 2])
def test_a_page_is_kept_if_its_folder_does_not_reach_the_disk(tmp_path, monkeypatch, failing_fsync, there):
    page = tmp_path / "page.html"
    if there:
        page.write_bytes(b"old")
    failing(monkeypatch, os, "fsync", failing_fsync)
    with pytest.raises(FileError, match="Input/output error"):
        files.write(page, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("page.html", b"old")] * there


def test_a_page_on_a_file_system_without_links(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_bytes(b"old")
    failing(monkeypatch, os, "link", 1)
    files.write(page, b"new")
    assert page.read_bytes() == b"new" and list(tmp_path.iterdir()) == [page]
