"""A fully connected layer by GEMM: Y = X W', dX = dY W, dW = dY' X.

X is (N, D), W (K, D), Y (N, K). A task owns some rows or columns of the result, whole sums
included, so the bits do not depend on how many threads there are.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, openmp
from refnet._core.blas cimport gemm
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment

# Rows or columns of the result in one task.
cdef Py_ssize_t SHARE = 128


def forward(const floating[:, ::1] x, const floating[:, ::1] w, floating[:, ::1] y):
    """y (N, K) = x (N, D) w' (D, K)."""
    cdef Py_ssize_t N = x.shape[0], D = x.shape[1], K = w.shape[0], task, k
    cdef Environment before
    require(w.shape[1] == D and y.shape[0] == N and y.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(N * D * K // 8)):
        before = environment.enter_default()
        for task in prange((K + SHARE - 1) // SHARE, schedule="static"):
            k = task * SHARE
            gemm(False, True, N, min(SHARE, K - k), D, &x[0, 0], D, &w[k, 0], D, <floating> 0,
                 &y[0, k], K)
        environment.restore(before)


def input_gradient(const floating[:, ::1] dy, const floating[:, ::1] w, floating[:, ::1] dx):
    """dx (N, D) = dy (N, K) w (K, D)."""
    cdef Py_ssize_t N = dx.shape[0], D = dx.shape[1], K = w.shape[0], task, d
    cdef Environment before
    require(w.shape[1] == D and dy.shape[0] == N and dy.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(N * D * K // 8)):
        before = environment.enter_default()
        for task in prange((D + SHARE - 1) // SHARE, schedule="static"):
            d = task * SHARE
            gemm(False, False, N, min(SHARE, D - d), K, &dy[0, 0], K, &w[0, d], D, <floating> 0,
                 &dx[0, d], D)
        environment.restore(before)


def weight_gradient(const floating[:, ::1] dy, const floating[:, ::1] x, floating[:, ::1] dw):
    """dw (K, D) = dy' (K, N) x (N, D)."""
    cdef Py_ssize_t N = x.shape[0], D = x.shape[1], K = dw.shape[0], task, k
    cdef Environment before
    require(dw.shape[1] == D and dy.shape[0] == N and dy.shape[1] == K)
    with nogil, parallel(use_threads_if=openmp.pays(N * D * K // 8)):
        before = environment.enter_default()
        for task in prange((K + SHARE - 1) // SHARE, schedule="static"):
            k = task * SHARE
            gemm(True, False, min(SHARE, K - k), D, N, &dy[0, k], K, &x[0, 0], D, <floating> 0,
                 &dw[k, 0], D)
        environment.restore(before)
