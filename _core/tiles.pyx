"""Forward and backward-data: y or dx cut into tiles, and the loops over blocks of K and strips of columns in each.

A task is a tile: it packs what a block of the macro-kernel multiplies, and queues what the next block, strip
or tile will read, so that it is prefetched. dx of a strided convolution is computed by phases
(phases.pyx): each is a subkernel, a convolution of its own, whose results lie between those of the others.
"""

from cython cimport floating
from libc.string cimport memset

from refnet._core cimport interrupt, openmp, prefetch
from refnet._core.blocking cimport KC, LHS_PITCH, MAX_PANELS, MAX_TILE_PANELS, MC, NC, PAD, PREFETCH_TERMS, ceil_div
from refnet._core.im2col3d cimport (Range, fused_rows, pack_patches, packs_fused, plan_gather, prefetch_patches,
                                    taps_of_frames, terms_of_taps)
from refnet._core.macro_kernel cimport MacroBlock, macro_kernel
from refnet._core.micro_kernel cimport next_rows
from refnet._core.pack cimport pack_lhs
from refnet._core.prefetch cimport PrefetchQueue
from refnet._core.simd cimport FusedPack, GatherPlan, Terms
from refnet._core.workspace cimport PackedLhs, PlannedColumns, Workspace, carve
from refnet._core.write_back cimport TileLayout, offset, write_back

cdef enum:
    MIN_ROWS = 96        # of a tile: below, packing costs too much
    MIN_COLUMNS = 128
    TILES_A_THREAD = 2   # at least, if the problem is large enough, unless
    LITTLE_IDLE = 32     # threads are idle for no more than a 32nd of all work,
    MOST_IDLE = 8        # and never more than an eighth
    MAX_EXTRA = 16       # tiles along an axis, to have all threads busy to the end


cdef (Py_ssize_t, Py_ssize_t) tile_shape(Py_ssize_t rows, Py_ssize_t height, Py_ssize_t columns,
                                         Py_ssize_t max_columns, Py_ssize_t nr, Py_ssize_t repeats,
                                         int lhs_cost, int rhs_cost, bint uniform) noexcept nogil:
    """(rows, columns) of equal tiles of a result, of which there are `repeats`; columns in whole panels.

    A row is `height` rows of the packed left operand. If there are too few tiles, or an eighth of the time
    some thread would have none, rows or columns are split, whichever packs less again; `lhs_cost` and `rhs_cost`
    are what packing a value of either operand costs. A tile for each thread is enough if all values take as long,
    `uniform`, and threads wait for no more than a 32nd of all work. Tiles follow from the problem and the number of
    threads: no bit depends on them.
    """
    cdef Py_ssize_t threads = openmp.max_threads(), all_work = repeats * rows * ceil_div(columns, nr)
    cdef Py_ssize_t down = ceil_div(rows, MC // height), across = ceil_div(columns, max_columns)
    cdef Py_ssize_t d, a, work, least, tiles, idle, best_down = 1, best_across = 1
    cdef bint tall, wide
    while True:
        # A few more may leave the busiest thread less to do.
        least = 0
        for d in range(down, down + min(down // 4, MAX_EXTRA) + 1):
            for a in range(across, across + min(across // 4, MAX_EXTRA) + 1):
                work = (ceil_div(repeats * d * a, threads) * ceil_div(rows, d)
                        * ceil_div(ceil_div(columns, a), nr))
                if least == 0 or work < least:
                    least, best_down, best_across = work, d, a
        tiles, idle = repeats * down * across, least * threads - all_work
        if ((tiles >= TILES_A_THREAD * threads and MOST_IDLE * idle <= all_work)
                or (uniform and tiles >= threads and LITTLE_IDLE * idle <= all_work)):
            break
        tall, wide = rows * height >= 2 * down * MIN_ROWS, columns >= 2 * across * MIN_COLUMNS
        if tall and (not wide or lhs_cost * rows * height * across > rhs_cost * columns * down):
            down *= 2
        elif wide:
            across *= 2
        else:
            break
    return ceil_div(rows, best_down), min(ceil_div(ceil_div(columns, best_across), nr) * nr, columns)


# Rows and positions [start, stop) of a result, for one sample and group.
cdef struct Tile:
    Py_ssize_t group, row, rows, start, stop
    NextTile next


# A subkernel on a tile: the plan of its patches, how many terms a sum has, whether packing is fused into the
# micro-kernel, and what frames of the padding leave: the taps that each panel's frames reach.
cdef struct Planned:
    const Subkernel* kernel
    GatherPlan* plan
    const unsigned short* quarters
    Py_ssize_t taps, terms
    bint fused
    Range reached[MAX_TILE_PANELS]


# Where the loops are: blocks of the terms [begin, end) are packed, [first, last) is multiplied, at `count`
# columns from `position` on.
cdef struct Step:
    Py_ssize_t begin, end, first, last, position, count


cdef Py_ssize_t results_of(const Convolution* conv, Py_ssize_t rows) noexcept nogil:
    """How many channels of y `rows` rows of weights make."""
    return rows * conv.count_subkernels // (conv.count_maps * conv.maps.beside)


# The tile of a task: its sample * groups + group, first row and column.
cdef struct Place:
    Py_ssize_t group, row, start


cdef inline Place place_of(const Tiling* tiling, Py_ssize_t task) noexcept nogil:
    """Tasks go through rows first, then groups, for the same columns have the same plan, columns and samples."""
    cdef Py_ssize_t row = task % tiling.down, n = task // tiling.down
    return Place(n // (tiling.groups * tiling.across) * tiling.groups + n % tiling.groups, row * tiling.rows,
                 n // tiling.groups % tiling.across * tiling.columns)


cdef void convolve_task(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                        const Convolution* conv, const Tiling* tiling, Py_ssize_t task, Turn* signals) noexcept nogil:
    """Compute one tile of a convolution."""
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t volume = conv.channels * g.T * g.H * g.W  # of a group
    cdef Py_ssize_t later = task + openmp.max_threads()  # the thread's next task, as a rule
    cdef Place here = place_of(tiling, task), there = place_of(tiling, later)
    cdef Workspace workspace
    cdef Tile tile
    carve(&workspace, memory, sizeof(floating))
    tile.group, tile.row, tile.start = here.group % tiling.groups, here.row, here.start
    tile.rows = min(tiling.rows, conv.rows - tile.row)
    tile.stop = min(tile.start + tiling.columns, g.oT * g.oH * g.oW)
    tile.next = NextTile(NULL, NULL, 0, 0)
    if later < tiling.tasks:
        tile.next = NextTile(x + there.group * volume, NULL, 0, there.start)
    convolve_tile(simd, x + here.group * volume, w,
                  y + (here.group * results_of(conv, conv.rows) + tile.row) * conv.maps.volume, conv, &tile,
                  &workspace, signals)


cdef void convolve_tile(const Simd* simd, const floating* x, const floating* w, floating* y,
                        const Convolution* conv, const Tile* tile, const Workspace* workspace,
                        Turn* signals) noexcept nogil:
    """y (rows, [start, stop)) of a tile = weights times patches of x (channels, T, H, W), subkernel by subkernel.

    Loop 4 goes over K in blocks of KC, loop 3 over the columns in strips of NC. One packed block of the left
    operand serves all strips; or, if `pack_once`, all blocks do, and each strip is finished before the next.
    """
    cdef floating* lhs = <floating*> workspace.lhs
    cdef floating* rhs = <floating*> workspace.rhs
    cdef floating* c = y + tile.start if conv.maps.dense else <floating*> workspace.tile
    cdef Py_ssize_t columns = tile.stop - tile.start, results = results_of(conv, tile.rows)
    cdef Py_ssize_t turn, depth, strip, block, shift
    cdef int kernel, map, last_kernel
    cdef bint finished
    cdef TileLayout layout
    cdef Planned planned
    cdef Step step
    cdef Terms terms[MAX_PANELS]
    cdef FusedPack fused
    cdef MacroBlock product
    cdef PrefetchQueue queue
    last_kernel = lay_out(simd, c, conv, tile, &layout)
    for kernel in range(conv.count_subkernels):
        if conv.subkernels[kernel].empty:
            continue
        plan_subkernel(simd, &planned, &conv.subkernels[kernel], conv.channels, tile, workspace)
        depth = ceil_div(planned.terms, KC) * KC if conv.pack_once else KC
        for turn in range(ceil_div(planned.terms, depth)):
            step.begin, step.end = turn * depth, min((turn + 1) * depth, planned.terms)
            pack_blocks(simd, w, lhs, &planned, tile, Range(step.begin, step.end), workspace.packed)
            for strip in range(ceil_div(columns, NC)):
                step.position, step.count = tile.start + strip * NC, min(columns - strip * NC, <Py_ssize_t> NC)
                if interrupt.asked(signals, tile.rows * step.count * (step.end - step.begin) // simd.nr):
                    return
                shift = 0 if conv.pack_once and not conv.maps.dense else strip * NC
                finished = kernel == last_kernel and step.end == planned.terms and not conv.maps.dense
                for block in range(ceil_div(step.end - step.begin, KC)):
                    step.first = step.begin + block * KC
                    step.last = min(step.first + KC, step.end)
                    product = MacroBlock(tile.rows, step.count, layout.pitch, &terms[0], step.first > 0, NULL, NULL)
                    if planned.fused:
                        fused = FusedPack(x, planned.plan, step.first, strip * NC // simd.nr * 2, planned.quarters,
                                          fused_rows(simd, tile.rows) < tile.rows)
                        product.fused = &fused
                    else:
                        pack_patches(simd, x, planned.plan, Range(step.first, step.last), strip * NC,
                                     ceil_div(step.count, simd.nr) * simd.nr, rhs)
                    terms_of_panels(simd, terms, &planned, strip, &step)
                    prefetch.clear(&queue)
                    prefetch_operands(&queue, x, w, &planned, tile, &step)
                    if finished and step.last == step.end and conv.count_maps == 1:
                        prefetch_results(&queue, y, conv.maps, results, step.position, step.count)
                    if planned.taps == 1:
                        prefetch.throttle(&queue, ceil_div(tile.rows, next_rows(simd, tile.rows))
                                          * ceil_div(step.count, simd.nr), (step.last - step.first) // PREFETCH_TERMS)
                    macro_kernel(simd, lhs + block * tile.rows * LHS_PITCH, rhs,
                                 c + kernel * layout.apart + shift, &product, &queue)
                for map in range(conv.count_maps if finished else 0):
                    write_back(simd, c + map * conv.maps.beside * layout.apart + shift, &layout, y, &conv.maps[map],
                               results, step.position, step.count)


cdef int lay_out(const Simd* simd, floating* c, const Convolution* conv, const Tile* tile,
                 TileLayout* layout) noexcept nogil:
    """Lay out the sums of a tile, clear those of empty subkernels; return the last subkernel that is not empty."""
    cdef int kernel, last = 0
    layout.columns = NC if conv.pack_once else ceil_div(tile.stop - tile.start, simd.nr) * simd.nr
    layout.pitch = conv.maps.volume if conv.maps.dense else layout.columns * conv.count_subkernels + PAD
    layout.apart = layout.columns if conv.count_subkernels > 1 else results_of(conv, tile.rows) * layout.pitch
    for kernel in range(conv.maps.beside):
        layout.pitches[kernel] = layout.pitch
    for kernel in range(conv.count_subkernels):
        if conv.subkernels[kernel].empty:  # one row of zeros for all
            memset(c + kernel * layout.apart, 0, layout.columns * sizeof(floating))
            layout.pitches[kernel] = 0
        else:
            last = kernel
    return last


cdef void plan_subkernel(const Simd* simd, Planned* planned, const Subkernel* kernel, Py_ssize_t channels,
                         const Tile* tile, const Workspace* workspace) noexcept nogil:
    """Plan the patches of a tile's columns, unless the thread has, and find the taps that each panel's frames reach."""
    cdef Py_ssize_t columns = tile.stop - tile.start, panel, start
    cdef PlannedColumns* done = workspace.planned
    planned.kernel, planned.plan = kernel, workspace.plan
    planned.taps = kernel.g.kT * kernel.g.kH * kernel.g.kW
    planned.terms = channels * planned.taps
    planned.quarters = kernel.quarters if tile.rows == simd.mr else NULL
    if done.kernel != kernel or done.start != tile.start or done.stop != tile.stop:
        plan_gather(simd, planned.plan, &kernel.g, tile.start, columns)
        done[0] = PlannedColumns(kernel, tile.start, tile.stop)
    planned.fused = packs_fused(simd, tile.rows, planned.plan)
    for panel in range(ceil_div(columns, simd.nr)):
        start = tile.start + panel * simd.nr
        planned.reached[panel] = taps_of_frames(&kernel.g, start, min(simd.nr, tile.stop - start))


cdef inline const floating* weights_of(const floating* w, const LhsLayout* layout, const Tile* tile) noexcept nogil:
    """The first row of weights of a tile."""
    return w + tile.group * layout.group + tile.row * layout.row


cdef void pack_blocks(const Simd* simd, const floating* w, floating* lhs, Planned* planned, const Tile* tile,
                      Range terms, PackedLhs* packed) noexcept nogil:
    """Pack the blocks of some terms of a tile's weights, unless the thread has them."""
    cdef const LhsLayout* layout = &planned.kernel.layout
    cdef const floating* weights = weights_of(w, layout, tile)
    cdef floating* block_lhs
    cdef Py_ssize_t block, first, last
    if packed.weights == <const void*> (weights + layout.first) and packed.first == terms.low:
        return
    packed[0] = PackedLhs(weights + layout.first, terms.low)
    for block in range(ceil_div(terms.high - terms.low, KC)):
        first, last = terms.low + block * KC, min(terms.low + (block + 1) * KC, terms.high)
        block_lhs = lhs + block * tile.rows * LHS_PITCH
        pack_lhs(simd, weights, block_lhs, &planned.kernel.g, layout, tile.rows, Range(first, last))
        if planned.fused and tile.rows < simd.mr:  # the micro-tile's other rows
            memset(block_lhs + tile.rows * LHS_PITCH, 0,
                   (fused_rows(simd, tile.rows) - tile.rows) * LHS_PITCH * sizeof(floating))


cdef void terms_of_panels(const Simd* simd, Terms* terms, const Planned* planned, Py_ssize_t strip,
                          const Step* step) noexcept nogil:
    """The terms that each panel of a strip takes of a block: those of the taps that its frames reach."""
    cdef Py_ssize_t panel
    for panel in range(ceil_div(step.count, simd.nr)):
        terms[panel] = terms_of_taps(&planned.kernel.g, planned.reached[strip * NC // simd.nr + panel], step.first,
                                     step.last - step.first)


cdef void prefetch_operands(PrefetchQueue* queue, const floating* x, const floating* w, const Planned* planned,
                            const Tile* tile, const Step* step) noexcept nogil:
    """Queue what is packed next: the patches of the next block, strip, turn or tile, and the next weights."""
    cdef const Geometry* g = &planned.kernel.g
    cdef const LhsLayout* layout = &planned.kernel.layout
    cdef NextTile next = tile.next
    cdef bint last_strip = step.position + NC >= tile.stop
    if step.last < step.end:
        next = NextTile(x, NULL, step.last, step.position)
    elif not last_strip:
        next = NextTile(x, NULL, step.begin, step.position + NC)
    elif step.end < planned.terms:
        next = NextTile(x, NULL, step.end, tile.start)
        if layout.dense:
            prefetch.push(queue, weights_of(w, layout, tile) + step.end,
                          min(planned.terms - step.end, <Py_ssize_t> KC) * <Py_ssize_t> sizeof(floating),
                          layout.row * <Py_ssize_t> sizeof(floating), tile.rows)
    if next.x:
        prefetch_patches(queue, <const floating*> next.x, g,
                         Range(next.row, min(next.row + KC, planned.terms)), next.start,
                         min(g.oT * g.oH * g.oW - next.start, <Py_ssize_t> NC))


cdef void prefetch_results(PrefetchQueue* queue, const floating* y, const OutputMap* map, Py_ssize_t results,
                           Py_ssize_t position, Py_ssize_t count) noexcept nogil:
    """Queue the lines that a strip is written back to."""
    cdef Py_ssize_t low = offset(map, position), high = offset(map, position + count - 1) + map.w + map.zeros
    if not map.nontemporal:
        prefetch.push(queue, y + low, (high - low) * <Py_ssize_t> sizeof(floating),
                      map.volume * <Py_ssize_t> sizeof(floating), results)
