"""Forward and backward-data of groups of few channels and rows, by kernels of 3 x 3 in a plane, from where x lies.

Lanes are positions of an output line, and a register has one line of sums of one row: all lines of a frame that there
are registers for are summed at once, plane by plane of x. So what a line of x reads is loaded once for its three lines
of sums, and nothing is copied, with padding or transposed. What lies beside x is masked, and lines and frames of
padding are left out.

The sums are those of tiles.pyx, of one chain each. A thread computes whole groups of a sample.
"""

from cython cimport floating

from refnet._core cimport openmp
from refnet._core.blocking cimport KC, LHS_PITCH, ceil_div
from refnet._core.geometry cimport Geometry
from refnet._core.im2col3d cimport Range, taps_of_frames
from refnet._core.pack cimport pack_lhs
from refnet._core.simd cimport PlaneTile, lane_mask
from refnet._core.tiles cimport Subkernel
from refnet._core.workspace cimport Workspace, carve

cdef enum:
    TAPS = 3        # of a plane, on each axis
    FEW = 4         # channels times rows of a group: with more, other ways take each value for several rows
    TASKS = 8       # of a thread, if there are groups for them: neighbours on two threads write the same cache lines
    LEAST_USE = 10  # lanes of a vector of 16 that positions of a line have to use


cdef PlaneConvolution plane_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t samples,
                                        Py_ssize_t groups) noexcept nogil:
    """How it would be computed."""
    cdef const Geometry* g = &conv.subkernels.g
    cdef PlaneConvolution found
    found.conv, found.samples, found.groups = conv, samples, groups
    found.of_task = max(<Py_ssize_t> 1, samples * groups // (TASKS * openmp.max_threads()))
    found.terms = conv.channels * g.kT * g.kH * g.kW
    found.vectors = ceil_div(g.oW, simd.nr // 2)
    found.lines = 0
    if simd.plane_lines > 0 and g.oH > 0:
        found.lines = ceil_div(g.oH, ceil_div(g.oH, simd.plane_lines))  # all bands alike
    return found


cdef bint pays(const Simd* simd, const PlaneConvolution* convolution) noexcept nogil:
    """Whether its kernel and lines are such, few lanes are beyond lines, and there is a group for each thread."""
    cdef const Convolution* conv = convolution.conv
    cdef const Subkernel* kernel = conv.subkernels
    cdef const Geometry* g = &kernel.g
    return (conv.count_subkernels == 1 and not kernel.empty and conv.maps.dense and kernel.phases_at == NULL
            and g.kH == g.kW == TAPS and g.sH == g.sW == 1 and g.dH == g.dW and (g.dW == 1 or g.dW == -1)
            and convolution.terms <= KC and conv.channels * conv.rows <= FEW and convolution.lines > 0
            and 16 * g.oW >= LEAST_USE * convolution.vectors * (simd.nr // 2)
            and convolution.samples * convolution.groups >= openmp.max_threads())


cdef void convolve_planes(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                          const PlaneConvolution* convolution, Py_ssize_t task) noexcept nogil:
    """Some groups of y, of all samples, one after another."""
    cdef Py_ssize_t first = task * convolution.of_task, group
    for group in range(first, min(first + convolution.of_task, convolution.samples * convolution.groups)):
        convolve_group(simd, x, w, y, memory, convolution, group)


cdef void convolve_group(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                         const PlaneConvolution* convolution, Py_ssize_t group) noexcept nogil:
    """y (rows, P) of a group of a sample = weights times patches of x (channels, T, H, W)."""
    cdef const Convolution* conv = convolution.conv
    cdef const Subkernel* kernel = conv.subkernels
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t first = 0
    cdef Workspace workspace
    cdef PlaneTile tile
    cdef floating* lhs
    carve(&workspace, memory, sizeof(floating))
    lhs = <floating*> workspace.lines
    pack_lhs(simd, w + group % convolution.groups * kernel.layout.group, lhs, g, &kernel.layout, conv.rows,
             Range(0, convolution.terms))
    x += group * conv.channels * g.T * g.H * g.W
    y += group * conv.rows * conv.maps.volume
    tile.channels, tile.x_channel, tile.w_channel = conv.channels, g.T * g.H * g.W, g.kT * TAPS * TAPS
    tile.x_line, tile.y_line, tile.apart = g.dH * g.W, g.dH * g.oW, g.dW
    while first < g.oH:
        tile.lines = min(convolution.lines, g.oH - first)
        convolve_band(simd, x, lhs, y, convolution, &tile, first if g.dH > 0 else first + tile.lines - 1)
        first += convolution.lines


cdef void convolve_band(const Simd* simd, const floating* x, const floating* lhs, floating* y,
                        const PlaneConvolution* convolution, PlaneTile* tile, Py_ssize_t first) noexcept nogil:
    """A band of lines of all frames of y (rows, P), from the first on or back."""
    cdef const Convolution* conv = convolution.conv
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t zero = 0, lanes = simd.nr // 2, frame, vector, row, t
    cdef unsigned inside = lines_inside(g, first - g.pH, tile.lines + TAPS - 1)
    cdef Range taps
    for frame in range(g.oT):
        taps = taps_of_frames(g, frame * g.oH * g.oW, 1)
        t = frame * g.sT - g.pT + taps.low // (TAPS * TAPS) * g.dT
        tile.frames, tile.lines_read = (taps.high - taps.low) // (TAPS * TAPS), inside
        if tile.frames == 0:  # sums of nothing
            t, tile.frames, tile.lines_read = 0, 1, 0
        tile.x_frame = g.dT * g.H * g.W if tile.frames > 1 else 0
        # The last frame that the next output frame reads.
        tile.x_next = (max(zero, (1 - tile.frames) * g.dT) + g.sT) * g.H * g.W
        for vector in range(convolution.vectors):
            place_lanes(simd, tile, g, vector * lanes - g.pW, min(lanes, g.oW - vector * lanes))
            tile.x = x + (t * g.H + first - g.pH) * g.W + vector * lanes - g.pW
            for row in range(conv.rows):
                tile.weights = lhs + row * LHS_PITCH + taps.low
                tile.y = y + row * conv.maps.volume + (frame * g.oH + first) * g.oW + vector * lanes
                simd.plane_sums(tile)


cdef unsigned lines_inside(const Geometry* g, Py_ssize_t h, Py_ssize_t count) noexcept nogil:
    """A bit for each of some lines that are read, where the first is h: whether it is inside."""
    cdef Py_ssize_t zero = 0, first = -h if g.dH > 0 else h - g.H + 1
    cdef Py_ssize_t last = max(min(count, first + g.H), zero)
    return ((<unsigned> 1 << last) - 1) & ~((<unsigned> 1 << min(max(first, zero), last)) - 1)


cdef void place_lanes(const Simd* simd, PlaneTile* tile, const Geometry* g, Py_ssize_t w,
                      Py_ssize_t count) noexcept nogil:
    """The first lanes of a vector, and which of them are inside at each tap, where lane 0 reads w at the first."""
    cdef Py_ssize_t zero = 0, tap, first, last
    tile.lanes_stored = lane_mask(simd, 0, count)
    for tap in range(TAPS):
        first = -w - tap * g.dW
        last = max(min(count, g.W + first), zero)
        tile.lanes[tap] = lane_mask(simd, min(max(first, zero), last), last)
