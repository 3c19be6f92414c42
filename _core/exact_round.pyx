"""Sums of float32 that float64 has made, rounded to float32 where their error leaves no doubt; and coarse grids."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport frexp

from refnet._core cimport environment, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment

cdef extern from "exact_round.h":
    void round_to_floats(const double* values, const double* errors, double error, Py_ssize_t n,
                         float* y) noexcept nogil

# Positions that are one task.
cdef enum:
    TOGETHER = 1024


def round_sums(const double[:, ::1] sums, const double[::1] of_rows, const double[:, ::1] of_columns,
               float[:, ::1] y):
    """y (R, P) <- sums (R, P), rounded, or NaN where their error decides how.

    The error of an element is at most its row's, times its column's in the row of of_columns (Q, P) that it belongs to:
    R / Q rows share one.
    """
    cdef Py_ssize_t R = sums.shape[0], P = sums.shape[1], row
    cdef Py_ssize_t share = R // max(1, of_columns.shape[0])
    cdef Environment before
    require(y.shape[0] == R and y.shape[1] == P and of_rows.shape[0] == R and of_columns.shape[1] == P
            and share * of_columns.shape[0] == R)
    with nogil, parallel(use_threads_if=openmp.pays(R * P)):
        before = environment.enter_default()
        for row in prange(R, schedule="static"):
            round_to_floats(&sums[row, 0], &of_columns[row // share, 0], of_rows[row], P, &y[row, 0])
        environment.restore(before)


def widen(const float[:, :, ::1] x, double[:, :, ::1] wide, double[:, ::1] squares):
    """wide <- x (N, C, P) in float64, and squares (N, P) <- the sums over C of its squares, rounded."""
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1], P = x.shape[2], across = (P + TOGETHER - 1) // TOGETHER, task
    cdef Environment before
    require(wide.shape[0] == N and wide.shape[1] == C and wide.shape[2] == P)
    require(squares.shape[0] == N and squares.shape[1] == P)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        for task in prange(N * across, schedule="static"):
            widen_some(&x[task // across, 0, 0], &wide[task // across, 0, 0], &squares[task // across, 0], C, P,
                       task % across * TOGETHER, min(task % across * TOGETHER + TOGETHER, P))
        environment.restore(before)


cdef void widen_some(const float* x, double* wide, double* squares, Py_ssize_t C, Py_ssize_t P, Py_ssize_t first,
                     Py_ssize_t last) noexcept nogil:
    """The positions [first, last) of x (C, P)."""
    cdef Py_ssize_t c, i
    for i in range(first, last):
        squares[i] = 0
    for c in range(C):
        for i in range(first, last):
            wide[c * P + i] = x[c * P + i]
            squares[i] += wide[c * P + i] * wide[c * P + i]


def grid(const floating[::1] values, int most):
    """(g, h): all values are multiples of 2**g, and less than 2**h; h = g for zeros; None if h - g exceeds `most`."""
    cdef Py_ssize_t i
    cdef int exponent, low = 0, high = 0, last
    cdef bint found = False
    cdef double significand
    cdef long long bits
    for i in range(values.shape[0]):
        if values[i] == 0:
            continue
        significand = frexp(values[i], &exponent)
        bits = <long long> (significand * 9007199254740992.0)  # 2**53
        last = exponent - 53
        while not bits & 1:
            bits >>= 1
            last += 1
        low, high = (min(low, last), max(high, exponent)) if found else (last, exponent)
        found = True
        if high - low > most:
            return None
    return low, high
