/* The micro-kernel of line_convolution.pyx, positions of an output line times panels of filters, and of
   tap_gradients.pyx, where channels at one tap take the place of positions. See kernels.h.

   Its lanes are filters, and each value of the image is one value in all lanes, taken from where it lies. So a term
   that is none for some positions can be left out for them alone. Sums are those of micro_kernel.h.

   With 32 registers a micro-tile is LINE_VECTORS vectors of filters wide, and terms come one by one; its sums are an
   array of two dimensions, for gcc does not keep one of one dimension in registers. With 16 it is one vector wide,
   and the taps of a line of the kernel come at once, LINE_TAPS or WIDE_TAPS: what position p reads at its second tap,
   position p + 1 reads at its first, and each value is loaded once for all. Where neither is so, there is a stub,
   which is not called. */

#ifdef LINE_VECTORS
#define LINE_FILTERS (LINE_VECTORS * LANES)
#define HALF_LINE_FILTERS (2 * LINE_FILTERS)
#define TAP_FILTERS LINE_FILTERS
#define TAPS_AT_ONCE 0

/* A term of one position: its value in all lanes, times some vectors of weights. */
INLINE TARGET void NAME(add_value)(VECTOR *sum, const REAL *value, const VECTOR *weights, const int vectors)
{
    const VECTOR factor = BROADCAST(*value);
    UNROLL
    for (int j = 0; j < vectors; j++)
        sum[j] = FMA(factor, weights[j], sum[j]);
}

/* One term of the positions [first, last), for some vectors of filters. */
INLINE TARGET void NAME(line_term)(VECTOR sum[][2 * LINE_VECTORS], const REAL *x, const UNALIGNED *weights,
                                   const int vectors, const int step, const int first, const int last)
{
    VECTOR right[2 * LINE_VECTORS];
    UNROLL
    for (int j = 0; j < vectors; j++)
        right[j] = weights[j];
    UNROLL
    for (int i = first; i < last; i++)
        NAME(add_value)(sum[i], x + i * step, right, vectors);
}

/* The micro-kernel for some positions, vectors of filters and step; channels have no edges. The last term comes
   position by position, and each sum is stored as it is finished: all at once, stores fill their queue, and the next
   call waits. */
INLINE TARGET void NAME(line_sums)(const struct line_tile *tile, const int positions, const int vectors,
                                   const int step, const int has_edges)
{
    static const REAL zeros[2 * LINE_VECTORS * LANES];
    const ptrdiff_t run_bytes = tile->prefetch.count * CACHE_LINE, stride = tile->prefetch.stride;
    const char *next = tile->prefetch.at, *run_end = next + run_bytes;
    const struct line_run *run = tile->runs, *const stop = run + tile->count;
    const REAL *x = 0;
    const UNALIGNED *weights = 0;
    const unsigned char *outside = 0;
    VECTOR sum[LINE_POSITIONS][2 * LINE_VECTORS], right[2 * LINE_VECTORS];
    if (run == stop) {
        if (!tile->accumulate) /* where no tap reaches */
            for (int i = 0; i < positions; i++)
                for (int j = 0; j < vectors; j++)
                    ((UNALIGNED *) ((REAL *) tile->c + i * tile->pitch))[j] = (VECTOR) {0};
        return;
    }
    UNROLL
    for (int i = 0; i < positions; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++)
            sum[i][j] = (VECTOR) {0};
    }
    do {
        FORGET(); /* kept over all runs, pointers would be spilled to vector registers, and wait behind multiply-adds */
        x = (const REAL *) tile->x + run->at;
        weights = (const UNALIGNED *) ((const REAL *) tile->weights + run->weights);
        outside = tile->outside + run->tap;
        const unsigned char *const end = outside + run->count - (run + 1 == stop);
        for (; outside < end; outside++, x += tile->apart, weights += vectors) {
            PREFETCH(next);
            PREFETCH(x + tile->next_line);
            next += CACHE_LINE;
            const int run_ended = next == run_end;
            next = run_ended ? next + stride - run_bytes : next;
            run_end = run_ended ? run_end + stride : run_end;
            switch (has_edges ? *outside & tile->edges : 0) {
                case FIRST_OUTSIDE: NAME(line_term)(sum, x, weights, vectors, step, 1, positions); break;
                case LAST_OUTSIDE: NAME(line_term)(sum, x, weights, vectors, step, 0, positions - 1); break;
                default: NAME(line_term)(sum, x, weights, vectors, step, 0, positions);
            }
        }
    } while (++run < stop);
    REAL *c = tile->c;
    const REAL *before = tile->accumulate ? c : zeros;
    const ptrdiff_t pitch = tile->pitch, before_pitch = tile->accumulate ? pitch : 0;
    const int edges = has_edges ? *outside & tile->edges : 0;
    UNROLL
    for (int j = 0; j < vectors; j++)
        right[j] = weights[j];
    UNROLL
    for (int i = 0; i < positions; i++, c += pitch, before += before_pitch) {
        COMPUTED_HERE(c);
        COMPUTED_HERE(before);
        if (!(i == 0 && edges == FIRST_OUTSIDE) && !(i == positions - 1 && edges == LAST_OUTSIDE))
            NAME(add_value)(sum[i], x + i * step, right, vectors);
        UNROLL
        for (int j = 0; j < vectors; j++)
            ((UNALIGNED *) c)[j] = ((const UNALIGNED *) before)[j] + sum[i][j];
        FORGET(); /* or all sums would be stored at the end */
    }
}

/* LINE_POSITIONS positions, half as many and twice as many filters, or TAP_CHANNELS channels. Each is a function: gcc
   gives the sums of several in one too few registers. */
#define LINE_SUMS(name, positions, vectors, step, has_edges) \
    NOINLINE TARGET static void NAME(name)(const struct line_tile *tile) \
    { \
        NAME(line_sums)(tile, positions, vectors, step, has_edges); \
    }
LINE_SUMS(whole_line, LINE_POSITIONS, LINE_VECTORS, 1, 1)
LINE_SUMS(whole_line_strided, LINE_POSITIONS, LINE_VECTORS, LINE_STEP, 1)
LINE_SUMS(half_line, LINE_POSITIONS / 2, 2 * LINE_VECTORS, 1, 1)
LINE_SUMS(half_line_strided, LINE_POSITIONS / 2, 2 * LINE_VECTORS, LINE_STEP, 1)
LINE_SUMS(channels_at_tap, TAP_CHANNELS, LINE_VECTORS, 1, 0)
#undef LINE_SUMS

TARGET static void NAME(line_kernel)(const struct line_tile *tile)
{
    if (tile->positions == TAP_CHANNELS)
        NAME(channels_at_tap)(tile);
    else if (tile->positions == LINE_POSITIONS / 2)
        (tile->step == 1 ? NAME(half_line) : NAME(half_line_strided))(tile);
    else
        (tile->step == 1 ? NAME(whole_line) : NAME(whole_line_strided))(tile);
}

#elif defined(LINE_BY_TAPS)
#define LINE_FILTERS LANES
#define HALF_LINE_FILTERS LANES
#define TAP_FILTERS 0
#define TAPS_AT_ONCE 1

/* Where the sums of a position of all lines lie. */
INLINE REAL *NAME(sums_at)(const struct line_tile *tile, int i, const int positions)
{
    return (REAL *) tile->c + i / positions * tile->second_sums + i % positions * tile->pitch;
}

/* Less than all taps of a line. Position p reads value p step + tap of those that all positions read, or backwards,
   where taps read back, the one as far from the other end. */
INLINE TARGET void NAME(some_taps)(VECTOR *sum, const struct line_tile *tile, const struct line_run *run,
                                   const int taps, const int positions, const int step, const int backwards,
                                   const int lines)
{
    const REAL *x = (const REAL *) tile->x + run->at;
    const UNALIGNED *weights = (const UNALIGNED *) ((const REAL *) tile->weights + run->weights);
    const ptrdiff_t first = tile->skipped[backwards];
    const ptrdiff_t last = (positions - 1) * step + taps - tile->skipped[!backwards];
    for (int i = 0; i < run->count; i++, x += tile->apart, weights++) {
        UNROLL
        for (int j = 0; j < positions * lines; j++) {
            const int p = j % positions;
            const ptrdiff_t value = (backwards ? positions - 1 - p : p) * step + run->tap + i;
            if (first <= value && value < last)
                sum[j] = FMA(BROADCAST(x[j / positions * tile->second + p * step]), (VECTOR) *weights, sum[j]);
        }
    }
}

/* The micro-kernel for some taps, positions of one line or two, and step, and taps that read on, or with `backwards`
   back. All values that the positions read of a line are taken in that direction, so each position's taps come in
   order. */
INLINE TARGET void NAME(line_sums)(const struct line_tile *tile, const int taps, const int positions, const int step,
                                   const int backwards, const int lines)
{
    const int values = (positions - 1) * step + taps, start = backwards ? positions - 1 : 0;
    const ptrdiff_t skipped = tile->skipped[backwards], skipped_last = tile->skipped[!backwards];
    const struct line_run *run = tile->runs, *stop = run + tile->count, *cut = 0;
    VECTOR sum[LINE_POSITIONS];
    UNROLL
    for (int i = 0; i < positions * lines; i++) {
        PREFETCH(NAME(sums_at)(tile, i, positions));
        sum[i] = (VECTOR) {0};
    }
    if (run < stop && run->count < taps)
        NAME(some_taps)(sum, tile, run++, taps, positions, step, backwards, lines);
    if (run < stop && stop[-1].count < taps)
        cut = --stop;
    for (; run < stop; run++) {
        const REAL *x = (const REAL *) tile->x + run->at;
        const UNALIGNED *weights = (const UNALIGNED *) ((const REAL *) tile->weights + run->weights);
        const REAL *second = x + tile->second;
        VECTOR of_tap[WIDE_TAPS];
        PREFETCH(x + tile->next_line);
        UNROLL
        for (int tap = 0; tap < taps; tap++)
            of_tap[tap] = weights[tap];
        UNROLL
        for (int value = 0; value < values; value++) {
            if ((value < taps / 2 && value < skipped) || (values - value <= taps / 2 && values - value <= skipped_last))
                continue;
            UNROLL
            for (int line = 0; line < lines; line++) {
                const VECTOR factor = BROADCAST((line ? second : x)[backwards ? start - value : value]);
                UNROLL
                for (int tap = taps - 1; tap >= 0; tap--)
                    if (value >= tap && (value - tap) % step == 0 && (value - tap) / step < positions) {
                        const int p = backwards ? start - (value - tap) : (value - tap) / step;
                        VECTOR *to = sum + line * positions + p;
                        *to = FMA(factor, of_tap[tap], *to);
                        IN_REGISTER(*to);
                    }
            }
        }
    }
    if (cut)
        NAME(some_taps)(sum, tile, cut, taps, positions, step, backwards, lines);
    UNROLL
    for (int i = 0; i < positions * lines; i++) {
        UNALIGNED *to = (UNALIGNED *) NAME(sums_at)(tile, i, positions);
        *to = (tile->accumulate ? (VECTOR) *to : (VECTOR) {0}) + sum[i];
    }
}

/* A function each: together, some would be given too few registers. */
#define LINE_SUMS(taps, positions, step, backwards, lines) \
    NOINLINE TARGET static void NAME(line_sums_##taps##_##positions##_##step##_##backwards##_##lines)( \
        const struct line_tile *tile) \
    { \
        NAME(line_sums)(tile, taps, positions, step, backwards, lines); \
    }
#define EVERY_POSITIONS(WHAT, step, backwards) \
    WHAT(3, 6, step, backwards, 1) WHAT(3, 7, step, backwards, 1) WHAT(3, 8, step, backwards, 1) \
    WHAT(3, 9, step, backwards, 1) WHAT(3, 10, step, backwards, 1) WHAT(3, 11, step, backwards, 1) \
    WHAT(3, 12, step, backwards, 1) WHAT(3, 13, step, backwards, 1) WHAT(3, 14, step, backwards, 1)
#define EVERY_LINE_SUMS(WHAT) \
    EVERY_POSITIONS(WHAT, 1, 0) EVERY_POSITIONS(WHAT, 1, 1) EVERY_POSITIONS(WHAT, 2, 0) \
    WHAT(3, 7, 1, 0, 2) WHAT(3, 7, 1, 1, 2) WHAT(3, 7, 2, 0, 2) WHAT(7, 8, 2, 0, 1)
EVERY_LINE_SUMS(LINE_SUMS)

TARGET static void NAME(line_kernel)(const struct line_tile *tile)
{
    const int lines = tile->second ? 2 : 1, backwards = tile->apart < 0;
#define LINE_CASE(taps, positions, step, backwards, lines) \
    case KIND(taps, positions, step, backwards, lines): \
        NAME(line_sums_##taps##_##positions##_##step##_##backwards##_##lines)(tile); \
        break;
#define KIND(taps, positions, step, backwards, lines) \
    ((((positions) * 8 + (taps)) * 4 + (step)) * 4 + (backwards) * 2 + (lines) - 1)
    switch (KIND(tile->taps, tile->positions, tile->step, backwards, lines)) {
        EVERY_LINE_SUMS(LINE_CASE)
    }
#undef KIND
#undef LINE_CASE
#undef EVERY_LINE_SUMS
#undef EVERY_POSITIONS
#undef LINE_SUMS
}

#else
#define LINE_FILTERS 0
#define HALF_LINE_FILTERS 0
#define TAP_FILTERS 0
#define TAPS_AT_ONCE 0

TARGET static void NAME(line_kernel)(const struct line_tile *tile)
{
    (void) tile;
}
#endif
