"""Dropout with a given mask over flat blobs, piece by piece."""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, interrupt, openmp
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.pieces cimport PIECE, length, pieces
from refnet._core.checks cimport require


cdef void keep_some(const floating* x, const floating* mask, floating keep, floating* y,
                    Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = x[i] * mask[i] * keep


def apply(const floating[::1] x, const floating[::1] mask, floating[::1] y, floating keep):
    """y = x mask keep."""
    cdef Py_ssize_t size = x.shape[0], piece
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(mask.shape[0] == size and y.shape[0] == size)
    with nogil, parallel(use_threads_if=openmp.pays(size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for piece in prange(pieces(size), schedule="static"):
            if not interrupt.asked(&turn, PIECE):
                keep_some(&x[piece * PIECE], &mask[piece * PIECE], keep, &y[piece * PIECE],
                          length(piece, size))
        environment.restore(before)
    interrupt.finish(&watch)
