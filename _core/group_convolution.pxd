from cython cimport floating

from refnet._core.channel_image cimport ChannelImage
from refnet._core.simd cimport Simd
from refnet._core.tiles cimport Convolution


# How a convolution of stride 1 with few rows in a group is computed, from the image of a group. Lines of output
# positions are cut into `vectors`, the last of which may be partial.
cdef struct GroupConvolution:
    const Convolution* conv
    ChannelImage image
    Py_ssize_t groups, terms, vectors


cdef GroupConvolution group_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t groups) noexcept nogil
cdef bint pays(const Simd* simd, const GroupConvolution* convolution, Py_ssize_t samples) noexcept nogil
cdef void convolve_group(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                         const GroupConvolution* convolution, Py_ssize_t task) noexcept nogil
