from cython cimport floating

from refnet._core.channel_image cimport ChannelImage
from refnet._core.geometry cimport Geometry
from refnet._core.simd cimport Simd


# How dw of groups of few channels and filters is computed: `blocks` of lanes, each of whose images is that of so many
# `frames` of the output at once, or of so many `lines` of one. Of each of so many `rotations` there are `terms`, of
# which `run`, 3 or 1, are computed together.
cdef struct ChannelGradients:
    Geometry g
    ChannelImage image
    Py_ssize_t samples, groups, filters, channels, rotations, terms, run, blocks, frames, lines


cdef ChannelGradients channel_gradients(const Simd* simd, const Geometry* g, Py_ssize_t samples, Py_ssize_t groups,
                                        Py_ssize_t filters, Py_ssize_t channels) noexcept nogil
cdef bint pays(const Simd* simd, const ChannelGradients* gradients) noexcept nogil
cdef void channel_gradient(const Simd* simd, const floating* dy, const floating* x, floating* dw,
                           unsigned char* memory, const ChannelGradients* gradients,
                           Py_ssize_t block) noexcept nogil
