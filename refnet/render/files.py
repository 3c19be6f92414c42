"""Writing one file: complete, or not at all."""

import os
import tempfile
from pathlib import Path

from refnet.errors import FileError, one_line


def require_writable(out: Path, suffix: str) -> None:
    """Refuse, before any work, a name that does not fit or a place where nothing can be written.

    Raises
    ------
    FileError
        If the name has another ending, a folder or something else than a file is there, or its
        folder does not exist or is not writable.
    """
    if out.suffix.lower() != suffix:
        raise FileError(f"{out} cannot be written: expected a file name that ends in {suffix}")
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
        handle, name = tempfile.mkstemp(prefix=".refnet-", suffix=".partial", dir=out.parent)
        beside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            beside.chmod(0o644)
            beside.replace(out)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{out} cannot be written: {one_line(error)}") from error
