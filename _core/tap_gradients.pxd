from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.im2col3d cimport Range
from refnet._core.prefetch cimport PrefetchQueue
from refnet._core.simd cimport Simd
from refnet._core.workspace cimport Workspace


# How many channels and filters of a group a tile of dw has.
cdef struct TapTile:
    Py_ssize_t channels, filters


cdef bint pays(const Simd* simd, const Geometry* g, Py_ssize_t filters, Py_ssize_t channels) noexcept nogil
cdef TapTile tap_tile(const Simd* simd, const Geometry* g, Py_ssize_t filters, Py_ssize_t channels,
                      Py_ssize_t repeats) noexcept nogil
cdef void add_tap_chains(const Simd* simd, const floating* dy, const floating* x, floating* sums, Py_ssize_t pitch,
                         const Geometry* g, const TapTile* tile, Range positions, bint accumulate,
                         const Workspace* workspace, PrefetchQueue* queue) noexcept nogil
