"""Named arrays from a file or a folder, whoever wrote it: nothing in it is trusted.

| what | names |
|---|---|
| ``.npz`` | of its members |
| ``.safetensors`` | of its tensors |
| a folder of ``.npy`` | of its files, and of files in its subfolders: ``blob/conv1.npy`` is ``blob/conv1`` |
| a folder of ONNX ``TensorProto`` files, ``.pb`` | their own; where a tensor has none, as of ``.npy`` |

bfloat16 comes back as its values in float32. NumPy writes it as two bytes without a name (``V2``), which no
other format of numbers has: they are read as bfloat16.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np

from refnet import memory
from refnet.arrays import Array
from refnet.errors import FileError, RefnetError, one_line, path_of
from refnet.inputs import npy_header, safetensors_file
from refnet.regular import open_regular

EXPECTED = "expected .npz, .safetensors, or a folder of .npy or ONNX .pb files"
BFLOAT16 = np.dtype("V2")


def read(path: str | Path) -> dict[str, Array]:
    """Read every array of a file or a folder.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    dict of str to ndarray
        Real numbers, integers or truth values, in the order of the file; of a folder, in that of its names.

    Raises
    ------
    FileError
        If it is missing, damaged, none of these, or holds a name twice or something else than numbers. Python
        objects (pickles) are never read.
    TooLargeError
        If it would not fit into memory.
    """
    path = path_of("file", path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileError(f"{path} does not exist: {EXPECTED}") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {one_line(error)}") from error
    if stat.S_ISDIR(mode):
        found = _folder(path)
    elif not stat.S_ISREG(mode):
        raise _no_file(path)
    elif path.suffix.lower() == ".npz":
        found = _npz(path)
    elif path.suffix.lower() == ".safetensors":
        found = _safetensors(path)
    else:
        raise FileError(f"{path} is of no known format: {EXPECTED}")
    arrays: dict[str, Array] = {}
    for name, array in _readable(path, found):
        if name in arrays:
            raise FileError(f"{path} holds {name} twice: expected one array of each name")
        arrays[name] = array
    if not arrays:
        raise FileError(f"{path} holds no array: {EXPECTED}")
    return arrays


def _readable(path: Path, found: Iterator[tuple[str, Array]]) -> Iterator[tuple[str, Array]]:
    """What a parser yields; whatever a hostile file makes it raise is one line."""
    try:
        yield from found
    except (RefnetError, MemoryError):
        raise
    except Exception as error:
        raise FileError(f"{path} cannot be read: {one_line(error)}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    handle = open_regular(path)
    if handle is None:
        raise _no_file(path)
    with os.fdopen(handle, "rb") as stream:
        yield stream


def _npz(path: Path) -> Iterator[tuple[str, Array]]:
    with _opened(path) as file, ZipFile(file) as archive:
        members = archive.infolist()
        memory.require(sum(member.file_size for member in members), f"{path}")
        for member in members:
            name = _name(path, member.filename.removesuffix(".npy"))
            if name == member.filename:
                raise FileError(f"{path} holds {name}, which is no .npy: expected what np.savez writes")
            with archive.open(member) as stream:
                yield name, _array(f"{path}: {name}", stream, member.file_size)


def _safetensors(path: Path) -> Iterator[tuple[str, Array]]:
    with _opened(path) as stream:
        tensors = safetensors_file.stored(stream.fileno())
        memory.require(sum(tensor.size for tensor in tensors.values()), f"{path}")
        for name, tensor in tensors.items():
            name = _name(path, name)
            if tensor.kind not in safetensors_file.DTYPES:
                raise _no_numbers(f"{path}: {name}", tensor.kind)
            yield name, _values(safetensors_file.read(stream.fileno(), tensor), tensor.shape, "C")


def _folder(path: Path) -> Iterator[tuple[str, Array]]:
    files = sorted(
        file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.suffix in (".npy", ".pb")
    )
    sizes = []
    for file in files:
        if not file.is_file():
            raise FileError(f"{file} is not a file: {EXPECTED}")
        sizes.append(file.stat().st_size)
    memory.require(sum(sizes), f"{path}")
    for file, size in zip(files, sizes, strict=True):
        name = _name(path, file.relative_to(path).with_suffix("").as_posix())
        if file.suffix == ".pb":
            yield from _readable(file, _tensor_proto(file, name))
        else:
            yield from _readable(file, _npy(file, name, size))


def _npy(file: Path, name: str, size: int) -> Iterator[tuple[str, Array]]:
    with _opened(file) as stream:
        yield name, _array(str(file), stream, size)


def _tensor_proto(file: Path, name: str) -> Iterator[tuple[str, Array]]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise FileError(f"{file} needs the package onnx: pip install 'refnet[onnx]'") from None
    tensor = onnx.TensorProto()
    with _opened(file) as stream:
        tensor.ParseFromString(stream.read())
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise FileError(f"{file} keeps its values in another file: expected them in itself")
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise FileError(f"{file} is no TensorProto: expected a tensor with a type")
    array = numpy_helper.to_array(tensor)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise _no_numbers(str(file), array.dtype)
    yield _name(file, tensor.name or name), array


def _name(path: Path, name: str) -> str:
    """Refuse what no message could show."""
    if not name.isprintable():
        raise FileError(f"{path} holds the name {name!r}: expected printable characters")
    return name


def _array(what: str, stream: IO[bytes], size: int) -> Array:
    """An array in NumPy's format, of a stream of as many bytes as its header must speak of."""
    shape, fortran_order, dtype = npy_header.read(what, stream)
    if dtype.kind not in "fiub" and dtype != BFLOAT16:
        raise _no_numbers(what, dtype)
    needed = size - stream.tell()
    npy_header.require_whole(what, shape, dtype, needed)
    values = stream.read(needed + 1)  # one more, so that an archive compares its checksum
    if len(values) != needed:
        raise FileError(f"{what} ends after {len(values)} of {needed} bytes of values: it is damaged")
    return _values(np.frombuffer(values, dtype), shape, "F" if fortran_order else "C")


def _values(flat: Array, shape: tuple[int, ...], order: Any) -> Array:
    if flat.dtype == BFLOAT16:
        flat = (flat.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(shape, order=order)


def _no_file(path: Path) -> FileError:
    return FileError(f"{path} is neither a file nor a folder: {EXPECTED}")


def _no_numbers(what: str, dtype: object) -> FileError:
    held = "Python objects" if str(dtype) == "object" else dtype
    return FileError(
        f"{what} holds {held}: expected float64, float32, float16, bfloat16, integers or truth values"
    )
