"""How a bundle lies on disk: opened as one folder, placed whole or not at all."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from refnet import bounded_json, memory, placing
from refnet.errors import FileError, RefnetError, TooLargeError, one_line
from refnet.golden.recipe import SECTIONS
from refnet.regular import open_regular

FORMAT = "refnet golden bundle"
MANIFEST = "manifest.json"
FILES = (MANIFEST, *(f"{section}.safetensors" for section in SECTIONS))
# How often a bundle is opened again that somebody replaced meanwhile.
ATTEMPTS = 20


def opened(path: Path) -> dict[str, int]:
    """Open the files of a bundle, by name, all of one folder; what is no regular file is left out."""
    placing.tidy(path.parent)
    for _ in range(ATTEMPTS):
        files: dict[str, int] = {}
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (OSError, ValueError):
            raise FileError(f"{path} is not a folder: expected a golden bundle") from None
        try:
            for name in FILES:
                with suppress(FileNotFoundError):
                    file = open_regular(name, folder=folder, links=False)
                    if file is not None:
                        files[name] = file
            # While the folder has its name, nobody has begun to remove what is in it.
            if os.path.samestat(os.fstat(folder), path.stat()):
                return files
        except FileNotFoundError:
            pass  # replaced by a system that cannot exchange folders
        except OSError as error:
            close(files)
            raise FileError(f"{path} cannot be read: {one_line(error)}") from error
        finally:
            os.close(folder)
        close(files)
    raise FileError(f"bundle {path} changed while it was read, {ATTEMPTS} times: expected one that stays")


def close(files: dict[str, int]) -> None:
    """Close what `opened` has opened."""
    while files:
        os.close(files.popitem()[1])


def manifest(path: Path, files: Mapping[str, int]) -> dict[str, Any]:
    """Read the manifest among the files of a bundle; what it says is not checked."""
    file = path / MANIFEST
    if MANIFEST not in files:
        raise FileError(f"{path} has no {MANIFEST}: expected a golden bundle")
    size = os.fstat(files[MANIFEST]).st_size
    if size > bounded_json.LARGEST:
        raise FileError(f"{file} is larger than {memory.text(bounded_json.LARGEST)}: not a manifest")
    try:
        found = bounded_json.loads(os.pread(files[MANIFEST], size, 0))
    except (OSError, ValueError) as error:
        raise FileError(f"{file} is not readable JSON: {one_line(error)}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FileError(f'{file} is not of format "{FORMAT}"')
    return found


def require_free(out: Path, force: bool) -> None:
    """Refuse to write where something else is, or nothing can be.

    Raises
    ------
    FileError
        If `out` exists and is not a bundle to be replaced, or its folder is not writable.
    """
    if not (out.exists() or out.is_symlink()):
        for parent in out.absolute().parents:
            if parent.exists():
                if not parent.is_dir() or not os.access(parent, os.W_OK):
                    raise FileError(f"{out} cannot be written: {parent} is not a writable folder")
                return
    if out.is_symlink() or not (out / MANIFEST).is_file():
        raise FileError(f"{out} exists and is not a golden bundle: expected a new folder's name")
    if not force:
        raise FileError(f"bundle {out} exists: expected a new folder's name, or force=True to replace it")
    _require_replaceable(out, out)


def _require_replaceable(folder: Path, out: Path) -> None:
    """Refuse to delete what is not a bundle, of whatever version, and nothing else."""
    files = opened(folder)
    try:
        manifest(out, files)
    finally:
        close(files)
    others = sorted(file.name for file in folder.iterdir() if file.name not in FILES)
    if others:
        raise FileError(f"{out} also holds {others[0]}, which is no part of a bundle: it is not replaced")


def require_disk(out: Path, needed: int) -> None:
    """Refuse to write what would not fit onto the disk.

    Raises
    ------
    TooLargeError
        If fewer than `needed` bytes are free where `out` would be.
    """
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise TooLargeError(
            f"the bundle needs about {memory.text(needed)} of disk, {memory.text(free)} is free "
            f'in {parent}: take a smaller input, store="float32", only=[...] or hashes_only=True'
        )


@contextmanager
def beside(out: Path, force: bool) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when all went well, and is gone when not."""
    try:
        placing.make_folders(out.parent)
        with placing.workspace(out) as folder:
            folder.mkdir()
            yield folder
            for file in folder.iterdir():
                placing.sync(file)
            placing.sync(folder)
            _place(folder, out, force)
    except RefnetError:
        raise
    except (OSError, SafetensorError) as error:
        raise FileError(f"{out} cannot be written: {one_line(error)}") from error


def _place(folder: Path, out: Path, force: bool) -> None:
    """Give a finished folder its name; what is replaced is then where the new one was made."""
    exchanged = False
    while True:
        require_free(out, force)
        try:
            placing.put(folder, out)
            break
        except FileExistsError:  # of a bundle that may be replaced, or one that came a moment ago
            require_free(out, force)
        if not force:
            continue
        with suppress(FileNotFoundError):  # it has gone meanwhile
            placing.exchange(folder, out)
            exchanged = True
            break
    try:
        if exchanged:
            _require_replaceable(folder, out)  # somebody may have put something into it meanwhile
        placing.sync(out.parent)
    except BaseException:
        if exchanged:
            placing.exchange_back(folder, out)
        else:
            placing.put(out, folder)
        raise
