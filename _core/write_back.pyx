"""Write-back: the sums of a tile scattered to where the results lie, line by line."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.string cimport memset

from refnet._core cimport environment, openmp
from refnet._core.blocking cimport MERGED_PHASES, NC, ceil_div
from refnet._core.environment cimport Environment
from refnet._core.micro_kernel cimport store_fence


cdef Py_ssize_t offset(const OutputMap* map, Py_ssize_t position) noexcept nogil:
    """Where in a channel the first result of a position lies."""
    return (map.first + position // (map.positions_of_line * map.lines_of_frame) * map.t
            + position // map.positions_of_line % map.lines_of_frame * map.h
            + position % map.positions_of_line * map.w)


cdef void write_back(const Simd* simd, const floating* tile, const TileLayout* layout, floating* y,
                     const OutputMap* map, Py_ssize_t rows, Py_ssize_t start, Py_ssize_t count) noexcept nogil:
    """y, on its map, <- tile (beside, rows, count), the positions from `start` on."""
    cdef Py_ssize_t row, i = 0, length, frame, height, column, width, zeros, first
    cdef floating line[NC * MERGED_PHASES]
    cdef floating* values
    cdef floating* to
    while i < count:
        column = (start + i) % map.positions_of_line
        height = (start + i) // map.positions_of_line % map.lines_of_frame
        frame = (start + i) // (map.positions_of_line * map.lines_of_frame)
        length = min(count - i, map.positions_of_line - column)
        width = min(length * map.w, map.width - column * map.w)
        zeros = 0
        if column + length == map.positions_of_line:
            zeros = map.zeros if height < map.lines - 1 else map.last_zeros
        first = map.first + frame * map.t + height * map.h + column * map.w
        for row in range(rows if frame < map.frames and height < map.lines else 0):
            to = y + row * map.volume + first
            values = &line[0] if map.nontemporal else to
            interleave(simd, tile + i, layout, row, map, values, width)
            if map.nontemporal:
                simd.store_nontemporal(values, width, zeros, to)
            else:
                memset(to + width, 0, zeros * sizeof(floating))
        i += length
    if map.nontemporal:
        store_fence()


cdef inline void interleave(const Simd* simd, const floating* tile, const TileLayout* layout, Py_ssize_t row,
                            const OutputMap* map, floating* values, Py_ssize_t width) noexcept nogil:
    """values (width) <- a row of the results that lie beside each other, in turn."""
    cdef Py_ssize_t j, k
    cdef const floating* source
    if map.beside == map.w == 2:
        simd.interleave(tile + row * layout.pitches[0], tile + layout.apart + row * layout.pitches[1], values,
                        width // 2)
        if width % 2:
            values[width - 1] = tile[row * layout.pitches[0] + width // 2]
        return
    for k in range(map.beside):
        source = tile + k * layout.apart + row * layout.pitches[k]
        for j in range(ceil_div(width - k, map.w)):
            values[j * map.w + k] = source[j]


cdef int clear_lines(floating* y, const OutputMap* map, Py_ssize_t channels) except -1:
    """y (channels, map) <- 0, in whole lines."""
    cdef Py_ssize_t channel, frame, line
    cdef Environment before
    with nogil, parallel(use_threads_if=openmp.pays(channels * map.frames * map.lines * map.width)):
        before = environment.enter_default()
        for channel in prange(channels, schedule="static"):
            for frame in range(map.frames):
                for line in range(map.lines):
                    memset(y + channel * map.volume + map.first + frame * map.t + line * map.h, 0,
                           map.width * sizeof(floating))
        environment.restore(before)
    return 0
