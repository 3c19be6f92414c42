"""Forward and backward-data of stride 1 or 2 along W, line by line, with nothing for taps in the padding.

Lanes are filters: weights are packed transposed, and each value of the image is one value in all lanes, read from where
it lies (simd/line_kernel.h). So nothing is gathered, and what a tap would read in the padding is left out: frames and
lines of it for all positions of an output line, as they are no terms of its list; columns of it by the micro-kernel.
tiles.pyx leaves out frames alone, and multiplies zeros for the rest: a fifth of all terms at 7 x 7.

The sums are those of tiles.pyx. A tile is some panels of filters and some lines; blocks of KC terms are packed one
after the other, and the tile's sums are transposed when all are finished.
"""

from cython cimport floating
from libc.string cimport memset

from refnet._core cimport openmp, prefetch
from refnet._core.blocking cimport (CACHE_LINE, KC, LEAST_POSITIONS, LHS_PITCH, LINE_POSITIONS, LINE_STEP, LINE_TAPS,
                                    MC, PAD, TILE_PITCH, TRANSPOSED, WIDE_POSITIONS, WIDE_TAPS, ceil_div)
from refnet._core.geometry cimport Geometry
from refnet._core.im2col3d cimport Range
from refnet._core.pack cimport LhsLayout
from refnet._core.prefetch cimport PrefetchQueue
from refnet._core.simd cimport FIRST_OUTSIDE, LAST_OUTSIDE, LineRun, LineTile, PrefetchRun
from refnet._core.tiles cimport Subkernel
from refnet._core.workspace cimport PackedLhs, Workspace, carve

cdef enum:
    PACK_POSITIONS = 32    # packing a weight takes as long as so many positions of its multiply-adds
    LINE_PANELS = 1        # what else a line takes, in panels
    MAX_EXTRA = 16         # tiles along the lines, to have all threads busy to the end
    NARROW = 4             # by so much less sums
    IN_REGISTERS = 12      # positions whose sums 16 registers hold without spilling one
    LONGEST_BACK = 28      # positions of a line of four lanes that is read backwards
    MAX_PAIRED = 1024      # lines of a tile that may be computed two at once
    PART_COST = 3          # a part takes as long as so many positions more,
    SPILT_COST = 2         # and where one is spilt, so many again, or with a stride one


cdef Py_ssize_t parts_of_line(const Simd* simd, const Geometry* g) noexcept nogil:
    """Into how many parts of nearly equal length a line of outputs is cut, each a micro-tile; 0 if it cannot be."""
    cdef Py_ssize_t half = LINE_POSITIONS // 2, parts, length, spilt, cost, least = 0, found = 0
    if not simd.taps_at_once:
        return g.oW // LINE_POSITIONS if g.oW % LINE_POSITIONS == 0 else g.oW // half if g.oW % half == 0 else 0
    if g.kW == WIDE_TAPS:
        return g.oW // WIDE_POSITIONS if g.oW % WIDE_POSITIONS == 0 else 0
    for parts in range(ceil_div(g.oW, LINE_POSITIONS), g.oW // LEAST_POSITIONS + 1):
        length = g.oW // parts
        spilt = parts if length > IN_REGISTERS else g.oW % parts if length == IN_REGISTERS else 0
        cost = PART_COST * parts + (SPILT_COST * spilt if g.sW == 1 else spilt)
        if least == 0 or cost < least:
            least, found = cost, parts
    return found


cdef inline Py_ssize_t filters_of_panel(const Simd* simd, const Geometry* g) noexcept nogil:
    """How many filters a micro-tile has."""
    cdef Py_ssize_t parts = parts_of_line(simd, g)
    return simd.half_line_filters if LINE_POSITIONS // 2 * parts == g.oW else simd.line_filters


cdef inline Py_ssize_t max_lines(const Simd* simd, const Geometry* g, Py_ssize_t filters) noexcept nogil:
    """How many lines of some filters the workspace holds, or the smaller second cache beside 16 registers."""
    return MC * TILE_PITCH // (NARROW if simd.taps_at_once else 1) // (filters + PAD) // g.oW


cdef LineConvolution line_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t samples,
                                      Py_ssize_t groups) noexcept nogil:
    """How it would be computed: in the tiles that take the busiest thread least. No bit depends on them."""
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t threads = openmp.max_threads(), fewest, down, across, panels, lines, work, least = 0
    cdef LineConvolution found
    found.conv, found.groups, found.terms = conv, groups, conv.channels * g.kT * g.kH * g.kW
    found.parts, found.filters = parts_of_line(simd, g), filters_of_panel(simd, g)
    found.panels, found.lines = ceil_div(conv.rows, found.filters), g.oT * g.oH
    found.tile_panels = found.tile_lines = 1
    for down in range(ceil_div(found.panels, MC // found.filters), found.panels + 1):
        panels = ceil_div(found.panels, down)
        if max_lines(simd, g, panels * found.filters) == 0:
            continue
        fewest = ceil_div(found.lines, max_lines(simd, g, panels * found.filters))
        for across in range(fewest, min(fewest + MAX_EXTRA, found.lines) + 1):
            lines = ceil_div(found.lines, across)
            work = (ceil_div(samples * groups * down * across, threads)
                    * (panels * (lines * g.oW + PACK_POSITIONS) + LINE_PANELS * lines))
            if least == 0 or work < least:
                least = work
                found.tile_panels, found.tile_lines = panels, lines
    found.down, found.across = ceil_div(found.panels, found.tile_panels), ceil_div(found.lines, found.tile_lines)
    # Panels of all chains that the workspace holds are packed once for all of a thread's tiles with the same filters.
    found.packs_once = ceil_div(found.terms, KC) * KC * found.tile_panels * found.filters <= MC * LHS_PITCH
    return found


# The first and the last column that a line of the kernel reads for a line of outputs; the padding's are below 0 or
# above W - 1.
cdef inline Range columns_read(const Geometry* g) noexcept nogil:
    cdef Py_ssize_t zero = 0, reach = (g.kW - 1) * g.dW
    return Range(min(zero, reach) - g.pW, (g.oW - 1) * g.sW + max(zero, reach) - g.pW)


cdef inline bint reaches_one_column(const Geometry* g) noexcept nogil:
    """Whether no tap reads more than one column of padding, of which a line's first or last position is the only one.

    So the second position and the last but one read inside at every tap, and no tap reads outside at both ends.
    """
    cdef Range columns = columns_read(g)
    return (g.oW > 2 and columns.low + g.sW >= 0 and (g.oW - 1) * g.sW <= g.W and columns.high - g.sW < g.W
            and g.kW <= KC)


cdef inline bint takes_taps_at_once(const Simd* simd, const Geometry* g) noexcept nogil:
    """Whether a line of the kernel has LINE_TAPS or WIDE_TAPS, and half of them read padding at either end at most.

    Four lanes, float64, are slower than tiles on long lines that are read backwards: 64->64 at 56 took 1.25 x as long.
    """
    cdef Range columns = columns_read(g)
    cdef bint few = g.kW == LINE_TAPS and (g.dW == 1 or g.dW == -g.sW)
    cdef bint many = g.kW == WIDE_TAPS and g.dW == 1 and g.sW == LINE_STEP
    return ((few or many) and (g.dW > 0 or g.oW <= LONGEST_BACK or simd.nr > 8)
            and -columns.low <= g.kW // 2 and columns.high - (g.W - 1) <= g.kW // 2)


cdef bint pays(const Simd* simd, const Convolution* conv) noexcept nogil:
    """Whether padding may be left out, lines and filters fill whole micro-tiles, and weights lie as packed."""
    cdef const Subkernel* kernel = conv.subkernels
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t filters = filters_of_panel(simd, g)
    return (filters > 0 and (g.sW == 1 or g.sW == LINE_STEP) and conv.count_subkernels == 1 and not kernel.empty
            and conv.maps.dense and kernel.phases_at == NULL and 1 < g.kH * g.kW
            and (takes_taps_at_once(simd, g) if simd.taps_at_once else reaches_one_column(g))
            and parts_of_line(simd, g) > 0 and max_lines(simd, g, filters) > 0
            and 16 * ceil_div(conv.rows, filters) * filters <= 17 * conv.rows
            and kernel.layout.w == 1 and (kernel.layout.h == g.kW or g.kH == 1)
            and (kernel.layout.t == g.kH * g.kW or g.kT == 1))


cdef void convolve_lines(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                         const LineConvolution* convolution, Py_ssize_t task) noexcept nogil:
    """Compute one tile: y (filters, lines) = weights times what the lines' windows have inside of x."""
    cdef const Convolution* conv = convolution.conv
    cdef const Subkernel* kernel = conv.subkernels
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t volume = g.T * g.H * g.W, taps = g.kT * g.kH * g.kW
    # Tasks go through filters last: the threads read the same lines.
    cdef Py_ssize_t n = task // convolution.down, group = n // convolution.across
    cdef Py_ssize_t panel = task % convolution.down * convolution.tile_panels, row = panel * convolution.filters
    cdef Py_ssize_t rows = min(convolution.tile_panels * convolution.filters, conv.rows - row)
    cdef Py_ssize_t first_line = n % convolution.across * convolution.tile_lines
    cdef Py_ssize_t last_line = min(first_line + convolution.tile_lines, convolution.lines)
    cdef Py_ssize_t pitch = convolution.tile_panels * convolution.filters + PAD
    cdef Py_ssize_t positions = (last_line - first_line) * g.oW, i
    cdef Range terms
    cdef Workspace workspace
    cdef floating* sums
    cdef floating* panels
    cdef bint packed
    cdef PrefetchQueue queue
    carve(&workspace, memory, sizeof(floating))
    sums = <floating*> workspace.tile
    w += group % convolution.groups * kernel.layout.group + row * kernel.layout.row + kernel.layout.first
    x += group * conv.channels * volume
    panels = <floating*> workspace.lhs
    packed = convolution.packs_once and workspace.packed.weights == <const void*> w
    workspace.packed[0] = PackedLhs(w, 0)
    for i in range(ceil_div(convolution.terms, KC)):
        terms = Range(i * KC, min((i + 1) * KC, convolution.terms))
        prefetch.clear(&queue)
        if not packed:
            pack_panels(simd, w, panels, convolution, rows, terms)
            prefetch_weights(&queue, w, convolution, rows, Range(terms.high, min(terms.high + KC, convolution.terms)))
        add_chains(simd, x + terms.low // taps * volume, panels, sums, convolution, terms,
                   Range(first_line, last_line), ceil_div(rows, convolution.filters), &queue)
        if convolution.packs_once:
            panels += KC * convolution.tile_panels * convolution.filters
    y += (group * conv.rows + row) * conv.maps.volume + first_line * g.oW
    for i in range(ceil_div(rows, TRANSPOSED)):
        simd.transpose(sums + i * TRANSPOSED, pitch, y + i * TRANSPOSED * conv.maps.volume, conv.maps.volume, positions,
                       min(rows - i * TRANSPOSED, <Py_ssize_t> TRANSPOSED))


cdef void pack_panels(const Simd* simd, const floating* w, floating* panels, const LineConvolution* convolution,
                      Py_ssize_t rows, Range terms) noexcept nogil:
    """panels (any number, KC, filters) <- some terms of the rows of weights that begin at w, transposed, and zeros."""
    cdef const Subkernel* kernel = convolution.conv.subkernels
    cdef const LhsLayout* layout = &kernel.layout
    cdef Py_ssize_t taps = kernel.g.kT * kernel.g.kH * kernel.g.kW, filters = convolution.filters
    cdef Py_ssize_t panel, row, term, last, count
    for panel in range(ceil_div(rows, filters)):
        row = panel * filters
        count = min(filters, rows - row)
        if count < filters:
            memset(panels, 0, KC * filters * sizeof(floating))
        term = terms.low
        while term < terms.high:
            last = terms.high if layout.dense else min(term + taps - term % taps, terms.high)
            simd.transpose(w + row * layout.row + term // taps * layout.channel + term % taps, layout.row,
                           panels + (term - terms.low) * filters, filters, count, last - term)
            term = last
        panels += KC * filters


cdef void prefetch_weights(PrefetchQueue* queue, const floating* w, const LineConvolution* convolution,
                           Py_ssize_t rows, Range terms) noexcept nogil:
    """Queue some terms of the rows of weights that begin at w."""
    cdef const Subkernel* kernel = convolution.conv.subkernels
    cdef const LhsLayout* layout = &kernel.layout
    cdef Py_ssize_t taps = kernel.g.kT * kernel.g.kH * kernel.g.kW, itemsize = sizeof(floating), channel
    if terms.low == terms.high:
        return
    if layout.dense:
        prefetch.push(queue, w + terms.low, (terms.high - terms.low) * itemsize, layout.row * itemsize, rows)
    else:  # the rows of a channel lie one after the other
        channel = terms.low // taps
        prefetch.push(queue, w + channel * layout.channel, rows * layout.row * itemsize, layout.channel * itemsize,
                      (terms.high - 1) // taps + 1 - channel)


cdef void add_chains(const Simd* simd, const floating* x, const floating* panels, floating* sums,
                     const LineConvolution* convolution, Range terms, Range lines, Py_ssize_t count,
                     PrefetchQueue* queue) noexcept nogil:
    """sums (lines, `count` panels) = or += chains of some terms, the first of which reads x (channels, ...)."""
    cdef const Geometry* g = &convolution.conv.subkernels.g
    cdef Py_ssize_t filters = convolution.filters, line, t, h, part, column, panel
    cdef Py_ssize_t prefetched = 0, zero = 0
    cdef Range frames, of_frame, reached = Range(0, 0), of_reached = Range(0, 0), columns = columns_read(g)
    cdef LineTile tile
    cdef LineRun list[KC]
    cdef unsigned char outside[KC]
    cdef unsigned char paired[MAX_PAIRED]
    cdef bint pairs = simd.taps_at_once and g.oW == LINE_POSITIONS // 2 and lines.high - lines.low <= MAX_PAIRED
    if pairs:
        memset(paired, 0, lines.high - lines.low)
    tile.second = tile.second_sums = 0
    if not simd.taps_at_once:
        find_outside(outside, g)
    tile.runs, tile.count, tile.pitch = &list[0], 0, convolution.tile_panels * filters + PAD
    tile.outside, tile.apart, tile.next_line = &outside[0], g.dW, g.sH * g.W
    tile.step, tile.taps, tile.accumulate = g.sW, g.kW, terms.low > 0
    for line in range(lines.low, lines.high):
        if pairs and paired[line - lines.low]:
            continue
        t, h = line // g.oH * g.sT, line % g.oH * g.sH
        frames = taps_inside(g.kT, t - g.pT, g.dT, g.T)
        of_frame = taps_inside(g.kH, h - g.pH, g.dH, g.H)
        if line == lines.low or not (same(frames, reached) and same(of_frame, of_reached)):
            reached, of_reached = frames, of_frame
            tile.count = list_runs(list, g, terms, frames, of_frame, filters)
            prefetched = count_terms(list, tile.count)
        if pairs:  # with the same line of the next frame, if the same taps reach it
            tile.second = 0
            if line + g.oH < lines.high and same(frames, taps_inside(g.kT, t + g.sT - g.pT, g.dT, g.T)):
                paired[line + g.oH - lines.low] = True
                tile.second, tile.second_sums = g.sT * g.H * g.W, g.oH * g.oW * tile.pitch
        for part in range(convolution.parts):
            column = part * g.oW // convolution.parts
            tile.positions = (part + 1) * g.oW // convolution.parts - column
            tile.x = x + (t * g.H + h) * g.W + column * g.sW
            tile.skipped[0] = max(-columns.low, zero) if column == 0 else 0
            tile.skipped[1] = max(columns.high - (g.W - 1), zero) if part == convolution.parts - 1 else 0
            tile.edges = ((FIRST_OUTSIDE if column == 0 else 0)
                          | (LAST_OUTSIDE if part == convolution.parts - 1 else 0))
            for panel in range(count):
                tile.weights = panels + panel * KC * filters
                tile.c = sums + ((line - lines.low) * g.oW + column) * tile.pitch + panel * filters
                if not simd.taps_at_once:  # which prefetches no weights
                    tile.prefetch = next_weights(queue, tile.weights, prefetched)
                simd.line_kernel(&tile)


cdef inline PrefetchRun next_weights(PrefetchQueue* queue, const void* weights, Py_ssize_t terms) noexcept nogil:
    """What a call of the micro-kernel prefetches: the weights that are packed next, or the panel itself."""
    if prefetch.is_empty(queue):
        return PrefetchRun(<const char*> weights, KC, CACHE_LINE, KC * CACHE_LINE)
    return prefetch.pop(queue, max(terms, <Py_ssize_t> 1))


cdef inline bint same(Range a, Range b) noexcept nogil:
    return a.low == b.low and a.high == b.high


cdef inline Range taps_inside(Py_ssize_t kernel, Py_ssize_t first, Py_ssize_t dilation, Py_ssize_t size) noexcept nogil:
    """The taps along one axis that read inside, of a window whose tap 0 reads at `first`."""
    cdef Range inside = Range(0, kernel)
    while inside.low < kernel and not 0 <= first + inside.low * dilation < size:
        inside.low += 1
    while inside.high > inside.low and not 0 <= first + (inside.high - 1) * dilation < size:
        inside.high -= 1
    return inside


cdef void find_outside(unsigned char* outside, const Geometry* g) noexcept nogil:
    """Of each tap of a line of the kernel, whether it lies outside for the first or last position of a line."""
    cdef Py_ssize_t kw, shift
    for kw in range(g.kW):
        shift = kw * g.dW - g.pW
        outside[kw] = ((FIRST_OUTSIDE if shift < 0 else 0)
                       | (LAST_OUTSIDE if (g.oW - 1) * g.sW + shift >= g.W else 0))


cdef Py_ssize_t list_runs(LineRun* list, const Geometry* g, Range terms, Range frames, Range lines,
                          Py_ssize_t filters) noexcept nogil:
    """List the terms of a chain at some frames and lines of the kernel; return how many runs there are."""
    cdef Py_ssize_t volume = g.T * g.H * g.W, taps = g.kT * g.kH * g.kW, count = 0
    cdef Py_ssize_t first = terms.low // taps * taps  # the chain's first channel
    cdef Py_ssize_t channel, kt, kh, term, at, low, high
    for channel in range(ceil_div(terms.high - first, taps)):
        for kt in range(frames.low, frames.high):
            for kh in range(lines.low, lines.high):
                at = channel * volume + ((kt * g.dT - g.pT) * g.H + kh * g.dH - g.pH) * g.W - g.pW
                term = first + channel * taps + (kt * g.kH + kh) * g.kW
                low, high = max(terms.low - term, <Py_ssize_t> 0), min(terms.high - term, g.kW)
                if low < high:
                    list[count] = LineRun(at + low * g.dW, (term + low - terms.low) * filters, <unsigned short> low,
                                          <unsigned short> (high - low))
                    count += 1
    return count
