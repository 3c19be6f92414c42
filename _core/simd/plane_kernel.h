/* The micro-kernel of plane_convolution.pyx: lines of one filter of a group, whose lanes are positions of a line. See
   kernels.h.

   All lines of a vector's width are summed at once, PLANE_LINES at most, one plane of the image after another. What a
   line of a plane reads at its three taps is loaded once, from where it lies, for the three lines of sums that take it:
   nothing is copied, and what lies beside the image is masked. Sums, weights and values of a line take 26 registers;
   with 16, or without masks of lanes, there is a stub, which is not called. */

#if PLANE_LINES > 0
#define LANE_MASK __typeof__(MASK(0))
_Static_assert(PLANE_LINES + 2 <= 32, "a bit for each line that is read");

/* The sums of some lines += the terms of a plane, 3 x 3, in their order. `line` is what the first of the lines reads at
   its first tap. With `stores`, they are the last terms, and each line is stored as it is finished: all at once, stores
   fill their queue, and the next call waits. */
INLINE TARGET void NAME(add_plane)(const struct plane_tile *tile, const REAL *weights, const REAL *line,
                                   const LANE_MASK *mask, VECTOR *sum, const int stores)
{
    unsigned inside = tile->lines_read;
    REAL *y = tile->y;
    VECTOR factor[9];
    COMPUTED_HERE(inside); /* else gcc has a copy of each bit in memory */
    UNROLL
    for (int tap = 0; tap < 9; tap++)
        factor[tap] = BROADCAST(weights[tap]);
    UNROLL
    for (int j = 0; j < PLANE_LINES + 2; j++, line += tile->x_line) {
        if (LIKELY(inside >> j & 1)) {
            VECTOR value[3]; /* the middle first: one after another, back in memory, takes longer */
            value[1] = MASKED_LOAD((VECTOR) {0}, mask[1], line + tile->apart);
            value[0] = MASKED_LOAD((VECTOR) {0}, mask[0], line);
            value[2] = MASKED_LOAD((VECTOR) {0}, mask[2], line + 2 * tile->apart);
            UNROLL
            for (int w = 0; w < 3; w++)
                UNROLL
                for (int h = 0; h < 3; h++)
                    if (0 <= j - h && j - h < PLANE_LINES)
                        sum[j - h] = FMA(factor[h * 3 + w], value[w], sum[j - h]);
        }
        if (stores)
            PREFETCH(line + tile->x_next);
        if (stores && j >= 2 && j - 2 < tile->lines) { /* 0, not -0 */
            MASKED_STORE(y, mask[3], (VECTOR) {0} + sum[j - 2]);
            y += tile->y_line;
        }
    }
}

TARGET static void NAME(plane_sums)(const struct plane_tile *of_call)
{
    const struct plane_tile copy = *of_call, *tile = &copy; /* which no store changes: it is kept in registers */
    LANE_MASK mask[4] = {MASK(tile->lanes[0]), MASK(tile->lanes[1]), MASK(tile->lanes[2]), MASK(tile->lanes_stored)};
    const REAL *x = tile->x, *weights = tile->weights;
    VECTOR sum[PLANE_LINES];
    ptrdiff_t left = tile->frames;
    UNROLL
    for (int i = 0; i < 4; i++)
        MASK_IN_REGISTER(mask[i]);
    UNROLL
    for (int i = 0; i < PLANE_LINES; i++) {
        sum[i] = (VECTOR) {0};
        PREFETCH_TO_WRITE((const REAL *) tile->y + i * tile->y_line);
    }
    for (ptrdiff_t plane = tile->channels * tile->frames - 1; plane > 0; plane--) {
        NAME(add_plane)(tile, weights, x, mask, sum, 0);
        x += tile->x_frame;
        weights += 9;
        if (!--left) { /* the next channel */
            x += tile->x_channel - tile->frames * tile->x_frame;
            weights += tile->w_channel - 9 * tile->frames;
            left = tile->frames;
        }
    }
    NAME(add_plane)(tile, weights, x, mask, sum, 1);
}

#else

TARGET static void NAME(plane_sums)(const struct plane_tile *tile)
{
    (void) tile;
}
#endif
