"""Videos and images decoded by FFmpeg through PyAV (extra `video`), upright, as B, G, R in 8 bits.

Lossless formats give the same pixels everywhere. JPEG, and colours that are stored as luma and chroma, may
differ in the last unit between FFmpeg builds, and between FFmpeg and other decoders.
"""

import re
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from refnet import memory
from refnet.arrays import Array
from refnet.errors import FileError, RefnetError, one_line
from refnet.inputs import orientation
from refnet.shapes import Shape, text

IMAGES = {".apng", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR"  # behind it the width and the height
MOST_STREAMS = 64
# A container may not make FFmpeg open anything else.
SEALED = {"protocol_whitelist": "none", "max_streams": str(MOST_STREAMS)}
# Of a pixel, while it is decoded: as stored, at most RGBA of 16 bits, and as B, G, R, A.
PIXEL_BYTES = 8 + 4


def video(path: Path, wanted: range, judge: Callable[[Shape], None]) -> Iterator[Array]:
    """Decode the wanted frames of a video, an animation or an image; fewer where there are no more.

    Parameters
    ----------
    path : Path
    wanted : range
        Indices of frames.
    judge : callable
        Given (H, W) of the frames, upright, before one is decoded; may refuse it.

    Yields
    ------
    (H, W, 3) ndarray of uint8

    Raises
    ------
    FileError
        If it cannot be decoded, or a frame is nothing that has one right reading in 8 bits.
    """
    av = _av()
    if not path.is_file():
        raise FileError(f"clip {path} is no file: expected a video or an image")
    # Decoders refuse by themselves what would not fit into memory: frames may differ from what is announced.
    most = memory.available() // PIXEL_BYTES
    try:
        # An open file, not a name: FFmpeg would take some names for addresses.
        with path.open("rb") as stream:
            way_up = orientation.of_image(f"clip {path}", stream)
            stream.seek(0)
            with av.open(
                stream,
                container_options=SEALED,
                stream_options=[{"max_pixels": str(most)}] * MOST_STREAMS,
                metadata_errors="replace",
            ) as container:
                track = _track(path, container)
                size = (track.codec_context.height, track.codec_context.width)
                if 0 in size:
                    stream.seek(0)
                    raise FileError(f"clip {path} has {_refused_size(stream, most)}")
                # A display matrix comes with the frames; along H and W networks are alike.
                judge(size[::-1] if way_up is not None and way_up.transposed else size)
                options = {"max_pixels": str(most)}
                # The decoder of TIFF takes tags that it does not know for errors.
                if track.codec_context.name != "tiff":
                    options["err_detect"] = "explode"
                track.codec_context.options = options
                frames = _whole(path, container.decode(track))
                for frame in islice(frames, wanted.start, wanted.stop, wanted.step):
                    pixels = _pixels(path, frame, track.codec_context.name)
                    yield orientation.upright(pixels, _way_up(path, frame) if way_up is None else way_up)
    except (RefnetError, MemoryError):
        raise
    except Exception as error:  # whatever a hostile file makes FFmpeg and PyAV raise
        raise FileError(f"clip {path} cannot be decoded: {one_line(error)}") from error


def _refused_size(stream: BinaryIO, most: int) -> str:
    """What is wrong with frames to which FFmpeg gives no size; only of a PNG it is known which."""
    head = stream.read(24)
    if not head.startswith(PNG) or len(head) < 24:
        return (
            f"frames of no size that FFmpeg can tell: it is damaged, or they have more than {most} pixels, "
            "for which there is no memory"
        )
    size = struct.unpack(">II", head[16:])[::-1]
    if 0 in size:
        return f"frames of {text(size)}: expected a pixel at least"
    if prod(size) > most:
        return f"frames of {text(size)}, and there is memory for {most} pixels: expected a smaller image"
    return f"frames of {text(size)} that FFmpeg cannot decode: it is damaged, or they are too large"


def count(path: Path) -> int | None:
    """How many frames a video has, by what its container holds; None where that cannot be read."""
    av = _av()
    try:
        with path.open("rb") as stream, av.open(stream, container_options=SEALED) as container:
            packets = container.demux(_track(path, container))
            return len([packet for packet in packets if packet.size])
    except Exception:  # whatever a hostile file makes FFmpeg and PyAV raise
        return None


def _track(path: Path, container: Any) -> Any:
    """The first stream of pictures."""
    if not container.streams.video:
        raise FileError(f"clip {path} has no video stream: expected a video or an image")
    track = container.streams.video[0]
    if track.codec_context is None:
        raise FileError(f"clip {path} has a video stream that FFmpeg cannot decode: convert it first")
    return track


def images(folder: Path, wanted: range, judge: Callable[[Shape], None]) -> Iterator[Array]:
    """Decode the wanted images of a folder, in natural order, one frame each.

    Parameters, what is yielded and errors are those of `video`.
    """
    files = image_files(folder)
    if not files:
        raise FileError(f"folder {folder} holds no images: expected {', '.join(sorted(IMAGES))}")
    for file in files[wanted.start : wanted.stop : wanted.step]:
        first, *more = video(file, range(2), judge)
        if more:
            raise FileError(
                f"clip {folder} holds an animation, {file.name}: expected one frame an image, "
                "or the animation itself as the clip"
            )
        yield first


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder in natural order: numbers in names by their value, 2 before 10."""
    return sorted(
        (file for file in folder.iterdir() if file.suffix.lower() in IMAGES),
        key=lambda file: (_natural(file.name), file.name),
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Words and numbers in turn; a number as its length and digits, without zeros in front."""
    parts = re.split("([0-9]+)", name)
    digits = (part.lstrip("0") if i % 2 else part for i, part in enumerate(parts))
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(digits)]


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise FileError("reading videos and images needs PyAV: pip install 'refnet[video]'") from None
    return av


def _whole(path: Path, frames: Iterator[Any]) -> Iterator[Any]:
    for frame in frames:
        if frame.is_corrupt:
            raise FileError(f"clip {path} is damaged: a frame could not be decoded in full")
        yield frame


def _pixels(path: Path, frame: Any, codec: str) -> Array:
    """One frame as stored: (H, W, 3) uint8 in B, G, R order."""
    kind = frame.format
    bits = max(component.bits for component in kind.components)
    if bits > 8:
        raise FileError(f"clip {path} has {bits} bits a colour ({kind.name}): expected 8; convert it first")
    if not (kind.has_palette or any(component.is_alpha for component in kind.components)):
        pixels: Array = frame.to_ndarray(format="bgr24")
        return pixels
    if codec == "mjpeg":
        raise FileError(f"clip {path} is a JPEG in CMYK, which an ink profile defines: expected RGB or grey")
    pixels = frame.to_ndarray(format="bgra")
    if (pixels[..., 3] != 255).any():
        raise FileError(
            f"clip {path} has transparent pixels: expected opaque ones, on a background of your choice"
        )
    return np.ascontiguousarray(pixels[..., :3])


def _way_up(path: Path, frame: Any) -> orientation.Orientation:
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError as unknown:  # PyAV's list of the kinds of side data is shorter than FFmpeg's
        raise FileError(
            f"clip {path} does not say which way up it is ({one_line(unknown)}): expected a newer PyAV"
        ) from None
    return orientation.AS_STORED if matrix is None else orientation.of_matrix(f"clip {path}", bytes(matrix))
