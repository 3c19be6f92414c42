"""Integer facts of 3D windows: sizes, and which output meets which input. No arrays here.

Axes are N C T H W; `kernel`, `stride`, `pad`, `dilation` are (T, H, W) triples, dilation 1-based.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from numbers import Integral
from typing import NamedTuple, Required, TypedDict

from refnet.errors import ShapeError, brief, kind_of

Shape = tuple[int, ...]
Triple = tuple[int, int, int]
Box = tuple[slice, slice, slice]

AXES = "NCTHW"
ONES: Triple = (1, 1, 1)
ZEROS: Triple = (0, 0, 0)
# Windows, strides and counts. Sizes of an axis may be larger: no processor can address more elements.
LARGEST = 2**31 - 1
LARGEST_SIZE = 2**47


class Geometry(NamedTuple):
    """A sliding window: along each axis, tap j of output o reads input o stride + j dilation - pad."""

    kernel: Triple
    stride: Triple = ONES
    pad: Triple = ZEROS
    dilation: Triple = ONES


def size(shape: Shape) -> int:
    """Count the elements of an array of this shape."""
    return prod(shape)


def text(shape: Sequence[int]) -> str:
    """Write a shape as people do: ``1x3x8x224x224``."""
    return "x".join(map(str, shape)) or "scalar"


def plain(value: object) -> object:
    """A sequence (a list, a range, an array of one axis) as a tuple; anything else as it is."""
    if isinstance(value, tuple | str | bytes):
        return value
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(value) if isinstance(value, Sequence) else value


def whole(name: str, value: object, least: int, most: int = LARGEST) -> int:
    """Check a whole number, at least `least` and at most `most`.

    Raises
    ------
    ShapeError
        If `value` is not an integer, smaller or larger.
    """
    # The first test is the quick one; the others let NumPy's integers in, and keep True out.
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise ShapeError(f"{name} is {brief(value)}: expected a whole number, at least {least}")
    number = int(value)
    if number < least:
        raise ShapeError(f"{name} is {brief(value)}: expected a whole number, at least {least}")
    if number > most:
        raise ShapeError(f"{name} is larger than {most}, the largest there is")
    return number


def odd(name: str, value: object) -> int:
    """Check an odd whole number: a kernel along T that has a middle, and with padding keeps T.

    Raises
    ------
    ShapeError
        If `value` is not an integer, smaller than 1, or even.
    """
    number = whole(name, value, 1)
    if number % 2 == 0:
        raise ShapeError(f"{name} is {number}: expected an odd number, which has a middle and keeps T")
    return number


def triple(name: str, value: object, least: int) -> Triple:
    """Check a (T, H, W) triple of whole numbers, each at least `least`.

    Raises
    ------
    ShapeError
        If `value` has not three entries, or one is not an integer or too small.
    """
    entries = plain(value)
    if not isinstance(entries, tuple) or len(entries) != 3:
        example = _meant(entries if isinstance(entries, tuple) else (entries,), least)
        raise ShapeError(f"{name} is {brief(value)}: expected three whole numbers (T, H, W), as {example}")
    t, h, w = (whole(f"{name}[{axis}]", entry, least) for axis, entry in zip("THW", entries, strict=True))
    return t, h, w


def _meant(entries: tuple[object, ...], least: int) -> Triple:
    """The triple that somebody may have meant by one number, or by two of H and W."""
    numbers = [max(least, n) for n in entries if type(n) is int]
    if len(numbers) == len(entries) == 2:
        return least, numbers[0], numbers[1]
    n = numbers[0] if len(numbers) == len(entries) == 1 else 1
    return n, n, n


def volume(name: str, shape: object, axes: str = AXES) -> Shape:
    """Check the shape of an array: its rank, and every size at least 1.

    Parameters
    ----------
    name : str
    shape : sequence of int
    axes : str
        A letter for each axis.

    Raises
    ------
    ShapeError
        If the rank is another, or a size is zero or negative.
    """
    sizes = plain(shape)
    if not isinstance(sizes, tuple):
        raise not_a_shape(name, shape, f"{len(axes)} whole numbers")
    if len(sizes) != len(axes):
        raise ShapeError(
            f"{name} has rank {len(sizes)} (shape {text(sizes)}): "
            f"expected rank {len(axes)} ({' x '.join(axes)})"
        )
    return tuple(
        whole(f"{name} size {axis}", n, 1, LARGEST_SIZE) for axis, n in zip(axes, sizes, strict=True)
    )


def not_a_shape(name: str, given: object, expected: str = "whole numbers") -> ShapeError:
    """What is wrong with what is no tuple of sizes: perhaps an array, whose own shape was meant."""
    own = plain(getattr(given, "shape", None))
    if isinstance(own, tuple):
        return ShapeError(f"{name} is {kind_of(given)}: expected a shape, as its own, {brief(own)}")
    return ShapeError(f"{name} has shape {brief(given)}: expected {expected}, in a tuple")


def window_output(source: Sequence[int], window: Geometry) -> Triple:
    """Output volume of a sliding window: floor((in + 2 pad - dilation (k - 1) - 1) / stride) + 1.

    Raises
    ------
    ShapeError
        If the window is larger than the padded input on an axis.
    """
    sizes = []
    for axis, n, k, s, p, d in zip("THW", source, *window, strict=True):
        extent = d * (k - 1) + 1
        if n + 2 * p < extent:
            raise ShapeError(
                f"input size {axis} is {n}, {n + 2 * p} with padding: "
                f"the kernel needs at least {extent} (kernel {k}, dilation {d})"
            )
        sizes.append((n + 2 * p - extent) // s + 1)
    t, h, w = sizes
    return t, h, w


def taps(x: Shape, y: Shape, window: Geometry) -> Iterator[tuple[Triple, Box, Box]]:
    """Every tap of a window over x (N, C, T, H, W), with the outputs that it reaches and the inputs it reads.

    Outputs for which it reads padding are left out.

    Yields
    ------
    tap : (kt, kh, kw), in C order
    outputs, inputs : three slices each, of equal lengths
    """
    along: list[list[tuple[int, slice, slice]]] = []
    for n, m, k, s, p, d in zip(x[2:], y[2:], *window, strict=True):
        axis = []
        for tap in range(k):
            offset = tap * d - p
            first = max(0, -(offset // s))
            last = max(first, min(m, (n - 1 - offset) // s + 1))
            start = first * s + offset
            inputs = slice(start, start + (last - first - 1) * s + 1, s)
            axis.append((tap, slice(first, last), inputs if first < last else slice(0, 0)))
        along.append(axis)
    for (kt, ot, it), (kh, oh, ih), (kw, ow, iw) in product(*along):
        yield (kt, kh, kw), (ot, oh, ow), (it, ih, iw)


def pooling(x: Shape, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS) -> Geometry:
    """The window of a pool."""
    return Geometry(kernel, stride, pad)


class PoolAttributes(TypedDict, total=False):
    """What `pooled` takes by name, for type checkers."""

    kernel: Required[Triple]
    stride: Triple
    pad: Triple


def pooled(x: Shape, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS) -> Shape:
    """Output shape (N, C, oT, oH, oW) of a pooling window over x (N, C, T, H, W).

    Raises
    ------
    ShapeError
        If x has another rank, the window does not fit, or could lie in padding entirely.
    """
    n, c, *source = volume("x", x)
    kernel, stride, pad = triple("kernel", kernel, 1), triple("stride", stride, 1), triple("pad", pad, 0)
    for axis, k, p in zip("THW", kernel, pad, strict=True):
        if p >= k:
            raise ShapeError(
                f"pad[{axis}] is {p}: expected less than the kernel's {k}, "
                "or a window would hold nothing but padding"
            )
    return (n, c, *window_output(source, Geometry(kernel, stride, pad)))
