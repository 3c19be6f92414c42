"""Results against expected values and bounds, element by element, piece by piece."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport fabs, INFINITY

from refnet._core cimport environment, interrupt, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.pieces cimport PIECE, length, pieces


cdef inline double ratio(double off, double bound) noexcept nogil:
    """off / bound; infinite where that is NaN, 0 where nothing is off."""
    cdef double found = off / bound
    return 0 if off == 0 else (found if found >= 0 else INFINITY)


cdef void judge(
    const floating* found, const double* expected, const double* absolute, bint single, double relative,
    Py_ssize_t n, double* margin, Py_ssize_t* place, Py_ssize_t* wrong,
) noexcept nogil:
    """The largest ratio and its place, and how many differences are not at most their bound."""
    cdef double off, bound
    cdef Py_ssize_t i, step = 0 if single else 1
    margin[0], place[0], wrong[0] = 0, 0, 0
    for i in range(n):
        off = fabs(found[i] - expected[i])
        bound = relative * fabs(expected[i]) + absolute[i * step]
        wrong[0] += not off <= bound
        off = ratio(off, bound)
        if off > margin[0]:
            margin[0], place[0] = off, i


def compare(
    const floating[::1] found, const double[::1] expected, const double[::1] absolute,
    double[::1] margins, Py_ssize_t[::1] places, Py_ssize_t[::1] wrong, double relative,
):
    """For each piece of PIECE elements: the largest |found - expected| / bound, where, how many are beyond it.

    bound = relative |expected| + absolute, which is one number or one an element. NaN is beyond every bound.
    """
    cdef Py_ssize_t size = found.shape[0], count = pieces(size), piece, first
    cdef bint single = absolute.shape[0] == 1
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(expected.shape[0] == size and (single or absolute.shape[0] == size))
    require(margins.shape[0] == count and places.shape[0] == count and wrong.shape[0] == count)
    with nogil, parallel(use_threads_if=openmp.pays(size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for piece in prange(count, schedule="static"):
            if not interrupt.asked(&turn, 4 * PIECE):
                first = piece * PIECE
                judge(
                    &found[first], &expected[first], &absolute[0 if single else first], single, relative,
                    length(piece, size), &margins[piece], &places[piece], &wrong[piece],
                )
        environment.restore(before)
    interrupt.finish(&watch)


def piece_length():
    """Elements of a piece."""
    return PIECE
