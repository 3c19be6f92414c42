from cython cimport floating

from refnet._core.blocking cimport MERGED_PHASES
from refnet._core.simd cimport Simd


# Where the results of a convolution lie in a channel of y: at `first`, and from there t, h, w values apart along T,
# H, W. A channel has `volume` values; in it, the map has `frames` frames of `lines` lines, of `width` values from
# the line's first result on; `lines_of_frame` and `positions_of_line` are how many are computed. `beside` results
# lie beside each other at each position; `zeros` values behind each line are 0, `last_zeros` behind the last of a
# frame. Dense: results lie in order side by side. Nontemporal: they are stored past the caches.
cdef struct OutputMap:
    Py_ssize_t first, t, h, w
    Py_ssize_t frames, lines, width, volume, lines_of_frame, positions_of_line
    Py_ssize_t beside, zeros, last_zeros
    bint dense, nontemporal


# How the sums of a tile are held until they are written back: `columns` of each subkernel, those of the tile or of
# one strip; `pitch` from row to row; `apart` from a result to the one beside it, whose rows are `pitches` apart.
cdef struct TileLayout:
    Py_ssize_t columns, pitch, apart
    Py_ssize_t pitches[MERGED_PHASES]


cdef Py_ssize_t offset(const OutputMap* map, Py_ssize_t position) noexcept nogil
cdef void write_back(const Simd* simd, const floating* tile, const TileLayout* layout, floating* y,
                     const OutputMap* map, Py_ssize_t rows, Py_ssize_t start, Py_ssize_t count) noexcept nogil
cdef int clear_lines(floating* y, const OutputMap* map, Py_ssize_t channels) except -1
