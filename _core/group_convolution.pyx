"""Forward and backward-data of whole groups that have few rows, for which a gather would take as long as the sums.

The image of a group is copied once, with its padding; then what a term reads at the output positions of a line lies
side by side, and the micro-kernel takes it from there (`offsets` of struct micro_tile). The last vector of a line has
lanes beyond its end, which are stored too: the next line is stored after them.

The sums are those of tiles.pyx. A thread computes a whole group of a sample.
"""

from cython cimport floating
from libc.string cimport memset

from refnet._core cimport openmp
from refnet._core.blocking cimport (CACHE_LINE, KC, LHS_PITCH, MAX_BLOCKS, MAX_MR, MAX_NR, MC, TILE_PITCH,
                                    ceil_div)
from refnet._core.channel_image cimport ChannelImage, channel_image, image_size, place_runs
from refnet._core.geometry cimport Geometry
from refnet._core.im2col3d cimport Range, taps_of_frames, terms_of_taps
from refnet._core.micro_kernel cimport next_rows
from refnet._core.pack cimport pack_lhs
from refnet._core.simd cimport MicroTile, PrefetchRun, Terms
from refnet._core.tiles cimport Subkernel
from refnet._core.workspace cimport PlannedColumns, Workspace, carve

cdef enum:
    FEW_ROWS = 16    # of more, gathering takes a small part of the time
    GATHER_ROWS = 4  # gathering a vector takes as long as that many rows of multiply-adds


cdef GroupConvolution group_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t groups) noexcept nogil:
    """How it would be computed."""
    cdef const Geometry* g = &conv.subkernels.g
    cdef GroupConvolution found
    found.conv, found.groups, found.terms = conv, groups, conv.channels * g.kT * g.kH * g.kW
    found.image = channel_image(g, conv.channels, g.oT, g.oH, 1, MAX_NR)  # the lanes behind its last line
    found.vectors = ceil_div(g.oW, simd.nr // 2)
    return found


cdef inline Py_ssize_t count_panels(const GroupConvolution* convolution) noexcept nogil:
    """How many panels of two vectors y has."""
    cdef const Geometry* g = &convolution.conv.subkernels.g
    return g.oT * ceil_div(g.oH * convolution.vectors, 2)


cdef bint pays(const Simd* simd, const GroupConvolution* convolution, Py_ssize_t samples) noexcept nogil:
    """Whether lanes beyond lines cost less than a gather, there is memory for it, and a group for each thread."""
    cdef const Convolution* conv = convolution.conv
    cdef const Subkernel* kernel = conv.subkernels
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t blocks = ceil_div(convolution.terms, KC)
    return (conv.count_subkernels == 1 and not kernel.empty and conv.maps.dense and kernel.phases_at == NULL
            and g.sT == g.sH == g.sW == 1 and 1 < g.kT * g.kH * g.kW
            and conv.rows <= FEW_ROWS and samples * convolution.groups >= openmp.max_threads()
            and (conv.rows + GATHER_ROWS) * ceil_div(g.oT * g.oH * g.oW, simd.nr)
            >= conv.rows * count_panels(convolution)
            and blocks <= MAX_BLOCKS and blocks * (conv.rows + MAX_MR) <= MC
            and image_size(&convolution.image) <= MC * TILE_PITCH)


cdef void convolve_group(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                         const GroupConvolution* convolution, Py_ssize_t task) noexcept nogil:
    """y (rows, P) of a group of a sample = weights times patches of x (channels, T, H, W)."""
    cdef const Convolution* conv = convolution.conv
    cdef const Subkernel* kernel = conv.subkernels
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t block, frame, left
    cdef Workspace workspace
    cdef floating* lhs
    cdef floating* image
    cdef Py_ssize_t* offsets
    cdef Range taps
    cdef Terms terms[MAX_BLOCKS]
    carve(&workspace, memory, sizeof(floating))
    lhs, image, offsets = <floating*> workspace.lhs, <floating*> workspace.tile, workspace.plan.source
    if workspace.planned.kernel != kernel:  # the thread's first group
        workspace.planned[0] = PlannedColumns(kernel, 0, g.oT * g.oH * g.oW)
        memset(image, 0, image_size(&convolution.image) * sizeof(floating))
        place_runs(&convolution.image, g, 1, offsets)
    copy_image(simd, x + task * conv.channels * g.T * g.H * g.W, image, convolution)
    w += task % convolution.groups * kernel.layout.group
    for block in range(ceil_div(convolution.terms, KC)):
        pack_lhs(simd, w, lhs + block * (conv.rows + MAX_MR) * LHS_PITCH, g, &kernel.layout, conv.rows,
                 Range(block * KC, min((block + 1) * KC, convolution.terms)))
        # The last micro-tile's other rows.
        memset(lhs + (block * (conv.rows + MAX_MR) + conv.rows) * LHS_PITCH, 0, MAX_MR * LHS_PITCH * sizeof(floating))
    y += task * conv.rows * conv.maps.volume
    for frame in range(g.oT):
        taps = taps_of_frames(g, frame * g.oH * g.oW, 1)
        for block in range(ceil_div(convolution.terms, KC)):
            terms[block] = terms_of_taps(g, taps, block * KC,
                                         min(convolution.terms - block * KC, <Py_ssize_t> KC))
        for left in range(0, g.oH * convolution.vectors, 2):
            convolve_panel(simd, image, lhs, offsets, y, convolution, terms, frame, left)


cdef void copy_image(const Simd* simd, const floating* x, floating* image,
                     const GroupConvolution* convolution) noexcept nogil:
    """image (channels, frames, lines, width), with zeros round it, <- x (channels, T, H, W)."""
    cdef const Geometry* g = &convolution.conv.subkernels.g
    cdef const ChannelImage* of_x = &convolution.image
    cdef Py_ssize_t zero = 0, c, t
    cdef Py_ssize_t first_t = max(of_x.t, zero), stop_t = min(of_x.t + of_x.frames, g.T)
    cdef Py_ssize_t first_h = max(of_x.h, zero), stop_h = min(of_x.h + of_x.lines, g.H)
    cdef Py_ssize_t first_w = max(of_x.w, zero), stop_w = min(of_x.w + of_x.width, g.W)
    if first_w >= stop_w:
        return
    for c in range(of_x.channels):
        for t in range(first_t, stop_t):
            simd.copy(x + ((c * g.T + t) * g.H + first_h) * g.W + first_w, g.W,
                      image + (((c * of_x.frames + t - of_x.t) * of_x.lines + first_h - of_x.h) * of_x.width
                               + first_w - of_x.w),
                      of_x.width, stop_h - first_h, stop_w - first_w)


cdef void convolve_panel(const Simd* simd, floating* image, const floating* lhs, const Py_ssize_t* offsets,
                         floating* y, const GroupConvolution* convolution, const Terms* terms, Py_ssize_t frame,
                         Py_ssize_t left) noexcept nogil:
    """y (rows, P) = the sums of two vectors of an output frame, `left` and the next; the last is computed twice."""
    cdef const Convolution* conv = convolution.conv
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t lanes = simd.nr // 2, right = min(left + 1, g.oH * convolution.vectors - 1)
    cdef Py_ssize_t h = left // convolution.vectors, w = left % convolution.vectors * lanes
    cdef Py_ssize_t right_h = right // convolution.vectors, right_w = right % convolution.vectors * lanes
    cdef Py_ssize_t row = 0, block, itemsize = sizeof(floating)
    cdef Py_ssize_t at = (frame * g.oH + h) * g.oW + w, right_at = (frame * g.oH + right_h) * g.oW + right_w
    # Behind the last line is what other threads compute.
    cdef bint is_last = right_at + lanes > g.oT * g.oH * g.oW
    cdef floating sums[MAX_MR * MAX_NR]
    cdef MicroTile tile
    tile.rhs = image + (frame * convolution.image.lines + h) * convolution.image.width + w
    tile.right = (right_h - h) * convolution.image.width + right_w - w
    tile.fused = NULL
    while row < conv.rows:
        tile.rows = next_rows(simd, conv.rows - row)
        if is_last:
            tile.c, tile.pitch, tile.right_sums = &sums[0], simd.nr, lanes
        else:
            tile.c, tile.pitch, tile.right_sums = y + row * conv.maps.volume + at, conv.maps.volume, right_at - at
        for block in range(ceil_div(convolution.terms, KC)):
            tile.terms = &terms[block]
            tile.lhs = lhs + (block * (conv.rows + MAX_MR) + row) * LHS_PITCH
            tile.offsets, tile.accumulate = offsets + block * KC, block > 0
            tile.prefetch = PrefetchRun(<const char*> tile.lhs, LHS_PITCH * itemsize // CACHE_LINE, CACHE_LINE,
                                        LHS_PITCH * itemsize)
            simd.micro_kernel(&tile)
        if is_last:
            simd.copy(&sums[0], simd.nr, y + row * conv.maps.volume + at, conv.maps.volume, tile.rows,
                      min(lanes, g.oW - w))
            simd.copy(&sums[lanes], simd.nr, y + row * conv.maps.volume + right_at, conv.maps.volume, tile.rows,
                      min(lanes, g.oW - right_w))
        row += tile.rows
