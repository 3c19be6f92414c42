from cython cimport floating

from refnet._core.simd cimport LineRun, Simd
from refnet._core.tiles cimport Convolution


# How a convolution is computed line by line: a micro-tile is one of the `parts` of an output line and a panel of some
# `filters`. A group has `panels` panels and `lines` lines; a tile some of both, and there are `down`
# times `across` tiles for each group of each sample, one task each.
cdef struct LineConvolution:
    const Convolution* conv
    Py_ssize_t groups, terms, parts, filters, panels, lines
    Py_ssize_t tile_panels, tile_lines, down, across
    bint packs_once


cdef LineConvolution line_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t samples,
                                      Py_ssize_t groups) noexcept nogil
cdef bint pays(const Simd* simd, const Convolution* conv) noexcept nogil
cdef void convolve_lines(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                         const LineConvolution* convolution, Py_ssize_t task) noexcept nogil


# How many terms some runs have.
cdef inline Py_ssize_t count_terms(const LineRun* list, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, terms = 0
    for i in range(count):
        terms += list[i].count
    return terms
