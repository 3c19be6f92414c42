"""3D convolution (cross-correlation), with stride, padding, dilation, groups and optional bias.

For sample n, output channel k of group g, output position o = (t, h, w)::

    y[n, k, o] = b[k] + sum over c in group g, tap j of
                 w[k, c, j] * x[n, c, o * stride + j * dilation - pad]

where x is zero in the padding. This is Caffe2's and PyTorch's convolution, and ONNX's `Conv`
(opset 11, ONNX operator specification).

`reference` computes a product of matrices for each tap, by NumPy, whose bits belong to one machine. The order
of `core`'s sums is defined (docs/design.md); `exact` rounds each of them once.
"""

from typing import Any, TypedDict, Unpack

import numpy as np

from refnet import draws
from refnet.arrays import Array, channel_sums, per_channel, rounded
from refnet.arrays import norms as euclidean
from refnet.errors import ShapeError
from refnet.op import (
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    drawn_case,
    magnitudes,
    terms,
)
from refnet.shapes import (
    ONES,
    ZEROS,
    Box,
    Geometry,
    Shape,
    Triple,
    size,
    taps,
    text,
    triple,
    volume,
    whole,
    window_output,
)


class Attributes(TypedDict, total=False):
    """What `infer` takes by name, for type checkers."""

    stride: Triple
    pad: Triple
    dilation: Triple
    groups: int


def infer(
    x: Shape,
    w: Shape,
    b: Shape | None = None,
    *,
    stride: Triple = ONES,
    pad: Triple = ZEROS,
    dilation: Triple = ONES,
    groups: int = 1,
) -> Shape:
    """Shape of y (N, C_out, oT, oH, oW) for x (N, C, T, H, W), w (C_out, C/groups, kT, kH, kW), b (C_out,).

    Raises
    ------
    ShapeError
        If ranks, channels, groups or the bias do not match, or no output position would be left.
    """
    n, c, *source = volume("x", x)
    k, depth, *kernel = volume("w", w)
    geometry = Geometry(
        triple("kernel", kernel, 1),
        triple("stride", stride, 1),
        triple("pad", pad, 0),
        triple("dilation", dilation, 1),
    )
    groups = whole("groups", groups, 1)
    if c % groups or k % groups:
        raise ShapeError(f"groups is {groups}: expected a divisor of {c} input and {k} output channels")
    if depth != c // groups:
        raise ShapeError(
            f"w size C is {depth} (shape {text(w)}): expected {c // groups}, "
            f"the {c} channels of x over {groups} group{'s' if groups > 1 else ''}"
        )
    if b is not None and tuple(b) != (k,):
        raise ShapeError(f"b has shape {text(b)}: expected {k}, one entry for each output channel")
    return (n, k, *window_output(source, geometry))


def forward(x: Array, w: Array, b: Array | None = None, **attrs: Unpack[Attributes]) -> tuple[Array, Any]:
    """Add up, tap by tap, what the tap's weights make of the inputs that it reads."""
    y = np.zeros(infer(x.shape, w.shape, **attrs), x.dtype)
    groups = attrs.get("groups", 1)
    for tap, outputs, inputs in taps(x.shape, y.shape, window(x.shape, w.shape, **attrs)):
        here = _grouped(y, groups)[..., *outputs]
        here += np.matmul(_of_tap(w, groups, tap), _columns(x, groups, inputs)).reshape(here.shape)
    if b is not None:
        y += b[:, None, None, None]
    return y, context(x, w, b, **attrs)


def context(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> tuple[Any, ...]:
    """The operands, whether there is a bias, and the attributes."""
    return x, w, b is not None, attrs


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Walk the same taps: dx gathers dy through w, dw pairs dy with x; db sums dy."""
    x, w, has_bias, attrs = context
    groups = attrs.get("groups", 1)
    dx = np.zeros_like(x) if needs[0] else None
    dw = np.zeros_like(w) if needs[1] else None
    for tap, outputs, inputs in taps(x.shape, dy.shape, window(x.shape, w.shape, **attrs)):
        grads = _columns(dy, groups, outputs)
        if dx is not None:
            here = _grouped(dx, groups)[..., *inputs]
            here += np.matmul(_of_tap(w, groups, tap).mT, grads).reshape(here.shape)
        if dw is not None:
            pairs = np.matmul(grads, _columns(x, groups, inputs).mT)
            _grouped_weights(dw, groups)[..., *tap] = pairs.sum(axis=0)
    if not has_bias:
        return dx, dw
    return dx, dw, rounded(channel_sums(dy), dy.dtype) if needs[2] else None


def magnitude(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> Magnitude:
    """Sum over the patch of |w x|, plus |b|; as many terms as the patch has taps inside x."""
    sum_abs, _ = forward(np.abs(x), np.abs(w), None if b is None else np.abs(b), **attrs)
    terms = np.zeros(sum_abs.shape[2:], np.int64)
    for _, outputs, _ in taps(x.shape, sum_abs.shape, window(x.shape, w.shape, **attrs)):
        terms[outputs] += w.shape[1]
    return Magnitude(sum_abs, terms + (b is not None))


def gradient_magnitude(
    dy: Array, x: Array, w: Array, b: Array | None = None, *, needs: Needs, **attrs: Any
) -> GradientMagnitudes:
    """Sums of |dy w|, |dy x|, |dy|.

    As many terms as there are weights by which a value reaches an output; as many as there are outputs for
    which a tap reads no padding; as many as there are outputs of a channel.
    """
    to_x, to_w = np.zeros(x.shape[2:], np.int64), np.zeros(w.shape[2:], np.int64)
    per_tap = len(w) // attrs.get("groups", 1)
    for tap, outputs, inputs in taps(x.shape, dy.shape, window(x.shape, w.shape, **attrs)):
        to_x[inputs] += per_tap
        to_w[tap] = dy[:, 0, *outputs].size
    counts = (to_x, to_w) if b is None else (to_x, to_w, terms(dy[:, 0].size))
    return magnitudes(backward(np.abs(dy), (np.abs(x), np.abs(w), b is not None, attrs), needs), *counts)


def norms(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> Magnitude:
    """|patch| |filter| + |b|; as many terms as the patch has taps."""
    groups = attrs.get("groups", 1)

    def patches(squares: Array) -> Array:
        return forward(_group_sums(squares, groups), np.ones((groups, 1, *w.shape[2:])), **attrs)[0]

    filters = euclidean(w, lambda squares: squares.sum(axis=(1, 2, 3, 4)))
    sum_abs = euclidean(x, patches).repeat(len(w) // groups, axis=1) * per_channel(filters)
    if b is not None:
        sum_abs += per_channel(np.abs(b))
    return Magnitude(sum_abs, terms(size(w.shape[1:]) + (b is not None)))


def gradient_norms(
    dy: Array, x: Array, w: Array, b: Array | None = None, *, needs: Needs, **attrs: Any
) -> GradientMagnitudes:
    """Of dx, |dy that x reaches| |its weights|; of dw, |dy of a filter| |x of a channel|; of db, sum |dy|."""
    groups, axes = attrs.get("groups", 1), (0, 2, 3, 4)
    dx = dw = db = None

    def reached(squares: Array) -> Array:
        context = np.empty((len(x), groups, *x.shape[2:])), np.ones((groups, 1, *w.shape[2:])), False, attrs
        found, _ = backward(_group_sums(squares, groups), context, (True, False))
        assert found is not None
        return found

    if needs[0]:
        weights = euclidean(
            _grouped_weights(w, groups), lambda squares: squares.sum(axis=(1, 3, 4, 5)).reshape(-1)
        )
        sum_abs = euclidean(dy, reached).repeat(w.shape[1], axis=1) * per_channel(weights)
        dx = Magnitude(sum_abs, terms(len(w) // groups * size(w.shape[2:])))
    if needs[1]:
        filters = euclidean(dy, lambda squares: squares.sum(axis=axes)).reshape(groups, -1, 1)
        channels = euclidean(x, lambda squares: squares.sum(axis=axes)).reshape(groups, 1, -1)
        sum_abs = (filters * channels).reshape(*w.shape[:2], 1, 1, 1)
        dw = Magnitude(sum_abs, terms(size(dy.shape) // dy.shape[1]))
    if b is None:
        return dx, dw
    if needs[2]:
        db = Magnitude(channel_sums(np.abs(dy)), terms(size(dy.shape) // dy.shape[1]))
    return dx, dw, db


def cost(x: Shape, w: Shape, b: Shape | None = None, *, itemsize: int, **attrs: Any) -> Cost:
    """Every output element is a sum over a whole patch, padding included."""
    y = infer(x, w, b, **attrs)
    read = size(x) + size(w) + (0 if b is None else size(b))
    return Cost(size(y) * size(w[1:]), (read + size(y)) * itemsize)


def window(x: Shape, w: Shape, b: Shape | None = None, *, groups: int = 1, **attrs: Triple) -> Geometry:
    """The window of w."""
    return Geometry((w[2], w[3], w[4]), **attrs)


def _grouped(blob: Array, groups: int) -> Array:
    """View (N, C, T, H, W) as (N, groups, C/groups, T, H, W)."""
    n, c, *rest = blob.shape
    return blob.reshape(n, groups, c // groups, *rest)


def _group_sums(blob: Array, groups: int) -> Array:
    """Add up the channels of each group of (N, C, T, H, W): (N, groups, T, H, W)."""
    sums: Array = _grouped(blob, groups).sum(axis=2)
    return sums


def _columns(blob: Array, groups: int, box: Box) -> Array:
    """Copy a box of T, H and W of (N, C, T, H, W) to (N, groups, C/groups, positions)."""
    n, c, *_ = blob.shape
    return np.ascontiguousarray(blob[..., *box]).reshape(n, groups, c // groups, -1)


def _grouped_weights(w: Array, groups: int) -> Array:
    """View (C_out, C/groups, kT, kH, kW) as (groups, C_out/groups, C/groups, kT, kH, kW)."""
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])


def _of_tap(w: Array, groups: int, tap: Triple) -> Array:
    """Copy the weights of a tap to (groups, C_out/groups, C/groups)."""
    return np.ascontiguousarray(_grouped_weights(w, groups)[..., *tap])


def propose(rng: draws.Rng) -> Case:
    """Any window; one group, several, or one for each channel; with a bias or without.

    Every other one has as many filters as channels: a kernel that is transposed still fits.
    """
    kernel, stride, pad, dilation = geometry = draws.window(rng)
    c = draws.pick(rng, draws.CHANNELS)
    k = c if draws.chance(rng) else draws.pick(rng, draws.CHANNELS)
    groups = draws.pick(rng, (1, 1, 2, 3, 5))
    if draws.pick(rng, range(4)) == 0:
        groups, c, k = c, 1, draws.pick(rng, (1, 1, 2))
    x = draws.pick(rng, draws.BATCHES), c * groups, *draws.room(rng, geometry)
    bias = [(k * groups,)] if draws.chance(rng) else []
    attrs = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return drawn_case(x, (k * groups, c, *kernel), *bias, **attrs)


OP = Op(
    name="conv3d",
    family="product",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    norms=norms,
    gradient_norms=gradient_norms,
    cost=cost,
    cases=(
        Case("pointwise", ((2, 4, 3, 5, 4), (6, 4, 1, 1, 1))),
        Case("pointwise padded", ((2, 4, 3, 5, 4), (6, 4, 1, 1, 1)), {"pad": (1, 0, 2)}),
        Case("pointwise strided", ((2, 4, 3, 5, 4), (6, 4, 1, 1, 1)), {"stride": (2, 2, 2)}),
        Case("pointwise grouped", ((2, 4, 3, 5, 4), (6, 2, 1, 1, 1)), {"groups": 2}),
        Case("stem", ((1, 3, 2, 15, 14), (4, 3, 1, 7, 7)), {"stride": (1, 2, 2), "pad": (0, 3, 3)}),
        Case("3x3x3", ((2, 3, 4, 6, 5), (5, 3, 3, 3, 3)), {"pad": (1, 1, 1)}),
        Case("bias", ((2, 3, 4, 6, 5), (5, 3, 3, 3, 3), (5,)), {"pad": (1, 1, 1)}),
        Case(
            "strided, dilated, grouped, bias",
            ((2, 6, 5, 9, 8), (4, 3, 2, 3, 2), (4,)),
            {"stride": (2, 1, 3), "pad": (1, 2, 0), "dilation": (2, 2, 3), "groups": 2},
        ),
        Case("as many filters as channels", ((1, 4, 3, 5, 6), (4, 4, 3, 2, 3)), {"pad": (1, 0, 1)}),
        Case("depthwise", ((1, 4, 3, 5, 5), (4, 1, 3, 3, 3)), {"pad": (1, 1, 1), "groups": 4}),
        Case("taps that see only padding", ((1, 2, 1, 4, 4), (3, 2, 5, 3, 3)), {"pad": (2, 1, 1)}),
    ),
    sums=Case("sums of 432", ((2, 16, 3, 6, 6), (5, 16, 3, 3, 3)), {"pad": (1, 1, 1)}),
    benchmarks=(
        Case(
            "stem 3->64 1x7x7/2 at 8x224x224",
            ((1, 3, 8, 224, 224), (64, 3, 1, 7, 7)),
            {"stride": (1, 2, 2), "pad": (0, 3, 3)},
        ),
        Case("64->64 1x3x3 at 8x56x56", ((1, 64, 8, 56, 56), (64, 64, 1, 3, 3)), {"pad": (0, 1, 1)}),
        Case("128->128 3x3x3 at 8x28x28", ((1, 128, 8, 28, 28), (128, 128, 3, 3, 3)), {"pad": (1, 1, 1)}),
        Case("256->256 3x3x3 at 8x14x14", ((1, 256, 8, 14, 14), (256, 256, 3, 3, 3)), {"pad": (1, 1, 1)}),
        Case("1024->256 1x1x1 at 8x14x14", ((1, 1024, 8, 14, 14), (256, 1024, 1, 1, 1))),
        Case("512->512 3x3x3 at 8x7x7", ((1, 512, 8, 7, 7), (512, 512, 3, 3, 3)), {"pad": (1, 1, 1)}),
        Case("64->256 1x1x1 at 8x56x56", ((1, 64, 8, 56, 56), (256, 64, 1, 1, 1))),
        Case(
            "256->512 1x1x1/2 at 8x56x56", ((1, 256, 8, 56, 56), (512, 256, 1, 1, 1)), {"stride": (1, 2, 2)}
        ),
        Case(
            "64->128 3x3x3/2 at 8x56x56",
            ((1, 64, 8, 56, 56), (128, 64, 3, 3, 3)),
            {"stride": (1, 2, 2), "pad": (1, 1, 1)},
        ),
        Case(
            "256->256 3x3x3 in 32 groups at 8x14x14",
            ((1, 256, 8, 14, 14), (256, 8, 3, 3, 3)),
            {"pad": (1, 1, 1), "groups": 32},
        ),
        Case(
            "4 of 128->128 3x3x3 at 4x28x28", ((4, 128, 4, 28, 28), (128, 128, 3, 3, 3)), {"pad": (1, 1, 1)}
        ),
    ),
    roles=("kernel", "bias"),
    context=context,
    window=window,
    keeps=(0, 1),
)
