"""The safetensors format: what a file holds is known, and judged, before any of it is read.

Eight bytes, little-endian, say how long the header is. The header is JSON: of each tensor its ``dtype``,
``shape`` and ``data_offsets``, from the header's end. Tensors lie in C order, little-endian, without gaps.
"""

import os
from dataclasses import dataclass
from math import prod

import numpy as np

from refnet import bounded_json
from refnet.arrays import Array
from refnet.shapes import LARGEST_SIZE, Shape

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "BF16": "V2",
}
METADATA = "__metadata__"
# More axes than any tensor has.
MOST_AXES = 32


@dataclass(frozen=True)
class Stored:
    """Where in a file a tensor lies.

    Attributes
    ----------
    kind : str
        Its dtype, as the format calls it.
    shape : tuple of int
    start, size : int
        In bytes, from the file's beginning.
    """

    kind: str
    shape: Shape
    start: int
    size: int

    @property
    def dtype(self) -> str:
        """Its dtype, as NumPy calls it; where NumPy has no name for it, as the format does."""
        found = np.dtype(DTYPES.get(self.kind, "V"))
        return self.kind if found.kind == "V" else found.name


def stored(file: int) -> dict[str, Stored]:
    """Read the header of a file.

    Parameters
    ----------
    file : int
        Its descriptor.

    Returns
    -------
    dict of str to Stored
        In the order in which they lie.

    Raises
    ------
    ValueError
        If it is damaged, or larger than a header would be.
    OSError
        If it cannot be read.
    """
    total = os.fstat(file).st_size
    length = int.from_bytes(os.pread(file, 8, 0), "little")
    if total < 8 or length > total - 8:
        raise ValueError(f"its header would have {length} bytes, and the file has {total}")
    if length > bounded_json.LARGEST:
        raise ValueError(f"its header has {length} bytes: expected {bounded_json.LARGEST} at most")
    header = bounded_json.loads(os.pread(file, length, 8))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    start = 8 + length
    found = {name: _stored(name, entry, start) for name, entry in header.items() if name != METADATA}
    found = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].size)))
    for name, tensor in found.items():
        if tensor.start != start:
            raise ValueError(f"{name} does not begin where what is before it ends")
        start += tensor.size
    if start != total:
        raise ValueError(f"its header is of a file of {start} bytes, and it has {total}")
    return found


def read(file: int, tensor: Stored) -> Array:
    """Read a tensor whose dtype is one of `DTYPES`.

    Parameters
    ----------
    file : int
        Its descriptor.
    tensor : Stored

    Raises
    ------
    ValueError
        If the file has become shorter.
    OSError
        If it cannot be read.
    """
    content = np.empty(tensor.size, np.uint8)
    done = 0
    while done < tensor.size:
        count = os.preadv(file, [content[done:].data], tensor.start + done)
        if not count:
            raise ValueError(f"it ends after {done} of {tensor.size} bytes of a tensor")
        done += count
    return content.view(DTYPES[tensor.kind]).reshape(tensor.shape)


def _stored(name: str, entry: object, begin: int) -> Stored:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            raise ValueError(f"{name} has no dtype, shape and offsets")
    if len(shape) > MOST_AXES:
        raise ValueError(f"{name} has {len(shape)} axes: expected {MOST_AXES} at most")
    if not all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in shape) or not 0 <= start <= stop:
        raise ValueError(f"{name} has sizes or offsets that are none")
    if kind in DTYPES and prod(shape) * np.dtype(DTYPES[kind]).itemsize != stop - start:
        raise ValueError(f"{name} has {stop - start} bytes, which are none of {kind} of its shape")
    return Stored(kind, tuple(shape), begin + start, stop - start)
