"""The patch matrix of a 3D convolution, never whole in memory: how blocks of it are packed, and what padding adds.

Row (c, tap), column o of the matrix is x[c, o * stride + tap * dilation - pad], 0 in the padding. A block is
gathered by simd/gather.h, from a plan of the columns that holds for all channels: into the packed right
operand before it is multiplied (`pack_patches`), in passing by the micro-kernel (`packs_fused`), or row by
row (`gather_rows`). Taps that read nothing but frames of the padding can be left out of a product: see
`taps_of_frames` and `terms_of_taps` for one block of columns, `frames_of_tap` for one frame of the kernel.
"""

from cython cimport floating

from refnet._core.blocking cimport KC, LHS_PITCH
from refnet._core.micro_kernel cimport next_rows
from refnet._core.prefetch cimport push
from refnet._core.simd cimport GatherRegion


cdef bint packs_fused(const Simd* simd, Py_ssize_t rows, const GatherPlan* plan) noexcept nogil:
    """Whether packing is fused into the first of so many rows.

    Not where gathering takes longer than multiplying, nor for kernels of one tap, which read each value once:
    whole lines come faster from memory.
    """
    cdef Py_ssize_t taps = plan.g.kT * plan.g.kH * plan.g.kW
    return (simd.masked_loads and next_rows(simd, rows) == simd.mr and 1 < taps <= KC
            and (plan.g.sW == 1 and plan.segments <= 4 or plan.g.sW == 2 and plan.segments <= 2))


cdef void pack_patches(const Simd* simd, const floating* x, GatherPlan* plan, Range rows, Py_ssize_t column,
                       Py_ssize_t columns, floating* rhs) noexcept nogil:
    """rhs <- rows of the patches of x, `columns` (whole panels) of the plan from `column` on, in panels."""
    cdef GatherRegion region = GatherRegion(0, plan.g.kT * plan.g.kH * plan.g.kW, rows.low, rows.high, column,
                                            columns)
    simd.gather(x, plan, &region, rhs, simd.nr, KC * simd.nr)


cdef void gather_rows(const Simd* simd, const floating* x, GatherPlan* plan, Range taps, Range rows,
                      Py_ssize_t columns, floating* lines) noexcept nogil:
    """lines, LHS_PITCH apart, <- rows of the patches of x at some taps of each channel."""
    cdef GatherRegion region = GatherRegion(taps.low, taps.high, rows.low, rows.high, 0, columns)
    simd.gather(x, plan, &region, lines, LHS_PITCH, simd.nr)


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


cdef inline bint reads(const Geometry* g, Py_ssize_t frame, Py_ssize_t kt) noexcept nogil:
    """Whether, for an output frame, the taps of a frame of the kernel read a frame of the input."""
    return 0 <= frame * g.sT - g.pT + kt * g.dT < g.T


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
