"""Images of channels with their padding: what channel_convolution.pyx, channel_gradients.pyx and group_convolution.pyx
read.

Where a group has few channels and filters, few of its sums read the same value, and the lanes of a vector would have
nothing in common. So lanes are filters of several groups, each with an image of its own. Images are transposed once, a
vector of channels at each position; what a term reads there is a vector. The images of a whole group, whose lanes are
positions, have one lane.
"""

from cython cimport floating
from libc.string cimport memset

from refnet._core.geometry cimport bounded_product, extent, first_read


cdef ChannelImage channel_image(const Geometry* g, Py_ssize_t channels, Py_ssize_t frames, Py_ssize_t lines,
                                Py_ssize_t lanes, Py_ssize_t behind) noexcept nogil:
    """The image of the first frames and lines of the output."""
    cdef ChannelImage image
    image.t, image.h = first_read(g.kT, g.pT, g.dT), first_read(g.kH, g.pH, g.dH)
    image.w = first_read(g.kW, g.pW, g.dW)
    image.frames, image.lines = extent(g.kT, g.sT, g.dT, frames), extent(g.kH, g.sH, g.dH, lines)
    image.width = extent(g.kW, g.sW, g.dW, g.oW)
    image.channels, image.lanes, image.behind = channels, lanes, behind
    return image


cdef Py_ssize_t image_size(const ChannelImage* image) noexcept nogil:
    """How many values it takes, with those behind it."""
    return (bounded_product(image.channels, image.frames, image.lines, image.width) + image.behind) * image.lanes


cdef bint are_used(const ChannelImage* image, Py_ssize_t blocks, Py_ssize_t results) noexcept nogil:
    """Whether so many results use a quarter of the lanes, as many as a micro-tile of four rows uses for one."""
    return blocks * image.lanes <= 4 * results


cdef LaneChannels lanes_of(const Simd* simd, Py_ssize_t block, Py_ssize_t rows, Py_ssize_t channels,
                           Py_ssize_t groups, Py_ssize_t rotations) noexcept nogil:
    """The lanes of a block of results, of groups of `rows` results that read `channels` channels each.

    With several rotations, one for each channel, lanes read the channels of their group in turn.
    """
    cdef LaneChannels found
    cdef Py_ssize_t lanes = simd.nr // 2, lane, row
    found.used = min(lanes, groups * rows - block * lanes)
    for lane in range(lanes):
        row = block * lanes + min(lane, found.used - 1)
        found.first[lane] = row // rows * channels + row % rotations
    return found


cdef void fill_image(const Simd* simd, const floating* x, const Geometry* g, const LaneChannels* lanes,
                     const ChannelImage* image, floating* to) noexcept nogil:
    """to (channels, frames, lines, width, lanes) <- x (any number, T, H, W), with zeros round it."""
    cdef Py_ssize_t zero = 0, volume = g.T * g.H * g.W, line = image.width * image.lanes, c, t, h, lane
    cdef Py_ssize_t first = max(image.w, zero), stop = max(min(image.w + image.width, g.W), first)
    cdef Py_ssize_t left = (first - image.w) * image.lanes, right = (stop - image.w) * image.lanes
    cdef const void* rows[MAX_LANES]
    for c in range(image.channels):
        for lane in range(image.lanes):
            rows[lane] = x + (lanes.first[lane] + c) * volume
        for t in range(image.t, image.t + image.frames):
            for h in range(image.h, image.h + image.lines):
                if first < stop and 0 <= t < g.T and 0 <= h < g.H:
                    memset(to, 0, left * sizeof(floating))
                    simd.to_channels(rows, (t * g.H + h) * g.W + first, stop - first, to + left)
                    memset(to + right, 0, (line - right) * sizeof(floating))
                else:
                    memset(to, 0, line * sizeof(floating))
                to += line


cdef void place_lines(const ChannelImage* image, const Geometry* g, Py_ssize_t* offsets) noexcept nogil:
    """offsets <- where the first tap of each line of the kernel reads for the first output position."""
    cdef Py_ssize_t c, kt, kh, t, h, w = -g.pW - image.w, i = 0
    for c in range(image.channels):
        for kt in range(g.kT):
            t = kt * g.dT - g.pT - first_read(g.kT, g.pT, g.dT)
            for kh in range(g.kH):
                h = kh * g.dH - g.pH - first_read(g.kH, g.pH, g.dH)
                offsets[i] = (((c * image.frames + t) * image.lines + h) * image.width + w) * image.lanes
                i += 1


cdef void place_runs(const ChannelImage* image, const Geometry* g, Py_ssize_t run, Py_ssize_t* offsets) noexcept nogil:
    """offsets <- where the first term of each run of `run` terms reads for the first position."""
    cdef Py_ssize_t line, tap, of_line = g.kW // run
    place_lines(image, g, offsets)
    for line in range(image.channels * g.kT * g.kH - 1, -1, -1):
        for tap in range(of_line - 1, -1, -1):
            offsets[line * of_line + tap] = offsets[line] + tap * g.dW * image.lanes
