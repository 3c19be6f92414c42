from cython cimport floating

from refnet._core.channel_image cimport ChannelImage
from refnet._core.simd cimport Simd
from refnet._core.tiles cimport Convolution


# How a convolution whose groups have few channels and rows is computed: `blocks` of lanes, each of whose images is cut
# into `bands` of so many `lines` of every output frame.
cdef struct ChannelConvolution:
    const Convolution* conv
    ChannelImage image
    Py_ssize_t groups, terms, blocks, bands, lines


cdef ChannelConvolution channel_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t samples,
                                            Py_ssize_t groups, Py_ssize_t itemsize) noexcept nogil
cdef bint pays(const Simd* simd, const ChannelConvolution* convolution, Py_ssize_t samples) noexcept nogil
cdef void convolve_channels(const Simd* simd, const floating* x, const floating* w, floating* y,
                            unsigned char* memory, const ChannelConvolution* convolution,
                            Py_ssize_t task) noexcept nogil
