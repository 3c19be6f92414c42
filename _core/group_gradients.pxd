from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.simd cimport Simd


# How dw of whole groups is computed, `filters` filters of `channels` channels each. The image of a group, completed by
# zeros to `frames` x `lines` x `width` positions, lies channels last. What a position's taps read of it is `runs` runs
# of `run` values, those of a line of the kernel, or of one tap where dilation parts them; each run is read in
# `vectors` vectors. A row of sums has `pitch` values.
cdef struct GroupGradients:
    Geometry g
    Py_ssize_t samples, groups, filters, channels
    Py_ssize_t frames, lines, width
    Py_ssize_t runs, run, vectors, pitch


cdef GroupGradients group_gradients(const Simd* simd, const Geometry* g, Py_ssize_t samples, Py_ssize_t groups,
                                    Py_ssize_t filters, Py_ssize_t channels) noexcept nogil
cdef bint pays(const Simd* simd, const GroupGradients* gradients) noexcept nogil
cdef void group_gradient(const Simd* simd, const floating* dy, const floating* x, floating* dw, unsigned char* memory,
                         const GroupGradients* gradients, Py_ssize_t group) noexcept nogil
