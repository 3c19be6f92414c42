cdef extern from "geometry.h":
    ctypedef struct Geometry "struct geometry":
        Py_ssize_t T, H, W
        Py_ssize_t kT, kH, kW
        Py_ssize_t sT, sH, sW
        Py_ssize_t pT, pH, pW
        Py_ssize_t dT, dH, dW
        Py_ssize_t oT, oH, oW


# The geometry of a window over a volume (T, H, W); the window is (kernel, stride, pad, dilation, output).
cdef inline Geometry geometry(volume, window):
    cdef Geometry g
    kernel, stride, pad, dilation, output = window
    g.T, g.H, g.W = volume
    g.kT, g.kH, g.kW = kernel
    g.sT, g.sH, g.sW = stride
    g.pT, g.pH, g.pW = pad
    g.dT, g.dH, g.dW = dilation
    g.oT, g.oH, g.oW = output
    return g


# Whether a volume of that many values, and that many output positions, are those of the geometry.
cdef inline bint fits(const Geometry* g, Py_ssize_t volume, Py_ssize_t positions) noexcept nogil:
    return volume == g.T * g.H * g.W and positions == g.oT * g.oH * g.oW


# The same windows over longer lines: where each value of an image is a window, images are lines.
cdef inline Geometry in_long_lines(Geometry g) noexcept nogil:
    if g.kH == g.kW == g.sH == g.sW == 1 and g.pH == g.pW == 0 and g.W == g.oW:
        g.W *= g.H
        g.oW *= g.oH
        g.H = g.oH = 1
    return g
