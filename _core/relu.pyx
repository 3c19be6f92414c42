"""The rectifier over flat blobs, piece by piece."""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, interrupt, openmp
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.pieces cimport PIECE, length, pieces
from refnet._core.checks cimport require


cdef void rectify(const floating* x, const floating* y, floating* z, Py_ssize_t n) noexcept nogil:
    """z = 0 where y <= 0, else x."""
    cdef Py_ssize_t i
    cdef floating value
    for i in range(n):
        value = x[i]  # read whether it is wanted or not: no branch is left in the loop
        z[i] = 0 if y[i] <= 0 else value


def forward(const floating[::1] x, floating[::1] y):
    """y = 0 where x <= 0, else x."""
    cdef Py_ssize_t size = x.shape[0], piece
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(y.shape[0] == size)
    with nogil, parallel(use_threads_if=openmp.pays(size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for piece in prange(pieces(size), schedule="static"):
            if not interrupt.asked(&turn, PIECE):
                rectify(&x[piece * PIECE], &x[piece * PIECE], &y[piece * PIECE], length(piece, size))
        environment.restore(before)
    interrupt.finish(&watch)


def input_gradient(const floating[::1] dy, const floating[::1] y, floating[::1] dx):
    """dx = 0 where y <= 0, else dy."""
    cdef Py_ssize_t size = dy.shape[0], piece
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(y.shape[0] == size and dx.shape[0] == size)
    with nogil, parallel(use_threads_if=openmp.pays(size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for piece in prange(pieces(size), schedule="static"):
            if not interrupt.asked(&turn, PIECE):
                rectify(&dy[piece * PIECE], &y[piece * PIECE], &dx[piece * PIECE], length(piece, size))
        environment.restore(before)
    interrupt.finish(&watch)
