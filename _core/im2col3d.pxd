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


# Whether a volume of that many values, and that many output positions, are those of the geometry.
cdef inline bint fits(const Geometry* g, Py_ssize_t volume, Py_ssize_t positions) noexcept nogil:
    return volume == g.T * g.H * g.W and positions == g.oT * g.oH * g.oW


cdef Geometry geometry(volume, kernel, stride, pad, dilation, output)

cdef void gather(const floating* x, floating* tile, const Geometry* g,
                 Py_ssize_t row_start, Py_ssize_t row_stop, Py_ssize_t start, Py_ssize_t count,
                 Py_ssize_t width, Py_ssize_t pitch, Py_ssize_t panel) noexcept nogil
