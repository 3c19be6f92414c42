"""Backward-weights tap by tap, with nothing for positions at which the tap lies in the padding.

Lanes are filters: dy is packed transposed, and so is what the window reads of x, channels last. A micro-tile is some
channels at one tap times a panel of filters (simd/line_kernel.h): all its sums have the same terms, the positions at
which that tap reads a value, which are listed once for all channels and filters. weights_tiles.pyx gathers a value of x
once for every tap that reads it, leaves out frames of the padding alone, and multiplies zeros for the rest.

The sums are those of weights_tiles.pyx, which has the loop over chains. Positions of the padding are counted where
chains are cut.
"""

from cython cimport floating
from libc.string cimport memset

from refnet._core cimport openmp, prefetch
from refnet._core.blocking cimport (CACHE_LINE, KC, LHS_PITCH, MC, NC, PAD, TAP_CHANNELS, TILE_PITCH, TRANSPOSED,
                                    ceil_div)
from refnet._core.line_convolution cimport count_terms
from refnet._core.simd cimport LineRun, LineTile, PrefetchRun

cdef enum:
    MOST_CHANNELS = 64  # of a tile: more sums would not stay in the second cache
    PACK_ROWS = 8       # packing a value of dy takes as long as so many multiply-adds, and one of x likewise
    MIN_USES = 50       # multiply-adds of each packed value of x, or packing takes too long
    MAX_EXTRA = 16      # tiles along channels and filters, to have all threads busy to the end
    AHEAD = 8           # positions of which values of x are prefetched

cdef unsigned char[KC] INSIDE  # no term lies outside: see struct line_tile


# The output positions [start, stop), which lie in one frame, and what one frame of the kernel reads there: lines
# [first, last) of a frame of x, or none in the padding.
cdef struct Part:
    Py_ssize_t start, stop, frame, first, last


cdef inline Range outputs_inside(Py_ssize_t first, Py_ssize_t stride, Py_ssize_t size,
                                 Py_ssize_t outputs) noexcept nogil:
    """The outputs along one axis for which a tap reads inside, that reads at `first` for output 0."""
    cdef Range inside = Range(0, outputs)
    while inside.low < outputs and first + inside.low * stride < 0:
        inside.low += 1
    while inside.high > inside.low and first + (inside.high - 1) * stride >= size:
        inside.high -= 1
    return inside


cdef inline Py_ssize_t packed_values(const Geometry* g) noexcept nogil:
    """How many values of a channel are packed at most, for a frame of the kernel at KC positions."""
    cdef Py_ssize_t parts = min((KC - 2) // (g.oH * g.oW) + 2, g.oT), lines = min((KC - 2) // g.oW + 2, g.oT * g.oH)
    cdef Py_ssize_t reach = (g.kH - 1) * g.dH + 1
    return min(parts * g.H, lines * g.sH + parts * max(<Py_ssize_t> 0, reach - g.sH)) * g.W


cdef inline Py_ssize_t most_channels(const Simd* simd, const Geometry* g, Py_ssize_t filters) noexcept nogil:
    """How many channels a tile of some filters has at most."""
    cdef Py_ssize_t columns = ceil_div(filters, simd.tap_filters) * simd.tap_filters + PAD
    cdef Py_ssize_t most = min(MC * LHS_PITCH // packed_values(g) - PAD,
                               MC * TILE_PITCH // (columns * g.kT * g.kH * g.kW))
    return min(most, <Py_ssize_t> MOST_CHANNELS) // TRANSPOSED * TRANSPOSED


cdef bint pays(const Simd* simd, const Geometry* g, Py_ssize_t filters, Py_ssize_t channels) noexcept nogil:
    """Whether filters fill whole panels and channels whole micro-tiles, and packed values are used often enough."""
    cdef Py_ssize_t of_tile = min(filters, <Py_ssize_t> NC)
    return (simd.tap_filters > 0 and 1 < g.kT * g.kH * g.kW and channels % TRANSPOSED == 0
            and 16 * ceil_div(filters, simd.tap_filters) * simd.tap_filters <= 17 * filters
            and g.kH * g.kW * KC * of_tile >= MIN_USES * packed_values(g) and most_channels(simd, g, of_tile) > 0)


cdef TapTile tap_tile(const Simd* simd, const Geometry* g, Py_ssize_t filters, Py_ssize_t channels,
                      Py_ssize_t repeats) noexcept nogil:
    """The tiles that take the busiest thread least, if there are `repeats` of each. No bit depends on them."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, threads = openmp.max_threads(), blocks = channels // TRANSPOSED
    cdef Py_ssize_t panels = ceil_div(filters, simd.tap_filters), fewest = ceil_div(filters, NC), across, down, most
    cdef Py_ssize_t work, least = 0
    cdef TapTile tile, found = TapTile(0, 0)
    for across in range(fewest, min(fewest + MAX_EXTRA, panels) + 1):
        tile.filters = ceil_div(panels, across) * simd.tap_filters
        most = ceil_div(channels, most_channels(simd, g, tile.filters))
        for down in range(most, min(most + MAX_EXTRA, blocks) + 1):
            tile.channels = ceil_div(blocks, down) * TRANSPOSED
            work = (ceil_div(repeats * down * across, threads)
                    * (tile.channels * taps * tile.filters + PACK_ROWS * (tile.filters + g.kT * tile.channels)))
            if least == 0 or work < least:
                least, found = work, tile
    return found


cdef void add_tap_chains(const Simd* simd, const floating* dy, const floating* x, floating* sums, Py_ssize_t pitch,
                         const Geometry* g, const TapTile* tile, Range positions, bint accumulate,
                         const Workspace* workspace, PrefetchQueue* queue) noexcept nogil:
    """sums (channels, taps, filters) = or += chains of at most KC positions of dy (filters, P) and x (channels, ...).

    Rows of sums are `pitch` values apart.
    """
    cdef Py_ssize_t packed = tile.channels + PAD, taps = g.kT * g.kH * g.kW, tap, kt, kh, kw
    cdef Py_ssize_t terms
    cdef floating* values = <floating*> workspace.lhs
    cdef floating* panels = <floating*> workspace.rhs
    cdef LineTile micro
    cdef LineRun list[KC]
    pack_filters(simd, dy, panels, g, tile.filters, positions)
    micro.runs, micro.pitch, micro.next_line, micro.edges = &list[0], taps * pitch, AHEAD * packed, 0
    micro.outside, micro.apart = INSIDE, g.sW * packed
    micro.positions, micro.step, micro.accumulate = TAP_CHANNELS, 1, accumulate
    for kt in range(g.kT):
        pack_channels(simd, x, values, g, tile.channels, positions, kt)
        for kh in range(g.kH):
            for kw in range(g.kW):
                tap = (kt * g.kH + kh) * g.kW + kw
                micro.count = list_positions(list, g, positions, kt, kh, kw, packed, simd.tap_filters)
                terms = count_terms(list, micro.count)
                if micro.count > 0 or not accumulate:
                    add_tap(simd, values, panels, sums + tap * pitch, tile, &micro, terms, queue)


cdef void add_tap(const Simd* simd, const floating* values, const floating* panels, floating* sums,
                  const TapTile* tile, LineTile* micro, Py_ssize_t terms, PrefetchQueue* queue) noexcept nogil:
    """Add the chains of one tap, whose `terms` `micro` lists."""
    cdef Py_ssize_t i, panel
    for i in range(tile.channels // TAP_CHANNELS):
        micro.x = values + i * TAP_CHANNELS
        for panel in range(ceil_div(tile.filters, simd.tap_filters)):
            micro.weights = panels + panel * KC * simd.tap_filters
            micro.c = sums + i * TAP_CHANNELS * micro.pitch + panel * simd.tap_filters
            if prefetch.is_empty(queue):
                micro.prefetch = PrefetchRun(<const char*> micro.weights, KC, CACHE_LINE, KC * CACHE_LINE)
            else:
                micro.prefetch = prefetch.pop(queue, max(terms, <Py_ssize_t> 1))
            simd.line_kernel(micro)


cdef void pack_filters(const Simd* simd, const floating* dy, floating* panels, const Geometry* g, Py_ssize_t filters,
                       Range positions) noexcept nogil:
    """panels (any number, KC, line_filters) <- dy (filters, P) at some positions, transposed, and zeros."""
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, columns = simd.tap_filters, panel, count
    for panel in range(ceil_div(filters, columns)):
        count = min(columns, filters - panel * columns)
        if count < columns:
            memset(panels, 0, KC * columns * sizeof(floating))
        simd.transpose(dy + panel * columns * P + positions.low, P, panels, columns, count,
                       positions.high - positions.low)
        panels += KC * columns


cdef inline Part next_part(const Geometry* g, Range positions, Py_ssize_t kt) noexcept nogil:
    """What a frame of the kernel reads at the first of some positions and those after it in the same frame."""
    cdef Py_ssize_t area = g.oH * g.oW, frame = positions.low // area, zero = 0
    cdef Part part
    part.start, part.stop = positions.low, min(positions.high, (frame + 1) * area)
    part.frame = frame * g.sT + kt * g.dT - g.pT
    part.first = max(part.start // g.oW % g.oH * g.sH - g.pH, zero)
    part.last = min((part.stop - 1) // g.oW % g.oH * g.sH - g.pH + (g.kH - 1) * g.dH + 1, g.H)
    if not 0 <= part.frame < g.T or part.last < part.first:
        part.last = part.first
    return part


cdef void pack_channels(const Simd* simd, const floating* x, floating* values, const Geometry* g, Py_ssize_t channels,
                        Range positions, Py_ssize_t kt) noexcept nogil:
    """values (any number, channels) <- the lines of x (channels, ...) that a frame of the kernel reads, transposed.

    They are channels + PAD apart.
    """
    cdef Part part
    while positions.low < positions.high:
        part = next_part(g, positions, kt)
        if part.first < part.last:
            simd.transpose(x + (part.frame * g.H + part.first) * g.W, g.T * g.H * g.W, values, channels + PAD, channels,
                           (part.last - part.first) * g.W)
        values += (part.last - part.first) * g.W * (channels + PAD)
        positions.low = part.stop


cdef Py_ssize_t list_positions(LineRun* list, const Geometry* g, Range positions, Py_ssize_t kt, Py_ssize_t kh,
                               Py_ssize_t kw, Py_ssize_t packed, Py_ssize_t filters) noexcept nogil:
    """List the positions at which a tap reads a packed value, `packed` apart; return how many runs there are."""
    cdef Py_ssize_t first = positions.low, count = 0, before = 0, shift = kw * g.dW - g.pW, line, start, at, low, high
    cdef Range inside = outputs_inside(shift, g.sW, g.W, g.oW)
    cdef Part part
    while positions.low < positions.high:
        part = next_part(g, positions, kt)
        line = part.start // g.oW % g.oH * g.sH + kh * g.dH - g.pH  # of x
        start = part.start // g.oW * g.oW  # the line of output positions
        while part.first < part.last and start < part.stop:
            if part.first <= line < part.last:
                at = before + (line - part.first) * g.W + shift
                low, high = max(inside.low, part.start - start), min(inside.high, part.stop - start)
                if low < high:
                    list[count] = LineRun((at + low * g.sW) * packed, (start + low - first) * filters, 0,
                                          <unsigned short> (high - low))
                    count += 1
            line += g.sH
            start += g.oW
        before += (part.last - part.first) * g.W
        positions.low = part.stop
    return count
