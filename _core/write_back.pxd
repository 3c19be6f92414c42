from cython cimport floating

from refnet._core.simd cimport Simd

cdef enum:
    MAX_BESIDE = 16  # results that lie beside each other at each position


# Where the results of a convolution lie in a channel of y: how far apart along T, H, W, beginning at `first`.
# There are so many frames and lines of them, `width` values in a line from its first result on, and `volume`
# in a channel; `lines_of_frame` and `positions_of_line` are computed. At each position so many results lie
# `beside` each other; after each line so many values are 0, or `last_zeros` after the last of a frame. Dense
# if results lie in order side by side; nontemporal if they are stored past the caches.
cdef struct OutputMap:
    Py_ssize_t first, t, h, w
    Py_ssize_t frames, lines, width, volume, lines_of_frame, positions_of_line
    Py_ssize_t beside, zeros, last_zeros
    bint dense, nontemporal


# How the sums of a tile are held until they are written back: so many columns of each subkernel, those of the
# tile or of one strip; `pitch` from row to row; `apart` from a result to the one beside it, whose rows are
# `pitches` apart.
cdef struct TileLayout:
    Py_ssize_t columns, pitch, apart
    Py_ssize_t pitches[MAX_BESIDE]


cdef Py_ssize_t offset(const OutputMap* map, Py_ssize_t position) noexcept nogil
cdef void write_back(const Simd* simd, const floating* tile, const TileLayout* layout, floating* y,
                     const OutputMap* map, Py_ssize_t rows, Py_ssize_t start, Py_ssize_t count) noexcept nogil
cdef int clear(floating* y, const OutputMap* map, Py_ssize_t channels) except -1
