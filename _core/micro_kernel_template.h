/* One version of the micro-kernel: included with VERSION, TARGET, REAL, LANES, ROWS, SPREAD and FMA defined.

   A tile of the product of a (rows, PITCH) and b (depth, columns), with two vectors of columns, is
   summed in registers: ROWS x 2 accumulators, two vectors of b, one value of a in all lanes. */

enum { NAME(rows) = ROWS, NAME(columns) = COLUMNS };

INLINE TARGET void NAME(tile)(const int rows, ptrdiff_t depth, const REAL *a, const REAL *b,
                              REAL *c, ptrdiff_t pitch, int add, const REAL *ahead, ptrdiff_t lines,
                              ptrdiff_t stride)
{
    const REAL *next = ahead;
    ptrdiff_t line = 0;
    VECTOR sum[ROWS][2];
    UNROLL
    for (int i = 0; i < rows; i++) {
        PREFETCH(c + i * pitch);
        sum[i][0] = sum[i][1] = (VECTOR) {0};
    }
    for (ptrdiff_t k = 0; k < depth; k++) {
        PREFETCH(next);
        line++;
        next = line == lines ? ahead + stride : next + 64 / sizeof(REAL);
        ahead = line == lines ? next : ahead;
        line = line == lines ? 0 : line;
        const VECTOR left = *(const UNALIGNED *) (b + k * COLUMNS);
        const VECTOR right = *(const UNALIGNED *) (b + k * COLUMNS + LANES);
        UNROLL
        for (int i = 0; i < rows; i++) {
            const VECTOR factor = SPREAD(a[i * PITCH + k]);
            sum[i][0] = FMA(factor, left, sum[i][0]);
            sum[i][1] = FMA(factor, right, sum[i][1]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNALIGNED *to = (UNALIGNED *) (c + i * pitch);
        UNALIGNED *to_right = (UNALIGNED *) (c + i * pitch + LANES);
        if (add) {
            sum[i][0] = (VECTOR) *to + sum[i][0];
            sum[i][1] = (VECTOR) *to_right + sum[i][1];
        }
        *to = sum[i][0];
        *to_right = sum[i][1];
    }
}

/* c (rows, columns) = or += a (rows, depth) b (depth, columns), for 1 to ROWS rows; from row to row
   of c it is `pitch` values, of a PITCH, of b as many as it has columns. With each term a cache
   line of what lies `ahead` comes nearer, so many `lines` in a row, and from row to row it is `stride`. */
TARGET static void NAME(multiply)(ptrdiff_t rows, ptrdiff_t depth, const REAL *a, const REAL *b,
                                  REAL *c, ptrdiff_t pitch, int add, const REAL *ahead, ptrdiff_t lines,
                                  ptrdiff_t stride)
{
#define CASE(n) case n: NAME(tile)(n < ROWS ? n : ROWS, depth, a, b, c, pitch, add, ahead, lines, stride); break;
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4)
#if ROWS > 4
        CASE(5) CASE(6)
#endif
#if ROWS > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
#undef CASE
}

/* n rounds of CHAINS vectors of multiply-adds that nothing but their own chain waits for: the fastest there
   is. The sum of the chains is returned, and no two begin alike, so that none can be left out. */
TARGET static REAL NAME(spin)(ptrdiff_t n)
{
    const VECTOR half = SPREAD((REAL) 0.5);
    VECTOR chain[CHAINS];
    REAL lanes[LANES], sum = 0;
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        chain[i] = (VECTOR) SPREAD((REAL) i);
    for (ptrdiff_t k = 0; k < n; k++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            chain[i] = FMA(chain[i], half, half);
    }
    for (int i = 0; i < CHAINS; i++) {
        *(UNALIGNED *) lanes = chain[i];
        for (int lane = 0; lane < LANES; lane++)
            sum += lanes[lane];
    }
    return sum;
}
