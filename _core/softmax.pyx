"""Softmax of the rows of a matrix, cross-entropy of rows and labels, and their gradients.

What is done to a row is in softmax.h, its exponential and logarithm in elementary.h.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.stdint cimport int64_t

from refnet._core cimport environment, interrupt, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.sums cimport Pair, compensated, dot, pair, planes

cdef extern from "softmax.h" nogil:
    double refnet_exp(double x, double rest)
    double refnet_exp_for_float(double x)
    double refnet_log(double x)
    void refnet_softmax_float32(const float* x, float* y, Py_ssize_t K)
    void refnet_softmax_float64(const double* x, double* y, Py_ssize_t K)
    void refnet_softmax_gradient_float32(const float* dy, const float* y, float mean, float* dx, Py_ssize_t K)
    void refnet_softmax_gradient_float64(const double* dy, const double* y, double mean, double* dx, Py_ssize_t K)
    double refnet_loss_float32(const float* x, Py_ssize_t K, Py_ssize_t label)
    double refnet_loss_float64(const double* x, Py_ssize_t K, Py_ssize_t label)
    void refnet_loss_gradient_float32(const float* x, float* dx, Py_ssize_t K, Py_ssize_t label, double dy)
    void refnet_loss_gradient_float64(const double* x, double* dx, Py_ssize_t K, Py_ssize_t label, double dy)


def exponential(const floating[::1] x, floating[::1] y):
    """y = exp(x) as softmax takes it, of x <= 0."""
    cdef Py_ssize_t i
    cdef Environment before
    require(y.shape[0] == x.shape[0])
    before = environment.enter_default()
    for i in range(x.shape[0]):
        if floating is float:
            y[i] = <float> refnet_exp_for_float(x[i])
        else:
            y[i] = refnet_exp(x[i], 0)
    environment.restore(before)


def logarithm(const double[::1] x, double[::1] y):
    """y = log(x) as cross-entropy takes it, of both dtypes."""
    cdef Py_ssize_t i
    cdef Environment before
    require(y.shape[0] == x.shape[0])
    before = environment.enter_default()
    for i in range(x.shape[0]):
        y[i] = refnet_log(x[i])
    environment.restore(before)


def forward(const floating[:, ::1] x, floating[:, ::1] y):
    """y (N, K) = softmax of each row of x (N, K)."""
    cdef Py_ssize_t n, K = x.shape[1]
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(K > 0 and y.shape[0] == x.shape[0] and y.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * K * 8)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for n in prange(x.shape[0], schedule="static"):
            if not interrupt.asked(&turn, 8 * K):
                if floating is float:
                    refnet_softmax_float32(&x[n, 0], &y[n, 0], K)
                else:
                    refnet_softmax_float64(&x[n, 0], &y[n, 0], K)
        environment.restore(before)
    interrupt.finish(&watch)


def input_gradient(const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx):
    """dx = y (dy - sum of dy y over the row)."""
    cdef Py_ssize_t n, K = y.shape[1]
    cdef double mean
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(K > 0 and dy.shape[0] == y.shape[0] and dy.shape[1] == K
            and dx.shape[0] == y.shape[0] and dx.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(y.shape[0] * K * 4)):  # both are read twice
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for n in prange(y.shape[0], schedule="static"):
            if not interrupt.asked(&turn, 4 * K):
                mean = dot(&dy[n, 0], &y[n, 0], planes(1, K, K))
                if floating is float:
                    refnet_softmax_gradient_float32(&dy[n, 0], &y[n, 0], <float> mean, &dx[n, 0], K)
                else:
                    refnet_softmax_gradient_float64(&dy[n, 0], &y[n, 0], mean, &dx[n, 0], K)
        environment.restore(before)
    interrupt.finish(&watch)


def cross_entropy(const floating[:, ::1] x, const int64_t[::1] labels, double[::1] losses, floating[::1] y):
    """losses (N,) = -log of the label's softmax of each row of x (N, K); y[0] = their mean, rounded."""
    cdef Py_ssize_t n, K = x.shape[1]
    cdef Pair sum_ = pair(0, 0)
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require_labels(labels, x.shape[0], K)
    require(losses.shape[0] == x.shape[0] and y.shape[0] == 1)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * K * 8)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for n in prange(x.shape[0], schedule="static"):
            if not interrupt.asked(&turn, 8 * K):
                if floating is float:
                    losses[n] = refnet_loss_float32(&x[n, 0], K, labels[n])
                else:
                    losses[n] = refnet_loss_float64(&x[n, 0], K, labels[n])
        environment.restore(before)
    interrupt.finish(&watch)
    before = environment.enter_default()
    compensated(&losses[0], x.shape[0], &sum_)
    y[0] = <floating> (sum_.high / <double> x.shape[0])
    environment.restore(before)


def cross_entropy_input_gradient(const floating[:, ::1] x, const int64_t[::1] labels, floating[:, ::1] dx,
                                 double dy):
    """dx (N, K) = (softmax of each row of x (N, K), less 1 at its label) dy."""
    cdef Py_ssize_t n, K = x.shape[1]
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require_labels(labels, x.shape[0], K)
    require(dx.shape[0] == x.shape[0] and dx.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * K * 8)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for n in prange(x.shape[0], schedule="static"):
            if not interrupt.asked(&turn, 8 * K):
                if floating is float:
                    refnet_loss_gradient_float32(&x[n, 0], &dx[n, 0], K, labels[n], dy)
                else:
                    refnet_loss_gradient_float64(&x[n, 0], &dx[n, 0], K, labels[n], dy)
        environment.restore(before)
    interrupt.finish(&watch)


cdef int require_labels(const int64_t[::1] labels, Py_ssize_t N, Py_ssize_t K) except -1:
    """Require a class of K for each of N samples."""
    cdef Py_ssize_t n
    require(K > 0 and labels.shape[0] == N)
    for n in range(N):
        require(0 <= labels[n] < K)
    return 0
