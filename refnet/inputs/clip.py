"""Real clips: a video file, a folder of images or an array, as the network's input blob.

As the original makes it (Detect-and-Track, `lib/utils/blob.py`): pixels in B, G, R order, less the means in
float32, and then resized. A blob of float64 holds these float32 values, widened. What is decoded may differ
between FFmpeg builds (`decode.py`), so a golden bundle made from a clip stores the pixels that it used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZipFile

import numpy as np
from numpy.lib.format import read_array
from numpy.typing import DTypeLike

from refnet import memory
from refnet.arrays import DTYPES, Array, dtype_name
from refnet.environment import errstate, in_default
from refnet.errors import (
    DTypeError,
    FileError,
    RefnetError,
    ShapeError,
    TooLargeError,
    ValueRangeError,
    one_line,
    path_of,
    require_kind,
    require_known,
    with_article,
)
from refnet.inputs import decode, npy_header
from refnet.inputs.resize import RESIZES
from refnet.shapes import Shape, text, volume, whole

__all__ = ["PIXEL_MEANS", "Selection", "digest", "load", "read"]

Parsed = TypeVar("Parsed")
PIXEL_MEANS = (102.9801, 115.9465, 122.7717)
ARRAYS = {".npy", ".npz"}
# Of a pixel: three differences in float64, then in float32, beside what was decoded.
PIXEL_BYTES = 3 * (8 + 4) + decode.PIXEL_BYTES


@dataclass(frozen=True)
class Selection:
    """Which frames of a clip are taken, and how they are resized.

    Attributes
    ----------
    frames : int
        How many, T.
    stride : int
        Every how many-th.
    start : int
        Index of the first, from 0.
    size : (H, W), optional
        What they are resized to, upright; None: their own.
    resize : {"linear", "area"}
        How: a name of `refnet.inputs.resize.RESIZES`.

    Raises
    ------
    RefnetError
        If one is out of range.
    """

    frames: int = 8
    stride: int = 1
    start: int = 0
    size: tuple[int, int] | None = None
    resize: str = "linear"

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("stride", 1), ("start", 0)):
            whole(name, getattr(self, name), least)
        if self.size is not None:
            object.__setattr__(self, "size", volume("clip", self.size, "HW"))
        require_known("way of resizing", self.resize, RESIZES)

    @property
    def wanted(self) -> range:
        """The indices of the frames that are taken."""
        return range(self.start, self.start + (self.frames - 1) * self.stride + 1, self.stride)


def load(
    path: str | Path,
    *,
    frames: int = 8,
    stride: int = 1,
    start: int = 0,
    size: tuple[int, int] | None = None,
    resize: str = "linear",
    dtype: DTypeLike = "float64",
    allow_nonfinite: bool = False,
) -> Array:
    """Read a clip.

    Parameters
    ----------
    path : str or Path
        A video file; a folder of images, taken in the natural order of their names; or a ``.npy``
        or ``.npz`` file with either frames, (T, H, W, 3) uint8 in R, G, B order, or a blob that is
        ready, (N, 3, T, H, W) float, which is neither resized nor are means subtracted from it.
    frames : int
        How many frames, T.
    stride : int
        Every how many-th frame is taken.
    start : int
        Index of the first, from 0.
    size : (H, W), optional
        Resize to this, each axis on its own; by default the frames' own size.
    resize : {"linear", "area"}
        How: with two taps an axis, as the original, or by averaging what an output covers.
    dtype : {"float64", "float32"}
    allow_nonfinite : bool
        Accept NaN and infinity in a blob that is ready.

    Returns
    -------
    (N, 3, T, H, W) ndarray
        pixel - mean, in units of 1/255 of full brightness: the difference taken in float64 and rounded to
        float32, then resized in float32. N is 1, or that of a blob that is ready.

    Raises
    ------
    FileError
        If the file is missing, unreadable or not a clip, or holds too few frames.
    RefnetError
        If an option is out of range, sizes do not fit, or the clip would not fit into memory.
    """
    return read(path, Selection(frames, stride, start, size, resize), dtype, allow_nonfinite)


@in_default
def read(
    path: str | Path,
    selection: Selection,
    dtype: DTypeLike = "float64",
    allow_nonfinite: bool = False,
    judge: Callable[[Shape], object] = lambda shape: None,
) -> Array:
    """Read the selected frames of a clip.

    Parameters, returns and errors are those of `load`; `judge` is given the shape of the blob, and may refuse
    it, before any pixel is decoded.
    """
    path = path_of("clip", path)
    require_kind("selection", selection, Selection, "as refnet.clip.Selection(...)")
    try:
        return _read(path, selection, dtype_name(dtype), allow_nonfinite, judge)
    except TooLargeError:  # of a clip that has so many frames, or of one that has not
        if path.exists() and (held := _held(path)) is not None and held < selection.wanted.stop:
            raise _too_short(path, held, selection) from None
        raise


def _read(
    path: Path, selection: Selection, dtype: str, allow_nonfinite: bool, judge: Callable[[Shape], object]
) -> Array:
    wanted = selection.wanted
    if selection.size is not None:
        _require_memory(selection.frames, selection.size)
        judge((1, 3, selection.frames, *selection.size))
    if not path.exists():
        raise FileError(f"clip {path} does not exist: expected a video, a folder of images, .npy or .npz")
    if not (path.is_dir() or path.is_file()):
        raise FileError(f"clip {path} is a pipe or a device: expected a file or a folder")

    judged = set()

    def judge_frames(size: Shape) -> None:
        if size in judged:
            return
        judged.add(size)
        if selection.size is None:
            _require_memory(selection.frames, size)
            judge((1, 3, selection.frames, *size))
        memory.require(prod(size) * PIXEL_BYTES, f"a frame of {text(size)} of clip {path}")

    if path.suffix.lower() in ARRAYS:
        shape = _shape(path)
        if len(shape) == 5:
            taken = (*shape[:2], selection.frames, *shape[3:])
            memory.require(2 * prod(taken) * 8, f"clip {path}")
            judge(taken)
        else:
            judge_frames(shape[1:3])
        array = _array(path)
        if array.ndim == 5:
            with errstate(over="ignore"):
                ready = _ready(path, array, selection).astype(dtype)
            if not (allow_nonfinite or np.isfinite(ready).all()):
                raise ValueRangeError(
                    f"clip {path} has values that are not finite in {dtype}: "
                    "expected finite numbers (or allow_nonfinite)"
                )
            return ready
        source: Iterable[Array] = array[wanted.start : wanted.stop : wanted.step, ..., ::-1]
    elif path.is_dir():
        source = decode.images(path, wanted, judge_frames)
    else:
        source = decode.video(path, wanted, judge_frames)
    picked = [_prepared(pixels, selection) for pixels in source]
    if len(picked) < selection.frames:
        raise _too_short(path, _held(path), selection)
    if len({frame.shape for frame in picked}) > 1:
        found = ", ".join(sorted({text(frame.shape[:2]) for frame in picked}))
        raise ShapeError(f"clip {path} has frames of sizes {found}: expected one size, or give size HxW")
    blob = np.empty((1, 3, len(picked), *picked[0].shape[:2]), dtype)
    for at, frame in enumerate(picked):
        blob[0, :, at] = frame.transpose(2, 0, 1)
    return blob


def _prepared(pixels: Array, selection: Selection) -> Array:
    """(H, W, 3) pixels in B, G, R order less the means, resized: float32."""
    frame = (pixels - np.array(PIXEL_MEANS)).astype(np.float32)
    return frame if selection.size is None else RESIZES[selection.resize](frame, selection.size)


def digest(path: str | Path) -> str:
    """SHA-256 of a clip: of the file, or of the images of a folder in the natural order of their names."""
    path = path_of("clip", path)
    total = sha256()
    try:
        for file in decode.image_files(path) if path.is_dir() else [path]:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    total.update(block)
    except OSError as error:
        raise FileError(f"clip {path} cannot be read: {one_line(error)}") from error
    return total.hexdigest()


def _require_memory(frames: int, size: tuple[int, ...]) -> None:
    """Pixels as differences in float32, and as the blob."""
    needed = frames * size[0] * size[1] * 3 * (4 + 8)
    memory.require(needed, f"a clip of {frames} frames of {text(size)}")


def _shape(path: Path) -> Shape:
    """The shape that an array's header states, once it is one of a clip."""
    shape, dtype, there = _parsed(path, _headed)
    what = f"clip {path}"
    if len(shape) == 5:
        if dtype.newbyteorder("=").name not in DTYPES:
            found = with_article(str(dtype))
            raise DTypeError(f"{what} is {found} blob: expected {' or '.join(DTYPES)}")
        if shape[1] != 3:
            raise ShapeError(f"{what} has shape {text(shape)}: expected N x 3 x T x H x W")
        npy_header.require_whole(what, shape, dtype, there)
        return shape
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise ShapeError(
            f"{what} is {dtype} {text(shape)}: expected uint8 frames T x H x W x 3, "
            "or a float blob N x 3 x T x H x W"
        )
    if 0 in shape[1:]:
        raise ShapeError(f"{what} has frames of {text(shape[1:3])}: expected a pixel at least")
    npy_header.require_whole(what, shape, dtype, there)
    return shape


def _array(path: Path) -> Array:
    """The array, whose header has been read: mapped, or taken out of its archive."""
    return _parsed(path, _unpacked if _is_archive(path) else _mapped)


def _parsed(path: Path, parse: Callable[[Path], Parsed]) -> Parsed:
    """What a parser finds in an array file; whatever a hostile one makes it raise, it is not readable."""
    try:
        return parse(path)
    except (RefnetError, MemoryError):
        raise
    except Exception as error:
        raise FileError(f"clip {path} is not a readable array file: {one_line(error)}") from error


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _headed(path: Path) -> tuple[Shape, np.dtype[Any], int]:
    """The shape and dtype of the one array of a file, and how many bytes of values are there."""
    what = f"clip {path}"
    if not _is_archive(path):
        with path.open("rb") as file:
            if file.peek(2).startswith(b"PK"):
                raise ValueError("it is an archive, whose name should end in .npz")
            shape, _, dtype = npy_header.read(what, file)
            return shape, dtype, path.stat().st_size - file.tell()
    with ZipFile(path) as archive:
        member = archive.getinfo(_member(path, archive))
        with archive.open(member) as stream:
            shape, _, dtype = npy_header.read(what, stream)
            there = member.file_size - stream.tell()
    memory.require(prod(shape) * dtype.itemsize, what)
    return shape, dtype, there


def _mapped(path: Path) -> Array:
    with npy_header.of_any_age():
        array: Array = np.load(path, mmap_mode="r")
    return array


def _unpacked(path: Path) -> Array:
    with (
        ZipFile(path) as archive,
        archive.open(_member(path, archive)) as stream,
        npy_header.of_any_age(),
    ):
        array: Array = read_array(stream, allow_pickle=False)
    return array


def _member(path: Path, archive: ZipFile) -> str:
    names = archive.namelist()
    if len(names) != 1:
        found = ", ".join(name.removesuffix(".npy") for name in names)
        raise FileError(f"clip {path} holds arrays {found or 'none'}: expected exactly one")
    return names[0]


def _ready(path: Path, array: Array, selection: Selection) -> Array:
    wanted = selection.wanted
    picked = array[:, :, wanted.start : wanted.stop : wanted.step]
    if picked.shape[2] < selection.frames:
        raise _too_short(path, array.shape[2], selection)
    if selection.size is not None and picked.shape[3:] != selection.size:
        raise ShapeError(
            f"clip {path} is a ready blob of {text(picked.shape[3:])}: expected {text(selection.size)}; "
            "only frames are resized"
        )
    return np.ascontiguousarray(picked)


def _held(path: Path) -> int | None:
    """How many frames a clip has; None where that cannot be told without decoding it."""
    if path.suffix.lower() in ARRAYS:
        shape = _shape(path)
        return shape[2] if len(shape) == 5 else shape[0]
    return len(decode.image_files(path)) if path.is_dir() else decode.count(path)


def _too_short(path: Path, held: int | None, wanted: Selection) -> FileError:
    known = held is not None and held < wanted.wanted.stop  # a damaged one may have more than can be decoded
    has = f"it has {held} frame{'s'[: held != 1]}" if known else "it has fewer frames than that"
    return FileError(
        f"clip {path} is too short: {has}, expected at least {wanted.wanted.stop} "
        f"(frames {wanted.frames}, stride {wanted.stride}, start {wanted.start})"
    )
