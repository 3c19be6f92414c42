"""Max pooling, one (sample, channel) plane at a time; a plane is a volume T x H x W."""

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memset

from refnet._core cimport openmp
from refnet._core.im2col3d cimport Box, Geometry, fits, geometry, window
from refnet._core.sizes cimport require


cdef void pool(const floating* x, floating* y, Py_ssize_t* winner, Geometry g) noexcept nogil:
    """One plane: y and winner (oT, oH, oW) from x (T, H, W)."""
    cdef Py_ssize_t ot, oh, ow, t, h, w, at
    cdef Box box
    cdef floating best, value
    for ot in range(g.oT):
        for oh in range(g.oH):
            for ow in range(g.oW):
                box = window(&g, ot, oh, ow)
                at = (box.t0 * g.H + box.h0) * g.W + box.w0
                best = x[at]
                for t in range(box.t0, box.t1):
                    for h in range(box.h0, box.h1):
                        for w in range(box.w0, box.w1):
                            value = x[(t * g.H + h) * g.W + w]
                            # `value != value`: a NaN wins over every number.
                            if value > best or (value != value and best == best):
                                best = value
                                at = (t * g.H + h) * g.W + w
                y[0] = best
                winner[0] = at
                y += 1
                winner += 1


def forward(const floating[:, ::1] x, floating[:, ::1] y, Py_ssize_t[:, ::1] winner,
            volume, kernel, stride, pad, output):
    """y (planes, P) = each window's largest value, winner (planes, P) = its position in x."""
    cdef Geometry g = geometry(volume, kernel, stride, pad, (1, 1, 1), output)
    cdef Py_ssize_t plane
    require(fits(&g, x.shape[1], y.shape[1]) and y.shape[0] == x.shape[0]
            and winner.shape[0] == x.shape[0] and winner.shape[1] == y.shape[1])
    with nogil:
        for plane in prange(x.shape[0], schedule="static",
                            use_threads_if=openmp.pays(x.shape[0] * x.shape[1])):
            pool(&x[plane, 0], &y[plane, 0], &winner[plane, 0], g)


def input_gradient(const floating[:, ::1] dy, const Py_ssize_t[:, ::1] winner,
                   floating[:, ::1] dx):
    """dx (planes, T * H * W) = dy (planes, P) added up at the winners, in the order of P."""
    cdef Py_ssize_t plane, p
    require(dx.shape[0] == dy.shape[0] and winner.shape[0] == dy.shape[0]
            and winner.shape[1] == dy.shape[1])
    with nogil:
        for plane in prange(dx.shape[0], schedule="static",
                            use_threads_if=openmp.pays(dx.shape[0] * dx.shape[1])):
            memset(&dx[plane, 0], 0, dx.shape[1] * sizeof(floating))
            for p in range(dy.shape[1]):
                dx[plane, winner[plane, p]] += dy[plane, p]
