"""The Cython kernels, in the dtype of their inputs. Same bits for any number of threads.

Here is what a kernel needs before it runs: output arrays and the workspace. Convolutions have a
micro-kernel of their own. While `linear` runs, BLAS is held to one thread, because the number of BLAS
threads changes bits.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from refnet._core import add as add_kernels
from refnet._core import affine as affine_kernels
from refnet._core import average_pool3d as average_pool3d_kernels
from refnet._core import batch_norm as batch_norm_kernels
from refnet._core import blocks, micro_kernel, openmp
from refnet._core import conv3d as conv3d_kernels
from refnet._core import dropout as dropout_kernels
from refnet._core import linear as linear_kernels
from refnet._core import max_pool3d as max_pool3d_kernels
from refnet._core import relu as relu_kernels
from refnet._core import roi_align as roi_align_kernels
from refnet._core import softmax as softmax_kernels
from refnet._core import swap_axes as swap_axes_kernels
from refnet._core import upsample_nearest as upsample_nearest_kernels
from refnet.arithmetic.reference import reference
from refnet.arithmetic.table import Arithmetic, Kernel
from refnet.arrays import Array
from refnet.op import Gradients, Needs
from refnet.ops import OPS
from refnet.ops.batch_norm import EPSILON, root
from refnet.ops.batch_norm_training import values_per_channel
from refnet.ops.dropout import RATIO
from refnet.ops.roi_align import grid
from refnet.ops.running_mean import MOMENTUM, average
from refnet.ops.running_variance import unbiased
from refnet.shapes import ONES, ZEROS, Shape, Triple

# Values of weight gradients that are held at once, for spans of positions computed at the same time.
PARTIAL_SUMS = 1 << 21
# Channels of x, and phases of a stride, up to which the gradient of x is computed for all phases at once.
IMAGE_CHANNELS, MOST_PHASES = 4, 16
# Between the short rows of two threads, in elements, or they would wait for each other's writes.
CACHE_LINE = 16


# A forked child has none of its parent's threads, and GNU's OpenMP would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=openmp.use_one_thread)


class _HeldBLAS:
    """BLAS libraries that are held to one thread while any Python thread asks for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        self.threads: list[int] = []

    def set_threads(self, counts: list[int]) -> None:
        for library, count in zip(self.libraries, counts, strict=True):
            library.set_num_threads(count)


_held = _HeldBLAS()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread; the last to leave gives back what it had."""
    with _held.lock:
        if _held.holders == 0:
            _held.threads = [library.num_threads for library in _held.libraries]
            _held.set_threads([1] * len(_held.libraries))
        _held.holders += 1
    try:
        yield
    finally:
        with _held.lock:
            _held.holders -= 1
            if _held.holders == 0:
                _held.set_threads(_held.threads)


def blas() -> list[str]:
    """Name the BLAS libraries of this process: implementation, version, kernels."""
    return sorted(
        " ".join(str(info[key]) for key in ("internal_api", "version", "architecture") if info.get(key))
        for info in ThreadpoolController().select(user_api="blas").info()
    )


def openmp_enabled() -> bool:
    """Whether the kernels were built with OpenMP."""
    return bool(openmp.is_enabled())


def openmp_threads() -> int:
    """How many threads a kernel called now may use."""
    return int(openmp.threads())


def micro_kernel_version() -> str:
    """Name the version of the micro-kernel that convolutions run: baseline, avx2 or avx512."""
    return str(micro_kernel.name())


def spin(rounds: int, dtype: str) -> int:
    """Do nothing but multiply-adds, independent and in registers, on every thread; return how many."""
    return int(micro_kernel.spin(rounds, dtype == "float64")[0])


def workspace_bytes(dtype: str) -> int:
    """Bytes of workspace that a convolution takes for each thread."""
    return int(conv3d_kernels.WORKSPACE * np.dtype(dtype).itemsize)


def conv3d_forward(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> tuple[Array, Any]:
    """Compute `refnet.ops.conv3d`."""
    y = _empty(OPS["conv3d"].infer(x.shape, w.shape, **attrs), x.dtype)
    conv3d_kernels.forward(x, _matrix(w), _flat(y), _workspace(x.dtype), *_window(w, y, attrs))
    if b is not None:
        y += b[:, None, None, None]
    return y, (x, w, b is not None, attrs)


def conv3d_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.conv3d`."""
    x, w, has_bias, attrs = context
    workspace, window = _workspace(x.dtype), _window(w, dy, attrs)
    dx = _empty(x.shape, x.dtype) if needs[0] else None
    dw = _empty(w.shape, w.dtype) if needs[1] else None
    if dx is not None:
        image = _is_strided_image(w, *window)
        if image:
            merged, phases_at, *places = _merged_phases(w, *window)
            conv3d_kernels.image_gradient(
                _flat(dy), _matrix(w), merged, phases_at, dx, workspace, *window, *places
            )
        # Or an infinity or NaN has met a weight of 0 that is none of the convolution's.
        if not (image and conv3d_kernels.finite(_flat(dx))):
            conv3d_kernels.input_gradient(_flat(dy), _matrix(w), dx, workspace, *window)
    if dw is not None:
        partial = _empty((PARTIAL_SUMS // w.size, *_matrix(w).shape), w.dtype)
        conv3d_kernels.weight_gradient(_flat(dy), x, _matrix(dw), workspace, partial, *window)
    if not has_bias:
        return dx, dw
    return dx, dw, _bias_gradient(dy) if needs[2] else None


def _is_strided_image(
    w: Array, kernel: Triple, stride: Triple, pad: Triple, dilation: Triple, *_: Any
) -> bool:
    """Whether x has so few channels, and a stride, that the phases of dx are better computed at once."""
    return (
        w.shape[1] <= IMAGE_CHANNELS
        and 1 < prod(stride) <= MOST_PHASES
        and dilation == ONES
        and all(k >= s for k, s in zip(kernel, stride, strict=True))
    )


def _merged_phases(
    w: Array, kernel: Triple, stride: Triple, pad: Triple, dilation: Triple, output: Triple, groups: int
) -> tuple[Array, Array, Triple, Triple]:
    """Weights (groups * phases * channels, filters * places), and how many places, and which is the first.

    The input position i = m s + v gathers with tap t = v + p - q s from the output position m + q: its
    phase v has the places q of the taps in [0, k). Other places, of other phases, have weight 0. Which phases
    have a place is told by bits, after the weights.
    """
    places = [
        (-((k - 1 - p) // s), (s - 1 + p) // s) for k, s, p in zip(kernel, stride, pad, strict=True)
    ]  # the least and the most q of any phase
    merged = np.zeros(
        (groups, *stride, w.shape[1], len(w) // groups, *(most - least + 1 for least, most in places)),
        w.dtype,
    )
    phases_at = np.zeros(merged.shape[-3:], np.uint16)
    grouped = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2)
    for i, phase in enumerate(np.ndindex(*stride)):
        here, taps = [], []
        for v, k, s, p, (_, most) in zip(phase, kernel, stride, pad, places, strict=True):
            first = (v + p) % s
            place = most - (v + p - first) // s
            here.append(slice(place, place + len(range(first, k, s))))
            taps.append(slice(first, k, s))
        phases_at[tuple(here)] += 1 << i
        every = (slice(None), slice(None))
        merged[(slice(None), *phase, *every, *here)] = grouped[(slice(None), *every, *taps)]
    (t, top_t), (h, top_h), (v, top_v) = ((most - least + 1, most) for least, most in places)
    weights = merged.reshape(-1, prod(merged.shape[-4:]))
    return weights, phases_at.ravel(), (t, h, v), (top_t, top_h, top_v)


def affine_forward(x: Array, s: Array, b: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.affine`."""
    y = _empty(x.shape, x.dtype)
    affine_kernels.forward(_flat(x), s, b, _flat(y))
    return y, (x, s)


def affine_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.affine`."""
    x, s = context
    dx = _empty(x.shape, x.dtype) if needs[0] else None
    ds = _empty(s.shape, s.dtype) if needs[1] else None
    if dx is not None:
        affine_kernels.input_gradient(_flat(dy), s, _flat(dx))
    if ds is not None:
        affine_kernels.scale_gradient(_flat(dy), _flat(x), ds)
    return dx, ds, _bias_gradient(dy) if needs[2] else None


def relu_forward(x: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.relu`."""
    y = _empty(x.shape, x.dtype)
    relu_kernels.forward(x.reshape(-1), y.reshape(-1))
    return y, y


def relu_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.relu`."""
    if not needs[0]:
        return (None,)
    dx = _empty(dy.shape, dy.dtype)
    relu_kernels.input_gradient(dy.reshape(-1), context.reshape(-1), dx.reshape(-1))
    return (dx,)


def max_pool3d_forward(
    x: Array, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS
) -> tuple[Array, Any]:
    """Compute `refnet.ops.max_pool3d`."""
    shape = OPS["max_pool3d"].infer(x.shape, kernel=kernel, stride=stride, pad=pad)
    y, window = _empty(shape, x.dtype), (x.shape[2:], kernel, stride, pad, shape[2:])
    max_pool3d_kernels.forward(_planes(x), _planes(y), *window)
    return y, (x, y, window)


def max_pool3d_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.max_pool3d`."""
    x, y, window = context
    if not needs[0]:
        return (None,)
    dx = _empty(x.shape, x.dtype)
    found = _workspace(np.dtype(np.intc), prod(dy.shape[2:]) + CACHE_LINE)
    max_pool3d_kernels.input_gradient(_planes(dy), _planes(x), _planes(y), _planes(dx), found, *window)
    return (dx,)


def add_forward(x1: Array, x2: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.add`."""
    y = _empty(x1.shape, x1.dtype)
    add_kernels.forward(x1.reshape(-1), x2.reshape(-1), y.reshape(-1))
    return y, None


def linear_forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, Any]:
    """Compute `refnet.ops.linear`."""
    y = _empty((len(x), len(w)), x.dtype)
    with single_threaded_blas():
        linear_kernels.forward(_samples(x), w, y)
    if b is not None:
        y += b
    return y, (x, w, b is not None)


def linear_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.linear`."""
    x, w, has_bias = context
    dx = _empty(x.shape, x.dtype) if needs[0] else None
    dw = _empty(w.shape, w.dtype) if needs[1] else None
    with single_threaded_blas():
        if dx is not None:
            linear_kernels.input_gradient(dy, w, _samples(dx))
        if dw is not None:
            linear_kernels.weight_gradient(dy, _samples(x), dw)
    if not has_bias:
        return dx, dw
    return dx, dw, dy.sum(axis=0) if needs[2] else None


def average_pool3d_forward(
    x: Array, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS
) -> tuple[Array, Any]:
    """Compute `refnet.ops.average_pool3d`."""
    shape = OPS["average_pool3d"].infer(x.shape, kernel=kernel, stride=stride, pad=pad)
    y, window = _empty(shape, x.dtype), (x.shape[2:], kernel, stride, pad, shape[2:])
    average_pool3d_kernels.forward(_planes(x), _planes(y), *window)
    return y, (x.shape, window)


def average_pool3d_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.average_pool3d`."""
    shape, window = context
    if not needs[0]:
        return (None,)
    dx = _empty(shape, dy.dtype)
    shares = _workspace(dy.dtype, prod(dy.shape[2:]) + CACHE_LINE)
    average_pool3d_kernels.input_gradient(_planes(dy), _planes(dx), shares, *window)
    return (dx,)


def global_average_pool_forward(x: Array, *, over_time: bool = False) -> tuple[Array, Any]:
    """Compute `refnet.ops.global_average_pool`."""
    y = _empty(OPS["global_average_pool"].infer(x.shape, over_time=over_time), x.dtype)
    count = x.size // y.size
    affine_kernels.bias_gradient(x.reshape(1, y.size, count), y.reshape(-1))
    y /= x.dtype.type(count)
    return y, x.shape


def upsample_nearest_forward(x: Array, *, scale: int = 2) -> tuple[Array, Any]:
    """Compute `refnet.ops.upsample_nearest`."""
    y = _empty(OPS["upsample_nearest"].infer(x.shape, scale=scale), x.dtype)
    upsample_nearest_kernels.forward(_images(x), _images(y), scale)
    return y, x.shape


def upsample_nearest_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.upsample_nearest`."""
    if not needs[0]:
        return (None,)
    dx = _empty(context, dy.dtype)
    upsample_nearest_kernels.input_gradient(_images(dy), _images(dx), dy.shape[3] // dx.shape[3])
    return (dx,)


def softmax_forward(x: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.softmax`."""
    y = _empty(x.shape, x.dtype)
    softmax_kernels.forward(x, y)
    return y, y


def softmax_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.softmax`."""
    if not needs[0]:
        return (None,)
    dx = _empty(dy.shape, dy.dtype)
    softmax_kernels.input_gradient(dy, context, dx)
    return (dx,)


def cross_entropy_forward(x: Array, labels: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.cross_entropy`."""
    losses = np.empty(len(x) + 1, x.dtype)
    softmax_kernels.cross_entropy(x, labels, _workspace(x.dtype, x.shape[1] + CACHE_LINE), losses)
    return losses[-1:].reshape(()), (x, labels)


def cross_entropy_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.cross_entropy`."""
    x, labels = context
    if not needs[0]:
        return None, None
    dx = _empty(x.shape, x.dtype)
    softmax_kernels.forward(x, dx)
    dx[np.arange(len(x)), labels] -= 1
    dx *= dy / x.dtype.type(len(x))
    return dx, None


def batch_norm_forward(
    x: Array, s: Array, b: Array, mean: Array, variance: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Any]:
    """Compute `refnet.ops.batch_norm`."""
    y, deviation = _empty(x.shape, x.dtype), root(variance, epsilon)
    batch_norm_kernels.normalise(_flat(x), mean, s / deviation, b, _flat(y))
    return y, (x, s, mean, deviation)


def batch_norm_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.batch_norm`."""
    x, s, mean, deviation = context
    dx = _empty(x.shape, x.dtype) if needs[0] else None
    if dx is not None:
        affine_kernels.input_gradient(_flat(dy), s / deviation, _flat(dx))
    ds = _products(dy, x, mean) / deviation if needs[1] else None
    return dx, ds, _bias_gradient(dy) if needs[2] else None, None, None


def batch_norm_training_forward(
    x: Array, s: Array, b: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Any]:
    """Compute `refnet.ops.batch_norm_training`."""
    mean, variance = _statistics(x)
    return batch_norm_forward(x, s, b, mean, variance, epsilon=epsilon)


def batch_norm_training_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.batch_norm_training`."""
    x, s, mean, deviation = context
    n = x.dtype.type(values_per_channel(x.shape))
    ds, db = _products(dy, x, mean) / deviation, _bias_gradient(dy)
    dx = _empty(x.shape, x.dtype) if needs[0] else None
    if dx is not None:
        of_variance = ds / (n * deviation)
        batch_norm_kernels.input_gradient(
            _flat(dy), _flat(x), mean, s / deviation, db / n, of_variance, _flat(dx)
        )
    return dx, ds if needs[1] else None, db if needs[2] else None


def running_mean_forward(x: Array, mean: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """Compute `refnet.ops.running_mean`."""
    return average(mean, _statistics(x)[0], momentum), None


def running_variance_forward(x: Array, variance: Array, *, momentum: float = MOMENTUM) -> tuple[Array, Any]:
    """Compute `refnet.ops.running_variance`."""
    return average(variance, unbiased(_statistics(x)[1], values_per_channel(x.shape)), momentum), None


def dropout_forward(x: Array, mask: Array, *, ratio: float = RATIO) -> tuple[Array, Any]:
    """Compute `refnet.ops.dropout`."""
    y, keep = _empty(x.shape, x.dtype), x.dtype.type(1 / (1 - ratio))
    dropout_kernels.apply(x.reshape(-1), mask.reshape(-1), y.reshape(-1), keep)
    return y, (mask, keep)


def dropout_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.dropout`."""
    mask, keep = context
    if not needs[0]:
        return None, None
    dx = _empty(dy.shape, dy.dtype)
    dropout_kernels.apply(dy.reshape(-1), mask.reshape(-1), dx.reshape(-1), keep)
    return dx, None


def roi_align_forward(x: Array, rois: Array, **attrs: Any) -> tuple[Array, Any]:
    """Compute `refnet.ops.roi_align`."""
    y = _empty(OPS["roi_align"].infer(x.shape, rois.shape, **attrs), x.dtype)
    taps = (rois[:, 0].astype(np.intp), *_roi_taps(x, rois, **attrs))
    roi_align_kernels.forward(x, *taps, y, _workspace(x.dtype, x.shape[4] + CACHE_LINE))
    return y, (x.shape, taps)


def roi_align_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.roi_align`."""
    shape, taps = context
    if not needs[0]:
        return None, None
    dx = _empty(shape, dy.dtype)
    roi_align_kernels.input_gradient(dy, *taps, dx, _workspace(dy.dtype, shape[4] + CACHE_LINE))
    return dx, None


def swap_axes(op: str, split: Callable[..., Shape]) -> Kernel:
    """Make the kernel of an operator that moves time: `split` views x as (N, A, B, P), y is (N, B, A, P)."""

    def forward(x: Array, **attrs: int) -> tuple[Array, Any]:
        y = _empty(OPS[op].infer(x.shape, **attrs), x.dtype)
        n, a, b, p = split(*x.shape, **attrs)
        swap_axes_kernels.forward(x.reshape(n, a, b, p), y.reshape(n, b, a, p))
        return y, (x.shape, (n, b, a, p))

    def backward(dy: Array, context: Any, needs: Needs) -> Gradients:
        shape, (n, b, a, p) = context
        if not needs[0]:
            return (None,)
        dx = _empty(shape, dy.dtype)
        swap_axes_kernels.forward(dy.reshape(n, b, a, p), dx.reshape(n, a, b, p))
        return (dx,)

    return Kernel(forward, backward)


def _empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array with anything in it; a large one takes the memory of one that is gone."""
    count = prod(shape) * dtype.itemsize
    if count < blocks.GRAIN:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, blocks.Block(count))


def _workspace(dtype: np.dtype[Any], size: int = conv3d_kernels.WORKSPACE) -> Array:
    """One row for each thread."""
    return _empty((openmp_threads(), size), dtype)


def _window(w: Array, y: Array, attrs: dict[str, Any]) -> tuple[Any, ...]:
    """Kernel, stride, pad, dilation, output volume, groups."""
    stride, pad = attrs.get("stride", ONES), attrs.get("pad", ZEROS)
    return (
        w.shape[2:],
        stride,
        pad,
        attrs.get("dilation", ONES),
        y.shape[2:],
        attrs.get("groups", 1),
    )


def _bias_gradient(dy: Array) -> Array:
    db = np.empty(dy.shape[1], dy.dtype)
    affine_kernels.bias_gradient(_flat(dy), db)
    return db


def _statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel."""
    n = x.dtype.type(values_per_channel(x.shape))
    mean, squares = _bias_gradient(x) / n, np.empty(x.shape[1], x.dtype)
    batch_norm_kernels.squares(_flat(x), mean, squares)
    return mean, squares / n


def _products(dy: Array, x: Array, mean: Array) -> Array:
    """Sum of dy (x - mean), channel by channel."""
    sums = np.empty(x.shape[1], x.dtype)
    batch_norm_kernels.products(_flat(dy), _flat(x), mean, sums)
    return sums


def _roi_taps(x: Array, rois: Array, *, output: tuple[int, int], **attrs: Any) -> tuple[Array, Array, Array]:
    """Which cells each line of bins reads, their weights in the dtype of x, and how many they are."""
    start, bins, samples = map(np.ascontiguousarray, grid(rois, output=output, **attrs))
    lines = (*start.shape[:2], sum(output))
    most = max(1, min(2 * int(samples.max()), max(x.shape[3:])))
    cells, weights, counts = (
        np.zeros((*lines, most), np.intp),
        np.zeros((*lines, most)),
        np.empty(lines, np.intp),
    )
    roi_align_kernels.taps(start, bins, samples, cells, weights, counts, *x.shape[3:], output[0])
    return cells, weights.astype(x.dtype, copy=False), counts


def _flat(blob: Array) -> Array:
    """View (N, C, T, H, W) as (N, C, T * H * W)."""
    return blob.reshape(*blob.shape[:2], -1)


def _planes(blob: Array) -> Array:
    """View (N, C, T, H, W) as (N * C, T * H * W)."""
    return blob.reshape(prod(blob.shape[:2]), -1)


def _images(blob: Array) -> Array:
    """View (N, C, T, H, W) as (N * C * T, H, W)."""
    return blob.reshape(prod(blob.shape[:3]), *blob.shape[3:])


def _samples(x: Array) -> Array:
    """View (N, ...) as (N, D)."""
    return x.reshape(len(x), -1)


def _matrix(w: Array) -> Array:
    """View (C_out, C/groups, kT, kH, kW) as (C_out, C/groups * kT * kH * kW)."""
    return w.reshape(w.shape[0], -1)


core = Arithmetic(
    "core",
    {
        "conv3d": Kernel(conv3d_forward, conv3d_backward),
        "affine": Kernel(affine_forward, affine_backward),
        "relu": Kernel(relu_forward, relu_backward),
        "max_pool3d": Kernel(max_pool3d_forward, max_pool3d_backward),
        "add": Kernel(add_forward, OPS["add"].backward),
        "linear": Kernel(linear_forward, linear_backward),
        "average_pool3d": Kernel(average_pool3d_forward, average_pool3d_backward),
        "global_average_pool": Kernel(global_average_pool_forward, OPS["global_average_pool"].backward),
        "upsample_nearest": Kernel(upsample_nearest_forward, upsample_nearest_backward),
        "softmax": Kernel(softmax_forward, softmax_backward),
        "cross_entropy": Kernel(cross_entropy_forward, cross_entropy_backward),
        "batch_norm": Kernel(batch_norm_forward, batch_norm_backward),
        "batch_norm_training": Kernel(batch_norm_training_forward, batch_norm_training_backward),
        "running_mean": Kernel(running_mean_forward, OPS["running_mean"].backward),
        "running_variance": Kernel(running_variance_forward, OPS["running_variance"].backward),
        "dropout": Kernel(dropout_forward, dropout_backward),
        "roi_align": Kernel(roi_align_forward, roi_align_backward),
        "time_to_channels": swap_axes("time_to_channels", lambda n, c, t, h, w: (n, c, t, h * w)),
        "time_to_batch": swap_axes("time_to_batch", lambda n, c, t, h, w: (n, c, t, h * w)),
        "channels_to_time": swap_axes(
            "channels_to_time", lambda n, c, t, h, w, *, frames: (n, frames, c // frames, h * w)
        ),
        "batch_to_time": swap_axes(
            "batch_to_time", lambda n, c, t, h, w, *, frames: (n // frames, frames, c, h * w)
        ),
        # The NumPy definitions, stated outright: nothing is computed, one frame at most is copied.
        "stop_gradient": reference.kernels["stop_gradient"],
        "slice_keyframe": reference.kernels["slice_keyframe"],
    },
)
