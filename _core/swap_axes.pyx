"""Two axes of a blob in each other's place: how time moves into channels or samples, and back."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.string cimport memcpy

from refnet._core cimport environment, interrupt, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch


def forward(const floating[:, :, :, ::1] x, floating[:, :, :, ::1] y):
    """y (N, B, A, P) = x (N, A, B, P), one row of A lines at a time."""
    cdef Py_ssize_t A = x.shape[1], B = x.shape[2], P = x.shape[3], row, a
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(y.shape[0] == x.shape[0] and y.shape[1] == B and y.shape[2] == A and y.shape[3] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * A * B * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for row in prange(x.shape[0] * B, schedule="static"):
            if not interrupt.asked(&turn, A * P):
                for a in range(A):
                    memcpy(&y[row // B, row % B, a, 0], &x[row // B, a, row % B, 0], P * sizeof(floating))
        environment.restore(before)
    interrupt.finish(&watch)
