from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.interrupt cimport Turn
from refnet._core.pack cimport LhsLayout
from refnet._core.simd cimport Simd
from refnet._core.write_back cimport OutputMap


# A convolution of stride 1 or of the forward pass, and the weights that it takes; empty if it has no tap.
# If its rows are those of merged phases, `phases_at` has bit i for each tap that phase i has; else it is NULL. So is
# `quarters`, unless there are four: see fused_pack in simd/operands.h.
cdef struct Subkernel:
    Geometry g
    LhsLayout layout
    bint empty
    const unsigned short* phases_at
    const unsigned short* quarters


# y (groups * results, maps) = weights times the patches of x (groups * channels, T, H, W), of one group. Either
# there are several subkernels, whose results lie beside each other on one map; or there is one subkernel, whose
# rows are those of one map after another, and on each map those that lie beside each other. pack_once: all
# weights of a tile are packed before its first strip, and then no more than a strip of sums is held.
cdef struct Convolution:
    const Subkernel* subkernels
    const OutputMap* maps
    int count_subkernels, count_maps
    Py_ssize_t channels, rows
    bint pack_once


# The operands of the tile that a thread computes next, to be prefetched; none if x is NULL.
cdef struct NextTile:
    const void* x
    const void* dy
    Py_ssize_t row, start


# The tiles of a result: their rows and columns, how many there are down and across in each group of each sample,
# and in all. One tile, one task.
cdef struct Tiling:
    Py_ssize_t rows, columns, down, across, groups, tasks


cdef (Py_ssize_t, Py_ssize_t) tile_shape(Py_ssize_t rows, Py_ssize_t height, Py_ssize_t columns,
                                         Py_ssize_t max_columns, Py_ssize_t nr, Py_ssize_t repeats,
                                         int lhs_cost, int rhs_cost, bint uniform) noexcept nogil
cdef Py_ssize_t results_of(const Convolution* conv, Py_ssize_t rows) noexcept nogil
cdef void convolve_task(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                        const Convolution* conv, const Tiling* tiling, Py_ssize_t task, Turn* signals) noexcept nogil
