"""Average pooling, one (sample, channel) plane at a time; padding is neither added nor counted."""

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memset

from refnet._core cimport openmp
from refnet._core.im2col3d cimport Box, Geometry, fits, geometry, window
from refnet._core.sizes cimport require


cdef inline Py_ssize_t count(Box box) noexcept nogil:
    return (box.t1 - box.t0) * (box.h1 - box.h0) * (box.w1 - box.w0)


cdef void pool(const floating* x, floating* y, Geometry g) noexcept nogil:
    """One plane: y (oT, oH, oW) from x (T, H, W)."""
    cdef Py_ssize_t ot, oh, ow, t, h, w
    cdef Box box
    cdef floating total
    for ot in range(g.oT):
        for oh in range(g.oH):
            for ow in range(g.oW):
                box = window(&g, ot, oh, ow)
                total = 0
                for t in range(box.t0, box.t1):
                    for h in range(box.h0, box.h1):
                        for w in range(box.w0, box.w1):
                            total = total + x[(t * g.H + h) * g.W + w]
                y[0] = total / <floating> count(box)
                y += 1


cdef void spread(const floating* dy, floating* dx, Geometry g) noexcept nogil:
    """One plane: dx (T, H, W) += each dy (oT, oH, oW) over its count, in the order of dy."""
    cdef Py_ssize_t ot, oh, ow, t, h, w
    cdef Box box
    cdef floating share
    for ot in range(g.oT):
        for oh in range(g.oH):
            for ow in range(g.oW):
                box = window(&g, ot, oh, ow)
                share = dy[0] / <floating> count(box)
                dy += 1
                for t in range(box.t0, box.t1):
                    for h in range(box.h0, box.h1):
                        for w in range(box.w0, box.w1):
                            dx[(t * g.H + h) * g.W + w] += share


def forward(const floating[:, ::1] x, floating[:, ::1] y, volume, kernel, stride, pad, output):
    """y (planes, P) = the mean of each window of x (planes, T * H * W)."""
    cdef Geometry g = geometry(volume, kernel, stride, pad, (1, 1, 1), output)
    cdef Py_ssize_t plane
    require(fits(&g, x.shape[1], y.shape[1]) and y.shape[0] == x.shape[0])
    with nogil:
        for plane in prange(x.shape[0], schedule="static",
                            use_threads_if=openmp.pays(x.shape[0] * x.shape[1])):
            pool(&x[plane, 0], &y[plane, 0], g)


def input_gradient(const floating[:, ::1] dy, floating[:, ::1] dx,
                   volume, kernel, stride, pad, output):
    """dx (planes, T * H * W) = dy (planes, P) shared out over the windows."""
    cdef Geometry g = geometry(volume, kernel, stride, pad, (1, 1, 1), output)
    cdef Py_ssize_t plane
    require(fits(&g, dx.shape[1], dy.shape[1]) and dx.shape[0] == dy.shape[0])
    with nogil:
        for plane in prange(dx.shape[0], schedule="static",
                            use_threads_if=openmp.pays(dx.shape[0] * dx.shape[1])):
            memset(&dx[plane, 0], 0, dx.shape[1] * sizeof(floating))
            spread(&dy[plane, 0], &dx[plane, 0], g)
