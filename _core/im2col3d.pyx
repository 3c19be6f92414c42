"""The patch matrix of a 3D convolution, never whole in memory: how blocks of it are packed, what padding adds.

Row (c, tap), column o of the matrix is x[c, o * stride + tap * dilation - pad], 0 in the padding. A block is
gathered by simd/gather.h, from a plan of the columns that holds for all channels (`plan_gather`): into the packed
right operand before it is multiplied (`pack_patches`), by the micro-kernel while it multiplies (`packs_fused`), or
row by row (`pack_patch_rows`). Taps that read nothing but frames of the padding can be left out of a product:
`taps_of_frames` and `terms_of_taps` say which for one block of columns, `frames_of_tap` for one frame of the kernel.
"""

from cython cimport floating

from refnet._core.blocking cimport KC, LHS_PITCH, MAX_TILE_COLUMNS, ceil_div
from refnet._core.prefetch cimport push
from refnet._core.simd cimport GatherRegion, lane_mask

cdef enum:
    SIGN = 8 * sizeof(Py_ssize_t) - 1  # the bit that a negative number has set


cdef void plan_gather(const Simd* simd, GatherPlan* plan, const Geometry* g, Py_ssize_t start,
                      Py_ssize_t count) noexcept nogil:
    """Plan the gather of the columns [start, start + count), completed by zeros to whole panels.

    A vector of columns is cut into segments where a line of output positions ends. The lanes of a segment read
    neighbours, or every sW-th value, of one line of the input.
    """
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, lanes = simd.nr // 2, v, i, width, lane, taken
    cdef Py_ssize_t ow = start % g.oW, oh = start // g.oW % g.oH, ot = start // (g.oW * g.oH), zero = 0
    plan.g = g[0]
    plan.vectors, plan.segments = 2 * ceil_div(count, simd.nr), 1
    # Kernels of one tap prefetch a later channel; of more taps, one reads what another has read.
    plan.prefetch_distance = 4 * g.T * g.H * g.W if taps == 1 else 0
    for v in range(ceil_div(count, lanes)):
        width = min(lanes, count - v * lanes)
        plan.segments = max(plan.segments, <int> (((start + v * lanes) % g.oW + width - 1) // g.oW + 1))
    for v in range(plan.vectors):
        width, lane = max(min(lanes, count - v * lanes), zero), 0
        for i in range(v * plan.segments, (v + 1) * plan.segments):
            taken = min(width - lane, g.oW - ow)
            plan.t[i], plan.h[i] = ot * g.sT - g.pT, oh * g.sH - g.pH
            plan.w[i] = (ow - lane) * g.sW - g.pW
            plan.base[i] = (plan.t[i] * g.H + plan.h[i]) * g.W + plan.w[i]
            plan.first[i], plan.last[i] = lane, lane + taken
            lane += taken
            ow += taken
            if ow == g.oW:
                ow = 0
                oh += 1
                if oh == g.oH:
                    oh = 0
                    ot += 1
    if taps <= KC:
        plan_taps(simd, plan, Range(0, taps))


# The lanes of every segment that read inside of a line, at one column of the kernel: as a plan has them, and all bits
# set where there is any.
cdef struct Lanes:
    unsigned short mask[MAX_TILE_COLUMNS]
    unsigned short high[MAX_TILE_COLUMNS]
    Py_ssize_t any[MAX_TILE_COLUMNS]


cdef void plan_taps(const Simd* simd, GatherPlan* plan, Range taps) noexcept nogil:
    """Plan what every segment reads at some taps, the first of which gets the plan's first entries."""
    cdef Py_ssize_t kW = plan.g.kW, segments = plan.vectors * plan.segments, kw, tap
    cdef Lanes lanes
    for kw in range(kW):
        tap = taps.low + (kw - taps.low % kW + kW) % kW
        if tap < taps.high:
            plan_lanes(simd, plan, kw * plan.g.dW, &lanes)
        while tap < taps.high:
            plan_tap(plan, (tap - taps.low) * segments, tap, &lanes, has_high(simd, plan))
            tap += kW


cdef void plan_lanes(const Simd* simd, const GatherPlan* plan, Py_ssize_t column, Lanes* lanes) noexcept nogil:
    """Find the lanes of each segment that read inside of a line, `column` behind what tap 0 reads."""
    cdef Py_ssize_t W = plan.g.W, stride = plan.g.sW, width = simd.nr // 2, zero = 0, i, at, first, last
    for i in range(plan.vectors * plan.segments):
        at = plan.w[i] + column
        first, last = stride - 1 - at, W - at + stride - 1
        if stride == 2:
            first, last = first >> 1, last >> 1
        elif stride > 2:  # a division takes longer than all the rest
            first, last = first // stride, last // stride
        first, last = min(max(first, plan.first[i]), width), max(min(last, plan.last[i]), zero)
        lanes.any[i] = -<Py_ssize_t> (first < last)
        if has_high(simd, plan):
            first, last = 2 * first, max(2 * last - 1, zero)
            lanes.high[i] = lane_mask(simd, max(first - width + 1, zero), max(last - width + 1, zero))
            first, last = min(first, width), min(last, width)
        lanes.mask[i] = lane_mask(simd, first, last)


cdef inline bint has_high(const Simd* simd, const GatherPlan* plan) noexcept nogil:
    """Whether every other value of two vectors is a vector of columns."""
    return plan.g.sW == 2 and simd.vector_stride == 2


cdef void plan_tap(GatherPlan* plan, Py_ssize_t entry, Py_ssize_t tap, const Lanes* lanes,
                   bint high) noexcept nogil:
    """Plan what every segment reads at one tap, in the entries from `entry` on."""
    cdef const Geometry* g = &plan.g
    cdef Py_ssize_t frame = tap // (g.kW * g.kH) * g.dT, line = tap // g.kW % g.kH * g.dH, i, inside
    cdef Py_ssize_t shift = (frame * g.H + line) * g.W + tap % g.kW * g.dW
    cdef Py_ssize_t last_t = g.T - 1 - frame, last_h = g.H - 1 - line
    cdef Py_ssize_t* source = plan.source + entry
    cdef unsigned short* mask = plan.mask + entry
    for i in range(plan.vectors * plan.segments):
        # All bits set where frame and line are inside, that is, none of these four is negative, and any lane is.
        inside = ~(((plan.t[i] + frame) | (last_t - plan.t[i]) | (plan.h[i] + line) | (last_h - plan.h[i])) >> SIGN)
        inside &= lanes.any[i]
        source[i] = (plan.base[i] + shift) & inside
        mask[i] = lanes.mask[i] & <unsigned short> inside
        if high:
            plan.high[entry + i] = lanes.high[i] & <unsigned short> inside


cdef bint packs_fused(const Simd* simd, Py_ssize_t rows, const GatherPlan* plan) noexcept nogil:
    """Whether packing is fused into the first micro-tile.

    Not where gathering takes longer than multiplying, nor, unless there are few rows, for kernels of one tap, which
    read each value once: whole lines come faster from memory.
    """
    cdef Py_ssize_t taps = plan.g.kT * plan.g.kH * plan.g.kW
    return (simd.masked_loads and (1 < taps or rows <= 4) and taps <= KC
            and (plan.g.sW == 1 and plan.segments <= 4 or plan.g.sW == 2 and plan.segments <= 2))


cdef Py_ssize_t fused_rows(const Simd* simd, Py_ssize_t rows) noexcept nogil:
    """How many rows the micro-tile has into which packing is fused: of 4, 8 and MR, all `rows` or the first of them."""
    cdef Py_ssize_t size = 4
    while size < simd.mr and (size < rows <= simd.mr or 2 * size < rows):
        size *= 2
    return min(size, simd.mr)


cdef void pack_patches(const Simd* simd, const floating* x, GatherPlan* plan, Range rows, Py_ssize_t column,
                       Py_ssize_t columns, floating* rhs) noexcept nogil:
    """rhs <- rows of the patches of x, `columns` (whole panels) of the plan from `column` on, in panels."""
    cdef GatherRegion region
    region.column, region.columns = column, columns
    region.pitch, region.panel = simd.nr, KC * simd.nr
    gather(simd, x, plan, Range(0, plan.g.kT * plan.g.kH * plan.g.kW), rows, &region, rhs)


cdef void pack_patch_rows(const Simd* simd, const floating* x, GatherPlan* plan, Range taps, Range rows,
                          floating* lines) noexcept nogil:
    """lines, LHS_PITCH apart, <- rows of the patches of x at some taps of each channel, all columns of the plan."""
    cdef GatherRegion region
    region.column, region.columns = 0, plan.vectors * simd.nr // 2
    region.pitch, region.panel = LHS_PITCH, simd.nr
    gather(simd, x, plan, taps, rows, &region, lines)


cdef void gather(const Simd* simd, const floating* x, GatherPlan* plan, Range taps, Range rows,
                 GatherRegion* region, floating* to) noexcept nogil:
    """to <- rows of the patches of x at some taps of each channel; at all if there are more than KC.

    A plan has room for KC taps: of more, those of each run of rows are planned when it comes.
    """
    cdef Py_ssize_t of_channel = taps.high - taps.low, volume = plan.g.T * plan.g.H * plan.g.W
    cdef Py_ssize_t row = rows.low, tap
    if plan.g.kT * plan.g.kH * plan.g.kW <= KC:
        region.first_tap, region.stop_tap, region.tap = taps.low, taps.high, taps.low + row % of_channel
        region.rows = rows.high - row
        simd.gather(x + row // of_channel * volume, plan, region, to)
        return
    while row < rows.high:
        tap = row % of_channel
        region.rows = min(min(rows.high - row, <Py_ssize_t> KC), of_channel - tap)
        region.first_tap, region.stop_tap, region.tap = 0, region.rows, 0
        plan_taps(simd, plan, Range(tap, tap + region.rows))
        simd.gather(x + row // of_channel * volume, plan, region, to)
        to += region.rows * region.pitch
        row += region.rows


cdef inline Py_ssize_t source(const Geometry* g, Py_ssize_t kt, Py_ssize_t line, Py_ssize_t column) noexcept nogil:
    """Where in a volume the tap (kt, 0, 0) of the output position at a line and column reads, or would."""
    return (((line // g.oH * g.sT - g.pT + kt * g.dT) * g.H + line % g.oH * g.sH - g.pH) * g.W
            + column * g.sW - g.pW)


cdef void prefetch_patches(PrefetchQueue* queue, const floating* x, const Geometry* g, Range rows,
                           Py_ssize_t start, Py_ssize_t count) noexcept nogil:
    """Queue what rows of the patches of x at the positions [start, start + count) read."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, volume = g.T * g.H * g.W
    cdef Py_ssize_t channel = rows.low // taps, channels = (rows.high - 1) // taps + 1 - channel
    cdef Py_ssize_t end = start + count - 1, line = start // g.oW, last_line = end // g.oW
    cdef Py_ssize_t kt, i, until, low, high
    # What a window reads lies between these, from what its tap 0 reads on; dilation may be negative.
    cdef Py_ssize_t zero = 0, far_h = (g.kH - 1) * g.dH, far_w = (g.kW - 1) * g.dW
    cdef Py_ssize_t below = min(zero, far_h) * g.W + min(zero, far_w)
    cdef Py_ssize_t above = max(zero, far_h) * g.W + max(zero, far_w)
    x += channel * volume
    for kt in range(g.kT):
        i = line
        while i <= last_line:
            until = last_line if g.sH <= g.kH else i  # all lines at once, if windows of neighbouring ones overlap
            low = source(g, kt, i, start % g.oW if i == line else 0) + below
            high = source(g, kt, until, end % g.oW if until == last_line else g.oW - 1) + above
            low, high = max(low, zero), min(high, volume - 1)
            if low <= high:
                push(queue, x + low, (high - low + 1) * <Py_ssize_t> sizeof(floating),
                     volume * <Py_ssize_t> sizeof(floating), channels)
            i = until + 1


cdef Range taps_of_frames(const Geometry* g, Py_ssize_t start, Py_ssize_t count) noexcept nogil:
    """The taps of which some output position of [start, start + count) reads a frame of the input."""
    cdef Py_ssize_t taps = g.kH * g.kW, kt, frame, low = g.kT, high = 0
    for frame in range(start // (g.oW * g.oH), (start + count - 1) // (g.oW * g.oH) + 1):
        for kt in range(g.kT):
            if reads(g, frame, kt):
                low, high = min(low, kt), max(high, kt + 1)
        if low == 0 and high == g.kT:
            break
    return Range(min(low, high) * taps, high * taps)


cdef Range frames_of_tap(const Geometry* g, Py_ssize_t kt) noexcept nogil:
    """The output frames for which the taps of a frame of the kernel read a frame of the input."""
    cdef Py_ssize_t low = 0, high = g.oT
    while low < high and not reads(g, low, kt):
        low += 1
    while low < high and not reads(g, high - 1, kt):
        high -= 1
    return Range(low, high)


cdef Terms terms_of_taps(const Geometry* g, Range taps, Py_ssize_t first, Py_ssize_t depth) noexcept nogil:
    """Of `depth` terms from `first` on, those of some taps of each channel."""
    cdef Py_ssize_t all_taps = g.kT * g.kH * g.kW, tap = first % all_taps, run = taps.high - taps.low
    if run == all_taps:
        return Terms(0, depth, depth, 0, depth)
    if tap < taps.low:
        return Terms(taps.low - tap, run, run, all_taps - run, depth)
    if tap < taps.high:
        return Terms(0, taps.high - tap, run, all_taps - run, depth)
    return Terms(all_taps - tap + taps.low, run, run, all_taps - run, depth)
