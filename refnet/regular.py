"""Regular files alone are opened: a pipe would be waited for, and to open a device may be to use it."""

import os
import stat
from pathlib import Path


def open_regular(path: str | Path, *, folder: int | None = None, links: bool = True) -> int | None:
    """Open a file for reading, without waiting.

    Parameters
    ----------
    path : str or Path
    folder : int, optional
        The descriptor of a folder that `path` is in.
    links : bool
        Follow a link.

    Returns
    -------
    int or None
        A descriptor; None where something else than a regular file is.

    Raises
    ------
    OSError
        If nothing is there, or it cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path, dir_fd=folder, follow_symlinks=links).st_mode):
        return None
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    handle = os.open(path, flags, dir_fd=folder)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)  # it was another file a moment ago
    return None
