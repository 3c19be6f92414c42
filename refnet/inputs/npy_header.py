"""The header of NumPy's format, no longer than one that numbers need."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from refnet.errors import FileError
from refnet.shapes import Shape

MAGIC = b"\x93NUMPY"
LARGEST = 10_000
# Of each version that np.save writes of numbers: the bytes that say how long the header is, and who reads it.
READERS = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}


def read(what: str, stream: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Read the header of an array, and leave the stream where its values begin.

    Parameters
    ----------
    what : str
        What the array is, for messages.
    stream : binary file

    Returns
    -------
    shape : tuple of int
    fortran_order : bool
    dtype : dtype

    Raises
    ------
    FileError
        If it is damaged, of another version, or too long.
    """
    begin = stream.read(len(MAGIC))
    if not MAGIC.startswith(begin):
        raise FileError(f"{what} begins with {begin!r}: expected {MAGIC!r}, as np.save writes")
    version = tuple(stream.read(2))
    if len(version) < 2:
        raise FileError(f"{what} ends within its header: it is damaged")
    if version not in READERS:
        raise FileError(f"{what} has format version {version}: expected what np.save writes of numbers")
    digits, parse = READERS[version]
    length = stream.read(digits)
    if (count := int.from_bytes(length, "little")) > LARGEST:
        raise FileError(f"{what} has a header of {count} bytes: expected {LARGEST} at most")
    header = stream.read(count)
    if len(length) < digits or len(header) < count:
        raise FileError(f"{what} ends within its header: it is damaged")
    try:
        with of_any_age():
            found: tuple[Shape, bool, np.dtype[Any]] = parse(io.BytesIO(length + header))
    except Exception as error:  # whatever a hostile one makes Python's parser raise
        raise FileError(
            f"{what} has a damaged header: expected descr, fortran_order and shape, as np.save writes"
        ) from error
    return found


def require_whole(what: str, shape: Shape, dtype: np.dtype[Any], there: int) -> None:
    """Refuse an array with other than as many bytes of values as its header speaks of.

    Raises
    ------
    FileError
    """
    needed = prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or needed != there:
        raise FileError(f"{what} should have {needed} bytes of values and has {there}: it is damaged")


@contextmanager
def of_any_age() -> Iterator[None]:
    """Read what Python 2 wrote without NumPy's warning that it takes longer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*required additional header parsing", UserWarning)
        yield
