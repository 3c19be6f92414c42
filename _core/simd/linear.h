/* Products of few samples with a matrix of weights, which is read once or written once: y = x w', dx = dy w,
   dw = dy' x, with x (samples, D), w (K, D), y (samples, K). See kernels.h.

   Each element is summed as conv3d.pyx defines it, each chain in one lane: y over D in spans of chains, dx over K in
   chains, dw over the samples in one chain. */

#ifndef REFNET_LINEAR_H
#define REFNET_LINEAR_H

enum {
    FEW_SAMPLES = 2,                       /* whose chains may be lanes, */
    PASS_SAMPLES = 4,                      /* of one pass over the weights, */
    MANY_SAMPLES = 2 * PASS_SAMPLES,       /* or where there are registers for more; chains of a pass */
    PASS_ROWS = 8,                         /* of w, added to dx in one pass, */
    PASS_COLUMNS = 512,                    /* whose chains stay in the first cache, */
    CHAINS_PITCH = PASS_COLUMNS + 4 * PAD, /* from sample to sample of the chains, */
    PRODUCT_ROWS = 4                       /* and of dw, written in one pass */
};

#endif

/* chain (at_once, samples) += at most LANES terms of chains KC apart, of at most LANES rows of w. Each row has `before`
   terms before them and `behind` terms from them on: where it has room, a whole block is read, and `skip` of its terms
   are left out before those that are added. */
INLINE TARGET void NAME(add_some_terms)(const REAL *x, const REAL *w, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t terms,
                                        ptrdiff_t skip, ptrdiff_t before, ptrdiff_t behind, const int at_once,
                                        const int samples, VECTOR *chain)
{
    const unsigned lanes = LANE_RANGE(0, terms);
    for (int j = 0; j < at_once; j++) {
        VECTOR columns[LANES];
        const VECTOR *column = columns;
        if (rows == LANES && before + j * KC >= skip && behind - j * KC >= LANES - skip) {
            NAME(transpose_block)(w + j * KC - skip, pitch, columns);
            column += skip;
        } else {
            REAL block[LANES][LANES] = {{0}};
            for (ptrdiff_t row = 0; row < rows; row++)
                *(UNALIGNED *) block[row] = MASKED_LOAD((VECTOR) {0}, MASK(lanes), w + row * pitch + j * KC);
            NAME(transpose_block)(block[0], LANES, columns);
        }
        for (ptrdiff_t term = 0; term < terms; term++)
            UNROLL
            for (int n = 0; n < samples; n++) {
                const VECTOR factor = BROADCAST(x[n * pitch + j * KC + term]);
                chain[j * samples + n] = FMA(factor, column[term], chain[j * samples + n]);
            }
    }
}

/* chain (at_once, samples) <- chains of `count` terms, KC apart, of each row of w, a lane each: x (samples, pitch)
   times w (rows, pitch), from the term `first` of each row on. The first `lead` terms lie before a boundary of cache
   lines. */
INLINE TARGET void NAME(chains_of_rows)(const REAL *x, const REAL *w, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t first,
                                        ptrdiff_t lead, ptrdiff_t count, const int at_once, const int samples,
                                        VECTOR *chain)
{
    x += first;
    w += first;
    ptrdiff_t i = lead < count ? lead : count;
    UNROLL
    for (int j = 0; j < at_once * samples; j++)
        chain[j] = (VECTOR) {0};
    if (lead)
        NAME(add_some_terms)(x, w, pitch, rows, i, LANES - i, first, pitch - first, at_once, samples, chain);
    for (; rows == LANES && i + LANES <= count; i += LANES) {
        UNROLL
        for (int j = 0; j < at_once; j++) {
            VECTOR column[LANES];
            NAME(transpose_block)(w + i + j * KC, pitch, column);
            UNROLL
            for (int term = 0; term < LANES; term++)
                UNROLL
                for (int n = 0; n < samples; n++) {
                    const VECTOR factor = BROADCAST(x[n * pitch + i + j * KC + term]);
                    chain[j * samples + n] = FMA(factor, column[term], chain[j * samples + n]);
                }
        }
    }
    for (; i < count; i += LANES)
        NAME(add_some_terms)(x + i, w + i, pitch, rows, count - i < LANES ? count - i : LANES, 0, first + i,
                             pitch - first - i, at_once, samples, chain);
}

/* y (samples, rows), `y_pitch` values apart, for at most LANES rows of w. Where a block has few multiply-adds, two
   chains are summed at once, or each would wait for the one before it. */
INLINE TARGET void NAME(sums_of_rows)(const REAL *x, const REAL *w, REAL *y, ptrdiff_t y_pitch, ptrdiff_t rows,
                                      ptrdiff_t D, const int samples)
{
    const int at_once = samples <= PASS_SAMPLES && LANES * samples < 16 ? 2 : 1;
    const unsigned lanes = LANE_RANGE(0, rows);
    /* LOAD_SQUARES loads lines. The second halves of LANES lines, where rows begin within one, would be gone from the
       cache when their turn comes: D may be a power of two. */
#ifdef LOAD_SQUARES
    const ptrdiff_t lead = D % LANES ? 0 : -((size_t) w / sizeof(REAL)) % LANES;
#else
    const ptrdiff_t lead = 0;
#endif
    VECTOR total[MANY_SAMPLES], sum[MANY_SAMPLES], chain[MANY_SAMPLES];
    for (int n = 0; n < samples; n++)
        total[n] = (VECTOR) {0};
    for (ptrdiff_t span = 0; span < D; span += SPAN_CHAINS * KC) {
        const ptrdiff_t end = D - span < SPAN_CHAINS * KC ? D : span + SPAN_CHAINS * KC;
        ptrdiff_t first = span;
        for (int n = 0; n < samples; n++)
            sum[n] = (VECTOR) {0};
        for (; at_once > 1 && first + at_once * KC <= end; first += at_once * KC) {
            NAME(chains_of_rows)(x, w, D, rows, first, lead, KC, at_once, samples, chain);
            for (int j = 0; j < at_once; j++)
                for (int n = 0; n < samples; n++)
                    sum[n] = sum[n] + chain[j * samples + n];
        }
        for (; first < end; first += KC) {
            NAME(chains_of_rows)(x, w, D, rows, first, lead, end - first < KC ? end - first : KC, 1, samples, chain);
            for (int n = 0; n < samples; n++)
                sum[n] = sum[n] + chain[n];
        }
        for (int n = 0; n < samples; n++)
            total[n] = total[n] + sum[n];
    }
    for (int n = 0; n < samples; n++)
        MASKED_STORE(y + n * y_pitch, MASK(lanes), total[n]);
}

/* y (samples, rows), `y_pitch` values apart, of 2 LANES / chains rows of w (rows, chains, KC), whose chains are lanes;
   lines (samples, KC, LANES) has those of x. What lies in a row side by side is read at once, however it is aligned.
   The rows after these are prefetched: so many streams at once are too many for a processor to follow. */
INLINE TARGET void NAME(sums_of_chains)(const REAL *lines, const REAL *w, REAL *y, ptrdiff_t y_pitch,
                                        ptrdiff_t chains, const int samples)
{
    VECTOR chain[2][FEW_SAMPLES];
    REAL found[2 * LANES];
    UNROLL
    for (int i = 0; i < 2 * samples; i++)
        chain[i % 2][i / 2] = (VECTOR) {0};
    for (ptrdiff_t i = 0; i < KC; i += LANES)
        UNROLL
        for (int half = 0; half < 2; half++) {
            VECTOR column[LANES];
            const REAL *block = w + half * LANES * KC + i;
            NAME(transpose_block)(block, KC, column);
            UNROLL
            for (int line = 0; line < LANES; line++)
                PREFETCH_L2(block + (2 * LANES + line) * KC);
            UNROLL
            for (int term = 0; term < LANES; term++)
                UNROLL
                for (int n = 0; n < samples; n++) {
                    const VECTOR factors = *(const UNALIGNED *) (lines + (n * KC + i + term) * LANES);
                    chain[half][n] = FMA(factors, column[term], chain[half][n]);
                }
        }
    for (int n = 0; n < samples; n++) {
        *(UNALIGNED *) found = chain[0][n];
        *(UNALIGNED *) (found + LANES) = chain[1][n];
        for (ptrdiff_t row = 0; row < 2 * LANES / chains; row++) {
            REAL sum = 0;
            for (ptrdiff_t j = 0; j < chains; j++)
                sum += found[row * chains + j];
            y[n * y_pitch + row] = sum;
        }
    }
}

/* How many rows are computed so; lines (samples, KC, LANES) repeat the chains of x. */
INLINE TARGET ptrdiff_t NAME(rows_by_chains)(const REAL *x, const REAL *w, REAL *y, ptrdiff_t rows, ptrdiff_t D,
                                             ptrdiff_t y_pitch, const int samples)
{
    const ptrdiff_t chains = D / KC, at_once = 2 * LANES / chains;
    REAL lines[FEW_SAMPLES * KC * LANES];
    ptrdiff_t row = 0;
    if (rows < at_once)
        return 0;
    for (int n = 0; n < samples; n++) {
        const void *read[LANES];
        for (ptrdiff_t lane = 0; lane < LANES; lane++)
            read[lane] = x + n * D + lane % chains * KC;
        NAME(to_channels)(read, 0, KC, lines + n * KC * LANES);
    }
    for (; row + at_once <= rows; row += at_once)
        NAME(sums_of_chains)(lines, w + row * D, y + row, y_pitch, chains, samples);
    return row;
}

/* y (samples, rows), `y_pitch` values apart, = x (samples, D) times w (rows, D), transposed. One or two samples of
   whole chains, of one span, go chain by chain as far as vectors are full; in double, where a line of x is for half
   as many weights, by rows. */
TARGET static void NAME(linear_forward)(const void *x_, const void *w_, void *y_, ptrdiff_t samples, ptrdiff_t rows,
                                        ptrdiff_t D, ptrdiff_t y_pitch)
{
    const REAL *x = x_, *w = w_;
    REAL *y = y_;
    ptrdiff_t row = 0;
    if (sizeof(REAL) == sizeof(float) && samples <= FEW_SAMPLES && KC <= D && D <= SPAN_CHAINS * KC && D % KC == 0
        && LANES % (D / KC) == 0)
        row = samples == 1 ? NAME(rows_by_chains)(x, w, y, rows, D, y_pitch, 1)
                           : NAME(rows_by_chains)(x, w, y, rows, D, y_pitch, 2);
    for (; row < rows; row += LANES) {
        const ptrdiff_t some = rows - row < LANES ? rows - row : LANES;
#define SAMPLES(n) NAME(sums_of_rows)(x + first * D, w + row * D, y + first * y_pitch + row, y_pitch, some, D, n)
        ptrdiff_t first = 0;
#if MR > 8
        for (; first + MANY_SAMPLES <= samples; first += MANY_SAMPLES)
            SAMPLES(MANY_SAMPLES);
#endif
        for (; first < samples; first += PASS_SAMPLES)
            switch (samples - first) {
                case 1: SAMPLES(1); break;
                case 2: SAMPLES(2); break;
                case 3: SAMPLES(3); break;
                default: SAMPLES(4); break;
            }
#undef SAMPLES
    }
}

/* chain (samples, CHAINS_PITCH) = or += dy (samples, K) times `rows` rows of w, `pitch` values apart, at the lanes of
   one vector of columns. */
INLINE TARGET void NAME(add_vector)(const REAL *dy, ptrdiff_t K, const REAL *w, ptrdiff_t pitch, REAL *chain,
                                    unsigned lanes, const int is_whole, const int rows, const int samples, int begins)
{
    VECTOR sum[PASS_SAMPLES];
    UNROLL
    for (int n = 0; n < samples; n++)
        sum[n] = begins ? (VECTOR) {0} : (VECTOR) *(const UNALIGNED *) (chain + n * CHAINS_PITCH);
    UNROLL
    for (int row = 0; row < rows; row++) {
        const VECTOR weights = is_whole ? (VECTOR) *(const UNALIGNED *) (w + row * pitch)
                                        : (VECTOR) MASKED_LOAD((VECTOR) {0}, MASK(lanes), w + row * pitch);
        UNROLL
        for (int n = 0; n < samples; n++) {
            const VECTOR factor = BROADCAST(dy[n * K + row]);
            sum[n] = FMA(factor, weights, sum[n]);
        }
    }
    UNROLL
    for (int n = 0; n < samples; n++)
        if (is_whole)
            *(UNALIGNED *) (chain + n * CHAINS_PITCH) = sum[n];
        else /* what is 0 in other lanes may have met an infinity */
            MASKED_STORE(chain + n * CHAINS_PITCH, MASK(lanes), sum[n]);
}

/* The same at `columns` columns, of which `lead` lie before a boundary of vectors. */
INLINE TARGET void NAME(add_rows)(const REAL *dy, ptrdiff_t K, const REAL *w, ptrdiff_t pitch, REAL *chain,
                                  ptrdiff_t lead, ptrdiff_t columns, const int rows, const int samples, int begins)
{
    ptrdiff_t i = lead;
    if (lead)
        NAME(add_vector)(dy, K, w, pitch, chain, LANE_RANGE(0, lead), 0, rows, samples, begins);
    for (; i + LANES <= columns; i += LANES)
        NAME(add_vector)(dy, K, w + i, pitch, chain + i, 0, 1, rows, samples, begins);
    if (i < columns)
        NAME(add_vector)(dy, K, w + i, pitch, chain + i, LANE_RANGE(0, columns - i), 0, rows, samples, begins);
}

/* dx (samples, columns) for at most PASS_COLUMNS columns; rows of dx and w are `pitch` values apart. */
INLINE TARGET void NAME(sums_of_columns)(const REAL *dy, const REAL *w, REAL *dx, ptrdiff_t K, ptrdiff_t columns,
                                         ptrdiff_t pitch, const int samples)
{
    REAL chain[PASS_SAMPLES * CHAINS_PITCH];
    const ptrdiff_t unaligned = -((size_t) w / sizeof(REAL)) % LANES, lead = unaligned < columns ? unaligned : columns;
    for (ptrdiff_t first = 0; first < K; first += KC) {
        const ptrdiff_t end = K - first < KC ? K : first + KC;
        ptrdiff_t k = first;
        for (; k + PASS_ROWS <= end; k += PASS_ROWS)
            NAME(add_rows)(dy + k, K, w + k * pitch, pitch, chain, lead, columns, PASS_ROWS, samples, k == first);
        for (; k < end; k++)
            NAME(add_rows)(dy + k, K, w + k * pitch, pitch, chain, lead, columns, 1, samples, k == first);
        for (int n = 0; n < samples; n++)
            for (ptrdiff_t i = 0; i < columns; i++) {
                const REAL before = first > 0 ? dx[n * pitch + i] : 0;
                dx[n * pitch + i] = before + chain[n * CHAINS_PITCH + i];
            }
    }
}

/* dx (samples, columns) = dy (samples, K) times w (K, columns); rows of dx and w are `pitch` values apart. */
TARGET static void NAME(linear_input_gradient)(const void *dy_, const void *w_, void *dx_, ptrdiff_t samples,
                                               ptrdiff_t K, ptrdiff_t columns, ptrdiff_t pitch)
{
    const REAL *dy = dy_, *w = w_;
    REAL *dx = dx_;
    for (ptrdiff_t column = 0; column < columns; column += PASS_COLUMNS) {
        const ptrdiff_t some = columns - column < PASS_COLUMNS ? columns - column : PASS_COLUMNS;
#define SAMPLES(n) NAME(sums_of_columns)(dy + first * K, w + column, dx + first * pitch + column, K, some, pitch, n)
        for (ptrdiff_t first = 0; first < samples; first += PASS_SAMPLES)
            switch (samples - first) {
                case 1: SAMPLES(1); break;
                case 2: SAMPLES(2); break;
                case 3: SAMPLES(3); break;
                default: SAMPLES(4); break;
            }
#undef SAMPLES
    }
}

/* `rows` rows of dw at one vector of columns: the products of dy, `pitch` values from sample to sample, and x. */
INLINE TARGET void NAME(products)(const REAL *dy, ptrdiff_t pitch, const REAL *x, REAL *dw, ptrdiff_t D, unsigned lanes,
                                  const int is_whole, const int rows, ptrdiff_t samples)
{
    VECTOR sum[PRODUCT_ROWS];
    UNROLL
    for (int row = 0; row < rows; row++)
        sum[row] = (VECTOR) {0};
    for (ptrdiff_t n = 0; n < samples; n++) {
        const VECTOR values = is_whole ? (VECTOR) *(const UNALIGNED *) (x + n * D)
                                       : (VECTOR) MASKED_LOAD((VECTOR) {0}, MASK(lanes), x + n * D);
        UNROLL
        for (int row = 0; row < rows; row++) {
            const VECTOR factor = BROADCAST(dy[n * pitch + row]);
            sum[row] = FMA(factor, values, sum[row]);
        }
    }
    UNROLL
    for (int row = 0; row < rows; row++) {
        sum[row] = (VECTOR) {0} + sum[row]; /* nothing but underflow is 0, not -0 */
        if (is_whole)
            *(UNALIGNED *) (dw + row * D) = sum[row];
        else
            MASKED_STORE(dw + row * D, MASK(lanes), sum[row]);
    }
}

/* `rows` rows of dw. */
INLINE TARGET void NAME(rows_of_products)(const REAL *dy, ptrdiff_t pitch, const REAL *x, REAL *dw, ptrdiff_t D,
                                          const int rows, ptrdiff_t samples)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= D; i += LANES)
        NAME(products)(dy, pitch, x + i, dw + i, D, 0, 1, rows, samples);
    if (i < D)
        NAME(products)(dy, pitch, x + i, dw + i, D, LANE_RANGE(0, D - i), 0, rows, samples);
}

/* dw (rows, D) = dy (samples, rows), `pitch` values from sample to sample, transposed, times x (samples, D); for at
   most KC samples. */
TARGET static void NAME(linear_weight_gradient)(const void *dy_, const void *x_, void *dw_, ptrdiff_t samples,
                                                ptrdiff_t rows, ptrdiff_t D, ptrdiff_t pitch)
{
    const REAL *dy = dy_, *x = x_;
    REAL *dw = dw_;
    ptrdiff_t row = 0;
    for (; row + PRODUCT_ROWS <= rows; row += PRODUCT_ROWS)
        if (samples == 1)
            NAME(rows_of_products)(dy + row, pitch, x, dw + row * D, D, PRODUCT_ROWS, 1);
        else
            NAME(rows_of_products)(dy + row, pitch, x, dw + row * D, D, PRODUCT_ROWS, samples);
    for (; row < rows; row++)
        NAME(rows_of_products)(dy + row, pitch, x, dw + row * D, D, 1, samples);
}
