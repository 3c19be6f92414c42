"""Batch norm: the sums over a channel, and what is done with them, one (sample, channel) plane at a time.

Blobs are (N, C, P) with P = T * H * W; everything else has one entry for each channel.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.sums cimport product, square


cdef void centre_and_scale(const floating* x, floating mean, floating scale, floating b, floating* y,
                           Py_ssize_t P) noexcept nogil:
    cdef Py_ssize_t p
    for p in range(P):
        y[p] = (x[p] - mean) * scale + b


cdef void project(const floating* dy, const floating* x, floating mean, floating scale,
                  floating of_mean, floating of_variance, floating* dx, Py_ssize_t P) noexcept nogil:
    cdef Py_ssize_t p
    for p in range(P):
        dx[p] = scale * (dy[p] - of_mean - (x[p] - mean) * of_variance)


def normalise(const floating[:, :, ::1] x, const floating[::1] mean, const floating[::1] scale,
              const floating[::1] b, floating[:, :, ::1] y):
    """y = (x - mean) scale + b."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], plane, n, c
    cdef Environment before
    require(mean.shape[0] == C and scale.shape[0] == C and b.shape[0] == C
            and y.shape[0] == x.shape[0] and y.shape[1] == C and y.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        for plane in prange(x.shape[0] * C, schedule="static"):
            n = plane // C
            c = plane % C
            centre_and_scale(&x[n, c, 0], mean[c], scale[c], b[c], &y[n, c, 0], P)
        environment.restore(before)


def squares(const floating[:, :, ::1] x, const floating[::1] mean, floating[::1] sums):
    """sums[c] = sum of (x - mean) squared over samples and positions."""
    cdef Py_ssize_t c, n, C = x.shape[1], P = x.shape[2]
    cdef floating sum_
    cdef Environment before
    require(mean.shape[0] == C and sums.shape[0] == C)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        for c in prange(C, schedule="static"):
            sum_ = 0
            for n in range(x.shape[0]):
                sum_ = sum_ + square(&x[n, c, 0], mean[c], P)
            sums[c] = sum_
        environment.restore(before)


def products(const floating[:, :, ::1] dy, const floating[:, :, ::1] x, const floating[::1] mean,
             floating[::1] sums):
    """sums[c] = sum of dy (x - mean) over samples and positions."""
    cdef Py_ssize_t c, n, C = x.shape[1], P = x.shape[2]
    cdef floating sum_
    cdef Environment before
    require(mean.shape[0] == C and sums.shape[0] == C
            and dy.shape[0] == x.shape[0] and dy.shape[1] == C and dy.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        for c in prange(C, schedule="static"):
            sum_ = 0
            for n in range(x.shape[0]):
                sum_ = sum_ + product(&dy[n, c, 0], &x[n, c, 0], mean[c], P)
            sums[c] = sum_
        environment.restore(before)


def input_gradient(const floating[:, :, ::1] dy, const floating[:, :, ::1] x,
                   const floating[::1] mean, const floating[::1] scale,
                   const floating[::1] of_mean, const floating[::1] of_variance,
                   floating[:, :, ::1] dx):
    """dx = scale (dy - of_mean - (x - mean) of_variance), in training."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], plane, n, c
    cdef Environment before
    require(mean.shape[0] == C and scale.shape[0] == C and of_mean.shape[0] == C
            and of_variance.shape[0] == C
            and dy.shape[0] == x.shape[0] and dy.shape[1] == C and dy.shape[2] == P
            and dx.shape[0] == x.shape[0] and dx.shape[1] == C and dx.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        for plane in prange(x.shape[0] * C, schedule="static"):
            n = plane // C
            c = plane % C
            project(&dy[n, c, 0], &x[n, c, 0], mean[c], scale[c], of_mean[c], of_variance[c],
                    &dx[n, c, 0], P)
        environment.restore(before)
