from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.simd cimport Simd
from refnet._core.tiles cimport Tiling


# How dw is computed, as (filters, K) of a group: upright, dy times the transposed patches, or transposed, so that
# the right operand is the one whose values are used more often. A section is the rows of one frame of the kernel, if
# frames of the padding are left out. A sample has `spans` spans of `positions` positions; the tasks of each span are
# tiling.tasks, rows of K by columns of filters.
cdef struct WeightsGradient:
    Geometry g
    Py_ssize_t K, filters, channels, sections
    bint upright, by_taps
    Tiling tiling
    Py_ssize_t spans, positions


# The spans that are computed at once: from `first` on, up to the task `stop`; each to a dw of its own,
# `apart` from the last one's, or, if that is 0, added to dw one after the other.
cdef struct Spans:
    Py_ssize_t first, stop, apart


cdef WeightsGradient weights_gradient(const Simd* simd, const Geometry* g, Py_ssize_t filters, Py_ssize_t channels,
                                      Py_ssize_t groups, Py_ssize_t positions, Py_ssize_t at_once,
                                      bint by_taps) noexcept nogil
cdef void weights_task(const Simd* simd, const floating* dy, const floating* x, floating* dw,
                       unsigned char* memory, const WeightsGradient* gradient, const Spans* spans,
                       Py_ssize_t task) noexcept nogil
