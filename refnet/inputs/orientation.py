"""Which way up a frame is: EXIF of an image file, the display matrix of a video.

Both say how stored pixels come upright: transposed or not, then lines and columns reversed or not.
"""

import struct
from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO, NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.errors import FileError


class Orientation(NamedTuple):
    """What is done to the stored pixels, in this order."""

    transposed: bool = False
    lines_reversed: bool = False
    columns_reversed: bool = False


AS_STORED = Orientation()
# By EXIF's numbers (EXIF 2.32, tag 274): where line 0 and column 0 of the stored pixels belong.
EXIF = {
    1: AS_STORED,
    2: Orientation(columns_reversed=True),
    3: Orientation(lines_reversed=True, columns_reversed=True),
    4: Orientation(lines_reversed=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, columns_reversed=True),
    7: Orientation(transposed=True, lines_reversed=True, columns_reversed=True),
    8: Orientation(transposed=True, lines_reversed=True),
}
ORIENTATION_TAG = 274
# What is in front of it in a file that is meant to be read.
MOST_BLOCKS = 100_000
SHORT = 3  # the type of that tag, two bytes


def upright(pixels: Array, orientation: Orientation) -> Array:
    """Turn stored pixels (H, W, C) upright: (H, W, C), or (W, H, C) of what is transposed."""
    if orientation.transposed:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation.lines_reversed else 1, :: -1 if orientation.columns_reversed else 1]


def of_matrix(what: str, data: bytes) -> Orientation:
    """Read a display matrix: 3 x 3 int32 in native order, (x', y', 1) = (x, y, 1) M.

    Only signs count: a scale is the shape of a pixel, which networks do not look at.

    Raises
    ------
    FileError
        If it turns by other than quarters.
    """
    ((xx, xy), (yx, yy)) = np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].tolist()
    if xx and yy and not (xy or yx):
        return Orientation(False, lines_reversed=yy < 0, columns_reversed=xx < 0)
    if xy and yx and not (xx or yy):
        return Orientation(True, lines_reversed=xy < 0, columns_reversed=yx < 0)
    raise FileError(f"{what} has a display matrix that turns by other than quarters: expected it upright")


def of_image(what: str, stream: BinaryIO) -> Orientation | None:
    """Read the EXIF orientation of a JPEG, PNG, WebP or TIFF file; None of any other file.

    What is damaged, or no orientation, says nothing: the pixels are as they are stored.

    Raises
    ------
    FileError
        If the file is an animated WebP, which FFmpeg does not decode.
    """
    try:
        blocks = _blocks(what, stream)
        if blocks is None:
            return None
        for start in blocks:
            found = _orientation(stream, start)
            if found is not None:
                return found
    except (struct.error, OSError):
        pass
    return AS_STORED


def _blocks(what: str, stream: BinaryIO) -> Iterator[int] | None:
    """Where in the file there are blocks of EXIF, each laid out like a TIFF file; None of an unknown file."""
    stream.seek(0)
    head = stream.read(12)
    if head[:3] == b"\xff\xd8\xff":
        return _of_jpeg(stream)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _of_png(stream)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return _of_webp(what, stream)
    if head[:4] in (b"II*\0", b"MM\0*"):
        return iter([0])
    return None


def _of_jpeg(stream: BinaryIO) -> Iterator[int]:
    header = Struct(">BBH")
    position = 2
    for _ in range(MOST_BLOCKS):
        stream.seek(position)
        mark, marker, length = header.unpack(stream.read(4))
        if mark != 0xFF or marker == 0xDA:  # the scan: there are pixels from here on
            return
        if marker == 0xFF:  # a byte that fills
            position += 1
            continue
        if marker == 0xE1 and stream.read(6) == b"Exif\0\0":
            yield position + 10
        position += 2 + length


def _of_png(stream: BinaryIO) -> Iterator[int]:
    header = Struct(">I4s")
    position = 8
    for _ in range(MOST_BLOCKS):
        stream.seek(position)
        length, name = header.unpack(stream.read(8))
        if name == b"eXIf":
            yield position + 8
        position += 12 + length


def _of_webp(what: str, stream: BinaryIO) -> Iterator[int]:
    header = Struct("<4sI")
    position = 12
    for _ in range(MOST_BLOCKS):
        stream.seek(position)
        name, length = header.unpack(stream.read(8))
        if name == b"ANIM":
            raise FileError(
                f"{what} is an animated WebP, which FFmpeg does not decode: expected a video, GIF or APNG"
            )
        if name == b"EXIF":
            yield position + (14 if stream.read(6) == b"Exif\0\0" else 8)
        position += 8 + length + length % 2


def _orientation(stream: BinaryIO, start: int) -> Orientation | None:
    """Look for the tag in the first directory of what is laid out like a TIFF file."""
    stream.seek(start)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(stream.read(4))
    if order is None:
        return None
    (directory,) = Struct(f"{order}I").unpack(stream.read(4))
    stream.seek(start + directory)
    (entries,) = Struct(f"{order}H").unpack(stream.read(2))
    entry = Struct(f"{order}HHIHxx")
    for _ in range(min(entries, ORIENTATION_TAG + 1)):  # they ascend by tag (TIFF 6.0, section 2)
        tag, kind, count, value = entry.unpack(stream.read(12))
        if (tag, kind, count) == (ORIENTATION_TAG, SHORT, 1):
            return EXIF.get(value)
    return None
