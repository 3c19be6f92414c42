"""Backward-weights: dw cut into spans of positions and tiles, and the loops over blocks and strips in each.

Each element of dw is summed over positions: dw is dy times the transposed patches. The positions of a sample
are cut into spans, which are independent sums; a task is a tile of dw over one span.
"""

from cython cimport floating

from refnet._core cimport openmp, prefetch
from refnet._core.blocking cimport (KC, LHS_PITCH, MAX_MR, MAX_PANELS, MC, NC, PAD, PREFETCH_TERMS, TILE_COLUMNS,
                                    TRANSPOSED, ceil_div)
from refnet._core.geometry cimport in_long_lines
from refnet._core.im2col3d cimport Range, frames_of_tap, pack_patch_rows, plan_gather, prefetch_patches
from refnet._core.macro_kernel cimport MacroBlock, macro_kernel
from refnet._core.micro_kernel cimport next_rows
from refnet._core.pack cimport LhsSource, pack_rhs
from refnet._core.prefetch cimport PrefetchQueue
from refnet._core.simd cimport GatherPlan, Terms
from refnet._core.tap_gradients cimport TapTile, add_tap_chains, tap_tile
from refnet._core.tiles cimport NextTile, tile_shape
from refnet._core.workspace cimport Workspace, carve


# Filters and rows (of K) of dw, over the positions [start, stop) of a sample.
cdef struct WeightsTile:
    Py_ssize_t filters, row, rows, start, stop
    bint accumulate
    NextTile next


cdef WeightsGradient weights_gradient(const Simd* simd, const Geometry* g, Py_ssize_t filters, Py_ssize_t channels,
                                      Py_ssize_t groups, Py_ssize_t positions, Py_ssize_t at_once,
                                      bint by_taps) noexcept nogil:
    """Choose how dw is computed, and its tiles.

    A group has `filters` filters and `channels` channels of x; `at_once` spans of `positions` positions are computed
    at once; `by_taps` if tap_gradients.pyx computes them.
    """
    cdef WeightsGradient gradient
    cdef Tiling* tiling = &gradient.tiling
    cdef TapTile tile
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, height = 1, repeats = groups * max(1, at_once)
    gradient.g = g[0] if by_taps else in_long_lines(g[0])
    gradient.K, gradient.channels, gradient.sections = channels * taps, channels, 1
    gradient.filters, gradient.positions = filters, positions
    gradient.spans = ceil_div(g.oT * g.oH * g.oW, positions)
    gradient.upright = filters > gradient.K or 4 * filters <= simd.nr
    gradient.by_taps = by_taps
    if by_taps:
        gradient.upright = False
        tile = tap_tile(simd, g, filters, channels, repeats)
        tiling.rows, tiling.columns = tile.channels * taps, tile.filters
    elif gradient.upright:
        tiling.columns, tiling.rows = tile_shape(filters, 1, gradient.K, TILE_COLUMNS, simd.nr, repeats, 1, 4,
                                                 taps == 1)
    else:
        if 1 < g.kT and taps <= KC:  # tiles of whole channels
            height, gradient.sections = taps, g.kT
        tiling.rows, tiling.columns = tile_shape(gradient.K // height, height, filters, TILE_COLUMNS, simd.nr, repeats,
                                                 1, 1, taps == 1)
        tiling.rows *= height
    tiling.down, tiling.across = ceil_div(gradient.K, tiling.rows), ceil_div(filters, tiling.columns)
    tiling.groups = groups
    tiling.tasks = groups * tiling.down * tiling.across
    return gradient


# The tile of a task: its span, sample * groups + group, first filter of the group, row of K, and position.
cdef struct Place:
    Py_ssize_t span, group, filter, row, start


cdef inline Place place_of(const WeightsGradient* gradient, Py_ssize_t task) noexcept nogil:
    """Tasks go through rows first, then filters, groups and spans."""
    cdef const Tiling* tiling = &gradient.tiling
    cdef Place place
    place.span = task // tiling.tasks
    place.group = (place.span // gradient.spans * tiling.groups
                   + task // (tiling.down * tiling.across) % tiling.groups)
    place.filter = task // tiling.down % tiling.across * tiling.columns
    place.row = task % tiling.down * tiling.rows
    place.start = place.span % gradient.spans * gradient.positions
    return place


cdef void weights_task(const Simd* simd, const floating* dy, const floating* x, floating* dw, unsigned char* memory,
                       const WeightsGradient* gradient, const Spans* spans, Py_ssize_t task) noexcept nogil:
    """Compute one tile of dw, or of the first of the spans' own, over one span."""
    cdef const Geometry* g = &gradient.g
    cdef Py_ssize_t volume = gradient.channels * g.T * g.H * g.W, P = g.oT * g.oH * g.oW, filters = gradient.filters
    cdef Py_ssize_t later = task + openmp.max_threads()  # the thread's next task, as a rule
    cdef Place here = place_of(gradient, task), there = place_of(gradient, later)
    cdef Workspace workspace
    cdef WeightsTile tile
    carve(&workspace, memory, sizeof(floating))
    tile.filters = min(gradient.tiling.columns, filters - here.filter)
    tile.row, tile.rows = here.row, min(gradient.tiling.rows, gradient.K - here.row)
    tile.start, tile.stop = here.start, min(here.start + gradient.positions, P)
    tile.accumulate = here.span > 0 and not spans.apart
    tile.next = NextTile(NULL, NULL, 0, 0)
    if later < spans.stop:
        tile.next = NextTile(x + there.group * volume, dy + (there.group * filters + there.filter) * P, there.row,
                             there.start)
    dw += ((here.span - spans.first) * spans.apart
           + (here.group % gradient.tiling.groups * filters + here.filter) * gradient.K)
    dy += (here.group * filters + here.filter) * P
    x += here.group * volume
    if gradient.by_taps:
        taps_of_tile(simd, dy, x, dw, gradient, &tile, &workspace)
    else:
        weights_tile(simd, dy, x, dw, gradient, &tile, &workspace)


cdef void taps_of_tile(const Simd* simd, const floating* dy, const floating* x, floating* dw,
                       const WeightsGradient* gradient, const WeightsTile* tile,
                       const Workspace* workspace) noexcept nogil:
    """dw (filters, rows) of a tile = or += what tap_gradients.pyx adds up over the positions of a span."""
    cdef const Geometry* g = &gradient.g
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, first, row, i
    cdef Py_ssize_t pitch = ceil_div(tile.filters, simd.tap_filters) * simd.tap_filters + PAD
    cdef const floating* channels = x + tile.row // taps * g.T * g.H * g.W
    cdef floating* sums = <floating*> workspace.tile
    cdef TapTile shape = TapTile(tile.rows // taps, tile.filters)
    cdef WeightsTile some = tile[0]
    cdef PrefetchQueue queue
    for i in range(ceil_div(tile.stop - tile.start, KC)):
        first = tile.start + i * KC
        prefetch.clear(&queue)
        prefetch_next_positions(&queue, dy, x, gradient, tile, first + KC)
        add_tap_chains(simd, dy, channels, sums, pitch, g, &shape, Range(first, min(first + KC, tile.stop)),
                       first > tile.start, workspace, &queue)
    for i in range(ceil_div(tile.rows, MC)):
        row = i * MC
        some.row, some.rows = tile.row + row, min(tile.rows - row, <Py_ssize_t> MC)
        add_transposed(simd, sums + row * pitch, pitch, dw, gradient, &some, <floating*> workspace.lines)


cdef void weights_tile(const Simd* simd, const floating* dy, const floating* x, floating* dw,
                       const WeightsGradient* gradient, const WeightsTile* tile,
                       const Workspace* workspace) noexcept nogil:
    """dw (filters, rows) of a tile = or += dy times the transposed patches of x, over the positions of a span.

    Upright, dy is the left operand and patches of x the right one; else the other way round, and dw is
    transposed as it is written back. Loop 4 goes over the positions in blocks of KC, loop 3 over the right operand in
    strips of NC; the left operand is packed when its rows' turn comes.
    """
    cdef const Geometry* g = &gradient.g
    cdef Py_ssize_t high = tile.filters if gradient.upright else tile.rows
    cdef Py_ssize_t wide = tile.rows if gradient.upright else tile.filters
    cdef Py_ssize_t rows = high // gradient.sections, pitch = ceil_div(wide, simd.nr) * simd.nr + PAD
    cdef floating* lhs = <floating*> workspace.lhs
    cdef floating* sums = <floating*> workspace.tile
    cdef Py_ssize_t first, count, block, strip, columns, section
    cdef Terms terms[MAX_PANELS]
    cdef LhsSource source
    cdef MacroBlock product
    cdef PrefetchQueue queue
    # Whether the patches are x itself, row by row: whichever is the left operand is then copied.
    cdef bint patches_are_x = (g.kT * g.kH * g.kW == g.sT == g.sH == g.sW == 1 and g.pT == g.pH == g.pW == 0)
    cdef bint copied = gradient.upright or patches_are_x
    for block in range(ceil_div(tile.stop - tile.start, KC)):
        first = tile.start + block * KC
        count = min(tile.stop - first, <Py_ssize_t> KC)
        if not patches_are_x:
            plan_gather(simd, workspace.plan, g, first, count)
        for strip in range(ceil_div(wide, NC)):
            columns = ceil_div(min(wide - strip * NC, <Py_ssize_t> NC), simd.nr) * simd.nr
            if gradient.upright and not patches_are_x:
                pack_patch_strip(simd, x, workspace, Range(tile.row + strip * NC, tile.row + wide), columns, count)
            else:
                pack_strip(simd, (x + tile.row * g.oT * g.oH * g.oW if gradient.upright else dy) + first, g, workspace,
                           Range(strip * NC, wide), columns, count)
            prefetch.clear(&queue)
            if strip == 0:
                prefetch_next_positions(&queue, dy, x, gradient, tile, first + KC)
                if g.kT * g.kH * g.kW == 1:  # some calls prefetch the next rows that are copied
                    prefetch.throttle(&queue, ceil_div(high, next_rows(simd, high))
                                      * (columns // simd.nr - copied), count // PREFETCH_TERMS)
            for section in range(gradient.sections):
                terms_of_section(simd, terms, gradient, section, Range(first, first + count), columns)
                if copied:
                    source = copied_source(dy if gradient.upright else x, g, 0 if gradient.upright else tile.row, first,
                                           count)
                else:
                    source = gathered_source(x, gradient, workspace, tile.row, section, count)
                source.keep = wide > NC
                product = MacroBlock(rows, columns, pitch, &terms[0], first > tile.start, NULL, NULL)
                if strip == 0:
                    product.source = &source
                macro_kernel(simd, lhs + section * rows * LHS_PITCH, <floating*> workspace.rhs,
                             sums + section * rows * pitch + strip * NC, &product, &queue)
    if gradient.upright:
        add_upright(simd, sums, pitch, dw, gradient, tile)
    else:
        add_transposed(simd, sums, pitch, dw, gradient, tile, <floating*> workspace.lines)


cdef void pack_patch_strip(const Simd* simd, const floating* x, const Workspace* workspace, Range rows,
                           Py_ssize_t columns, Py_ssize_t depth) noexcept nogil:
    """Pack a strip of the right operand: rows of the patches of x, gathered, and transposed panel by panel."""
    cdef floating* rhs = <floating*> workspace.rhs
    cdef floating* lines = <floating*> workspace.lines
    cdef GatherPlan* plan = workspace.plan
    cdef Range taps = Range(0, plan.g.kT * plan.g.kH * plan.g.kW)
    cdef Py_ssize_t panel, row, count
    for panel in range(columns // simd.nr):
        row = rows.low + panel * simd.nr
        count = min(simd.nr, rows.high - row)
        pack_patch_rows(simd, x, plan, taps, Range(row, row + count), lines)
        pack_rhs(simd, lines, LHS_PITCH, count, depth, rhs + panel * KC * simd.nr)


cdef void pack_strip(const Simd* simd, const floating* values, const Geometry* g, const Workspace* workspace,
                     Range rows, Py_ssize_t columns, Py_ssize_t depth) noexcept nogil:
    """Pack a strip of the right operand: rows of values (any number, P), transposed panel by panel."""
    cdef floating* rhs = <floating*> workspace.rhs
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, panel, row
    for panel in range(columns // simd.nr):
        row = rows.low + panel * simd.nr
        pack_rhs(simd, values + row * P, P, min(simd.nr, rows.high - row), depth, rhs + panel * KC * simd.nr)


cdef inline LhsSource copied_source(const floating* values, const Geometry* g, Py_ssize_t row, Py_ssize_t first,
                                    Py_ssize_t depth) noexcept nogil:
    """The left operand is rows of values (any number, P), copied from position `first` on."""
    cdef LhsSource source
    source.pitch, source.depth = g.oT * g.oH * g.oW, depth
    source.rows = values + row * source.pitch + first
    source.plan, source.taps, source.first = NULL, Range(0, 0), 0
    return source


cdef inline LhsSource gathered_source(const floating* x, const WeightsGradient* gradient, const Workspace* workspace,
                                      Py_ssize_t row, Py_ssize_t section, Py_ssize_t depth) noexcept nogil:
    """The left operand is rows of the patches of x at the taps of one section, gathered."""
    cdef LhsSource source
    cdef Py_ssize_t taps = gradient.g.kT * gradient.g.kH * gradient.g.kW // gradient.sections
    source.rows, source.pitch, source.depth = x, 0, depth
    source.plan, source.taps = workspace.plan, Range(section * taps, (section + 1) * taps)
    source.first = row // gradient.sections
    return source


cdef void terms_of_section(const Simd* simd, Terms* terms, const WeightsGradient* gradient, Py_ssize_t section,
                           Range positions, Py_ssize_t columns) noexcept nogil:
    """The terms of every panel: the positions whose frames a section reads, or all."""
    cdef const Geometry* g = &gradient.g
    cdef Py_ssize_t area = g.oH * g.oW, count = positions.high - positions.low, zero = 0, low = 0, high = count, panel
    cdef Range frames
    if gradient.sections > 1:
        frames = frames_of_tap(g, section)
        low = min(max(frames.low * area - positions.low, zero), count)
        high = min(max(frames.high * area - positions.low, low), count)
    for panel in range(columns // simd.nr):
        terms[panel] = Terms(low, high - low, high - low, 0, high)


cdef void add_upright(const Simd* simd, const floating* sums, Py_ssize_t pitch, floating* dw,
                      const WeightsGradient* gradient, const WeightsTile* tile) noexcept nogil:
    """dw = or += the sums (filters, rows) of a tile."""
    cdef Py_ssize_t k
    for k in range(tile.filters):
        simd.add_span(sums + k * pitch, dw + k * gradient.K + tile.row, 1, 1, tile.rows, tile.accumulate, gradient.K)


cdef void add_transposed(const Simd* simd, const floating* sums, Py_ssize_t pitch, floating* dw,
                         const WeightsGradient* gradient, const WeightsTile* tile, floating* lines) noexcept nogil:
    """dw = or += the sums (rows, filters) of a tile, transposed a few filters at a time.

    Rows are (section, channel, tap) in the tile, (channel, section, tap) in dw.
    """
    cdef Py_ssize_t taps = gradient.g.kT * gradient.g.kH * gradient.g.kW // gradient.sections
    cdef Py_ssize_t run = taps if gradient.sections > 1 else tile.rows
    cdef Py_ssize_t channels = tile.rows // (gradient.sections * run)
    cdef Py_ssize_t block, first, count, k
    for block in range(ceil_div(tile.filters, TRANSPOSED)):
        first = block * TRANSPOSED
        count = min(tile.filters - first, <Py_ssize_t> TRANSPOSED)
        simd.transpose(sums + first, pitch, lines, tile.rows, tile.rows, count)
        for k in range(count):
            simd.add_span(lines + k * tile.rows, dw + (first + k) * gradient.K + tile.row, channels, gradient.sections,
                          run, tile.accumulate, TRANSPOSED * gradient.K)


cdef void prefetch_next_positions(PrefetchQueue* queue, const floating* dy, const floating* x,
                                  const WeightsGradient* gradient, const WeightsTile* tile,
                                  Py_ssize_t start) noexcept nogil:
    """Queue what is packed next: dy and x at the span's positions from `start` on, or those of the next tile."""
    cdef const Geometry* g = &gradient.g
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, itemsize = sizeof(floating), count
    cdef NextTile next = NextTile(x, dy, tile.row, start) if start < tile.stop else tile.next
    if next.x:
        count = min(P - next.start, <Py_ssize_t> KC)
        prefetch.push(queue, <const floating*> next.dy + next.start, count * itemsize, P * itemsize,
                      min(tile.filters, <Py_ssize_t> MAX_MR) if gradient.upright else tile.filters)
        prefetch_patches(queue, <const floating*> next.x, g,
                         Range(next.row, min(next.row + tile.rows, gradient.K)), next.start, count)
