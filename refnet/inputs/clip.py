"""Real clips: a video file, a folder of images or an array, as the network's input blob.

Pixels are in B, G, R order less the original's means (Detect-and-Track, `lib/core/config.py`).
Videos and images are decoded and resized by FFmpeg through PyAV (extra `video`). Decoded pixels of
a standard codec are the same everywhere; scaling and colour conversion may differ in the last unit
between FFmpeg builds, so a golden bundle made from a clip stores the pixels that it used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic

from refnet import memory
from refnet.arrays import DTYPES, Array
from refnet.errors import (
    DTypeError,
    FileError,
    RefnetError,
    ShapeError,
    ValueRangeError,
    one_line,
    require_known,
)
from refnet.shapes import text, volume, whole

PIXEL_MEANS = (102.9801, 115.9465, 122.7717)
IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
ARRAYS = {".npy", ".npz"}
# A container may not make FFmpeg open anything else.
SEALED = {"protocol_whitelist": "none"}


@dataclass(frozen=True)
class Selection:
    """Which frames of a clip are taken, and their size.

    Attributes
    ----------
    frames : int
        How many, T.
    stride : int
        Every how many-th.
    start : int
        Index of the first, from 0.
    size : (H, W), optional
        What they are resized to; None: their own.

    Raises
    ------
    RefnetError
        If one is out of range.
    """

    frames: int = 8
    stride: int = 1
    start: int = 0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("stride", 1), ("start", 0)):
            whole(name, getattr(self, name), least)
        if self.size is not None:
            object.__setattr__(self, "size", volume("clip", self.size, "HW"))

    @property
    def behind(self) -> int:
        """The index behind the last frame that is taken."""
        return self.start + (self.frames - 1) * self.stride + 1


def load(
    path: str | Path,
    *,
    frames: int = 8,
    stride: int = 1,
    start: int = 0,
    size: tuple[int, int] | None = None,
    dtype: str = "float64",
    allow_nonfinite: bool = False,
) -> Array:
    """Read a clip.

    Parameters
    ----------
    path : str or Path
        A video file; a folder of images, taken in the order of their names; or a ``.npy`` or
        ``.npz`` file with either frames, (T, H, W, 3) uint8 in R, G, B order, or a blob that is
        ready, (N, 3, T, H, W) float, which is neither resized nor are means subtracted from it.
    frames : int
        How many frames, T.
    stride : int
        Every how many-th frame is taken.
    start : int
        Index of the first, from 0.
    size : (H, W), optional
        Resize to this, bilinearly, each axis on its own; by default the frames' own size.
    dtype : {"float64", "float32"}
    allow_nonfinite : bool
        Accept NaN and infinity in a blob that is ready.

    Returns
    -------
    (N, 3, T, H, W) ndarray
        pixel - mean, in units of 1/255 of full brightness; the difference is taken in float64. N is 1,
        or that of a blob that is ready.

    Raises
    ------
    FileError
        If the file is missing, unreadable or not a clip, or holds too few frames.
    RefnetError
        If an option is out of range, sizes do not fit, or the clip would not fit into memory.
    """
    return read(path, Selection(frames, stride, start, size), dtype, allow_nonfinite)


def read(
    path: str | Path, selection: Selection, dtype: str = "float64", allow_nonfinite: bool = False
) -> Array:
    """Read the selected frames of a clip.

    Parameters, returns and errors are those of `load`.
    """
    path = Path(path)
    if selection.size is not None:
        _require_memory(selection.frames, selection.size)
    require_known("dtype", dtype, DTYPES)
    if not path.exists():
        raise FileError(f"clip {path} does not exist: expected a video, a folder of images, .npy or .npz")

    if path.suffix.lower() in ARRAYS:
        array = _array(path)
        if array.ndim == 5:
            with np.errstate(over="ignore"):
                ready = _ready(path, array, selection).astype(dtype)
            if not (allow_nonfinite or np.isfinite(ready).all()):
                raise ValueRangeError(
                    f"clip {path} has values that are not finite in {dtype}: "
                    "expected finite numbers, or --allow-nonfinite"
                )
            return ready
        source: Iterator[Any] = iter(array[..., ::-1])
    elif path.is_dir():
        source = _images(path)
    else:
        source = _video(path)
    picked: list[Array] = []
    for frame in islice(source, selection.start, selection.behind, selection.stride):
        picked.append(_pixels(path, frame, selection.size))
        if len(picked) == 1:
            _require_memory(selection.frames, picked[0].shape[:2])
    if len(picked) < selection.frames:
        raise _too_short(path, len(picked), selection)
    if len({frame.shape for frame in picked}) > 1:
        found = ", ".join(sorted({text(frame.shape[:2]) for frame in picked}))
        raise ShapeError(f"clip {path} has frames of sizes {found}: expected one size, or give size HxW")
    pixels = np.stack(picked).transpose(3, 0, 1, 2)[None]
    means = np.array(PIXEL_MEANS)[:, None, None, None]
    return np.ascontiguousarray((pixels - means).astype(dtype))


def digest(path: str | Path) -> str:
    """SHA-256 of a clip: of the file, or of the images of a folder in the order of their names."""
    path = Path(path)
    total = sha256()
    try:
        for file in _image_files(path) if path.is_dir() else [path]:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    total.update(block)
    except OSError as error:
        raise FileError(f"clip {path} cannot be read: {one_line(error)}") from error
    return total.hexdigest()


def _require_memory(frames: int, size: tuple[int, ...]) -> None:
    """Pixels as bytes, as differences in float64, and as the blob."""
    needed = frames * size[0] * size[1] * 3 * (1 + 8 + 8)
    memory.require(needed, f"a clip of {frames} frames of {text(size)}")


def _array(path: Path) -> Array:
    try:
        array = _npz(path) if path.suffix.lower() == ".npz" else np.load(path, mmap_mode="r")
    except (RefnetError, MemoryError):
        raise
    except Exception as error:  # whatever a hostile file makes the parsers raise
        raise FileError(f"clip {path} is not a readable array file: {one_line(error)}") from error
    if array.ndim == 5:
        if array.dtype.newbyteorder("=").name not in DTYPES:
            raise DTypeError(f"clip {path} is a {array.dtype} blob: expected {' or '.join(DTYPES)}")
        if array.shape[1] != 3:
            raise ShapeError(f"clip {path} has shape {text(array.shape)}: expected N x 3 x T x H x W")
        return array
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        raise ShapeError(
            f"clip {path} is {array.dtype} {text(array.shape)}: expected uint8 frames T x H x W x 3, "
            "or a float blob N x 3 x T x H x W"
        )
    return array


def _npz(path: Path) -> Array:
    """The one array of an archive, once its header has said how large it is."""
    with ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            found = ", ".join(name.removesuffix(".npy") for name in names)
            raise FileError(f"clip {path} holds arrays {found or 'none'}: expected exactly one")
        with archive.open(names[0]) as stream:
            major, _ = read_magic(stream)
            read_header = read_array_header_1_0 if major == 1 else read_array_header_2_0
            shape, _, dtype = read_header(stream)
            memory.require(prod(shape) * dtype.itemsize, f"clip {path}")
        with archive.open(names[0]) as stream:
            array: Array = read_array(stream, allow_pickle=False)
    return array


def _ready(path: Path, array: Array, selection: Selection) -> Array:
    picked = array[:, :, selection.start : selection.behind : selection.stride]
    if picked.shape[2] < selection.frames:
        raise _too_short(path, picked.shape[2], selection)
    if selection.size is not None and picked.shape[3:] != selection.size:
        raise ShapeError(
            f"clip {path} is a ready blob of {text(picked.shape[3:])}: expected {text(selection.size)}; "
            "only frames are resized"
        )
    return np.ascontiguousarray(picked)


def _too_short(path: Path, found: int, wanted: Selection) -> FileError:
    return FileError(
        f"clip {path} is too short: {found} of the frames asked for are there, expected {wanted.frames} "
        f"(start {wanted.start}, stride {wanted.stride}, so at least {wanted.behind} in all)"
    )


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise FileError(
            "reading or resizing videos and images needs PyAV: pip install 'refnet[video]'"
        ) from None
    return av


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES)


def _images(folder: Path) -> Iterator[Any]:
    files = _image_files(folder)
    if not files:
        raise FileError(f"folder {folder} holds no images: expected {', '.join(sorted(IMAGES))}")
    for file in files:
        yield from islice(_video(file), 1)


def _video(path: Path) -> Iterator[Any]:
    av = _av()
    try:
        # An open file, not a name: FFmpeg would take some names for addresses.
        with path.open("rb") as stream, av.open(stream, options=SEALED) as container:
            if not container.streams.video:
                raise FileError(f"clip {path} has no video stream: expected a video or an image")
            video = container.streams.video[0]
            video.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(video):
                if frame.is_corrupt:
                    raise FileError(f"clip {path} is damaged: a frame could not be decoded in full")
                yield frame
    except (av.FFmpegError, OSError) as error:
        raise FileError(f"clip {path} cannot be decoded: {one_line(error)}") from error


def _pixels(path: Path, frame: Any, size: tuple[int, int] | None) -> Array:
    """One frame as (H, W, 3) uint8 in B, G, R order."""
    if isinstance(frame, np.ndarray):
        if size is None or frame.shape[:2] == size:
            return frame
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
    height, width = size or (frame.height, frame.width)
    try:
        pixels: Array = frame.to_ndarray(format="bgr24", height=height, width=width, interpolation="BILINEAR")
    except _av().FFmpegError as error:
        raise FileError(f"clip {path} cannot be resized to {height}x{width}: {one_line(error)}") from error
    return pixels
