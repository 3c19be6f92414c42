"""The rectifier over flat blobs, in pieces of a fixed length."""

from cython cimport floating
from cython.parallel cimport prange

from refnet._core cimport openmp
from refnet._core.sizes cimport require

cdef Py_ssize_t PIECE = 1 << 16


def forward(const floating[::1] x, floating[::1] y):
    """y = 0 where x <= 0, else x."""
    cdef Py_ssize_t size = x.shape[0], piece, i
    require(y.shape[0] == size)
    with nogil:
        for piece in prange((size + PIECE - 1) // PIECE, schedule="static",
                            use_threads_if=openmp.pays(size)):
            for i in range(piece * PIECE, min((piece + 1) * PIECE, size)):
                y[i] = 0 if x[i] <= 0 else x[i]


def input_gradient(const floating[::1] dy, const floating[::1] y, floating[::1] dx):
    """dx = 0 where y <= 0, else dy."""
    cdef Py_ssize_t size = dy.shape[0], piece, i
    require(y.shape[0] == size and dx.shape[0] == size)
    with nogil:
        for piece in prange((size + PIECE - 1) // PIECE, schedule="static",
                            use_threads_if=openmp.pays(size)):
            for i in range(piece * PIECE, min((piece + 1) * PIECE, size)):
                dx[i] = 0 if y[i] <= 0 else dy[i]
