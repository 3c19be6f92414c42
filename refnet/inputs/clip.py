"""Real clips: a video file, a folder of images or an array, as the network's input blob.

As the original makes it (Detect-and-Track, `lib/utils/blob.py`): pixels in B, G, R order, less the means in
float32, and then resized. A blob of float64 holds these float32 values, widened. What is decoded may differ
between FFmpeg builds (`decode.py`), so a golden bundle made from a clip stores the pixels that it used.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic

from refnet import memory
from refnet.arrays import DTYPES, Array
from refnet.environment import in_default
from refnet.errors import (
    DTypeError,
    FileError,
    RefnetError,
    ShapeError,
    ValueRangeError,
    one_line,
    require_known,
)
from refnet.inputs import decode
from refnet.inputs.resize import RESIZES
from refnet.shapes import text, volume, whole

PIXEL_MEANS = (102.9801, 115.9465, 122.7717)
ARRAYS = {".npy", ".npz"}


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
    dtype: str = "float64",
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
    path: str | Path, selection: Selection, dtype: str = "float64", allow_nonfinite: bool = False
) -> Array:
    """Read the selected frames of a clip.

    Parameters, returns and errors are those of `load`.
    """
    path, wanted = Path(path), selection.wanted
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
        source: Iterable[Array] = array[wanted.start : wanted.stop : wanted.step, ..., ::-1]
    elif path.is_dir():
        source = decode.images(path, wanted)
    else:
        source = decode.video(path, wanted)
    picked: list[Array] = []
    for pixels in source:
        picked.append(_prepared(pixels, selection))
        if len(picked) == 1:
            _require_memory(selection.frames, picked[0].shape[:2])
    if len(picked) < selection.frames:
        raise _too_short(path, len(picked), selection)
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
    path = Path(path)
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
    if 0 in array.shape[1:]:
        raise ShapeError(f"clip {path} has frames of {text(array.shape[1:3])}: expected a pixel at least")
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
    wanted = selection.wanted
    picked = array[:, :, wanted.start : wanted.stop : wanted.step]
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
        f"(start {wanted.start}, stride {wanted.stride}, so at least {wanted.wanted.stop} in all)"
    )
