"""Average pooling, one (sample, channel) plane at a time; padding is neither added nor counted.

A line of outputs takes one tap of the window after another, so that the inner loop runs along W.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.string cimport memset

from refnet._core cimport environment, openmp
from refnet._core.environment cimport Environment
from refnet._core.geometry cimport Geometry, fits, geometry, in_long_lines
from refnet._core.pooling cimport Overlap, inside, line_of, overlap
from refnet._core.checks cimport require
from refnet._core.sums cimport Pair, add_total, zero


cdef inline void collect(const floating* x, Py_ssize_t stride, floating* y, Py_ssize_t n) noexcept nogil:
    """y += every stride-th x."""
    cdef Py_ssize_t i
    if stride == 1:
        for i in range(n):
            y[i] += x[i]
    else:
        for i in range(n):
            y[i] += x[i * stride]


cdef inline void scatter(const floating* y, floating* x, Py_ssize_t stride, Py_ssize_t n) noexcept nogil:
    """Every stride-th x += y."""
    cdef Py_ssize_t i
    if stride == 1:
        for i in range(n):
            x[i] += y[i]
    else:
        for i in range(n):
            x[i * stride] += y[i]


cdef inline void divide(const floating* x, floating* y, Geometry g, Py_ssize_t lines) noexcept nogil:
    """y = x over the number of taps inside, along a line of outputs; `lines` is that number along T and H."""
    cdef Py_ssize_t ow
    cdef floating all_inside = lines * g.kW
    if g.kW == 1:
        for ow in range(g.oW):
            y[ow] = x[ow] / all_inside
    else:
        for ow in range(g.oW):
            y[ow] = x[ow] / <floating> (lines * inside(ow, g.kW, g.sW, g.pW, g.W))


cdef void pool(const floating* x, floating* y, Geometry g) noexcept nogil:
    """One plane: y (oT, oH, oW) from x (T, H, W)."""
    cdef Py_ssize_t ot, oh, tap, line, kw
    cdef Overlap s
    for ot in range(g.oT):
        for oh in range(g.oH):
            memset(y, 0, g.oW * sizeof(floating))
            for tap in range(g.kT * g.kH):
                line = line_of(&g, ot, oh, tap)
                if line < 0:
                    continue
                for kw in range(g.kW):
                    s = overlap(kw, g.sW, g.pW, g.W, g.oW)
                    collect(x + line + s.at, g.sW, y + s.first, s.last - s.first)
            divide(y, y, g, inside(ot, g.kT, g.sT, g.pT, g.T) * inside(oh, g.kH, g.sH, g.pH, g.H))
            y += g.oW


cdef void hand_back(const floating* dy, floating* share, floating* dx, Geometry g) noexcept nogil:
    """One plane: dx (T, H, W) += each dy (oT, oH, oW) over its count; share is a line of outputs."""
    cdef Py_ssize_t ot, oh, tap, line, kw
    cdef Overlap s
    for ot in range(g.oT):
        for oh in range(g.oH):
            divide(dy, share, g, inside(ot, g.kT, g.sT, g.pT, g.T) * inside(oh, g.kH, g.sH, g.pH, g.H))
            dy += g.oW
            for tap in range(g.kT * g.kH):
                line = line_of(&g, ot, oh, tap)
                if line < 0:
                    continue
                for kw in range(g.kW):
                    s = overlap(kw, g.sW, g.pW, g.W, g.oW)
                    scatter(share + s.first, dx + line + s.at, g.sW, s.last - s.first)


def forward(const floating[:, ::1] x, floating[:, ::1] y, volume, window):
    """y (planes, P) = the mean of each window of x (planes, T * H * W)."""
    cdef Geometry g = geometry(volume, window)
    cdef Py_ssize_t plane
    cdef Environment before
    require(fits(&g, x.shape[1], y.shape[1]) and y.shape[0] == x.shape[0])
    g = in_long_lines(g)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * x.shape[1])):
        before = environment.enter_default()
        for plane in prange(x.shape[0], schedule="static"):
            pool(&x[plane, 0], &y[plane, 0], g)
        environment.restore(before)


def whole(const floating[:, ::1] x, floating[::1] y):
    """y (planes,) = the mean of each plane of x (planes, P), over everything; `sums.h` has the order of its sum."""
    cdef Py_ssize_t plane, P = x.shape[1]
    cdef Pair sum_
    cdef Environment before
    require(P > 0 and y.shape[0] == x.shape[0])
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * P)):
        before = environment.enter_default()
        for plane in prange(x.shape[0], schedule="static"):
            sum_ = zero()
            add_total(&x[plane, 0], P, &sum_)
            y[plane] = <floating> (sum_.high / <double> P)
        environment.restore(before)


def input_gradient(const floating[:, ::1] dy, floating[:, ::1] dx, floating[:, ::1] shares,
                   volume, window):
    """dx (planes, T * H * W) = dy (planes, P) shared out over the windows; shares is (threads, P)."""
    cdef Geometry g = geometry(volume, window)
    cdef Py_ssize_t plane
    cdef Environment before
    require(fits(&g, dx.shape[1], dy.shape[1]) and dx.shape[0] == dy.shape[0]
            and shares.shape[0] >= openmp.max_threads() and shares.shape[1] >= dy.shape[1])
    g = in_long_lines(g)
    with nogil, parallel(use_threads_if=openmp.pays(dx.shape[0] * dx.shape[1])):
        before = environment.enter_default()
        for plane in prange(dx.shape[0], schedule="static"):
            memset(&dx[plane, 0], 0, dx.shape[1] * sizeof(floating))
            hand_back(&dy[plane, 0], &shares[openmp.thread_num(), 0], &dx[plane, 0], g)
        environment.restore(before)
