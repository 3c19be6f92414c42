/* Kernels whose lanes are channels, each with an image, weights and sums of its own. See kernels.h.

   An image lies channels last, LANES of them. Optional: CHANNEL_SEGMENTS, where there are registers for 2. */

#ifndef CHANNEL_SEGMENTS
#define CHANNEL_SEGMENTS 1
#endif

/* The sums of some positions += a line of the kernel. Where it has three taps that read side by side, on or, with
   `beside` -1, back, each value is loaded once for all of them, in that direction, so each position's taps come in
   order. */
INLINE TARGET void NAME(add_taps)(const REAL *weights, const REAL *image, const struct channel_tile *tile,
                                  VECTOR *sum, const int beside)
{
    if (beside) {
        VECTOR factor[3];
        UNROLL
        for (int tap = 0; tap < 3; tap++)
            factor[tap] = *(const UNALIGNED *) (weights + tap * LANES);
        UNROLL
        for (int value = 0; value < CHANNEL_POSITIONS + 2; value++) {
            const int j = beside > 0 ? value : CHANNEL_POSITIONS - 1 - value;
            const VECTOR values = *(const UNALIGNED *) (image + j * LANES);
            UNROLL
            for (int tap = 0; tap < 3; tap++) {
                const int i = j - tap * beside;
                if (0 <= i && i < CHANNEL_POSITIONS)
                    sum[i] = FMA(factor[tap], values, sum[i]);
            }
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
    else if (tile->taps == 3 && tile->apart == -LANES && tile->step == LANES)
        NAME(sum_of_lines)(tile, -1);
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

/* For 1 to 3 runs of 3 terms, or 1 to CHANNEL_TERMS of 1; with fewer registers, FEW_CHANNEL_TERMS at most. */
TARGET static void NAME(channel_gradients)(const struct channel_gradient *gradient)
{
#define RUNS(n, run) case n: NAME(add_runs)(gradient, n, run); break;
    if (gradient->run == 3)
        switch (gradient->runs) {
            RUNS(1, 3) RUNS(2, 3)
#if CHANNEL_SEGMENTS > 1
            RUNS(3, 3)
#endif
        }
    else
        switch (gradient->runs) {
            RUNS(1, 1) RUNS(2, 1) RUNS(3, 1) RUNS(4, 1) RUNS(5, 1) RUNS(6, 1)
#if CHANNEL_SEGMENTS > 1
            RUNS(7, 1) RUNS(8, 1) RUNS(9, 1)
#endif
        }
#undef RUNS
}
