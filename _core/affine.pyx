"""A scale and a bias for each channel, and their gradients, one (sample, channel) plane at a time.

Blobs are (N, C, P) with P = T * H * W.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, interrupt, openmp
from refnet._core.blocking cimport ceil_div
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.pieces cimport planes_together
from refnet._core.sums cimport planes, total


# Planes [first, last) of all samples' channels, of which plane i has channel i % C.
cdef void scale_and_shift(const floating* x, const floating* s, const floating* b, floating* y, Py_ssize_t C,
                          Py_ssize_t P, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """y = s x + b."""
    cdef Py_ssize_t plane, p
    cdef floating factor, shift
    for plane in range(first, last):
        factor, shift = s[plane % C], b[plane % C]
        for p in range(plane * P, (plane + 1) * P):
            y[p] = factor * x[p] + shift


cdef void scale(const floating* x, const floating* s, floating* y, Py_ssize_t C, Py_ssize_t P, Py_ssize_t first,
                Py_ssize_t last) noexcept nogil:
    """y = s x."""
    cdef Py_ssize_t plane, p
    cdef floating factor
    for plane in range(first, last):
        factor = s[plane % C]
        for p in range(plane * P, (plane + 1) * P):
            y[p] = factor * x[p]


def forward(const floating[:, :, ::1] x, const floating[::1] s, const floating[::1] b,
            floating[:, :, ::1] y):
    """y = s x + b."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], together = planes_together(P), share
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(s.shape[0] == C and b.shape[0] == C and y.shape[0] == x.shape[0]
            and y.shape[1] == C and y.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for share in prange(ceil_div(x.shape[0] * C, together), schedule="static"):
            if not interrupt.asked(&turn, together * P):
                scale_and_shift(&x[0, 0, 0], &s[0], &b[0], &y[0, 0, 0], C, P, share * together,
                                min((share + 1) * together, x.shape[0] * C))
        environment.restore(before)
    interrupt.finish(&watch)


def input_gradient(const floating[:, :, ::1] dy, const floating[::1] s, floating[:, :, ::1] dx):
    """dx = s dy."""
    cdef Py_ssize_t C = dy.shape[1], P = dy.shape[2], together = planes_together(P), share
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(s.shape[0] == C and dx.shape[0] == dy.shape[0] and dx.shape[1] == C and dx.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(dy.shape[0] * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for share in prange(ceil_div(dy.shape[0] * C, together), schedule="static"):
            if not interrupt.asked(&turn, together * P):
                scale(&dy[0, 0, 0], &s[0], &dx[0, 0, 0], C, P, share * together,
                      min((share + 1) * together, dy.shape[0] * C))
        environment.restore(before)
    interrupt.finish(&watch)


def bias_gradient(const floating[:, :, ::1] dy, double[::1] db):
    """db[c] = sum of dy over samples and positions, in float64: `sums.h` has its order and its error."""
    cdef Py_ssize_t c, N = dy.shape[0], C = dy.shape[1], P = dy.shape[2]
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(db.shape[0] == C)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for c in prange(C, schedule="static"):
            if not interrupt.asked(&turn, N * P):
                db[c] = total(&dy[0, c, 0], planes(N, C * P, P))
        environment.restore(before)
    interrupt.finish(&watch)
