from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.tiles cimport Subkernel
from refnet._core.write_back cimport OutputMap

cdef enum:
    MERGED_CHANNELS = 4  # channels of x, in a group, for which phases are merged


# The merged subkernel's places of dy along T, H and W: how many, and the first, from which they count
# downwards.
cdef struct Places:
    Py_ssize_t T, H, W, first_T, first_H, first_W


cdef bint has_taps(Py_ssize_t phase, Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad,
                   Py_ssize_t dilation) noexcept nogil
cdef OutputMap phase_map(const Geometry* g, Py_ssize_t t, Py_ssize_t h, Py_ssize_t v,
                         Py_ssize_t beside) noexcept nogil
cdef Subkernel phase_kernel(const Geometry* g, Py_ssize_t t, Py_ssize_t h, Py_ssize_t v, const OutputMap* map,
                            Py_ssize_t filters, Py_ssize_t K) noexcept nogil
cdef bint are_merged(const Geometry* g, Py_ssize_t channels) noexcept nogil
cdef Places merged_places(const Geometry* g) noexcept nogil
cdef Subkernel merged_kernel(const Geometry* g, const Places* places, Py_ssize_t rows, Py_ssize_t filters,
                             const unsigned short* phases_at) noexcept nogil
cdef void merge_weights(const floating* w, const Geometry* g, const Places* places, Py_ssize_t groups,
                        Py_ssize_t filters, Py_ssize_t channels, floating* merged,
                        unsigned short* phases_at) noexcept nogil
