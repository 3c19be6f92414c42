/* The micro-kernel of line_convolution.pyx, positions of an output line times panels of filters, and of
   tap_gradients.pyx, where channels at one tap take the place of positions. See kernels.h.

   Its lanes are filters, and each value of the image is one value in all lanes, taken from where it lies. So a term
   that is none for some positions can be left out for them alone. Sums are those of micro_kernel.h.

   It needs 2 LINE_POSITIONS accumulators: with 16 registers it is slower than micro_kernel.h. So it is for instruction
   sets that define LINE_VECTORS, the vectors of filters of a micro-tile; the others have a stub, which is not called. */

#ifdef LINE_VECTORS
#define LINE_FILTERS (LINE_VECTORS * LANES)

/* One term of the positions [first, last), for some vectors of filters. */
INLINE TARGET void NAME(line_term)(VECTOR sum[][2 * LINE_VECTORS], const REAL *x, const UNALIGNED *weights,
                                   const int vectors, const int step, const int first, const int last)
{
    VECTOR right[2 * LINE_VECTORS];
    UNROLL
    for (int j = 0; j < vectors; j++)
        right[j] = weights[j];
    UNROLL
    for (int i = first; i < last; i++) {
        const VECTOR factor = BROADCAST(x[i * step]);
        UNROLL
        for (int j = 0; j < vectors; j++)
            sum[i][j] = FMA(factor, right[j], sum[i][j]);
    }
}

/* The micro-kernel for some positions, vectors of filters and step. */
INLINE TARGET void NAME(line_sums)(const struct line_tile *tile, const int positions, const int vectors,
                                   const int step)
{
    const ptrdiff_t run_bytes = tile->prefetch.count * CACHE_LINE, stride = tile->prefetch.stride;
    const char *next = tile->prefetch.at, *run_end = next + run_bytes;
    const struct line_term *term = tile->terms, *const stop = term + tile->count;
    REAL *c = tile->c;
    VECTOR sum[LINE_POSITIONS][2 * LINE_VECTORS];
    UNROLL
    for (int i = 0; i < positions; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            PREFETCH(c + i * tile->pitch + j * LANES);
            sum[i][j] = (VECTOR) {0};
        }
    }
    for (; term < stop; term++) {
        const REAL *x = (const REAL *) tile->x + term->at;
        const UNALIGNED *weights = (const UNALIGNED *) ((const REAL *) tile->weights + term->index * vectors * LANES);
        PREFETCH(next);
        PREFETCH(x + tile->next_line);
        next += CACHE_LINE;
        const int run_ended = next == run_end;
        next = run_ended ? next + stride - run_bytes : next;
        run_end = run_ended ? run_end + stride : run_end;
        switch (term->edge & tile->edges) {
            case FIRST_OUTSIDE: NAME(line_term)(sum, x, weights, vectors, step, 1, positions); break;
            case LAST_OUTSIDE: NAME(line_term)(sum, x, weights, vectors, step, 0, positions - 1); break;
            default: NAME(line_term)(sum, x, weights, vectors, step, 0, positions);
        }
    }
    UNROLL
    for (int i = 0; i < positions; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            UNALIGNED *to = (UNALIGNED *) (c + i * tile->pitch + j * LANES);
            *to = (tile->accumulate ? (VECTOR) *to : (VECTOR) {0}) + sum[i][j];
        }
    }
}

/* For LINE_POSITIONS positions, half as many and twice as many filters, or TAP_CHANNELS channels. */
INLINE TARGET void NAME(line_sums_of_step)(const struct line_tile *tile, const int step)
{
    switch (tile->positions) {
        case LINE_POSITIONS / 2: NAME(line_sums)(tile, LINE_POSITIONS / 2, 2 * LINE_VECTORS, step); break;
        case TAP_CHANNELS: NAME(line_sums)(tile, TAP_CHANNELS, LINE_VECTORS, step); break;
        default: NAME(line_sums)(tile, LINE_POSITIONS, LINE_VECTORS, step);
    }
}

TARGET static void NAME(line_kernel)(const struct line_tile *tile)
{
    if (tile->step == 1)
        NAME(line_sums_of_step)(tile, 1);
    else
        NAME(line_sums_of_step)(tile, LINE_STEP);
}

#else
#define LINE_FILTERS 0

TARGET static void NAME(line_kernel)(const struct line_tile *tile)
{
    (void) tile;
}
#endif
