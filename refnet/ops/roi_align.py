"""RoIAlign of tubes: in each frame, a grid of averages of bilinear samples inside that frame's box.

A row of rois is a tube: the sample n that it lies in, then x1, y1, x2, y2 for each frame, in pixels of the
image. He et al., *Mask R-CNN*, arXiv:1703.06870, frame by frame as in *Detect-and-Track*, arXiv:1712.09184;
Caffe2's `RoIAlign`, torchvision's `roi_align`, ONNX's `RoiAlign` (opset 16, mode avg) with
coordinate_transformation_mode output_half_pixel, or half_pixel where `aligned`. Along H (and W alike) sample
i of bin p lies at::

    start, end = y1 * spatial_scale - offset, y2 * spatial_scale - offset
    bin        = (end - start) / oH
    samples    = sampling_ratio, or if that is 0 ceil(bin), none below 0
    position   = start + p * bin + (i + 1/2) * bin / samples

where offset is 1/2 if aligned, else 0, and end - start at least 1 unless aligned. A position outside [-1, H]
reads nothing but is counted; any other is moved into [0, H - 1] and reads the cell below it with weight 1 - f
and the one above with weight f, f being its fractional part. A weight of a sample of the plane is a product
of two, so that y is the mean along H and then along W::

    y[r, c, t, p, q] = sum over cells h of row p, w of column q of
                       a[p, h] * b[q, w] * x[n, c, t, h, w]

with a and b the weights over the number of samples. Positions and weights are computed in float64 in this
order, from rois that are taken as exact: both dtypes sample the same places. Then the weights are rounded
to the dtype of x. Sums are made in float64, and rounded once. A weight of zero reads nothing, not even a NaN.

Boxes turned inside out (x2 < x1) are what the originals make of them: a box of width 1 from x1 on, or where
aligned a mirrored one. Where aligned and adaptive, a box without width or height has no samples, and its
mean is 0, as in torchvision and ONNX.
"""

from collections.abc import Iterator
from math import isfinite
from sys import float_info
from typing import Any, Required, TypedDict, Unpack

import numpy as np

from refnet import draws
from refnet.arrays import Array, rounded, wide
from refnet.errors import ShapeError, ValueRangeError, brief
from refnet.op import (
    ANYTHING,
    SAME,
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    Reaches,
    benchmark,
    constant,
    drawn_case,
    magnitudes,
    terms,
)
from refnet.shapes import LARGEST, Shape, plain, size, volume, whole

# Of a bin, along an axis: more cells than a bin of any feature map has.
MOST_SAMPLES = 1024
CORNERS = ("x1", "y1", "x2", "y2")
Taps = tuple[Array, Array]


class Attributes(TypedDict, total=False):
    """What `infer` takes by name, for type checkers."""

    output: Required[tuple[int, int]]
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


def infer(
    x: Shape,
    rois: Shape,
    *,
    output: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = False,
) -> Shape:
    """Shape of y (R, C, T, oH, oW) for x (N, C, T, H, W) and rois (R, 1 + 4 T); output is (oH, oW).

    Raises
    ------
    ShapeError
        If ranks do not match, rois have not four corners for each frame, or a size is no whole number.
    ValueRangeError
        If an option is not what it can be.
    """
    _, c, t, _, _ = volume("x", x)
    r, d = volume("rois", rois, "RD")
    if d != 1 + 4 * t:
        raise ShapeError(
            f"rois size D is {d}: expected {1 + 4 * t}, a batch index and x1, y1, x2, y2 "
            f"for each of the {t} frames of x"
        )
    sizes = plain(output)
    if not isinstance(sizes, tuple) or len(sizes) != 2:
        raise ShapeError(f"output is {brief(output)}: expected two whole numbers (H, W), as (7, 7)")
    bins = [whole(f"output[{axis}]", n, 1) for axis, n in zip("HW", sizes, strict=True)]
    if whole("sampling_ratio", sampling_ratio, 0) > MOST_SAMPLES:
        raise ValueRangeError(f"sampling_ratio is {sampling_ratio}: expected at most {MOST_SAMPLES}")
    number = isinstance(spatial_scale, int | float) and not isinstance(spatial_scale, bool)
    if not number or not isfinite(spatial_scale) or spatial_scale <= 0:
        raise ValueRangeError(f"spatial_scale is {brief(spatial_scale)}: expected a finite number above 0")
    if not isinstance(aligned, bool):
        raise ValueRangeError(f"aligned is {brief(aligned)}: expected True or False")
    return (r, c, t, *bins)


def forward(x: Array, rois: Array, **attrs: Unpack[Attributes]) -> tuple[Array, Any]:
    """Average each box along H, then along W."""
    y = np.empty(infer(x.shape, rois.shape, **attrs), x.dtype)
    for r, n, t, rows, columns in _boxes(x.shape, x.dtype, rois, **attrs):
        y[r, :, t] = rounded(_average(_average(wide(x[n, :, t]).mT, *rows).mT, *columns), x.dtype)
    return y, (x.shape, rois, attrs)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Each dy goes to the cells that its bin read, with their weights; rois are given."""
    shape, rois, attrs = context
    if not needs[0]:
        return None, None
    dx = np.zeros(shape)
    for r, n, t, rows, columns in _boxes(shape, dy.dtype, rois, **attrs):
        dx[n, :, t] += _spread(_spread(wide(dy[r, :, t]), shape[4], *columns).mT, shape[3], *rows).mT
    return rounded(dx, dy.dtype), None


def magnitude(x: Array, rois: Array, **attrs: Any) -> Magnitude:
    """Mean of the samples of |x|; as many terms as they read cells, and 5 roundings of weights.

    That holds for samples averaged one by one too. An implementation that computes positions in float32
    samples other places, and where a bin is nearly whole another number of them: not bounded here.
    """
    sum_abs, _ = forward(np.abs(x), rois, **attrs)
    terms = np.zeros((len(rois), 1, *sum_abs.shape[2:]), np.int64)
    for r, _, t, (_, a), (_, b) in _boxes(x.shape, x.dtype, rois, **attrs):
        terms[r, 0, t] = np.outer(np.count_nonzero(a, axis=1), np.count_nonzero(b, axis=1)) + 5
    return Magnitude(sum_abs, terms)


def gradient_magnitude(dy: Array, x: Array, rois: Array, *, needs: Needs, **attrs: Any) -> GradientMagnitudes:
    """Sum of |dy| times weights; as many terms as samples read the cell, and 5 roundings of weights.

    Positions are those computed in float64, as for `magnitude`.
    """
    if not needs[0]:
        return None, None
    dx, _ = backward(np.abs(dy), (x.shape, rois, attrs), needs)
    reads = np.zeros((len(x), 1, *x.shape[2:]), np.int64)
    for _, n, t, rows, columns in _boxes(x.shape, dy.dtype, rois, **attrs):
        along_h, along_w = (
            np.bincount(cells[weights != 0], minlength=x.shape[3 + axis])
            for axis, (cells, weights) in enumerate((rows, columns))
        )
        reads[n, 0, t] += np.outer(along_h, along_w)
    return magnitudes((dx, None), reads + 5, terms(0))


def cost(
    x: Shape,
    rois: Shape,
    *,
    itemsize: int,
    output: tuple[int, int],
    sampling_ratio: int = 0,
    **attrs: Any,
) -> Cost:
    """Four multiply-adds a sample; where adaptive, of boxes as large as x, since shapes do not tell."""
    y = infer(x, rois, output=output, sampling_ratio=sampling_ratio, **attrs)
    samples = [sampling_ratio or -(-n // bins) for n, bins in zip(x[3:], output, strict=True)]
    return Cost(4 * size(y) * size(tuple(samples)), (size(x) + size(rois) + size(y)) * itemsize)


def check(x: Array, rois: Array, **attrs: Any) -> None:
    """Refuse tubes that lie in no sample, or whose boxes are no boxes or absurdly large.

    Raises
    ------
    ValueRangeError
        If a batch index is not a whole number below N, a corner is not finite or further away than the
        largest size there is, or an adaptive box would need more than MOST_SAMPLES samples a bin.
    """
    n = rois[:, 0]
    wrong = (n != np.floor(n)) | (n < 0) | (n >= len(x))
    if wrong.any():
        r = int(np.argmax(wrong))
        raise ValueRangeError(
            f"batch index of roi {r} is {n[r]}: expected a whole number from 0 to {len(x) - 1}"
        )
    furthest = min(LARGEST / attrs.get("spatial_scale", 1.0), float_info.max)
    far = ~(np.abs(rois[:, 1:], dtype=np.float64) <= furthest)  # float32 has other bounds
    if far.any():
        r, corner = np.argwhere(far)[0]
        raise ValueRangeError(
            f"roi {r} has {CORNERS[corner % 4]} {rois[r, 1 + corner]} in frame {corner // 4}: "
            f"expected a finite number, at most {furthest:g} from 0"
        )
    samples = grid(rois, **attrs)[2]
    if samples.max() > MOST_SAMPLES:
        r, t, axis = np.argwhere(samples > MOST_SAMPLES)[0]
        raise ValueRangeError(
            f"roi {r} in frame {t} needs {samples[r, t, axis]} samples a bin along {'HW'[axis]}: "
            f"expected at most {MOST_SAMPLES}"
        )


def draw_tubes(uniform: Array, x: Shape, rois: Shape, *, spatial_scale: float = 1.0, **attrs: Any) -> Array:
    """Draw a sample, and for each frame two corners up to a tenth of the image outside it."""
    tubes = np.floor((uniform + 1) / 2 * x[0])
    image = np.array([x[4], x[3]]) / spatial_scale
    corners = (uniform[:, 1:].reshape(len(tubes), -1, 2, 2) * 0.6 + 0.5) * image
    tubes[:, 1:] = np.sort(corners, axis=2).reshape(len(tubes), -1)
    return tubes


def grid(
    rois: Array,
    *,
    output: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = False,
) -> tuple[Array, Array, Array]:
    """Where each box starts, the size of its bins, and how many samples these have: (R, T, 2), along H, W."""
    corners = rois[:, 1:].reshape(len(rois), -1, 2, 2)[..., ::-1].astype(np.float64)
    corners = corners * spatial_scale - (0.5 if aligned else 0.0)
    start, extent = corners[:, :, 0], corners[:, :, 1] - corners[:, :, 0]
    bins = (extent if aligned else np.maximum(extent, 1)) / np.array(output)
    samples = np.full(bins.shape, sampling_ratio) if sampling_ratio else np.maximum(np.ceil(bins), 0)
    return start, bins, samples.astype(np.intp)


def _boxes(
    x: Shape, dtype: Any, rois: Array, *, output: tuple[int, int], **attrs: Any
) -> Iterator[tuple[int, int, int, Taps, Taps]]:
    """Every box: its tube, sample and frame, and the taps of its rows and of its columns."""
    start, bins, samples = grid(rois, output=output, **attrs)
    for r, t in np.ndindex(start.shape[:2]):
        rows, columns = (
            _taps(start[r, t, axis], bins[r, t, axis], samples[r, t, axis], output[axis], x[3 + axis], dtype)
            for axis in (0, 1)
        )
        yield r, int(rois[r, 0]), t, rows, columns


def _taps(start: float, width: float, samples: int, bins: int, cells: int, dtype: Any) -> Taps:
    """The cells that each of a line of bins reads, and their weights: (bins, 2 samples)."""
    p, i = np.ogrid[:bins, :samples]
    position = start + p * width + (i + 0.5) * width / samples
    inside = (position >= -1) & (position <= cells)
    position = position.clip(0, cells - 1)
    below = position.astype(np.intp)
    f = position - below
    weights = np.hstack([1 - f, f]) * np.hstack([inside, inside]) / samples
    return np.hstack([below, np.minimum(below + 1, cells - 1)]), weights.astype(dtype)


def _average(x: Array, cells: Array, weights: Array) -> Array:
    """Sum the cells of x (..., size) that each bin reads, weighted: (..., bins)."""
    y: Array = np.einsum("...pi,pi->...p", np.where(weights, x[..., cells], 0), weights)
    return y


def _spread(dy: Array, cells_of_x: int, cells: Array, weights: Array) -> Array:
    """Add each dy (..., bins) to the cells that its bin reads, weighted: (..., size)."""
    dx = np.zeros((*dy.shape[:-1], cells_of_x), dy.dtype)
    everywhere: Any = (..., cells)
    np.add.at(dx, everywhere, np.where(weights, dy[..., None], 0) * weights)
    return dx


def reach(x: Shape, rois: Shape, **attrs: Any) -> Reaches:
    """Frame by frame; along H and W anything, for the boxes decide."""
    return SAME, None, None


def propose(rng: draws.Rng) -> Case:
    """One to four tubes, sampled in each way."""
    n, c, t, h, w = draws.blob(rng)
    return drawn_case(
        (n, c, t, h, w),
        (draws.pick(rng, range(1, 5)), 1 + 4 * t),
        output=(draws.pick(rng, range(1, 5)), draws.pick(rng, range(1, 5))),
        spatial_scale=draws.pick(rng, (1, 4, 16)) / 16,
        sampling_ratio=draws.pick(rng, range(4)),
        aligned=draws.chance(rng),
    )


OP = Op(
    name="roi_align",
    family="pooling",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case(
            "two samples",
            ((2, 3, 2, 7, 6), (4, 9)),
            {"output": (3, 2), "spatial_scale": 0.25, "sampling_ratio": 2},
        ),
        Case("adaptive", ((2, 2, 3, 9, 8), (5, 13)), {"output": (2, 3), "spatial_scale": 0.0625}),
        Case(
            "aligned",
            ((3, 2, 1, 6, 7), (5, 5)),
            {"output": (2, 2), "sampling_ratio": 3, "aligned": True},
        ),
        Case(
            "aligned, adaptive",
            ((1, 2, 2, 8, 9), (4, 9)),
            {"output": (3, 3), "spatial_scale": 0.125, "aligned": True},
        ),
        Case("one bin, one sample", ((2, 1, 1, 1, 1), (3, 5)), {"output": (1, 1), "sampling_ratio": 1}),
    ),
    benchmarks=(
        benchmark(
            "RoIAlign of 20 tubes,",
            (1, 256, 8, 14, 14),
            (20, 33),
            output=(14, 14),
            spatial_scale=1 / 16,
            sampling_ratio=2,
        ),
    ),
    domains=(ANYTHING, constant(draw_tubes)),
    check=check,
    divides=True,
    reach=reach,
    keeps=(1,),
)
