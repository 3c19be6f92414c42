"""The kernel of `refnet.ops.linear`: BLAS, on one thread."""

from typing import Any

from refnet._core import linear as kernels
from refnet.arithmetic.core.buffers import empty, rows
from refnet.arithmetic.core.runtime import single_threaded_blas
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.op import InputGradients, Needs


def forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, Any]:
    """Compute x w' + b."""
    y = empty((len(x), len(w)), x.dtype)
    with single_threaded_blas():
        kernels.forward(rows(x), w, y)
    if b is not None:
        y += b
    return y, (x, w, b is not None)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = dy w, dw = dy' x, db = sum of dy over samples."""
    x, w, has_bias = context
    dx = empty(x.shape, x.dtype) if needs[0] else None
    dw = empty(w.shape, w.dtype) if needs[1] else None
    with single_threaded_blas():
        if dx is not None:
            kernels.input_gradient(dy, w, rows(dx))
        if dw is not None:
            kernels.weight_gradient(dy, rows(x), dw)
    if not has_bias:
        return dx, dw
    return dx, dw, dy.sum(axis=0) if needs[2] else None


KERNEL = Kernel(forward, backward)
