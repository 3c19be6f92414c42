"""Backward-weights of groups that have so few channels and filters that lanes are filters of several groups.

The sums are those of weights_tiles.pyx. A thread computes all spans of a block of lanes, in order, some frames of the
output at a time, or some lines of one, whose image the workspace holds; see channel_image.pyx. dy is transposed like
the image.

Where a group has a power of two of channels, lanes of the image are its channels, one after another, and dy is rotated
among as many lanes: with each rotation a lane pairs its channel with another filter. Else each lane is a filter, and
reads an image of every channel.
"""

from cython cimport floating
from libc.string cimport memset

from refnet._core cimport openmp
from refnet._core.blocking cimport KC, LHS_PITCH, MAX_ROTATIONS, MC, SPAN_CHAINS, TILE_PITCH, ceil_div
from refnet._core.channel_image cimport (MAX_LANES, LaneChannels, are_used, channel_image, fill_image, image_size,
                                         lanes_of, place_runs)
from refnet._core.geometry cimport Geometry
from refnet._core.im2col3d cimport Range, reads
from refnet._core.simd cimport ChannelGradient
from refnet._core.workspace cimport Workspace, carve

cdef enum:
    FEW = 2       # channels, and filters, of a group,
    WIDE_FEW = 4  # or where there are registers for all terms of a frame of the kernel
    GAIN = 4      # with one channel a thread is at least so many times as fast


cdef ChannelGradients channel_gradients(const Simd* simd, const Geometry* g, Py_ssize_t samples, Py_ssize_t groups,
                                        Py_ssize_t filters, Py_ssize_t channels) noexcept nogil:
    """How dw would be computed; with no line if the workspace has no room for one."""
    cdef Py_ssize_t lanes = simd.nr // 2
    cdef ChannelGradients found
    found.g = g[0]
    found.samples, found.groups, found.filters, found.channels = samples, groups, filters, channels
    found.rotations = channels if filters % channels == 0 and terms_at_once(simd, channels) > 0 else 1
    found.terms, found.blocks = channels // found.rotations * g.kT * g.kH * g.kW, ceil_div(groups * filters, lanes)
    found.run = 3 if g.kW == 3 and g.sW == g.dW == 1 else 1
    found.frames, found.lines = g.oT, g.oH
    found.image = channel_image(g, channels // found.rotations, found.frames, found.lines, lanes, lanes)
    while found.lines > 0 and (image_size(&found.image) + (3 * found.rotations * found.terms + lanes) * lanes
                               > MC * TILE_PITCH
                               or (found.frames * found.lines * g.oW + lanes) * lanes > MC * LHS_PITCH):
        if found.frames > 1:
            found.frames = found.frames // 2
        else:
            found.lines = found.lines // 2
        found.image = channel_image(g, channels // found.rotations, found.frames, found.lines, lanes, lanes)
    return found


cdef inline Py_ssize_t terms_at_once(const Simd* simd, Py_ssize_t rotations) noexcept nogil:
    """How many terms are computed at once; 0 if dy is not rotated so."""
    return simd.channel_terms[rotations] if rotations <= MAX_ROTATIONS else 0


cdef bint pays(const Simd* simd, const ChannelGradients* gradients) noexcept nogil:
    """Whether there are few channels and filters, groups for enough lanes, and tasks for threads, or fewer but faster.

    Zeros of the padding are factors here: where dy is not finite, conv3d.pyx sums again.
    """
    cdef Py_ssize_t few = WIDE_FEW if simd.channel_segments > 1 else FEW
    return (gradients.image.channels <= few and gradients.filters // gradients.rotations <= few
            and gradients.terms <= KC
            and are_used(&gradients.image, gradients.blocks, gradients.groups * gradients.filters)
            and gradients.blocks * max(1, GAIN // gradients.channels) >= openmp.max_threads()
            and gradients.lines > 0)


cdef void channel_gradient(const Simd* simd, const floating* dy, const floating* x, floating* dw,
                           unsigned char* memory, const ChannelGradients* gradients,
                           Py_ssize_t block) noexcept nogil:
    """dw (groups, filters, K), of a block of lanes, = dy (samples, groups, filters, P) times the patches of x."""
    cdef const Geometry* g = &gradients.g
    cdef Py_ssize_t lanes = gradients.image.lanes, filters = gradients.groups * gradients.filters
    cdef Py_ssize_t area = g.oH * g.oW, P = g.oT * area, terms = gradients.terms * lanes, n, i, j, lane
    cdef Py_ssize_t rotations = gradients.rotations, size = rotations * terms, rotation, filter
    cdef Py_ssize_t channels = gradients.groups * gradients.channels
    cdef LaneChannels of_block = lanes_of(simd, block, gradients.filters, gradients.channels, gradients.groups,
                                          rotations)
    cdef ChannelImage image = gradients.image
    cdef const void* of_dy[MAX_LANES]
    cdef void* of_dw[MAX_LANES]
    cdef Range positions
    cdef Workspace workspace
    cdef floating* to
    cdef floating* sums
    carve(&workspace, memory, sizeof(floating))
    to = <floating*> workspace.tile
    sums = to + image_size(&image)
    memset(sums, 0, 3 * size * sizeof(floating))
    place_runs(&image, g, gradients.run, workspace.plan.source)
    for n in range(gradients.samples):
        for lane in range(lanes):
            of_dy[lane] = dy + (n * filters + block * lanes + min(lane, of_block.used - 1)) * P
        for i in range(ceil_div(g.oT, gradients.frames)):
            image.t = gradients.image.t + i * gradients.frames * g.sT
            for j in range(ceil_div(g.oH, gradients.lines)):
                image.h = gradients.image.h + j * gradients.lines * g.sH
                positions.low = i * gradients.frames * area + j * gradients.lines * g.oW
                positions.high = min(min(positions.low + gradients.frames * gradients.lines * g.oW,
                                         (i + 1) * gradients.frames * area), P)
                fill_image(simd, x + n * channels * g.T * g.H * g.W, g, &of_block, &image, to)
                simd.to_channels(of_dy, positions.low, positions.high - positions.low, workspace.lhs)
                add_positions(simd, <floating*> workspace.lhs, to, workspace.plan.source, sums, gradients, positions)
    for rotation in range(rotations):
        for lane in range(of_block.used):
            filter = block * lanes + lane // rotations * rotations + (lane + rotation) % rotations
            of_dw[lane] = dw + (filter * rotations + lane % rotations) * gradients.terms
        simd.from_channels(sums + 2 * size + rotation * terms, gradients.terms, of_dw, 0, of_block.used)


cdef void add_positions(const Simd* simd, const floating* dy, const floating* image, const Py_ssize_t* offsets,
                        floating* sums, const ChannelGradients* gradients, Range positions) noexcept nogil:
    """Add the products of some positions to the sums: those of a chain, of its span, and of all spans."""
    cdef const Geometry* g = &gradients.g
    cdef Py_ssize_t area = g.oH * g.oW, P = g.oT * area, lanes = gradients.image.lanes
    cdef Py_ssize_t size = gradients.rotations * gradients.terms * lanes
    cdef Py_ssize_t line = gradients.image.width * lanes, runs = gradients.terms // gradients.run
    cdef Py_ssize_t first_t = positions.low // area, first_h = positions.low % area // g.oW
    cdef Py_ssize_t at_once = terms_at_once(simd, gradients.rotations) // gradients.run
    cdef Py_ssize_t position = positions.low, stop, t, h, run, of_frame = g.kH * g.kW // gradients.run
    cdef ChannelGradient some
    some.rotations, some.terms = gradients.rotations, gradients.terms
    some.run, some.width, some.pitch, some.step = gradients.run, g.oW, g.sH * line, g.sW * lanes
    while position < positions.high:
        t, h = position // area, position % area // g.oW
        stop = min(min((t + 1) * area, (position // KC + 1) * KC), positions.high)
        some.dy = dy + (position - positions.low) * lanes
        some.image = image + ((t - first_t) * g.sT * gradients.image.lines + (h - first_h) * g.sH) * line
        some.first, some.count = position % g.oW, stop - position
        run = 0
        while run < runs:
            some.offsets, some.chains = offsets + run, sums + run * gradients.run * lanes
            some.runs = min(runs - run, at_once)
            # Terms of one frame of the kernel that all read the padding are left out.
            if reads(g, t, run // of_frame % g.kT) or run // of_frame != (run + some.runs - 1) // of_frame:
                simd.channel_gradients(&some)
            run += some.runs
        position = stop
        if position % KC == 0 or position == P:
            add(sums + size, sums, size)
        if position % (SPAN_CHAINS * KC) == 0 or position == P:
            add(sums + 2 * size, sums + size, size)


cdef inline void add(floating* sums, floating* found, Py_ssize_t size) noexcept nogil:
    """Add up what was found, which begins anew."""
    cdef Py_ssize_t i
    for i in range(size):
        sums[i] = sums[i] + found[i]
    memset(found, 0, size * sizeof(floating))
