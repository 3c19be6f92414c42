"""The sum of two flat blobs, piece by piece."""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, interrupt, openmp
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.pieces cimport PIECE, length, pieces
from refnet._core.checks cimport require


cdef void add(const floating* x1, const floating* x2, floating* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = x1[i] + x2[i]


def forward(const floating[::1] x1, const floating[::1] x2, floating[::1] y):
    """y = x1 + x2."""
    cdef Py_ssize_t size = x1.shape[0], piece
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(x2.shape[0] == size and y.shape[0] == size)
    with nogil, parallel(use_threads_if=openmp.pays(size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for piece in prange(pieces(size), schedule="static"):
            if not interrupt.asked(&turn, PIECE):
                add(&x1[piece * PIECE], &x2[piece * PIECE], &y[piece * PIECE], length(piece, size))
        environment.restore(before)
    interrupt.finish(&watch)
