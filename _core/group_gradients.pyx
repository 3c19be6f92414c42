"""Backward-weights of whole groups, whose few filters would leave vectors of filters half empty.

Here vectors are of weights: the right operand of dw = dy X' is what the taps of each position read of the group's
image, and that is not packed. The image is transposed once, channels last and with its padding, so that a line of
taps lies side by side; position by position the micro-kernel reads it where it lies (`offsets` of struct
micro_tile). A gather would copy each value once for every tap, to use it for eight filters.

The sums are those of weights_tiles.pyx. A thread computes all spans of a group, in order.
"""

from cython cimport floating
from libc.string cimport memset

from refnet._core cimport openmp
from refnet._core.blocking cimport (CACHE_LINE, KC, LHS_PITCH, MAX_MR, MAX_NR, MC, NC, PAD, SPAN_CHAINS, TILE_PITCH,
                                    ceil_div)
from refnet._core.geometry cimport bounded_product, in_long_lines
from refnet._core.im2col3d cimport Range, frames_of_tap
from refnet._core.micro_kernel cimport next_rows
from refnet._core.simd cimport MicroTile, PrefetchRun, Terms
from refnet._core.workspace cimport Workspace, carve


# Where the two vectors of a panel lie, from what a position's first tap reads on, and the frames of the output for
# which they read a frame of the image.
cdef struct Panel:
    Py_ssize_t left, right
    Range frames


cdef GroupGradients group_gradients(const Simd* simd, const Geometry* g, Py_ssize_t samples, Py_ssize_t groups,
                                    Py_ssize_t filters, Py_ssize_t channels) noexcept nogil:
    """How dw would be computed."""
    cdef GroupGradients found
    found.g = in_long_lines(g[0])
    found.samples, found.groups, found.filters, found.channels = samples, groups, filters, channels
    found.frames = (found.g.oT - 1) * found.g.sT + (found.g.kT - 1) * found.g.dT + 1
    found.lines = (found.g.oH - 1) * found.g.sH + (found.g.kH - 1) * found.g.dH + 1
    found.width = (found.g.oW - 1) * found.g.sW + (found.g.kW - 1) * found.g.dW + 1
    found.run = channels * (found.g.kW if found.g.dW == 1 else 1)
    found.runs = channels * found.g.kT * found.g.kH * found.g.kW // found.run
    found.vectors = ceil_div(found.run, simd.nr // 2)
    found.pitch = count_panels(&found) * simd.nr + PAD
    return found


cdef bint pays(const Simd* simd, const GroupGradients* gradients) noexcept nogil:
    """Whether that takes a fifth less than vectors of filters, there is memory for it, and a group for each thread.

    Zeros of the padding are factors here: where dy is not finite, conv3d.pyx sums again.
    """
    cdef Py_ssize_t K = gradients.runs * gradients.run
    # Patches are gathered for few filters; by masks from memory that takes as long as half a panel.
    cdef Py_ssize_t of_filters = K * ceil_div(gradients.filters, simd.nr) + (0 if simd.bit_masks else K // 2)
    cdef Py_ssize_t of_weights = max(gradients.filters, <Py_ssize_t> 4) * count_panels(gradients)
    return (4 * of_filters >= 5 * of_weights and gradients.groups >= openmp.max_threads()
            and gradients.filters + MAX_MR <= MC
            and count_panels(gradients) * <Py_ssize_t> sizeof(Panel) <= KC * NC * <Py_ssize_t> sizeof(float)
            and sums_size(gradients) + image_size(gradients) + MAX_NR <= MC * TILE_PITCH)


cdef inline Py_ssize_t sums_size(const GroupGradients* gradients) noexcept nogil:
    """How many values the sums of a group take, in whole cache lines."""
    return ceil_div(gradients.filters * gradients.pitch, CACHE_LINE) * CACHE_LINE


cdef inline Py_ssize_t image_size(const GroupGradients* gradients) noexcept nogil:
    """How many values the image of a group takes."""
    return bounded_product(gradients.frames, gradients.lines, gradients.width, gradients.channels)


cdef void group_gradient(const Simd* simd, const floating* dy, const floating* x, floating* dw, unsigned char* memory,
                         const GroupGradients* gradients, Py_ssize_t group) noexcept nogil:
    """dw (groups, filters, K), of one group, = dy (samples, groups, filters, P) times the patches of x, transposed."""
    cdef const Geometry* g = &gradients.g
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, volume = gradients.channels * g.T * g.H * g.W, n, of_sample, block
    cdef Py_ssize_t filters = gradients.filters
    cdef Workspace workspace
    cdef floating* lhs
    cdef floating* sums
    cdef floating* image
    cdef Panel* panels
    carve(&workspace, memory, sizeof(floating))
    lhs, sums = <floating*> workspace.lhs, <floating*> workspace.tile
    image, panels = sums + sums_size(gradients), <Panel*> workspace.rhs
    find_panels(simd, gradients, panels)
    memset(image, 0, (image_size(gradients) + MAX_NR) * sizeof(floating))
    memset(lhs + filters * LHS_PITCH, 0, MAX_MR * LHS_PITCH * sizeof(floating))  # the last micro-tile's other rows
    dw += group * filters * gradients.runs * gradients.run
    for n in range(gradients.samples):
        of_sample = n * gradients.groups + group
        transpose_image(simd, x + of_sample * volume, image, gradients)
        for block in range(ceil_div(P, KC)):
            add_chain(simd, dy + of_sample * filters * P, image, lhs, sums, gradients, panels,
                      Range(block * KC, min((block + 1) * KC, P)), block % SPAN_CHAINS > 0)
            if (block + 1) % SPAN_CHAINS == 0 or (block + 1) * KC >= P:  # the end of a span
                add_sums(sums, dw, gradients, n > 0 or block >= SPAN_CHAINS, simd.nr // 2)


cdef void transpose_image(const Simd* simd, const floating* x, floating* image,
                          const GroupGradients* gradients) noexcept nogil:
    """image (frames, lines, width, channels), zeros round it before, <- x (channels, T, H, W), line by line."""
    cdef const Geometry* g = &gradients.g
    cdef Py_ssize_t channels = gradients.channels, t, h
    cdef Py_ssize_t count = min(g.W, gradients.width - g.pW)
    for t in range(min(g.T, gradients.frames - g.pT)):
        for h in range(min(g.H, gradients.lines - g.pH)):
            simd.transpose(x + (t * g.H + h) * g.W, g.T * g.H * g.W,
                           image + (((t + g.pT) * gradients.lines + h + g.pH) * gradients.width + g.pW) * channels,
                           channels, channels, count)


cdef inline Py_ssize_t count_panels(const GroupGradients* gradients) noexcept nogil:
    """How many panels of two vectors there are."""
    return ceil_div(gradients.runs * gradients.vectors, 2)


cdef void find_panels(const Simd* simd, const GroupGradients* gradients, Panel* panels) noexcept nogil:
    """Find all panels; of an odd number of vectors the last is read twice."""
    cdef Py_ssize_t lanes = simd.nr // 2, panel, left, right
    cdef Range frames, of_right
    for panel in range(count_panels(gradients)):
        left, right = 2 * panel, min(2 * panel + 1, gradients.runs * gradients.vectors - 1)
        frames = frames_of_tap(&gradients.g, frame_of(gradients, left))
        of_right = frames_of_tap(&gradients.g, frame_of(gradients, right))
        panels[panel] = Panel(offset_of(gradients, left, lanes), offset_of(gradients, right, lanes),
                              Range(min(frames.low, of_right.low), max(frames.high, of_right.high)))


cdef inline Py_ssize_t frame_of(const GroupGradients* gradients, Py_ssize_t vector) noexcept nogil:
    """The frame of the kernel that a vector belongs to."""
    return vector // gradients.vectors * gradients.run // (gradients.channels * gradients.g.kH * gradients.g.kW)


cdef inline Py_ssize_t offset_of(const GroupGradients* gradients, Py_ssize_t vector, Py_ssize_t lanes) noexcept nogil:
    """Where a vector lies in the image, from what a position's first tap reads on."""
    cdef const Geometry* g = &gradients.g
    cdef Py_ssize_t tap = vector // gradients.vectors * gradients.run // gradients.channels
    return (((tap // (g.kH * g.kW) * g.dT * gradients.lines + tap // g.kW % g.kH * g.dH) * gradients.width
             + tap % g.kW * g.dW) * gradients.channels + vector % gradients.vectors * lanes)


cdef void add_chain(const Simd* simd, const floating* dy, const floating* image, floating* lhs, floating* sums,
                    const GroupGradients* gradients, const Panel* panels, Range positions,
                    bint accumulate) noexcept nogil:
    """sums (filters, pitch) = or += dy (filters, P) times what some positions read of the image."""
    cdef const Geometry* g = &gradients.g
    cdef Py_ssize_t area = g.oH * g.oW, P = g.oT * area, depth = positions.high - positions.low, low, high, zero = 0
    cdef Py_ssize_t row, index, itemsize = sizeof(floating)
    cdef Py_ssize_t offsets[KC]
    cdef const Panel* panel
    cdef Terms terms
    cdef MicroTile tile
    simd.copy(dy + positions.low, P, lhs, LHS_PITCH, gradients.filters, depth)
    place(gradients, positions, offsets)
    tile.terms, tile.offsets, tile.fused = &terms, offsets, NULL
    tile.pitch, tile.right_sums, tile.accumulate = gradients.pitch, simd.nr // 2, accumulate
    # What is copied next.
    tile.prefetch = PrefetchRun(<const char*> (dy + positions.high), ceil_div(KC * itemsize, CACHE_LINE) + 1,
                                CACHE_LINE, P * itemsize)
    for index in range(count_panels(gradients)):
        panel = &panels[index]
        low = min(max(panel.frames.low * area - positions.low, zero), depth)
        high = min(max(panel.frames.high * area - positions.low, low), depth)
        terms = Terms(low, high - low, high - low, 0, high)
        tile.rhs, tile.right = <void*> (image + panel.left), panel.right - panel.left
        row = 0
        while row < gradients.filters:
            tile.rows = next_rows(simd, gradients.filters - row)
            tile.lhs, tile.c = lhs + row * LHS_PITCH, sums + row * gradients.pitch + index * simd.nr
            simd.micro_kernel(&tile)
            row += tile.rows


cdef void place(const GroupGradients* gradients, Range positions, Py_ssize_t* offsets) noexcept nogil:
    """offsets <- where in the image the first tap of each position reads."""
    cdef const Geometry* g = &gradients.g
    cdef Py_ssize_t ow = positions.low % g.oW, oh = positions.low // g.oW % g.oH, ot = positions.low // (g.oW * g.oH), i
    for i in range(positions.high - positions.low):
        offsets[i] = (((ot * g.sT * gradients.lines + oh * g.sH) * gradients.width + ow * g.sW) * gradients.channels)
        ow += 1
        if ow == g.oW:
            ow = 0
            oh += 1
            if oh == g.oH:
                oh = 0
                ot += 1


cdef void add_sums(const floating* sums, floating* dw, const GroupGradients* gradients, bint accumulate,
                   Py_ssize_t lanes) noexcept nogil:
    """dw (filters, channels, taps) = or += the sums of a span (filters, runs, taps of a run, channels)."""
    cdef Py_ssize_t channels = gradients.channels, of_run = gradients.run // channels, k, run, tap, c
    cdef Py_ssize_t taps = gradients.runs * of_run
    cdef const floating* found
    cdef floating* to
    for k in range(gradients.filters):
        for run in range(gradients.runs):
            found = sums + k * gradients.pitch + run * gradients.vectors * lanes
            for tap in range(of_run):
                to = dw + k * channels * taps + run * of_run + tap
                for c in range(channels):
                    to[c * taps] = (to[c * taps] if accumulate else 0) + found[tap * channels + c]
