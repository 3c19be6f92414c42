"""Nearest-neighbour upsampling, one image (sample, channel, frame) at a time."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.string cimport memcpy

from refnet._core cimport environment, interrupt, micro_kernel, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.simd cimport Simd
from refnet._core.sums cimport LINE, Totals, begin, clear, count, finish


cdef inline bint scaled(Py_ssize_t large, Py_ssize_t small, Py_ssize_t scale) noexcept nogil:
    """Whether large = scale small, whose product might overflow."""
    return scale > 0 and large % scale == 0 and large // scale == small


cdef void repeat(const floating* x, floating* y, Py_ssize_t W, Py_ssize_t scale) noexcept nogil:
    """One line: each value scale times."""
    cdef Py_ssize_t w, i
    if scale == 2:
        for w in range(W):
            y[2 * w] = x[w]
            y[2 * w + 1] = x[w]
        return
    for w in range(W):
        for i in range(scale):
            y[w * scale + i] = x[w]


def forward(const floating[:, :, ::1] x, floating[:, :, ::1] y, Py_ssize_t scale):
    """y (images, scale * H, scale * W) = x (images, H, W), every value a square."""
    cdef Py_ssize_t image, h, i
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(y.shape[0] == x.shape[0] and scaled(y.shape[1], x.shape[1], scale)
            and scaled(y.shape[2], x.shape[2], scale))
    with nogil, parallel(use_threads_if=openmp.pays(y.shape[0] * y.shape[1] * y.shape[2])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for image in prange(x.shape[0], schedule="static"):
            for h in range(x.shape[1]):
                if not interrupt.asked(&turn, scale * y.shape[2]):
                    repeat(&x[image, h, 0], &y[image, h * scale, 0], x.shape[2], scale)
                    for i in range(1, scale):
                        memcpy(&y[image, h * scale + i, 0], &y[image, h * scale, 0],
                               y.shape[2] * sizeof(floating))
        environment.restore(before)
    interrupt.finish(&watch)


cdef void add_squares(const floating* dy, floating* dx, Py_ssize_t W, Py_ssize_t scale) noexcept nogil:
    """One line: dx (W,) = the sums of the squares of dy (scale, scale * W)."""
    cdef Py_ssize_t w, i, j, piece = 0, n
    cdef Totals totals
    while piece < W:
        n = min(W - piece, <Py_ssize_t> LINE)
        begin(&totals, n)
        clear(dx + piece, &totals)
        for i in range(scale):
            for j in range(scale):
                for w in range(n):
                    dx[piece + w] += dy[i * scale * W + (piece + w) * scale + j]
                count(dx + piece, &totals)
        finish(dx + piece, &totals)
        piece += n


def input_gradient(const floating[:, :, ::1] dy, floating[:, :, ::1] dx, Py_ssize_t scale):
    """dx (images, H, W) = the sum of each square of dy, line by line: `Totals` in sums.pxd.

    Return whether all are finite.
    """
    cdef const Simd* simd = micro_kernel.active(&dy[0, 0, 0])
    cdef Py_ssize_t image, h, overflown = 0
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(dy.shape[0] == dx.shape[0] and scaled(dy.shape[1], dx.shape[1], scale)
            and scaled(dy.shape[2], dx.shape[2], scale))
    with nogil, parallel(use_threads_if=openmp.pays(dy.shape[0] * dy.shape[1] * dy.shape[2])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for image in prange(dx.shape[0], schedule="static"):
            for h in range(dx.shape[1]):
                if not interrupt.asked(&turn, scale * dy.shape[2]):
                    add_squares(&dy[image, h * scale, 0], &dx[image, h, 0], dx.shape[2], scale)
            overflown += not simd.all_finite(&dx[image, 0, 0], 1, dx.shape[1] * dx.shape[2])
        environment.restore(before)
    interrupt.finish(&watch)
    return overflown == 0
