"""Sums of products of float64 in two doubles each, rounded once: tiles of y, dx and dw, as exact_conv3d.pyx asks for.

Loop 4 goes over the terms in blocks of KC, loop 3 over columns in strips of NC, as in tiles.pyx; loops 2 and 1 over
micro-tiles of simd/exact_kernel.h, which keep each element in two doubles. An element whose rounding these do not
decide becomes NaN (products of finite numbers have no other), and is computed by exact_settle.pyx.

The two doubles depend on the terms and their blocks alone, so neither tiles, threads nor vectors decide which elements
are undecided.
"""

from libc.math cimport fabs

from refnet._core cimport interrupt
from refnet._core.blocking cimport KC, LHS_PITCH, MAX_PANELS, MC, NC, PAD, ceil_div
from refnet._core.im2col3d cimport (Range, pack_patch_rows, pack_patches, plan_gather, taps_of_frames,
                                    terms_of_taps)
from refnet._core.pack cimport pack_lhs, pack_rhs
from refnet._core.simd cimport Exact, ExactTile, Terms, scale_above
from refnet._core.workspace cimport Workspace, carve

cdef extern from "exact_round.h":
    double rounded_pair(double high, double low, double error) noexcept nogil
    double rounded_triple(double high, double low, double more, double error) noexcept nogil

cdef enum:
    ROWS = MC - PAD       # of a tile at most: the workspace of tiles.pyx holds two doubles of each element
    COLUMNS = 256
    PITCH = COLUMNS + PAD
    LEAST_ROWS = 24       # of a tile: below, packing costs too much
    LEAST_COLUMNS = 32


# The scales of a tile's rows and columns: of the block that is multiplied, and the largest so far.
cdef struct Scales:
    double rows[ROWS]
    double columns[NC]
    double largest_row[ROWS]
    double largest_column[COLUMNS]


cdef Tiling exact_tiling(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t repeats, Py_ssize_t threads,
                         Py_ssize_t nr) noexcept nogil:
    """Tiles of a result, of which there are `repeats`: as large as fit, and at least four for each thread."""
    cdef Tiling tiling
    tiling.rows, tiling.columns = min(rows, <Py_ssize_t> ROWS), min(ceil_div(columns, nr) * nr, <Py_ssize_t> COLUMNS)
    while repeats * ceil_div(rows, tiling.rows) * ceil_div(columns, tiling.columns) < 4 * threads:
        if tiling.rows >= 2 * LEAST_ROWS and (tiling.rows > tiling.columns or tiling.columns < 2 * LEAST_COLUMNS):
            tiling.rows = ceil_div(tiling.rows, 2)
        elif tiling.columns >= 2 * LEAST_COLUMNS:
            tiling.columns = ceil_div(ceil_div(tiling.columns, 2), nr) * nr
        else:
            break
    tiling.down, tiling.across = ceil_div(rows, tiling.rows), ceil_div(columns, tiling.columns)
    tiling.groups = repeats
    tiling.tasks = repeats * tiling.down * tiling.across
    return tiling


cdef double error_of(Py_ssize_t chains) noexcept nogil:
    """How far the two doubles of an element of so many chains may be off, for scales of 1: docs/exact.md."""
    return (<double> chains * (4 * KC) * 2.0**-88
            * (1 + <double> chains * 2.0**-7 + <double> chains * <double> chains * 2.0**-17))


cdef void convolve_exactly(const Simd* simd, const Exact* exact, const double* x, const double* w, const double* b,
                           double* y, unsigned char* memory, const Subkernel* kernel, const OutputMap* map,
                           Py_ssize_t channels, Py_ssize_t rows, Py_ssize_t groups, bint coarse,
                           const Tiling* tiling, Py_ssize_t task, Turn* signals) noexcept nogil:
    """Compute a tile of y (samples, groups * rows, map) = weights times patches of x, plus b unless it is NULL."""
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, P = g.oT * g.oH * g.oW, group = task // (tiling.down * tiling.across)
    cdef Py_ssize_t row = task % tiling.down * tiling.rows, start = task // tiling.down % tiling.across * tiling.columns
    cdef Py_ssize_t count = min(tiling.rows, rows - row), columns = min(tiling.columns, P - start)
    cdef Py_ssize_t terms = channels * taps
    cdef Py_ssize_t block, strip, first, last, wide, panel, at
    cdef const double* weights = w + group % groups * kernel.layout.group + row * kernel.layout.row
    cdef Workspace workspace
    cdef Scales scales
    cdef Terms taken[MAX_PANELS]
    carve(&workspace, memory, sizeof(double))
    x += group * channels * g.T * g.H * g.W
    clear_scales(&scales)
    plan_gather(simd, workspace.plan, g, start, columns)
    for block in range(ceil_div(terms, KC)):
        first, last = block * KC, min((block + 1) * KC, terms)
        pack_lhs(simd, weights, <double*> workspace.lhs, g, &kernel.layout, count, Range(first, last))
        row_scales(<double*> workspace.lhs, count, last - first, &scales)
        for strip in range(ceil_div(columns, NC)):
            if interrupt.asked(signals, 4 * count * NC * (last - first) // simd.nr):
                return
            wide = ceil_div(min(columns - strip * NC, <Py_ssize_t> NC), simd.nr)
            pack_patches(simd, x, workspace.plan, Range(first, last), strip * NC, wide * simd.nr,
                         <double*> workspace.rhs)
            for panel in range(wide):
                at = start + strip * NC + panel * simd.nr
                taken[panel] = terms_of_taps(g, taps_of_frames(g, at, min(simd.nr, start + columns - at)), first,
                                             last - first)
            multiply(simd, exact, &workspace, &scales, taken, count, strip, wide, last - first, block > 0)
    round_sums(&workspace, &scales, count, columns, 0 if coarse else error_of(ceil_div(terms, KC)), b,
               group % groups * rows + row)
    write_lines(<double*> workspace.tile, y + (group * rows + row) * map.volume, map, count, start, columns)


cdef void weigh_exactly(const Simd* simd, const Exact* exact, const double* dy, const double* x, const double* b,
                        double* dw, unsigned char* memory, const Geometry* g, Py_ssize_t samples,
                        Py_ssize_t channels, Py_ssize_t filters, Py_ssize_t groups, bint coarse,
                        const Tiling* tiling, Py_ssize_t task, Turn* signals) noexcept nogil:
    """Compute a tile of dw (groups * filters, K), of its transpose: patches of x times dy; plus b (K) or nothing."""
    cdef Py_ssize_t K = channels * g.kT * g.kH * g.kW, P = g.oT * g.oH * g.oW
    cdef Py_ssize_t group = task // (tiling.down * tiling.across), row = task % tiling.down * tiling.rows
    cdef Py_ssize_t filter = task // tiling.down % tiling.across * tiling.columns
    cdef Py_ssize_t count = min(tiling.rows, K - row), columns = min(tiling.columns, filters - filter)
    cdef Py_ssize_t sample, block, blocks = ceil_div(P, KC), first, depth, strip, wide, panel, k, i, j
    cdef const double* image
    cdef const double* gradients
    cdef const double* sums
    cdef Workspace workspace
    cdef Scales scales
    cdef Terms taken[MAX_PANELS]
    carve(&workspace, memory, sizeof(double))
    clear_scales(&scales)
    for block in range(samples * blocks):
        sample, first = block // blocks, block % blocks * KC
        depth = min(P - first, <Py_ssize_t> KC)
        image = x + (sample * groups + group) * channels * g.T * g.H * g.W
        gradients = dy + ((sample * groups + group) * filters + filter) * P + first
        plan_gather(simd, workspace.plan, g, first, depth)
        pack_patch_rows(simd, image, workspace.plan, Range(0, g.kT * g.kH * g.kW), Range(row, row + count),
                        <double*> workspace.lhs)
        row_scales(<double*> workspace.lhs, count, depth, &scales)
        for panel in range(MAX_PANELS):
            taken[panel] = Terms(0, depth, depth, 0, depth)
        for strip in range(ceil_div(columns, NC)):
            if interrupt.asked(signals, 4 * count * NC * depth // simd.nr):
                return
            wide = ceil_div(min(columns - strip * NC, <Py_ssize_t> NC), simd.nr)
            for panel in range(wide):
                k = strip * NC + panel * simd.nr
                pack_rhs(simd, gradients + k * P, P, min(simd.nr, columns - k), depth,
                         <double*> workspace.rhs + panel * KC * simd.nr)
            multiply(simd, exact, &workspace, &scales, taken, count, strip, wide, depth, block > 0)
    round_sums(&workspace, &scales, count, columns, 0 if coarse else error_of(samples * blocks), b, row)
    dw += (group * filters + filter) * K + row
    for j in range(columns):
        sums = <double*> workspace.tile + j
        for i in range(count):
            dw[j * K + i] = sums[i * PITCH]


cdef void clear_scales(Scales* scales) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(ROWS):
        scales.largest_row[i] = 0
    for i in range(COLUMNS):
        scales.largest_column[i] = 0


cdef void row_scales(const double* lhs, Py_ssize_t rows, Py_ssize_t depth, Scales* scales) noexcept nogil:
    """Find the scale of each row of a packed left operand."""
    cdef Py_ssize_t i, k
    cdef double largest
    for i in range(rows):
        largest = 0
        for k in range(depth):
            largest = max(largest, fabs(lhs[i * LHS_PITCH + k]))
        scales.rows[i] = scale_above(largest)
        scales.largest_row[i] = max(scales.largest_row[i], scales.rows[i])


cdef void multiply(const Simd* simd, const Exact* exact, const Workspace* workspace, Scales* scales,
                   const Terms* terms, Py_ssize_t rows, Py_ssize_t strip, Py_ssize_t panels, Py_ssize_t depth,
                   bint accumulate) noexcept nogil:
    """The sums of a strip = or += a block of products: loops 2 and 1."""
    cdef const double* rhs = <const double*> workspace.rhs
    cdef double* sums = <double*> workspace.tile + strip * NC
    cdef Py_ssize_t row = 0, panel, i
    cdef ExactTile tile
    for panel in range(panels):
        exact.column_scales(rhs + panel * KC * simd.nr, depth, &scales.columns[panel * simd.nr])
    for i in range(panels * simd.nr):
        scales.largest_column[strip * NC + i] = max(scales.largest_column[strip * NC + i], scales.columns[i])
    tile.pitch, tile.accumulate = PITCH, accumulate
    while row < rows:
        tile.rows = min(exact.rows, rows - row)
        tile.lhs, tile.row_scales = <const double*> workspace.lhs + row * LHS_PITCH, &scales.rows[row]
        for panel in range(panels):
            tile.terms, tile.rhs = &terms[panel], rhs + panel * KC * simd.nr
            tile.column_scales = &scales.columns[panel * simd.nr]
            tile.c = sums + row * PITCH + panel * simd.nr
            tile.low = tile.c + ROWS * PITCH
            exact.kernel(&tile)
        row += tile.rows


cdef void round_sums(const Workspace* workspace, const Scales* scales, Py_ssize_t rows, Py_ssize_t columns,
                     double error, const double* b, Py_ssize_t first) noexcept nogil:
    """Round the two doubles of each sum, plus its row's b unless that is NULL; the first row's is b[first]."""
    cdef double* high = <double*> workspace.tile
    cdef const double* low = high + ROWS * PITCH
    cdef double row_error
    cdef Py_ssize_t i, j
    for i in range(rows):
        row_error = error * scales.largest_row[i]
        for j in range(columns if b == NULL else 0):
            high[j] = rounded_pair(high[j], low[j], row_error * scales.largest_column[j])
        for j in range(columns if b != NULL else 0):
            high[j] = rounded_triple(high[j], low[j], b[first + i], row_error * scales.largest_column[j])
        high += PITCH
        low += PITCH


cdef void write_lines(const double* sums, double* y, const OutputMap* map, Py_ssize_t rows, Py_ssize_t start,
                      Py_ssize_t columns) noexcept nogil:
    """y, on its map, <- the columns from `start` on, line by line."""
    cdef Py_ssize_t i = 0, j, row, length, line
    cdef double* to
    while i < columns:
        line = (start + i) // map.positions_of_line
        length = min(columns - i, map.positions_of_line - (start + i) % map.positions_of_line)
        to = (y + map.first + line // map.lines_of_frame * map.t + line % map.lines_of_frame * map.h
              + (start + i) % map.positions_of_line * map.w)
        for row in range(rows):
            for j in range(length):
                to[row * map.volume + j * map.w] = sums[row * PITCH + i + j]
        i += length
