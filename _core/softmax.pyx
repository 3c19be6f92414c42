"""Softmax of the rows of a matrix, and its gradient; cross-entropy is one step more."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport log, logf
from libc.stdint cimport int64_t

from refnet._core cimport environment, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.sums cimport product, total

cdef extern from "softmax.h" nogil:
    double softmax_float64 "refnet_softmax_float64"(const double*, double*, double*, Py_ssize_t)
    float softmax_float32 "refnet_softmax_float32"(const float*, float*, float*, Py_ssize_t)


cdef inline floating softmax(const floating* x, floating* y, Py_ssize_t K,
                             int64_t label) noexcept nogil:
    """One row: y = exp(x - largest) / sum; returns -log y[label]."""
    cdef floating largest, sum_
    if floating is float:
        sum_ = softmax_float32(x, y, &largest, K)
        return logf(sum_) - (x[label] - largest)
    else:
        sum_ = softmax_float64(x, y, &largest, K)
        return log(sum_) - (x[label] - largest)


def forward(const floating[:, ::1] x, floating[:, ::1] y):
    """y (N, K) = softmax of each row of x (N, K)."""
    cdef Py_ssize_t n, K = x.shape[1]
    cdef Environment before
    require(K > 0 and y.shape[0] == x.shape[0] and y.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * K * 8)):
        before = environment.enter_default()
        for n in prange(x.shape[0], schedule="static"):
            softmax(&x[n, 0], &y[n, 0], K, 0)
        environment.restore(before)


def input_gradient(const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx):
    """dx = y (dy - sum of dy y over the row)."""
    cdef Py_ssize_t n, k, K = y.shape[1]
    cdef floating mean
    cdef Environment before
    require(K > 0 and dy.shape[0] == y.shape[0] and dy.shape[1] == K
            and dx.shape[0] == y.shape[0] and dx.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(y.shape[0] * K)):
        before = environment.enter_default()
        for n in prange(y.shape[0], schedule="static"):
            mean = product(&dy[n, 0], &y[n, 0], <floating> 0, K)
            for k in range(K):
                dx[n, k] = y[n, k] * (dy[n, k] - mean)
        environment.restore(before)


def cross_entropy(const floating[:, ::1] x, const int64_t[::1] labels, floating[:, ::1] rows,
                  floating[::1] losses):
    """losses (N,) = -log of the label's softmax of each row of x (N, K), and behind them their mean.

    rows is (threads, at least K).
    """
    cdef Py_ssize_t n, K = x.shape[1]
    cdef Environment before
    require(K > 0 and labels.shape[0] == x.shape[0] and losses.shape[0] == x.shape[0] + 1
            and rows.shape[0] >= openmp.max_threads() and rows.shape[1] >= K)
    for n in range(labels.shape[0]):
        require(0 <= labels[n] < K)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * K * 8)):
        before = environment.enter_default()
        for n in prange(x.shape[0], schedule="static"):
            losses[n] = softmax(&x[n, 0], &rows[openmp.thread_num(), 0], K, labels[n])
        environment.restore(before)
    before = environment.enter_default()
    losses[x.shape[0]] = total(&losses[0], x.shape[0]) / <floating> x.shape[0]
    environment.restore(before)
