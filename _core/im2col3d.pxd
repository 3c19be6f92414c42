from cython cimport floating


cdef enum:
    TILE_COLUMNS = 256  # at most so many in a tile of the patch matrix


# Where the patches of a convolution lie: sizes of the input volume, the kernel and the output
# volume, and how a kernel tap and an output position together name an input position,
#     input = output * stride + tap * dilation - pad,    on each of the axes T, H, W;
# dilation and pad may be negative.
cdef struct Geometry:
    Py_ssize_t T, H, W
    Py_ssize_t kT, kH, kW
    Py_ssize_t sT, sH, sW
    Py_ssize_t pT, pH, pW
    Py_ssize_t dT, dH, dW
    Py_ssize_t oT, oH, oW


# A part of a volume: [t0, t1) x [h0, h1) x [w0, w1).
cdef struct Box:
    Py_ssize_t t0, t1, h0, h1, w0, w1


# The part of an undilated window that lies inside the volume, for the output at (ot, oh, ow).
cdef inline Box window(const Geometry* g, Py_ssize_t ot, Py_ssize_t oh, Py_ssize_t ow) noexcept nogil:
    cdef Box box
    box.t0 = max(ot * g.sT - g.pT, 0)
    box.t1 = min(ot * g.sT - g.pT + g.kT, g.T)
    box.h0 = max(oh * g.sH - g.pH, 0)
    box.h1 = min(oh * g.sH - g.pH + g.kH, g.H)
    box.w0 = max(ow * g.sW - g.pW, 0)
    box.w1 = min(ow * g.sW - g.pW + g.kW, g.W)
    return box


# Whether a volume of that many values, and that many output positions, are those of the geometry.
cdef inline bint fits(const Geometry* g, Py_ssize_t volume, Py_ssize_t positions) noexcept nogil:
    return volume == g.T * g.H * g.W and positions == g.oT * g.oH * g.oW


cdef Geometry geometry(volume, kernel, stride, pad, dilation, output)

cdef void gather(const floating* x, floating* tile, const Geometry* g,
                 Py_ssize_t row_start, Py_ssize_t row_stop, Py_ssize_t start, Py_ssize_t count,
                 Py_ssize_t width, Py_ssize_t pitch, Py_ssize_t panel) noexcept nogil
