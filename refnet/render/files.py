"""Writing one file: complete, or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from refnet import placing
from refnet.errors import FileError, one_line


def require_writable(out: Path, *suffixes: str) -> None:
    """Refuse, before any work, a name that does not fit or a place where nothing can be written.

    Raises
    ------
    FileError
        If the name has another ending, a folder or something else than a file is there, or its
        folder does not exist or is not writable.
    """
    if out.suffix.lower() not in suffixes:
        endings = " or ".join(suffixes)
        raise FileError(f"{out} cannot be written: expected a file name that ends in {endings}")
    try:
        if out.exists() and not out.is_file():
            raise FileError(f"{out} exists and is not a file: expected a file's name")
        if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
            raise FileError(f"{out} cannot be written: {out.parent} is not a writable folder")
    except OSError as error:
        raise FileError(f"{out} cannot be written: {one_line(error)}") from error


def write(out: Path, content: bytes) -> None:
    """Write beside the place, then rename; what was there is replaced, and kept if anything fails.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    try:
        with placing.workspace(out) as new:
            new.write_bytes(content)
            placing.sync(new)
            undo = _undo(out, new.with_name("kept"))
            new.replace(out)
            try:
                placing.sync(out.parent)
            except BaseException:
                undo()
                raise
    except OSError as error:
        raise FileError(f"{out} cannot be written: {one_line(error)}") from error


def _undo(out: Path, kept: Path) -> Callable[[], object]:
    """Keep what is there under another name too: how it comes back, as far as the file system can do that."""
    try:
        os.link(out, kept, follow_symlinks=False)
    except FileNotFoundError:
        return out.unlink
    except OSError:  # it knows no links
        return lambda: None
    return lambda: kept.replace(out)
