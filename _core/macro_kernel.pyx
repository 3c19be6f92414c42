"""The loops round the micro-kernel, and where sums are added: with simd/micro_kernel.h the definition of every sum.

Loop 2 walks lhs in rows of MR, loop 1 the panels of rhs, NR columns each; each pair is one micro-tile, whose
element is a chain of at most KC multiply-adds from 0. Chains are added to c in the order in which blocks come
(tiles.pyx).
"""

from cython cimport floating

from refnet._core.blocking cimport CACHE_LINE, KC, LHS_PITCH, MAX_MR, MAX_NR, PREFETCH_TERMS, ceil_div
from refnet._core.im2col3d cimport fused_rows
from refnet._core.micro_kernel cimport next_rows
from refnet._core.pack cimport pack_rows
from refnet._core.prefetch cimport is_empty, pop, rows_a_call
from refnet._core.simd cimport MicroTile, PrefetchRun


cdef void macro_kernel(const Simd* simd, floating* lhs, floating* rhs, floating* c, const MacroBlock* block,
                       PrefetchQueue* queue) noexcept nogil:
    """c = or += lhs rhs, one block; each call of the micro-kernel prefetches a part of the queue."""
    cdef Py_ssize_t row = 0, panels = ceil_div(block.columns, simd.nr), panel, columns, i, j
    cdef const LhsSource* source = block.source
    cdef MicroTile tile
    cdef floating edge[MAX_MR * MAX_NR]
    cdef floating* to
    tile.fused, tile.offsets = block.fused, NULL
    while row < block.rows:
        if tile.fused:
            tile.rows = min(fused_rows(simd, block.rows), block.rows)
        else:
            tile.rows = next_rows(simd, block.rows - row)
        tile.lhs = lhs if source and not source.keep else lhs + row * LHS_PITCH
        if source:
            pack_rows(simd, source, row, tile.rows, <floating*> tile.lhs)
        for panel in range(panels):
            to = c + row * block.pitch + panel * simd.nr
            columns = min(simd.nr, block.columns - panel * simd.nr)
            tile.terms = &block.terms[panel]
            tile.rhs = rhs + panel * KC * simd.nr
            tile.prefetch = next_prefetch(block, queue, row + tile.rows, panel, panels, <floating*> tile.lhs,
                                          tile.rows, tile.fused != NULL)
            if columns == simd.nr:
                tile.c, tile.pitch, tile.accumulate = to, block.pitch, block.accumulate
                simd.micro_kernel(&tile)
            else:  # the last panel is narrower than a micro-tile
                tile.c, tile.pitch, tile.accumulate = &edge[0], simd.nr, False
                simd.micro_kernel(&tile)
                for i in range(tile.rows):
                    for j in range(columns):
                        to[i * block.pitch + j] = ((to[i * block.pitch + j] if block.accumulate else 0)
                                                   + edge[i * simd.nr + j])
            if tile.fused:
                block.fused.vector += 2
        tile.fused = NULL  # packed now
        row += tile.rows


cdef inline PrefetchRun next_prefetch(const MacroBlock* block, PrefetchQueue* queue, Py_ssize_t next_row,
                                      Py_ssize_t panel, Py_ssize_t panels, const floating* lhs,
                                      Py_ssize_t rows, bint fused) noexcept nogil:
    """What one call of the micro-kernel prefetches: rows that are copied next, the queue, the next packed rows, or
    nothing. Where it packs, it takes a line with every term, and there is always something."""
    cdef Py_ssize_t itemsize = sizeof(floating), terms_a_line = 1 if fused else PREFETCH_TERMS, lines, row
    cdef const LhsSource* source = block.source
    if source and not source.plan:
        lines = ceil_div(source.depth * itemsize, CACHE_LINE) + 1
        row = panel * rows_a_call(lines, KC // terms_a_line)
        if row < rows and next_row < block.rows:
            return PrefetchRun(<const char*> source.rows + (next_row + row) * source.pitch * itemsize, lines,
                               CACHE_LINE, source.pitch * itemsize)
    if not is_empty(queue):
        return pop(queue, block.terms[panel].stop // terms_a_line)
    # The next packed rows are in the second cache: early enough by the last calls before them.
    lines = LHS_PITCH * itemsize // CACHE_LINE
    row = (panels - 1 - panel) * rows_a_call(lines, KC // terms_a_line)
    if fused:
        row = min(row, rows - 1)
    if row < rows:
        return PrefetchRun(<const char*> (lhs + (rows + row) * LHS_PITCH), lines, CACHE_LINE, LHS_PITCH * itemsize)
    return PrefetchRun(NULL, 0, 0, 0)


cdef void add_spans(const floating* spans, Py_ssize_t apart, Py_ssize_t count, floating* dw, Py_ssize_t size,
                    bint accumulate) noexcept nogil:
    """dw (size) = or += the sum of `count` spans, which are `apart` values from each other, in order."""
    cdef Py_ssize_t span, i
    for span in range(count):
        for i in range(size):
            dw[i] = (dw[i] if accumulate or span > 0 else 0) + spans[span * apart + i]
