"""The Cython kernels, in the dtype of their inputs. Same bits for any number of threads.

Here is what a kernel needs before it runs: output arrays and the workspace. Convolutions have a
micro-kernel of their own. While `linear` runs, BLAS is held to one thread, because the number of BLAS
threads changes bits.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from refnet._core import add as add_kernels
from refnet._core import affine as affine_kernels
from refnet._core import average_pool3d as average_pool3d_kernels
from refnet._core import conv3d as conv3d_kernels
from refnet._core import linear as linear_kernels
from refnet._core import max_pool3d as max_pool3d_kernels
from refnet._core import micro_kernel, openmp
from refnet._core import relu as relu_kernels
from refnet._core import upsample_nearest as upsample_nearest_kernels
from refnet.arithmetic.reference import reference
from refnet.arithmetic.table import Arithmetic, Kernel
from refnet.op import Array, Gradients, Needs
from refnet.ops import OPS
from refnet.shapes import ONES, ZEROS, Triple

# Values of weight gradients that are held at once, for spans of positions computed at the same time.
PARTIAL_SUMS = 1 << 21


# A forked child has none of its parent's threads, and GNU's OpenMP would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=openmp.use_one_thread)


# Operators that only hand on, move or copy; NumPy does that as fast as memory allows.
MOVES = (
    "stop_gradient",
    "time_to_channels",
    "channels_to_time",
    "time_to_batch",
    "batch_to_time",
    "slice_keyframe",
)


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


def conv3d_forward(x: Array, w: Array, b: Array | None = None, **attrs: Any) -> tuple[Array, Any]:
    """Compute `refnet.ops.conv3d`."""
    y = np.empty(OPS["conv3d"].infer(x.shape, w.shape, **attrs), x.dtype)
    conv3d_kernels.forward(x, _matrix(w), _flat(y), _workspace(x.dtype), *_window(w, y, attrs))
    if b is not None:
        y += b[:, None, None, None]
    return y, (x, w, b is not None, attrs)


def conv3d_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.conv3d`."""
    x, w, has_bias, attrs = context
    workspace, window = _workspace(x.dtype), _window(w, dy, attrs)
    dx = np.zeros(x.shape, x.dtype) if needs[0] else None
    dw = np.empty_like(w) if needs[1] else None
    if dx is not None:
        conv3d_kernels.input_gradient(_flat(dy), _matrix(w), dx, workspace, *window)
    if dw is not None:
        partial = np.empty((PARTIAL_SUMS // w.size, *_matrix(w).shape), w.dtype)
        conv3d_kernels.weight_gradient(_flat(dy), x, _matrix(dw), workspace, partial, *window)
    if not has_bias:
        return dx, dw
    return dx, dw, _bias_gradient(dy) if needs[2] else None


def affine_forward(x: Array, s: Array, b: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.affine`."""
    y = np.empty_like(x)
    affine_kernels.forward(_flat(x), s, b, _flat(y))
    return y, (x, s)


def affine_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.affine`."""
    x, s = context
    dx = np.empty_like(x) if needs[0] else None
    ds = np.empty_like(s) if needs[1] else None
    if dx is not None:
        affine_kernels.input_gradient(_flat(dy), s, _flat(dx))
    if ds is not None:
        affine_kernels.scale_gradient(_flat(dy), _flat(x), ds)
    return dx, ds, _bias_gradient(dy) if needs[2] else None


def relu_forward(x: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.relu`."""
    y = np.empty_like(x)
    relu_kernels.forward(x.reshape(-1), y.reshape(-1))
    return y, y


def relu_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.relu`."""
    if not needs[0]:
        return (None,)
    dx = np.empty_like(dy)
    relu_kernels.input_gradient(dy.reshape(-1), context.reshape(-1), dx.reshape(-1))
    return (dx,)


def max_pool3d_forward(
    x: Array, *, kernel: Triple, stride: Triple = ONES, pad: Triple = ZEROS
) -> tuple[Array, Any]:
    """Compute `refnet.ops.max_pool3d`."""
    shape = OPS["max_pool3d"].infer(x.shape, kernel=kernel, stride=stride, pad=pad)
    y, winner = np.empty(shape, x.dtype), np.empty(shape, np.intp)
    max_pool3d_kernels.forward(
        _planes(x), _planes(y), _planes(winner), x.shape[2:], kernel, stride, pad, shape[2:]
    )
    return y, (x.shape, winner)


def max_pool3d_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.max_pool3d`."""
    shape, winner = context
    if not needs[0]:
        return (None,)
    dx = np.empty(shape, dy.dtype)
    max_pool3d_kernels.input_gradient(_planes(dy), _planes(winner), _planes(dx))
    return (dx,)


def add_forward(x1: Array, x2: Array) -> tuple[Array, Any]:
    """Compute `refnet.ops.add`."""
    y = np.empty_like(x1)
    add_kernels.forward(x1.reshape(-1), x2.reshape(-1), y.reshape(-1))
    return y, None


def linear_forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, Any]:
    """Compute `refnet.ops.linear`."""
    y = np.empty((len(x), len(w)), x.dtype)
    with single_threaded_blas():
        linear_kernels.forward(_samples(x), w, y)
    if b is not None:
        y += b
    return y, (x, w, b is not None)


def linear_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradients of `refnet.ops.linear`."""
    x, w, has_bias = context
    dx = np.empty_like(x) if needs[0] else None
    dw = np.empty_like(w) if needs[1] else None
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
    y, window = np.empty(shape, x.dtype), (x.shape[2:], kernel, stride, pad, shape[2:])
    average_pool3d_kernels.forward(_planes(x), _planes(y), *window)
    return y, (x.shape, window)


def average_pool3d_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.average_pool3d`."""
    shape, window = context
    if not needs[0]:
        return (None,)
    dx = np.empty(shape, dy.dtype)
    average_pool3d_kernels.input_gradient(_planes(dy), _planes(dx), *window)
    return (dx,)


def global_average_pool_forward(x: Array, *, over_time: bool = False) -> tuple[Array, Any]:
    """Compute `refnet.ops.global_average_pool`."""
    y = np.empty(OPS["global_average_pool"].infer(x.shape, over_time=over_time), x.dtype)
    count = x.size // y.size
    affine_kernels.bias_gradient(x.reshape(1, y.size, count), y.reshape(-1))
    y /= x.dtype.type(count)
    return y, x.shape


def upsample_nearest_forward(x: Array, *, scale: int = 2) -> tuple[Array, Any]:
    """Compute `refnet.ops.upsample_nearest`."""
    y = np.empty(OPS["upsample_nearest"].infer(x.shape, scale=scale), x.dtype)
    upsample_nearest_kernels.forward(_images(x), _images(y), scale)
    return y, x.shape


def upsample_nearest_backward(dy: Array, context: Any, needs: Needs) -> Gradients:
    """Compute the gradient of `refnet.ops.upsample_nearest`."""
    if not needs[0]:
        return (None,)
    dx = np.empty(context, dy.dtype)
    upsample_nearest_kernels.input_gradient(_images(dy), _images(dx), dy.shape[3] // dx.shape[3])
    return (dx,)


def _workspace(dtype: np.dtype[Any]) -> Array:
    """One row for each thread; the pages that no thread touches cost nothing."""
    return np.empty((openmp_threads(), conv3d_kernels.WORKSPACE), dtype)


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
        # The NumPy definitions, stated outright: nothing is computed, at most moved.
        **{op: reference.kernels[op] for op in MOVES},
    },
)
