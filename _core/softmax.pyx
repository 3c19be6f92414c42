"""Softmax of the rows of a matrix, and its gradient; cross-entropy is one step more."""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport log, logf
from libc.stdint cimport int64_t

from refnet._core cimport openmp
from refnet._core.sizes cimport require
from refnet._core.sums cimport LANES, product, total

cdef extern from "exponential.h" nogil:
    void exp_float64 "refnet_exp_float64"(const double* x, double centre, double* y, Py_ssize_t n)
    void exp_float32 "refnet_exp_float32"(const float* x, float centre, float* y, Py_ssize_t n)


cdef inline floating largest(const floating* x, Py_ssize_t K) noexcept nogil:
    """The largest of a row, in sixteen interleaved races. Of a row with NaN, any: its softmax is NaN."""
    cdef Py_ssize_t block, k, i
    cdef floating best[LANES]
    for i in range(LANES):
        best[i] = x[0]
    for block in range(K // LANES):
        k = block * LANES
        for i in range(LANES):
            best[i] = x[k + i] if x[k + i] > best[i] else best[i]
    for k in range(K - K % LANES, K):
        best[0] = x[k] if x[k] > best[0] else best[0]
    for i in range(1, LANES):
        best[0] = best[i] if best[i] > best[0] else best[0]
    return best[0]


cdef inline floating softmax(const floating* x, floating centre, floating* y,
                             Py_ssize_t K) noexcept nogil:
    """One row: y = exp(x - centre) / sum; returns the sum."""
    cdef Py_ssize_t k
    cdef floating sum_
    if floating is float:
        exp_float32(x, centre, y, K)
    else:
        exp_float64(x, centre, y, K)
    sum_ = total(y, K)
    for k in range(K):
        y[k] = y[k] / sum_
    return sum_


def forward(const floating[:, ::1] x, floating[:, ::1] y):
    """y (N, K) = softmax of each row of x (N, K)."""
    cdef Py_ssize_t n, K = x.shape[1]
    require(K > 0 and y.shape[0] == x.shape[0] and y.shape[1] == K)
    with nogil:
        for n in prange(x.shape[0], schedule="static", use_threads_if=openmp.pays(x.shape[0] * K * 8)):
            softmax(&x[n, 0], largest(&x[n, 0], K), &y[n, 0], K)


def input_gradient(const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx):
    """dx = y (dy - sum of dy y over the row)."""
    cdef Py_ssize_t n, k, K = y.shape[1]
    cdef floating mean
    require(K > 0 and dy.shape[0] == y.shape[0] and dy.shape[1] == K
            and dx.shape[0] == y.shape[0] and dx.shape[1] == K)
    with nogil:
        for n in prange(y.shape[0], schedule="static", use_threads_if=openmp.pays(y.shape[0] * K)):
            mean = product(&dy[n, 0], &y[n, 0], <floating> 0, K)
            for k in range(K):
                dx[n, k] = y[n, k] * (dy[n, k] - mean)


def cross_entropy(const floating[:, ::1] x, const int64_t[::1] labels, floating[:, ::1] y,
                  floating[::1] losses):
    """y (N, K) = softmax of each row of x, losses (N,) = -log y[label]."""
    cdef Py_ssize_t n, K = x.shape[1]
    cdef floating centre, of_label, sum_
    require(K > 0 and labels.shape[0] == x.shape[0] and losses.shape[0] == x.shape[0]
            and y.shape[0] == x.shape[0] and y.shape[1] == K)
    for n in range(labels.shape[0]):
        require(0 <= labels[n] < K)
    with nogil:
        for n in prange(x.shape[0], schedule="static", use_threads_if=openmp.pays(x.shape[0] * K * 8)):
            centre = largest(&x[n, 0], K)
            of_label = x[n, labels[n]] - centre
            sum_ = softmax(&x[n, 0], centre, &y[n, 0], K)
            if floating is float:
                losses[n] = logf(sum_) - of_label
            else:
                losses[n] = log(sum_) - of_label
