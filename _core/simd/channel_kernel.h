/* Kernels whose lanes are channels, each with an image, weights and sums of its own. See kernels.h.

   An image lies channels last, LANES of them. Optional: CHANNEL_SEGMENTS, where there are registers for 2. */

#ifndef CHANNEL_SEGMENTS
#define CHANNEL_SEGMENTS 1
#endif

/* to (count, LANES) <- `count` values of LANES rows each, from `offset` on. What lies behind is overwritten: LANES - 1
   vectors at most. */
TARGET static void NAME(to_channels)(const void *const *rows, ptrdiff_t offset, ptrdiff_t count, void *to_)
{
    REAL *to = to_;
    for (ptrdiff_t i = 0; i < count; i += LANES, to += LANES * LANES) {
        const unsigned lanes = LANE_RANGE(0, count - i < LANES ? count - i : LANES);
        REAL block[LANES * LANES];
        VECTOR column[LANES];
        UNROLL
        for (int lane = 0; lane < LANES; lane++) {
            const REAL *row = (const REAL *) rows[lane] + offset + i;
            *(UNALIGNED *) (block + lane * LANES) = MASKED_LOAD((VECTOR) {0}, MASK(lanes), row);
            PREFETCH(row + 4 * LANES);
        }
        NAME(transpose_block)(block, LANES, column);
        UNROLL
        for (int j = 0; j < LANES; j++)
            *(UNALIGNED *) (to + j * LANES) = column[j];
    }
}

/* `count` values of `channels` rows each, from `offset` on, <- from (count, LANES). What lies behind is read: LANES - 1
   vectors at most. */
TARGET static void NAME(from_channels)(const void *from_, ptrdiff_t count, void *const *rows, ptrdiff_t offset,
                                       ptrdiff_t channels)
{
    const REAL *from = from_;
    for (ptrdiff_t i = 0; i < count; i += LANES, from += LANES * LANES) {
        const unsigned lanes = LANE_RANGE(0, count - i < LANES ? count - i : LANES);
        VECTOR column[LANES];
        NAME(transpose_block)(from, LANES, column);
        UNROLL
        for (int lane = 0; lane < LANES; lane++)
            if (lane < channels)
                MASKED_STORE((REAL *) rows[lane] + offset + i, MASK(lanes), column[lane]);
    }
}

/* The sums of some positions += a line of the kernel. Where it has three taps side by side, each value is loaded once for
   all of them. */
INLINE TARGET void NAME(add_taps)(const REAL *weights, const REAL *image, const struct channel_tile *tile, VECTOR *sum,
                                  const int beside)
{
    if (beside) {
        VECTOR factor[3];
        UNROLL
        for (int tap = 0; tap < 3; tap++)
            factor[tap] = *(const UNALIGNED *) (weights + tap * LANES);
        UNROLL
        for (int j = 0; j < CHANNEL_POSITIONS + 2; j++) {
            const VECTOR values = *(const UNALIGNED *) (image + j * LANES);
            UNROLL
            for (int tap = 0; tap < 3; tap++)
                if (0 <= j - tap && j - tap < CHANNEL_POSITIONS)
                    sum[j - tap] = FMA(factor[tap], values, sum[j - tap]);
        }
        return;
    }
    for (ptrdiff_t tap = 0; tap < tile->taps; tap++, weights += LANES, image += tile->apart) {
        const VECTOR factor = *(const UNALIGNED *) weights;
        UNROLL
        for (int i = 0; i < CHANNEL_POSITIONS; i++)
            sum[i] = FMA(factor, (VECTOR) *(const UNALIGNED *) (image + i * tile->step), sum[i]);
    }
}

INLINE TARGET void NAME(sum_of_lines)(const struct channel_tile *tile, const int beside)
{
    const struct terms *lines = tile->lines;
    const ptrdiff_t stop = lines->stop, taps = tile->taps;
    const REAL *weights = tile->weights, *image = tile->image;
    VECTOR sum[CHANNEL_SEGMENTS][CHANNEL_POSITIONS];
    UNROLL
    for (int segment = 0; segment < CHANNEL_SEGMENTS; segment++)
        UNROLL
        for (int i = 0; i < CHANNEL_POSITIONS; i++)
            sum[segment][i] = (VECTOR) {0};
    for (ptrdiff_t k = lines->start, run = lines->first_run; k < stop; k += lines->gap, run = lines->run) {
        const ptrdiff_t end = run < stop - k ? k + run : stop;
        for (; k < end; k++)
            UNROLL
            for (int segment = 0; segment < CHANNEL_SEGMENTS; segment++)
                NAME(add_taps)(weights + k * taps * LANES, image + tile->offsets[k] + tile->from[segment], tile,
                               sum[segment], beside);
    }
    UNROLL
    for (int segment = 0; segment < CHANNEL_SEGMENTS; segment++)
        UNROLL
        for (int i = 0; i < CHANNEL_POSITIONS; i++) /* 0, not -0 */
            *(UNALIGNED *) ((REAL *) tile->sums + tile->to[segment] + i * LANES) = (VECTOR) {0} + sum[segment][i];
}

TARGET static void NAME(channel_sums)(const struct channel_tile *tile)
{
    if (tile->taps == 3 && tile->apart == LANES && tile->step == LANES)
        NAME(sum_of_lines)(tile, 1);
    else
        NAME(sum_of_lines)(tile, 0);
}

/* The chains of some runs += the products of dy (count, LANES) and what positions of a line read. Of a run of three,
   a value is loaded for its last term, and is that of the one before at the next position. */
INLINE TARGET void NAME(add_positions)(const REAL *dy, const REAL *const *image, ptrdiff_t count, ptrdiff_t step,
                                       VECTOR *chain, const int runs, const int run)
{
    VECTOR before[CHANNEL_TERMS];
    UNROLL
    for (int i = 0; i < runs * (run - 1); i++)
        before[i] = *(const UNALIGNED *) (image[i / (run - 1)] + i % (run - 1) * LANES);
    for (ptrdiff_t i = 0; i < count; i++, dy += LANES) {
        const VECTOR factor = *(const UNALIGNED *) dy;
        UNROLL
        for (int k = 0; k < runs; k++) {
            const VECTOR values = *(const UNALIGNED *) (image[k] + i * step + (run - 1) * LANES);
            UNROLL
            for (int tap = 0; tap < run - 1; tap++) {
                VECTOR *earlier = before + k * (run - 1);
                chain[k * run + tap] = FMA(factor, earlier[tap], chain[k * run + tap]);
                earlier[tap] = tap < run - 2 ? earlier[tap + 1] : values;
            }
            chain[k * run + run - 1] = FMA(factor, values, chain[k * run + run - 1]);
        }
    }
}

INLINE TARGET void NAME(add_runs)(const struct channel_gradient *gradient, const int runs, const int run)
{
    const REAL *dy = gradient->dy, *image[CHANNEL_TERMS];
    REAL *chains = gradient->chains;
    VECTOR chain[CHANNEL_TERMS];
    UNROLL
    for (int k = 0; k < runs; k++)
        image[k] = (const REAL *) gradient->image + gradient->offsets[k] + gradient->first * gradient->step;
    UNROLL
    for (int i = 0; i < runs * run; i++)
        chain[i] = *(const UNALIGNED *) (chains + i * LANES);
    ptrdiff_t first = gradient->first;
    for (ptrdiff_t left = gradient->count; left > 0;) {
        const ptrdiff_t count = left < gradient->width - first ? left : gradient->width - first;
        NAME(add_positions)(dy, image, count, run > 1 ? LANES : gradient->step, chain, runs, run);
        dy += count * LANES;
        UNROLL
        for (int k = 0; k < runs; k++)
            image[k] += gradient->pitch - first * gradient->step;
        left -= count;
        first = 0;
    }
    UNROLL
    for (int i = 0; i < runs * run; i++)
        *(UNALIGNED *) (chains + i * LANES) = chain[i];
}

/* For 1 to 3 runs of 3 terms, or 1 to CHANNEL_TERMS of 1. */
TARGET static void NAME(channel_gradients)(const struct channel_gradient *gradient)
{
#define RUNS(n, run) case n: NAME(add_runs)(gradient, n, run); break;
    if (gradient->run == 3)
        switch (gradient->runs) {
            RUNS(1, 3) RUNS(2, 3) RUNS(3, 3)
        }
    else
        switch (gradient->runs) {
            RUNS(1, 1) RUNS(2, 1) RUNS(3, 1) RUNS(4, 1) RUNS(5, 1) RUNS(6, 1) RUNS(7, 1) RUNS(8, 1) RUNS(9, 1)
        }
#undef RUNS
}
