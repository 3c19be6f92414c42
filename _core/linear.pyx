"""A fully connected layer of few samples: the weights are read once, or written once, and nothing is packed.

y (N, K) = x (N, D) w' (D, K), dx = dy w, dw = dy' x. Every element is the sum that conv3d.pyx defines for the
convolution of one tap that the layer is (refnet/arithmetic/core/linear.py says which), so the bits are the same.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, interrupt, micro_kernel, openmp
from refnet._core.blocking cimport CACHE_LINE, KC, ceil_div
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.simd cimport Simd

# Rows of w in one task of dw; tasks of y have a multiple.
cdef Py_ssize_t ROWS = 16

# Multiply-adds of one task of y or dx, for each lane of a micro-tile: a few tenths of a second.
cdef Py_ssize_t UNINTERRUPTED = <Py_ssize_t> 1 << 27


def forward(const floating[:, ::1] x, const floating[:, ::1] w, floating[:, ::1] y):
    """y (N, K) = x (N, D) times the transposed w (K, D)."""
    cdef const Simd* simd = micro_kernel.active(&x[0, 0])
    cdef Py_ssize_t N = x.shape[0], D = x.shape[1], K = w.shape[0], task, k
    cdef Py_ssize_t share = ceil_div(ceil_div(K, ROWS), openmp.max_threads())
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(w.shape[1] == D and y.shape[0] == N and y.shape[1] == K)
    share = max(1, min(share, simd.nr * UNINTERRUPTED // (N * D * ROWS + 1) + 1)) * ROWS
    with nogil, parallel(use_threads_if=openmp.pays(max(N, <Py_ssize_t> 8) * D * K // 8)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for task in prange(ceil_div(K, share), schedule="static"):
            if not interrupt.asked(&turn, N * share * D // simd.nr + 1):
                k = task * share
                simd.linear_forward(&x[0, 0], &w[k, 0], &y[0, k], N, min(share, K - k), D, K)
        environment.restore(before)
    interrupt.finish(&watch)


def input_gradient(const floating[:, ::1] dy, const floating[:, ::1] w, floating[:, ::1] dx):
    """dx (N, D) = dy (N, K) times w (K, D)."""
    cdef const Simd* simd = micro_kernel.active(&dy[0, 0])
    cdef Py_ssize_t N = dx.shape[0], D = dx.shape[1], K = w.shape[0], line = CACHE_LINE // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t share = ceil_div(ceil_div(D, line), openmp.max_threads()), task, d
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(w.shape[1] == D and dy.shape[0] == N and dy.shape[1] == K)
    share = max(1, min(share, simd.nr * UNINTERRUPTED // (N * K * line + 1) + 1)) * line
    with nogil, parallel(use_threads_if=openmp.pays(max(N, <Py_ssize_t> 8) * D * K // 8)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for task in prange(ceil_div(D, share), schedule="static"):
            if not interrupt.asked(&turn, N * share * K // simd.nr + 1):
                d = task * share
                simd.linear_input_gradient(&dy[0, 0], &w[0, d], &dx[0, d], N, K, min(share, D - d), D)
        environment.restore(before)
    interrupt.finish(&watch)


def weight_gradient(const floating[:, ::1] dy, const floating[:, ::1] x, floating[:, ::1] dw):
    """dw (K, D) = the transposed dy (N, K) times x (N, D), for at most KC samples."""
    cdef const Simd* simd = micro_kernel.active(&dy[0, 0])
    cdef Py_ssize_t N = x.shape[0], D = x.shape[1], K = dw.shape[0], task, k
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(dw.shape[1] == D and dy.shape[0] == N and dy.shape[1] == K and N <= KC)
    with nogil, parallel(use_threads_if=openmp.pays(max(N, <Py_ssize_t> 8) * D * K // 8)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for task in prange(ceil_div(K, ROWS), schedule="static"):
            if not interrupt.asked(&turn, N * ROWS * D // simd.nr + 1):
                k = task * ROWS
                simd.linear_weight_gradient(&dy[0, k], &x[0, 0], &dw[k, 0], N, min(ROWS, K - k), D, K)
        environment.restore(before)
    interrupt.finish(&watch)
