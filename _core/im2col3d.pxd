from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.prefetch cimport PrefetchQueue
from refnet._core.simd cimport GatherPlan, Simd, Terms


# From low on, below high: taps of a channel, or frames.
cdef struct Range:
    Py_ssize_t low, high


# Whether, for an output frame, the taps of a frame of the kernel read a frame of the input.
cdef inline bint reads(const Geometry* g, Py_ssize_t frame, Py_ssize_t kt) noexcept nogil:
    return 0 <= frame * g.sT - g.pT + kt * g.dT < g.T


cdef void plan_gather(const Simd* simd, GatherPlan* plan, const Geometry* g, Py_ssize_t start,
                      Py_ssize_t count) noexcept nogil
cdef bint packs_fused(const Simd* simd, Py_ssize_t rows, const GatherPlan* plan) noexcept nogil
cdef Py_ssize_t fused_rows(const Simd* simd, Py_ssize_t rows) noexcept nogil
cdef void pack_patches(const Simd* simd, const floating* x, GatherPlan* plan, Range rows, Py_ssize_t column,
                       Py_ssize_t columns, floating* rhs) noexcept nogil
cdef void pack_patch_rows(const Simd* simd, const floating* x, GatherPlan* plan, Range taps, Range rows,
                          floating* lines) noexcept nogil
cdef void prefetch_patches(PrefetchQueue* queue, const floating* x, const Geometry* g, Range rows,
                           Py_ssize_t start, Py_ssize_t count) noexcept nogil
cdef Range taps_of_frames(const Geometry* g, Py_ssize_t start, Py_ssize_t count) noexcept nogil
cdef Range frames_of_tap(const Geometry* g, Py_ssize_t kt) noexcept nogil
cdef Terms terms_of_taps(const Geometry* g, Range taps, Py_ssize_t first, Py_ssize_t depth) noexcept nogil
