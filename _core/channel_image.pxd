# Images of channels, with their padding: see channel_image.pyx.

from cython cimport floating

from refnet._core.blocking cimport MAX_NR
from refnet._core.geometry cimport Geometry
from refnet._core.simd cimport Simd

cdef enum:
    MAX_LANES = MAX_NR // 2


# What `frames` x `lines` of output positions read, completed by zeros; it begins at (t, h, w) of x. Each lane has
# `channels` images of its own. So many positions `behind` it may be touched.
cdef struct ChannelImage:
    Py_ssize_t t, h, w, frames, lines, width, channels, lanes, behind


# The first channel that each lane of a vector reads, and how many lanes are in use; the others repeat the last one.
cdef struct LaneChannels:
    Py_ssize_t[MAX_LANES] first
    Py_ssize_t used


cdef ChannelImage channel_image(const Geometry* g, Py_ssize_t channels, Py_ssize_t frames, Py_ssize_t lines,
                                Py_ssize_t lanes, Py_ssize_t behind) noexcept nogil
cdef Py_ssize_t image_size(const ChannelImage* image) noexcept nogil
cdef bint are_used(const ChannelImage* image, Py_ssize_t blocks, Py_ssize_t results) noexcept nogil
cdef LaneChannels lanes_of(const Simd* simd, Py_ssize_t block, Py_ssize_t rows, Py_ssize_t channels,
                           Py_ssize_t groups, Py_ssize_t rotations) noexcept nogil
cdef void fill_image(const Simd* simd, const floating* x, const Geometry* g, const LaneChannels* lanes,
                     const ChannelImage* image, floating* to) noexcept nogil
cdef void place_lines(const ChannelImage* image, const Geometry* g, Py_ssize_t* offsets) noexcept nogil
cdef void place_runs(const ChannelImage* image, const Geometry* g, Py_ssize_t run, Py_ssize_t* offsets) noexcept nogil
