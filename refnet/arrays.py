"""Facts of arrays that are no operator's: dtypes, the door where arrays become clean, distances."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refnet.errors import DTypeError, one_line

Array = NDArray[Any]

DTYPES = ("float32", "float64")
REAL = tuple(map(np.dtype, DTYPES))
INTEGER = np.dtype(np.int64)


def at_the_door(name: str, array: Array, *, integer: bool = False) -> Array:
    """Return a read-only view of the array, or a copy: C-contiguous, aligned, in native byte order.

    Parameters
    ----------
    name : str
        What the array is called in messages.
    array : array_like
        float32 or float64, or integers where those are wanted.
    integer : bool
        Whether integers are wanted; they come back as int64.

    Returns
    -------
    ndarray

    Raises
    ------
    DTypeError
        If it is not float32 or float64; where integers are wanted, if it holds no integers.
    """
    try:
        array = np.asarray(array)
    except ValueError as error:
        raise DTypeError(f"{name} is no array: {one_line(error)}") from None
    wanted = array.dtype.newbyteorder("=")
    if integer and wanted != INTEGER:
        if wanted.kind not in "iu" or not np.can_cast(wanted, np.int64):
            raise DTypeError(f"{name} is {array.dtype}: expected integers")
        wanted = INTEGER
    elif not integer and wanted not in REAL:
        raise DTypeError(f"{name} is {array.dtype}: expected {' or '.join(DTYPES)}")
    flags = array.flags
    if array.dtype != wanted or not (flags.c_contiguous and flags.aligned):
        array = np.require(array, wanted, ["C_CONTIGUOUS", "ALIGNED"])
    clean = array.view()
    clean.flags.writeable = False
    return clean


def ulp_distance(a: Array, b: Array) -> Array:
    """How many floating-point numbers lie between a and b, plus one where they differ.

    Parameters
    ----------
    a, b : ndarray
        float32 or float64, of one dtype and shape, without NaN. -0.0 and +0.0 are 0 apart.

    Returns
    -------
    ndarray of uint64
    """
    unsigned, top = (np.uint32, 1 << 31) if a.dtype == np.float32 else (np.uint64, 1 << 63)
    sign = np.uint64(top)

    def on_a_line(x: Array) -> Array:
        # Bits in the order of the numbers: counted up from the sign above zero, down from it below.
        bits = np.ascontiguousarray(x).view(unsigned).astype(np.uint64)
        return np.where(bits & sign, sign - (bits ^ sign), sign + bits)

    p, q = on_a_line(a), on_a_line(b)
    return np.where(p > q, p - q, q - p)
