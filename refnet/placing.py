"""A new file or folder comes under its name whole, or not at all, and is on the disk before its name is.

It is made in a *workspace*: a hidden folder beside its place, locked while its process lives. The lock goes
with the process, however that ends, so whoever comes next knows what nobody will finish.
"""

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from refnet.regular import open_regular

WORKSPACE = re.compile(r"\.refnet-[0-9a-f]{16}\.work")
# What a workspace holds: what is made; what is taken from its place, and the place's name.
NEW, OLD, PLACE = "new", "old", "place"
LONGEST_NAME = 255  # bytes: Linux's NAME_MAX, and that of its file systems
# Flags of Linux's renameat2, and what it answers where a kernel or file system lacks them.
NOREPLACE, EXCHANGE = 1, 2
LACKING = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
HERE = -100  # AT_FDCWD


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Give the path of what is to be made for `out`: on its file system, and gone in the end if still there.

    What dead processes left beside `out` is restored or removed before.

    Parameters
    ----------
    out : Path
        In a folder that exists.

    Yields
    ------
    Path
        Nothing is there yet.

    Raises
    ------
    OSError
        If nothing can be written there.
    """
    tidy(out.parent)
    folder, lock = out, list[int]()
    try:
        try:
            while not lock:
                folder = out.parent / f".refnet-{secrets.token_hex(8)}.work"
                lock = _claim(folder)
            yield folder / NEW
        finally:
            _clear(folder)
    finally:  # again: a signal may have ended the first, and a command hears only one
        _clear(folder)
        for handle in lock:
            os.close(handle)


def tidy(parent: Path) -> None:
    """Restore or remove what dead processes left in a folder; what a living one holds stays."""
    with suppress(OSError), os.scandir(parent) as entries:
        for found in entries:
            if WORKSPACE.fullmatch(found.name) and found.is_dir(follow_symlinks=False):
                _tidy(Path(found.path))


def put(new: Path, out: Path) -> None:
    """Rename a folder that holds something; what is there already stays.

    Raises
    ------
    FileExistsError
        If something is there.
    OSError
        If it cannot be renamed.
    """
    try:
        if not _rename(new, out, NOREPLACE):
            new.rename(out)  # POSIX: only an empty folder gives way
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(out)) from error
        raise


def exchange(new: Path, out: Path) -> None:
    """Put a workspace's folder in the place of another, which then is where the new one was.

    In one step where the system can. Elsewhere in three: of a process that ends between, the next one in that
    place puts the old folder back.

    Raises
    ------
    OSError
        If it cannot be done; FileNotFoundError if nothing is there.
    """
    if _rename(new, out, EXCHANGE):
        return
    place = new.with_name(PLACE)
    place.write_bytes(os.fsencode(out.name))
    sync(place)
    sync(place.parent)
    _swap(new, out)


def exchange_back(new: Path, out: Path) -> None:
    """Take an exchange back. Nothing is waited for: that may be what failed.

    Raises
    ------
    OSError
        If it cannot be done.
    """
    if not _rename(new, out, EXCHANGE):
        _swap(new, out)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk.

    Raises
    ------
    OSError
        If they do not get there.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        # Some folders may be written and not read, and some file systems have no such thing for folders.
        if error.errno not in LACKING | {errno.EACCES} or not path.is_dir():
            raise


def make_folders(path: Path) -> None:
    """Make a folder and those that it is in, each on the disk before what is in it.

    Raises
    ------
    OSError
        If one cannot be made.
    """
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def _claim(folder: Path) -> list[int]:
    """Make a folder and lock it: the lock's descriptor; none if another process took it for a dead one's."""
    folder.mkdir(mode=0o700)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    # Without locks, nobody takes it for a dead one's.
    if _locked(handle) is not False and os.fstat(handle).st_nlink:
        return [handle]
    os.close(handle)
    return []


def _locked(handle: int) -> bool | None:
    """Lock a folder; False if another holds it, None if the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _tidy(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # somebody else's, or gone
    try:
        if os.fstat(handle).st_uid == os.geteuid() and _locked(handle):
            _clear(folder)
    finally:
        os.close(handle)


def _clear(folder: Path) -> None:
    """Remove a workspace; what was taken from its place goes back if nothing is there."""
    if not WORKSPACE.fullmatch(folder.name):
        return  # a signal came before there was one
    old = folder / OLD
    try:
        if old.is_dir():
            put(old, folder.with_name(_place(folder)))
    except FileExistsError:
        pass  # it was replaced
    except OSError:
        return  # a disk that fails: whoever comes next tries again; or nothing that `exchange` has left
    shutil.rmtree(folder, ignore_errors=True)


def _place(folder: Path) -> str:
    """Where the old folder of a workspace was taken from; OSError where no process of ours wrote that."""
    handle = open_regular(folder / PLACE, links=False)
    if handle is None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(folder / PLACE))
    with os.fdopen(handle, "rb") as file:
        name = file.read(LONGEST_NAME + 1)
    if not name or len(name) > LONGEST_NAME or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(folder / PLACE))
    return os.fsdecode(name)


def _swap(new: Path, out: Path) -> None:
    """Exchange two folders by three renames; what was taken from its place goes back when one fails."""
    old = new.with_name(OLD)
    out.rename(old)
    put(new, out)  # if not, `_clear` puts the old one back
    try:
        old.rename(new)
    except OSError:
        out.rename(new)
        old.rename(out)
        raise


def _rename(new: Path, out: Path, flag: int) -> bool:
    """Linux's renameat2; False where there is none, or not with that flag."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(HERE, os.fsencode(new), HERE, os.fsencode(out), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in LACKING:
        return False
    raise OSError(number, os.strerror(number), str(out))
