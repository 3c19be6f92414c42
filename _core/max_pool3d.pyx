"""Max pooling, one (sample, channel) plane at a time; a plane is a volume T x H x W.

A line of outputs takes one tap of the window after another, so that the inner loop runs along W.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.limits cimport INT_MAX
from libc.math cimport INFINITY
from libc.string cimport memset

from refnet._core cimport environment, interrupt, micro_kernel, openmp
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.geometry cimport Geometry, geometry, in_long_lines
from refnet._core.pooling cimport TAP, Overlap, line_of, overlap, pools
from refnet._core.checks cimport require
from refnet._core.simd cimport Simd


cdef inline floating larger(floating best, floating value) noexcept nogil:
    """The larger; a NaN (`value != value`) wins over every number."""
    return value if (value > best) | (value != value) else best


cdef inline void take(const floating* x, Py_ssize_t stride, floating* y, Py_ssize_t n) noexcept nogil:
    """y = the larger of y and every stride-th x."""
    cdef Py_ssize_t i
    if stride == 1:
        for i in range(n):
            y[i] = larger(y[i], x[i])
    elif stride == 2:
        for i in range(n):
            y[i] = larger(y[i], x[2 * i])
    else:
        for i in range(n):
            y[i] = larger(y[i], x[i * stride])


cdef void pool(const floating* x, floating* y, Geometry g, Turn* turn) noexcept nogil:
    """One plane: y (oT, oH, oW) from x (T, H, W)."""
    cdef Py_ssize_t ot, oh, ow, tap, line, kw
    cdef Overlap s
    for ot in range(g.oT):
        for oh in range(g.oH):
            for ow in range(g.oW):
                y[ow] = -INFINITY
            for tap in range(g.kT * g.kH):
                line = line_of(&g, ot, oh, tap)
                if interrupt.asked(turn, g.oW if line < 0 else g.kW * (g.oW + TAP)):
                    return
                if line < 0:
                    continue
                for kw in range(g.kW):
                    s = overlap(kw, g.sW, g.pW, g.W, g.oW)
                    take(x + line + s.at, g.sW, y + s.first, s.last - s.first)
            y += g.oW


# Where a window's value lies behind its first one: in an int, which is faster, where the window allows it.
ctypedef fused offset:
    int
    Py_ssize_t


cdef inline double furthest(const Geometry* g) noexcept nogil:
    """The offset of a window's last value."""
    return ((g.kT - 1.0) * g.H + g.kH - 1) * g.W + g.kW - 1


cdef inline void find(const floating* x, Py_ssize_t stride, const floating* y, offset at, offset* found,
                      Py_ssize_t n) noexcept nogil:
    """found = at, where every stride-th x is y, or both are NaN."""
    cdef Py_ssize_t i
    cdef floating value
    if stride == 2:
        for i in range(n):
            value = x[2 * i]
            found[i] = at if (value == y[i]) | ((value != value) & (y[i] != y[i])) else found[i]
    else:
        for i in range(n):
            value = x[i * stride]
            found[i] = at if (value == y[i]) | ((value != value) & (y[i] != y[i])) else found[i]


cdef void hand_back(const floating* dy, const floating* x, const floating* y, offset* found, floating* dx,
                    Geometry g, Turn* turn) noexcept nogil:
    """One plane: dx (T, H, W) += dy (oT, oH, oW) at the first largest value of each window.

    The taps are tried from the last to the first, a line of outputs at a time, into `found`. It begins
    with each window's first value inside: should somebody have changed x or y meanwhile, dx is wrong
    then, but nothing beside it is touched.
    """
    cdef Py_ssize_t ot, oh, ow, tap, line, kw, corner
    cdef Overlap s
    for ot in range(g.oT):
        for oh in range(g.oH):
            corner = ((ot * g.sT - g.pT) * g.H + oh * g.sH - g.pH) * g.W - g.pW
            for ow in range(g.oW):
                found[ow] = <offset> ((max(g.pT - ot * g.sT, 0) * g.H + max(g.pH - oh * g.sH, 0)) * g.W
                                      + max(g.pW - ow * g.sW, 0))
            for tap in range(g.kT * g.kH - 1, -1, -1):
                line = line_of(&g, ot, oh, tap)
                if interrupt.asked(turn, g.oW if line < 0 else g.kW * (g.oW + TAP)):
                    return
                if line < 0:
                    continue
                for kw in range(g.kW - 1, -1, -1):
                    s = overlap(kw, g.sW, g.pW, g.W, g.oW)
                    find(x + line + s.at, g.sW, y + s.first, <offset> (line - g.pW - corner + kw),
                         found + s.first, s.last - s.first)
            for ow in range(g.oW):
                dx[corner + ow * g.sW + found[ow]] += dy[ow]
            y += g.oW
            dy += g.oW


cdef inline bint has_large(const floating* dy, Py_ssize_t n) noexcept nogil:
    """Whether some sum of few of these may overflow: one is above 2**100, or, of doubles, 2**1000."""
    cdef Py_ssize_t i
    cdef int found = 0
    cdef floating limit = <floating> (2.0**100 if floating is float else 2.0**1000)
    for i in range(n):
        found |= (dy[i] > limit) | (dy[i] < -limit)
    return found != 0


def forward(const floating[:, ::1] x, floating[:, ::1] y, volume, window):
    """y (planes, P) = each window's largest value."""
    cdef Geometry g = geometry(volume, window)
    cdef Py_ssize_t plane
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(pools(&g, x.shape[1], y.shape[1]) and y.shape[0] == x.shape[0])
    g = in_long_lines(g)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * x.shape[1])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for plane in prange(x.shape[0], schedule="static"):
            if not interrupt.asked(&turn, 1):
                pool(&x[plane, 0], &y[plane, 0], g, &turn)
        environment.restore(before)
    interrupt.finish(&watch)


def input_gradient(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[:, ::1] y,
                   floating[:, ::1] dx, offset[:, ::1] found, volume, window):
    """dx (planes, T * H * W) = dy (planes, P) added up where x has its windows' largest values y.

    found is (threads, P), of a type that holds how far a window's last value is behind its first. Where windows share a
    value, their gradients are added in C order, in the dtype: of at most ceil(kT / sT) ceil(kH / sH) ceil(kW / sW).
    Return whether all are finite.
    """
    cdef Geometry g = geometry(volume, window)
    cdef const Simd* simd = micro_kernel.active(&dy[0, 0])
    cdef Py_ssize_t plane, overflown = 0
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(pools(&g, x.shape[1], y.shape[1]) and y.shape[0] == x.shape[0]
            and dy.shape[0] == x.shape[0] and dy.shape[1] == y.shape[1]
            and dx.shape[0] == x.shape[0] and dx.shape[1] == x.shape[1]
            and found.shape[0] >= openmp.max_threads() and found.shape[1] >= y.shape[1]
            and (sizeof(offset) > sizeof(int) or furthest(&g) <= INT_MAX))
    g = in_long_lines(g)
    with nogil, parallel(use_threads_if=openmp.pays(dx.shape[0] * dx.shape[1])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for plane in prange(dx.shape[0], schedule="static"):
            if not interrupt.asked(&turn, dx.shape[1]):
                memset(&dx[plane, 0], 0, dx.shape[1] * sizeof(floating))
                hand_back(&dy[plane, 0], &x[plane, 0], &y[plane, 0],
                          &found[openmp.thread_num(), 0], &dx[plane, 0], g, &turn)
                overflown += (has_large(&dy[plane, 0], dy.shape[1])
                              and not simd.all_finite(&dx[plane, 0], 1, dx.shape[1]))
        environment.restore(before)
    interrupt.finish(&watch)
    return overflown == 0
