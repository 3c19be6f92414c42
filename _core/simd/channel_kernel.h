/* Kernels whose lanes are channels, each with an image, weights and sums of its own. See kernels.h.

   An image lies channels last, LANES of them. Optional: ROTATE_2, ROTATE_4 and ROTATE_8, which rotate each group of so
   many lanes by one: lane l takes the value of lane l + 1. */

/* Terms of dw at once, for 1, 2, 4 and 8 rotations: as many as registers have room for. */
#if CHANNEL_SEGMENTS > 1
#define REGISTERS(wide, narrow) wide
#else
#define REGISTERS(wide, narrow) narrow
#endif
#define TERMS_OF_1 REGISTERS(9, 6)
#ifdef ROTATE_2
#define TERMS_OF_2 REGISTERS(9, 3)
#else
#define TERMS_OF_2 0
#define ROTATE_2(v) (v)
#endif
#ifdef ROTATE_4
#define TERMS_OF_4 REGISTERS(6, 3)
#else
#define TERMS_OF_4 0
#define ROTATE_4(v) (v)
#endif
#ifdef ROTATE_8
#define TERMS_OF_8 REGISTERS(3, 0)
#else
#define TERMS_OF_8 0
#define ROTATE_8(v) (v)
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
            VECTOR values = *(const UNALIGNED *) (image + j * LANES);
            if (CHANNEL_SEGMENTS > 1) /* gcc would load it for each tap */
                IN_REGISTER(values);
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

/* The chains of some runs += the products of dy (count, LANES), rotated by 0 to `rotations` - 1 lanes, and what
   positions of a line read. Of a run of three, a value is loaded for its last term, and is that of the one before at
   the next position. */
INLINE TARGET void NAME(add_positions)(const REAL *dy, const REAL *const *image, ptrdiff_t count, ptrdiff_t step,
                                       VECTOR *chain, const int rotations, const int runs, const int run)
{
    VECTOR value[MAX_CHANNEL_TERMS];
    UNROLL
    for (int k = 0; k < runs; k++)
        UNROLL
        for (int tap = 0; tap < run - 1; tap++)
            value[k * run + tap] = *(const UNALIGNED *) (image[k] + tap * LANES);
    for (ptrdiff_t i = 0; i < count; i++, dy += LANES) {
        VECTOR factor = *(const UNALIGNED *) dy;
        UNROLL
        for (int k = 0; k < runs; k++)
            value[k * run + run - 1] = *(const UNALIGNED *) (image[k] + i * step + (run - 1) * LANES);
        UNROLL
        for (int rotation = 0; rotation < rotations; rotation++) {
            UNROLL
            for (int term = 0; term < runs * run; term++)
                chain[rotation * runs * run + term] = FMA(factor, value[term], chain[rotation * runs * run + term]);
            if (rotations == 8)
                factor = ROTATE_8(factor);
            else if (rotations == 4)
                factor = ROTATE_4(factor);
            else
                factor = ROTATE_2(factor);
        }
        UNROLL
        for (int k = 0; k < runs; k++)
            UNROLL
            for (int tap = 0; tap < run - 1; tap++)
                value[k * run + tap] = value[k * run + tap + 1];
    }
}

INLINE TARGET void NAME(add_runs)(const struct channel_gradient *gradient, const int rotations, const int runs,
                                  const int run)
{
    const REAL *dy = gradient->dy, *image[MAX_CHANNEL_TERMS];
    REAL *chains = gradient->chains;
    const ptrdiff_t apart = gradient->terms * LANES;
    VECTOR chain[MAX_CHANNEL_CHAINS];
    UNROLL
    for (int k = 0; k < runs; k++)
        image[k] = (const REAL *) gradient->image + gradient->offsets[k] + gradient->first * gradient->step;
    UNROLL
    for (int i = 0; i < rotations * runs * run; i++)
        chain[i] = *(const UNALIGNED *) (chains + i / (runs * run) * apart + i % (runs * run) * LANES);
    ptrdiff_t first = gradient->first;
    for (ptrdiff_t left = gradient->count; left > 0;) {
        const ptrdiff_t count = left < gradient->width - first ? left : gradient->width - first;
        NAME(add_positions)(dy, image, count, run > 1 ? LANES : gradient->step, chain, rotations, runs, run);
        dy += count * LANES;
        UNROLL
        for (int k = 0; k < runs; k++)
            image[k] += gradient->pitch - first * gradient->step;
        left -= count;
        first = 0;
    }
    UNROLL
    for (int i = 0; i < rotations * runs * run; i++)
        *(UNALIGNED *) (chains + i / (runs * run) * apart + i % (runs * run) * LANES) = chain[i];
}

_Static_assert(TERMS_OF_1 <= MAX_CHANNEL_TERMS && TERMS_OF_2 <= MAX_CHANNEL_TERMS, "terms of dw at once");
_Static_assert(2 * TERMS_OF_2 <= MAX_CHANNEL_CHAINS && 4 * TERMS_OF_4 <= MAX_CHANNEL_CHAINS
               && 8 * TERMS_OF_8 <= MAX_CHANNEL_CHAINS, "and their chains");

/* For some rotations, as many terms as `channel_terms` of struct simd says: in runs of 3, or of 1. */
TARGET static void NAME(channel_gradients)(const struct channel_gradient *gradient)
{
#define CASE(rotations, runs, run) case (rotations) << 8 | (runs) << 4 | (run): \
        NAME(add_runs)(gradient, rotations, runs, run); \
        break;
#define UP_TO_3(rotations) CASE(rotations, 1, 3) CASE(rotations, 1, 1) CASE(rotations, 2, 1) CASE(rotations, 3, 1)
#define UP_TO_6(rotations) UP_TO_3(rotations) CASE(rotations, 2, 3) \
    CASE(rotations, 4, 1) CASE(rotations, 5, 1) CASE(rotations, 6, 1)
#define UP_TO_9(rotations) UP_TO_6(rotations) CASE(rotations, 3, 3) \
    CASE(rotations, 7, 1) CASE(rotations, 8, 1) CASE(rotations, 9, 1)
    switch (gradient->rotations << 8 | gradient->runs << 4 | gradient->run) {
#if CHANNEL_SEGMENTS > 1
        UP_TO_9(1) UP_TO_9(2) UP_TO_6(4) UP_TO_3(8)
#else
        UP_TO_6(1) UP_TO_3(2) UP_TO_3(4)
#endif
    }
#undef CASE
#undef UP_TO_3
#undef UP_TO_6
#undef UP_TO_9
}
