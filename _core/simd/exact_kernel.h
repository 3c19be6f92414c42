/* The micro-kernel of exact sums: every element in two doubles, whose sum is the sum of all products but for an error
   that docs/exact.md bounds. Included by kernels.h, for double.

   An *offset accumulator* is a number so large that all of a chain's partial sums, added to it, stay in its binade.
   Then it loses of each product what lies below its last bit; what it has taken is the difference of two of its
   values, exact, and what is left of the product is another multiply-add away, and is added up beside it. */

/* An offset accumulator begins with 1.5 * 2**k, where 2**k is this often what bounds a product: four times KC. */
#define OFFSET (1.5 * 4 * KC)

/* c + low = or += a block of products, for `rows` rows and two vectors of columns. */
INLINE TARGET void NAME(exact_sum)(const struct exact_tile *tile, const int rows)
{
    const struct terms *terms = tile->terms;
    const REAL *lhs = tile->lhs, *rhs = tile->rhs;
    const VECTOR left_scale = *(const UNALIGNED *) tile->column_scales;
    const VECTOR right_scale = *(const UNALIGNED *) (tile->column_scales + LANES);
    VECTOR sum[EXACT_ROWS][2], rest[EXACT_ROWS][2];
    UNROLL
    for (int i = 0; i < rows; i++) {
        const VECTOR scale = BROADCAST(OFFSET * tile->row_scales[i]);
        sum[i][0] = scale * left_scale;
        sum[i][1] = scale * right_scale;
        rest[i][0] = rest[i][1] = (VECTOR) {0};
    }
    for (ptrdiff_t k = terms->start, run = terms->first_run; k < terms->stop; k += terms->gap, run = terms->run) {
        const ptrdiff_t end = run < terms->stop - k ? k + run : terms->stop;
        for (; k < end; k++) {
            const VECTOR left = *(const UNALIGNED *) (rhs + k * NR);
            const VECTOR right = *(const UNALIGNED *) (rhs + k * NR + LANES);
            UNROLL
            for (int i = 0; i < rows; i++) {
                const VECTOR factor = BROADCAST(lhs[i * LHS_PITCH + k]);
                const VECTOR next = FMA(factor, left, sum[i][0]), next_right = FMA(factor, right, sum[i][1]);
                rest[i][0] += FMA(factor, left, sum[i][0] - next);
                rest[i][1] += FMA(factor, right, sum[i][1] - next_right);
                sum[i][0] = next;
                sum[i][1] = next_right;
            }
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        const VECTOR scale = BROADCAST(OFFSET * tile->row_scales[i]);
        UNROLL
        for (int j = 0; j < 2; j++) {
            UNALIGNED *high = (UNALIGNED *) (tile->c + i * tile->pitch + j * LANES);
            UNALIGNED *low = (UNALIGNED *) (tile->low + i * tile->pitch + j * LANES);
            const VECTOR more = sum[i][j] - scale * (j ? right_scale : left_scale);
            if (tile->accumulate) {
                const VECTOR before = *high, total = before + more, taken = total - before;
                *low += ((before - (total - taken)) + (more - taken)) + rest[i][j];
                *high = total;
            } else {
                *high = more;
                *low = rest[i][j];
            }
        }
    }
}

/* For 1 to EXACT_ROWS rows. */
TARGET static void NAME(exact_kernel)(const struct exact_tile *tile)
{
#define ROWS(n) case n: NAME(exact_sum)(tile, n < EXACT_ROWS ? n : EXACT_ROWS); break;
    switch (tile->rows) {
        ROWS(1) ROWS(2)
#if EXACT_ROWS > 2
        ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#endif
    }
#undef ROWS
}

/* scales (NR) <- for each column of a packed panel (depth, NR) the least power of two above all of its values; never
   less than LEAST_SCALE, unless all are zero. */
TARGET static void NAME(column_scales)(const double *panel, ptrdiff_t depth, double *scales)
{
    double largest[NR] = {0};
    for (ptrdiff_t k = 0; k < depth; k++)
        for (int j = 0; j < NR; j++) {
            const double value = fabs(panel[k * NR + j]);
            largest[j] = value > largest[j] ? value : largest[j];
        }
    for (int j = 0; j < NR; j++)
        scales[j] = scale_above(largest[j]);
}

#undef OFFSET
