"""Frames resized in float32, with the bits of OpenCV's own code.

The original resizes by `cv2.resize` with INTER_LINEAR, each frame as float32, after the mean is taken off
(Detect-and-Track, `lib/utils/blob.py`). What is computed here has the bits of OpenCV 3.4.18, 4.5.5, 4.12 and
5.0 on x86-64, with its vector instructions and without. Two kinds of builds have other bits, which OpenCV
does not define: those that hand the work to Intel's IPP (off by up to 0.017 on pixels up to 255; after
`cv2.ipp.setUseIPP(False)` they do not), and those whose compiler fuses a product and a sum, as on AArch64.

Positions are computed in float64 and rounded to float32 before their whole part is taken away; every product
and every sum after that is one float32 operation, in the order that is written here.
"""

from collections.abc import Callable
from math import ceil, floor

import numpy as np

from refnet.arrays import Array
from refnet.errors import ShapeError
from refnet.shapes import Shape, text

EPSILON = float(np.finfo(np.float64).eps)
# A share of a pixel that is smaller is left out of an area.
LEAST_SHARE = 1e-3


def linear(frame: Array, size: Shape) -> Array:
    """Resize with two taps along each axis, however much the frame shrinks: ``INTER_LINEAR``.

    Output o of m lies among the n inputs at p = (o + 1/2) n / m - 1/2, between k = floor(p) and the next:
    y = (1 - f) x[k] + f x[k + 1] with f = p - k, where x goes on beyond its edges with its last value. First
    along W, then along H. A frame that is halved along both axes is averaged instead, its boxes of 2 x 2
    pixels: the same up to rounding.

    Parameters
    ----------
    frame : (H, W, C) ndarray of float32
    size : (H', W')

    Returns
    -------
    (H', W', C) ndarray of float32
    """
    if frame.shape[:2] == tuple(2 * n for n in size):
        return _average(frame, 2, 2)
    row, next_row, row_share = _taps(frame.shape[0], size[0])
    column, next_column, column_share = _taps(frame.shape[1], size[1])
    # Along W a tap beyond the frame weighs nothing; along H the edge is read twice.
    column_share[(column < 0) | (column >= frame.shape[1] - 1)] = 0
    column, next_column = _inside(column, frame.shape[1]), _inside(next_column, frame.shape[1])

    def along_w(rows: Array) -> Array:
        lines = frame[_inside(rows, frame.shape[0])]
        return _between(lines[:, column], lines[:, next_column], column_share[:, None])

    return _between(along_w(row), along_w(next_row), row_share[:, None, None])


def area(frame: Array, size: Shape) -> Array:
    """Average the area that each output covers, so that nothing is skipped: ``INTER_AREA``; it only shrinks.

    Output o covers the inputs from o n / m to (o + 1) n / m, the first and the last in part. First along W,
    then along H.

    Parameters
    ----------
    frame : (H, W, C) ndarray of float32
    size : (H', W')

    Returns
    -------
    (H', W', C) ndarray of float32

    Raises
    ------
    ShapeError
        If an axis would grow.
    """
    if any(n < m for n, m in zip(frame.shape, size, strict=False)):
        raise ShapeError(
            f"frames of {text(frame.shape[:2])} cannot grow to {text(size)} by area: "
            "expected a smaller size, or linear"
        )
    if frame.shape[:2] == tuple(size):
        return frame
    ratios = [_ratio(n, m) for n, m in zip(frame.shape, size, strict=False)]
    if all(abs(ratio - round(ratio)) < EPSILON for ratio in ratios):
        return _average(frame, round(ratios[0]), round(ratios[1]))
    return _weighted(_weighted(frame, 1, size[1]), 0, size[0])


RESIZES: dict[str, Callable[[Array, Shape], Array]] = {"linear": linear, "area": area}


def _ratio(n: int, m: int) -> float:
    """How many inputs there are for an output: the reciprocal of a rounded quotient, as OpenCV takes it."""
    return 1 / (m / n)


def _taps(n: int, m: int) -> tuple[Array, Array, Array]:
    """For each of m outputs the two inputs of n that it lies between, and the share of the second."""
    at = ((np.arange(m) + 0.5) * _ratio(n, m) - 0.5).astype(np.float32)
    first = np.floor(at)
    tap = first.astype(np.int64)
    return tap, tap + 1, at - first


def _between(first: Array, second: Array, share: Array) -> Array:
    between: Array = first * (1 - share) + second * share
    return between


def _inside(tap: Array, n: int) -> Array:
    inside: Array = tap.clip(0, n - 1)
    return inside


def _average(frame: Array, lines: int, columns: int) -> Array:
    """Average boxes of whole pixels, line by line: four are added up, and their sum is added to the total."""
    pixels = [frame[i::lines, j::columns] for i in range(lines) for j in range(columns)]
    total = np.zeros_like(pixels[0])
    whole = len(pixels) // 4 * 4
    for four in range(0, whole, 4):
        a, b, c, d = pixels[four : four + 4]
        total += a + b + c + d
    for pixel in pixels[whole:]:
        total += pixel
    mean: Array = total * (np.float32(1) / np.float32(len(pixels)))
    return mean


def _weighted(frame: Array, axis: int, m: int) -> Array:
    """Add up what each output covers along an axis, one covered pixel after the other."""
    covered = _covered(frame.shape[axis], m)
    total = np.zeros((m, *frame.shape[:axis], *frame.shape[axis + 1 :]), np.float32)
    lines = np.moveaxis(frame, axis, 0)
    for term in range(max(map(len, covered))):
        outputs = [output for output, terms in enumerate(covered) if term < len(terms)]
        taps, weights = zip(*(covered[output][term] for output in outputs), strict=True)
        total[outputs] += lines[list(taps)] * np.array(weights, np.float32)[:, None, None]
    return np.moveaxis(total, 0, axis)


def _covered(n: int, m: int) -> list[list[tuple[int, float]]]:
    """For each of m outputs the inputs of n that it covers, in order, and their shares of it."""
    ratio = _ratio(n, m)
    covered = []
    for output in range(m):
        start = output * ratio
        end = start + ratio
        length = min(ratio, n - start)
        last = min(floor(end), n - 1)
        first = min(ceil(start), last)
        terms = [(tap, 1 / length) for tap in range(first, last)]
        if first - start > LEAST_SHARE:
            terms.insert(0, (first - 1, (first - start) / length))
        if end - last > LEAST_SHARE:
            terms.append((last, min(end - last, 1.0, length) / length))
        covered.append(terms)
    return covered
