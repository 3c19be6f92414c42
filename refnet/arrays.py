"""Facts of arrays that are no operator's: dtypes, the door where arrays become clean, distances."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.ma import MaskedArray  # here: NumPy would import it when it is first asked for
from numpy.typing import DTypeLike, NDArray

from refnet.environment import errstate
from refnet.errors import DTypeError, ShapeError, UnknownNameError, kind_of, some, suggestion
from refnet.pieces import all_finite, boxes, converted, copied, fill
from refnet.shapes import text

Array = NDArray[Any]

DTYPES = ("float32", "float64")
REAL = tuple(map(np.dtype, DTYPES))
# Formats whose every value float32 holds, as which they are taken.
NARROW = ("bfloat16", "float16")
INTEGER = np.dtype(np.int64)


def shapes_of(arrays: Mapping[str, Array]) -> list[tuple[str, ...]]:
    """Rows of a table: names, shapes, dtypes."""
    return [(name, text(np.shape(array)), stored_in(array)) for name, array in arrays.items()]


def at_the_door(name: str, array: Array, *, integer: bool = False) -> Array:
    """Return a read-only view of the array, or a copy: C-contiguous, aligned, in native byte order.

    Parameters
    ----------
    name : str
        What the array is called in messages.
    array : array_like
        float32 or float64, or integers where those are wanted: an array of NumPy's, or of any library
        that lets NumPy see its arrays. One that carries a gradient's history (PyTorch's
        ``requires_grad``) is its values. bfloat16 and float16 are their values in float32, which holds
        each of them.
    integer : bool
        Whether integers are wanted; they come back as int64.

    Returns
    -------
    ndarray

    Raises
    ------
    DTypeError
        If it is no array in main memory, or of none of these formats; where integers are wanted, if it
        holds no integers.
    """
    expected = "integers" if integer else " or ".join(DTYPES)
    given, array = array, seen_by_numpy(name, array, expected)
    wanted = array.dtype.newbyteorder("=")
    if not integer and wanted.name in NARROW:
        array = copied(array, np.float32)
        wanted = array.dtype
    if integer and wanted != INTEGER:
        if wanted.kind not in "iu" or not np.can_cast(wanted, np.int64):
            raise DTypeError(f"{name} is {_found(given, array)}: expected {expected}")
        wanted = INTEGER
    elif not integer and wanted not in REAL:
        advice = _advice(given, array.dtype)
        raise DTypeError(f"{name} is {_found(given, array)}: expected {expected}{advice}")
    flags = array.flags
    if array.dtype != wanted or not (flags.c_contiguous and flags.aligned):
        array = copied(array, wanted)
    return read_only(array)


def read_only(array: Array) -> Array:
    """A view of the array, through which nobody writes."""
    view = array.view()
    view.flags.writeable = False
    return view


def stored_in(array: Any) -> str:
    """The format that values are stored in, by its NumPy name: ``float32``, ``bfloat16``.

    Parameters
    ----------
    array : array_like
        Of NumPy, PyTorch, JAX or any other library; what has no dtype of its own is as NumPy makes it.
    """
    dtype = getattr(array, "dtype", None)
    dtype = np.asarray(array).dtype if dtype is None else dtype
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")


def require_one_dtype(given: Mapping[str, Any], values: Mapping[str, Array]) -> None:
    """Refuse arrays of real numbers that are not all taken in one dtype.

    Parameters
    ----------
    given : mapping of str to array_like
        Before the door.
    values : mapping of str to ndarray
        Behind it.

    Raises
    ------
    DTypeError
        Names those that are in another dtype than most, and what to convert; of as many, the later ones.
    """
    by_dtype: dict[np.dtype[Any], list[str]] = {}
    for name, value in values.items():
        if value.dtype.kind == "f":
            by_dtype.setdefault(value.dtype, []).append(name)
    if len(by_dtype) < 2:
        return
    most = max(by_dtype, key=lambda dtype: len(by_dtype[dtype]))
    usual, odd = by_dtype.pop(most), *by_dtype.values()
    stored, other = stored_in(given[odd[0]]), stored_in(given[usual[0]])
    why = f"the dtype of {some(usual)}"
    if other in NARROW:
        why = f"as which {some(usual)}, {other}, {'is' if len(usual) == 1 else 'are'} taken"
    elif stored in NARROW:
        why += f"; convert {'it' if len(odd) == 1 else 'them'}"
    raise DTypeError(f"{some(odd)} {'is' if len(odd) == 1 else 'are'} {stored}: expected {most}, {why}")


def dtype_name(dtype: DTypeLike, known: Collection[str] = DTYPES, what: str = "dtype") -> str:
    """The name of a dtype, or of a format that NumPy has none of.

    Parameters
    ----------
    dtype : str or dtype
        Whatever NumPy takes as one: ``"float32"``, ``np.float32``, ``np.dtype("f4")``, ``float``.
    known : collection of str
        The names that are taken.
    what : str
        What it is called in messages.

    Raises
    ------
    UnknownNameError
        If it is none of these.
    """
    name: Any = dtype
    if dtype is not None and not (isinstance(dtype, str) and dtype in known):
        with suppress(TypeError, ValueError, SyntaxError):
            name = np.dtype(dtype).name
    if isinstance(name, str) and name in known:
        return name
    typed: Any = dtype if isinstance(dtype, str) else name
    if isinstance(name, str):
        typed = getattr(dtype, "__name__", typed)
    advice = suggestion(typed, known)
    if name in NARROW:
        advice = f"expected {' or '.join(known)}, in which is computed; arrays of {name} are taken as float32"
    if isinstance(name, str) and typed != name:  # "f16" has 16 bytes, "int" 64 bits
        advice = f"it is {name} to NumPy; {advice}"
    raise UnknownNameError(what, typed, known, advice=advice)


def require_wide(name: str, array: Any) -> None:
    """Refuse what was computed in a format that a gradient check has no bounds for.

    Raises
    ------
    DTypeError
    """
    if (stored := stored_in(array)) in NARROW:
        raise DTypeError(
            f"{name} is {stored}: expected {' or '.join(DTYPES)}; compute it in float32, "
            f"or let refnet.certify judge what is stored in {stored}"
        )


def require_mapping(what: str, given: object) -> None:
    """Refuse what does not map names to arrays.

    Raises
    ------
    DTypeError
    """
    if not isinstance(given, Mapping):
        raise DTypeError(f"{what} is {kind_of(given)}: expected a mapping of names to arrays")


def seen_by_numpy(name: str, array: Any, expected: str) -> Array:
    """Somebody's array as one of NumPy's, in the same memory where it can be.

    Libraries are known by their protocols alone: `__array__`, `__dlpack__`, PyTorch's `detach`, and its
    `float`, because NumPy has no bfloat16 of its own.

    Parameters
    ----------
    name, expected : str
        What the array is called in messages, and what was expected.
    array : array_like

    Returns
    -------
    ndarray
        Of any dtype; a tensor in bfloat16 as float32.

    Raises
    ------
    DTypeError
        If it is no array in main memory.
    """
    if type(array) is np.ndarray:
        return array
    if isinstance(array, MaskedArray):
        raise DTypeError(f"{name} is a masked array: expected {expected} without a mask (.filled(value))")
    dtype = None
    try:
        dtype, device = getattr(array, "dtype", None), getattr(array, "device", None)
        if getattr(device, "type", "cpu") != "cpu":
            raise DTypeError(f"{name} is on the device {device}: expected an array in main memory (.cpu())")
        values = array.detach() if callable(getattr(array, "detach", None)) else array
        if str(dtype) == "torch.bfloat16" and callable(getattr(values, "float", None)):
            values = values.float()
        only_dlpack = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
        found: Array = np.from_dlpack(values) if only_dlpack else np.asarray(values)
    except (DTypeError, MemoryError):
        raise
    except Exception as error:  # whatever the other library raises
        held = "" if dtype is None else f" of {dtype}"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DTypeError(
            f"{name} is {kind_of(array)}{held}, and NumPy cannot see its values ({reason}): "
            f"expected {expected}{_advice(array, dtype)}"
        ) from None
    return found


def _found(given: object, array: Array) -> str:
    """What was given, by its dtype; by its kind where it has none, or NumPy sees but an object in it."""
    if isinstance(given, np.ndarray) or (hasattr(given, "dtype") and array.dtype != object):
        return str(array.dtype)
    return f"{kind_of(given)} of {array.dtype}" if array.ndim and array.dtype != object else kind_of(given)


def _advice(given: object, dtype: object) -> str:
    """What to do with a sparse array, or with one of a narrower format, NumPy's or another library's."""
    if hasattr(given, "toarray"):
        return "; make it dense (.toarray())"
    if str(dtype) == "|V2":
        return "; if these are bfloat16, which NumPy saves so, give .view(ml_dtypes.bfloat16)"
    narrow = re.fullmatch(r"(torch\.)?b?float(4|6|8|16)(_\w+)?", str(dtype))
    return "; convert it to float32, which holds each of its values" if narrow else ""


def with_one_nan(array: Array) -> Array:
    """Return the array; where it holds NaN, a copy in which every NaN is `np.nan`, positive and quiet.

    IEEE 754 leaves the sign and the payload of a NaN to the machine (6.2.3 and 6.3), and x86-64 and AArch64
    make other ones; where a NaN is, is what an operator defines.
    """
    if array.dtype.kind != "f" or not any(
        np.isnan(np.min(array[box], initial=0)) for box in boxes(array.shape)
    ):
        return array
    nan = array.dtype.type(np.nan)
    return fill(np.empty_like(array), lambda part: np.where(np.isnan(part), nan, part), array)


def per_channel(v: Array) -> Array:
    """View (C,) so that it meets (N, C, T, H, W)."""
    return v[:, None, None, None]


def channel_sums(x: Array) -> Array:
    """Sum of x (N, C, ...) over all axes but the second, (C,), in float64.

    NumPy adds up contiguous values pairwise, in blocks of 64 to 128 values with eight chains each: the error
    is at most (19 + log2(n / 64)) 2**-53 times the sum of the magnitudes, for n values a channel.
    """
    by_channel = np.ascontiguousarray(wide(x).swapaxes(0, 1)).reshape(x.shape[1], -1)
    total: Array = by_channel.sum(axis=1)
    return total


# The roundings of a norm itself, of fewer than 2**32 squares, and what underflows in them.
NORM_SLACK = 1 + 2.0**-20
NORM_UNDERFLOW = 2.0**-500


def norms(x: Array, sums: Callable[[Array], Array]) -> Array:
    """Square roots of sums of squares, rounded up.

    Parameters
    ----------
    x : ndarray of float64
    sums : callable
        Adds up squares: linear, and no coefficient is negative.

    Returns
    -------
    ndarray of float64
        At least the norms of what `sums` adds up; at most 1 + 2**-19 times that, and 2**-499 of the largest
        value: large and small values have a norm too.
    """
    largest = float(max(x.max(initial=0), -x.min(initial=0)))
    if not 0 < largest < np.inf:
        return sums(np.abs(x))
    scale = 2.0 ** min(-int(np.frexp(largest)[1]), 1023)
    squares = x * scale
    np.multiply(squares, squares, out=squares)
    found: Array = (np.sqrt(sums(squares)) * NORM_SLACK + NORM_UNDERFLOW) / scale
    return found


class Sums:
    """Sums of a blob's shape (N, C, T, H, W) in float64, of which a box at a time gets one more term.

    What each addition rounds off (TwoSum: Knuth, TAOCP 2, 4.2.2, theorem B) is added up beside: for n terms
    the error is at most n**2 2**-106 times the sum of the magnitudes, and 2**-53 of the sum.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self._sums, self._lost = np.zeros(shape), np.zeros(shape)

    def add(self, box: tuple[slice, ...], term: Array) -> None:
        """Add a term to the sums of a box of T, H and W."""
        place: Any = (..., *box)
        before = self._sums[place]
        after = before + term
        with errstate(invalid="ignore"):
            back = after - before
            self._lost[place] += (before - (after - back)) + (term - back)
        self._sums[place] = after

    def total(self) -> Array:
        """The sums; of one that is infinite nothing is lost."""
        found: Array = self._sums + np.where(np.isfinite(self._sums), self._lost, 0)
        return found


def wide(value: Array) -> Array:
    """Convert to float64."""
    return converted(value, np.float64)


def rounded(value: Array, dtype: DTypeLike) -> Array:
    """Round what was computed in float64 to a dtype; what is too large for it becomes infinite."""
    with errstate(over="ignore"):
        return converted(value, dtype)


def with_room(compute: Callable[[Array], Array], x: Array) -> Array:
    """compute(x), which is linear; again with room for its sums where that is not finite."""
    with errstate(over="ignore", invalid="ignore"):
        y = compute(x)
        return y if all_finite(y) else again_with_room(compute, x, y)


def again_with_room(compute: Callable[[Array], Array], x: Array, y: Array) -> Array:
    """Return y = compute(x), but compute again, in float64 or in units of 2**64, what is not finite."""
    with errstate(over="ignore", invalid="ignore"):
        if x.dtype == np.float32:
            again = converted(compute(wide(x)), np.float32)
        else:
            small = compute(fill(np.empty_like(x), lambda part: np.ldexp(part, -64), x))
            again = fill(small, lambda part: np.ldexp(part, 64), small)
    for box in boxes(y.shape):
        again[box] = np.where(np.isfinite(y[box]), y[box], again[box])
    return again


def ulp_distance(a: Array, b: Array) -> Array:
    """How many floating-point numbers lie between a and b, plus one where they differ.

    Parameters
    ----------
    a, b : ndarray
        float32 or float64, of one dtype and shape. -0.0 and +0.0 are 0 apart, and so are a NaN and the same
        NaN; the distance from any other number to a NaN says nothing.

    Returns
    -------
    ndarray of uint64

    Raises
    ------
    DTypeError, ShapeError
        If they are no such arrays.
    """
    a, b = at_the_door("a", a), at_the_door("b", b)
    if a.dtype != b.dtype:
        raise DTypeError(f"b is {b.dtype}: expected {a.dtype}, as a")
    if a.shape != b.shape:
        raise ShapeError(f"b has shape {text(b.shape)}: expected {text(a.shape)}, that of a")
    unsigned, top = (np.uint32, 1 << 31) if a.dtype == np.float32 else (np.uint64, 1 << 63)
    sign = np.uint64(top)

    def on_a_line(x: Array) -> Array:
        # Bits in the order of the numbers: counted up from the sign above zero, down from it below.
        bits = x.view(unsigned).astype(np.uint64)
        return np.where(bits & sign, sign - (bits ^ sign), sign + bits)

    p, q = on_a_line(a), on_a_line(b)
    return np.where(p > q, p - q, q - p)
