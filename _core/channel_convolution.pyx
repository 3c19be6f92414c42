"""Forward and backward-data of groups that have so few channels and rows that lanes are filters of several groups.

The sums are those of tiles.pyx, of one chain each. A thread computes a block of lanes of a sample, in bands of lines
whose image the workspace holds; see channel_image.pyx.
"""

from cython cimport floating

from refnet._core cimport openmp
from refnet._core.blocking cimport CHANNEL_POSITIONS, KC, LHS_PITCH, MC, NC, TILE_PITCH, ceil_div
from refnet._core.channel_image cimport (MAX_LANES, LaneChannels, are_used, channel_image, fill_image, image_size,
                                         lanes_of, place_lines)
from refnet._core.geometry cimport Geometry
from refnet._core.im2col3d cimport taps_of_frames, terms_of_taps
from refnet._core.pack cimport LhsLayout
from refnet._core.simd cimport ChannelTile, Terms
from refnet._core.tiles cimport Subkernel
from refnet._core.workspace cimport Workspace, carve

cdef enum:
    FEW = 2  # channels, and rows, of a group


cdef ChannelConvolution channel_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t samples,
                                            Py_ssize_t groups, Py_ssize_t itemsize) noexcept nogil:
    """How it would be computed; with no line if there is no tap, or no room in the workspace for a band of one."""
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t lanes = simd.nr // 2, behind
    cdef ChannelConvolution found
    found.conv, found.groups, found.terms = conv, groups, conv.channels * g.kT * g.kH * g.kW
    found.blocks, found.lines = ceil_div(groups * conv.rows, lanes), 0 if conv.subkernels.empty else g.oH
    if samples * found.blocks < openmp.max_threads():  # a band for each thread
        found.lines = ceil_div(found.lines, ceil_div(openmp.max_threads(), samples * found.blocks))
    behind = max(lanes, CHANNEL_POSITIONS * g.sW)  # `to_channels` overwrites, short lines read
    found.image = channel_image(g, conv.channels, g.oT, found.lines, lanes, behind)
    while found.lines > 0 and (image_size(&found.image) > MC * TILE_PITCH
                               or (found.lines * g.oW + MAX_LANES) * lanes > MC * LHS_PITCH
                               or 2 * count_segments(simd, g, found.lines) * <Py_ssize_t> sizeof(Py_ssize_t)
                               > KC * NC * itemsize):
        found.lines = found.lines // 2
        found.image = channel_image(g, conv.channels, g.oT, found.lines, lanes, behind)
    found.bands = ceil_div(g.oH, max(found.lines, <Py_ssize_t> 1))
    return found


cdef bint pays(const Simd* simd, const ChannelConvolution* convolution, Py_ssize_t samples) noexcept nogil:
    """Whether there are few channels and rows, a chain at most, groups for enough lanes, and a task for each thread."""
    cdef const Convolution* conv = convolution.conv
    cdef const Subkernel* kernel = conv.subkernels
    cdef const Geometry* g = &kernel.g
    return (conv.count_subkernels == 1 and conv.maps.dense and kernel.phases_at == NULL and convolution.lines > 0
            and conv.channels <= FEW and conv.rows <= FEW and convolution.terms <= KC and 1 < g.kT * g.kH * g.kW
            and are_used(&convolution.image, convolution.blocks, convolution.groups * conv.rows)
            and samples * convolution.blocks * convolution.bands >= openmp.max_threads())


cdef void convolve_channels(const Simd* simd, const floating* x, const floating* w, floating* y,
                            unsigned char* memory, const ChannelConvolution* convolution,
                            Py_ssize_t task) noexcept nogil:
    """y (groups, rows, P), of some lines of the lanes of a block of a sample, = weights times patches of x."""
    cdef const Convolution* conv = convolution.conv
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t band = task % convolution.bands, block = task // convolution.bands % convolution.blocks
    cdef Py_ssize_t sample = task // convolution.bands // convolution.blocks, first = band * convolution.lines
    cdef Py_ssize_t lanes = convolution.image.lanes, segments, lane, frame, i
    cdef Py_ssize_t count = min(convolution.lines, g.oH - first)
    cdef Geometry of_lines = g[0]
    cdef LaneChannels of_block = lanes_of(simd, block, conv.rows, conv.channels, convolution.groups, 1)
    cdef ChannelImage image = convolution.image
    cdef void* rows[MAX_LANES]
    cdef Workspace workspace
    cdef ChannelTile tile
    cdef Terms taken
    cdef floating* sums
    cdef Py_ssize_t* positions
    carve(&workspace, memory, sizeof(floating))
    sums, positions = <floating*> workspace.lhs, <Py_ssize_t*> workspace.rhs
    image.h += first * g.sH
    fill_image(simd, x + sample * convolution.groups * conv.channels * g.T * g.H * g.W, g, &of_block, &image,
               <floating*> workspace.tile)
    pack_weights(w, <floating*> workspace.lines, convolution, block * lanes, of_block.used)
    place_lines(&image, g, workspace.plan.source)
    segments = place_segments(simd, &image, g, count, positions)
    for lane in range(of_block.used):
        rows[lane] = y + ((sample * convolution.groups * conv.rows + block * lanes + lane) * g.oT * g.oH
                          + first) * g.oW
    of_lines.kW = 1
    tile.lines, tile.weights, tile.offsets = &taken, workspace.lines, workspace.plan.source
    tile.taps, tile.apart, tile.step, tile.sums = g.kW, g.dW * lanes, g.sW * lanes, sums
    for frame in range(g.oT):
        taken = terms_of_taps(&of_lines, taps_of_frames(&of_lines, frame * g.oH * g.oW, 1), 0,
                              conv.channels * g.kT * g.kH)
        tile.image = <floating*> workspace.tile + frame * g.sT * image.lines * image.width * lanes
        i = 0
        while i < segments:
            tile.from_, tile.to = positions + i, positions + segments + i
            simd.channel_sums(&tile)
            i += simd.channel_segments
        simd.from_channels(sums, count * g.oW, rows, frame * g.oH * g.oW, of_block.used)


cdef Py_ssize_t place_segments(const Simd* simd, const ChannelImage* image, const Geometry* g, Py_ssize_t count,
                               Py_ssize_t* positions) noexcept nogil:
    """positions <- where the segments of some lines read, then where their sums lie; how many there are.

    The last segment of a line may end behind it: what belongs there is computed after it. There are as many as are
    computed at once, or a multiple: the last is computed twice.
    """
    cdef Py_ssize_t of_line = ceil_div(g.oW, CHANNEL_POSITIONS), segments = count_segments(simd, g, count), i, h, w
    for i in range(segments):
        h, w = min(i, count * of_line - 1) // of_line, min(i, count * of_line - 1) % of_line * CHANNEL_POSITIONS
        positions[i] = (h * g.sH * image.width + w * g.sW) * image.lanes
        positions[segments + i] = (h * g.oW + w) * image.lanes
    return segments


cdef inline Py_ssize_t count_segments(const Simd* simd, const Geometry* g, Py_ssize_t count) noexcept nogil:
    """How many segments some lines have, in whole calls."""
    cdef Py_ssize_t at_once = simd.channel_segments
    return ceil_div(count * ceil_div(g.oW, CHANNEL_POSITIONS), at_once) * at_once


cdef void pack_weights(const floating* w, floating* weights, const ChannelConvolution* convolution,
                       Py_ssize_t first, Py_ssize_t used) noexcept nogil:
    """weights (terms, lanes) <- those of the rows from `first` on; lanes that are not used repeat the last."""
    cdef const Convolution* conv = convolution.conv
    cdef const Geometry* g = &conv.subkernels.g
    cdef const LhsLayout* layout = &conv.subkernels.layout
    cdef Py_ssize_t lanes = convolution.image.lanes, lane, row, c, kt, kh, kw, i
    cdef const floating* of_row
    for lane in range(lanes):
        i, row = lane, first + min(lane, used - 1)
        of_row = w + row // conv.rows * layout.group + row % conv.rows * layout.row + layout.first
        for c in range(conv.channels):
            for kt in range(g.kT):
                for kh in range(g.kH):
                    for kw in range(g.kW):
                        weights[i] = of_row[c * layout.channel + kt * layout.t + kh * layout.h + kw * layout.w]
                        i += lanes
