/* One version of the micro-kernel: included with VERSION, TARGET, REAL, LANES, ROWS, SPREAD and FMA defined.

   A tile of the product of a (rows, PITCH) and b (depth, columns), with two vectors of columns, is
   summed in registers: ROWS x 2 accumulators, two vectors of b, one value of a in all lanes. */

enum { NAME(rows) = ROWS, NAME(columns) = COLUMNS };

/* One term of rows [first, last). */
INLINE TARGET void NAME(term)(VECTOR sum[ROWS][2], const REAL *a, VECTOR left, VECTOR right, const int first,
                              const int last)
{
    UNROLL
    for (int i = first; i < last; i++) {
        const VECTOR factor = SPREAD(a[i * PITCH]);
        sum[i][0] = FMA(factor, left, sum[i][0]);
        sum[i][1] = FMA(factor, right, sum[i][1]);
    }
}

INLINE TARGET void NAME(tile)(const int rows, const struct terms *terms, const REAL *a, REAL *b,
                              REAL *c, ptrdiff_t pitch, int add, const struct ahead *ahead,
                              const struct patches *patches, const int pieces, const int step, const int quartered)
{
    const struct plan *plan = pieces ? patches->plan : 0;
    const ptrdiff_t taps = pieces ? plan->g.kT * plan->g.kH * plan->g.kW : 0;
    const ptrdiff_t volume = pieces ? plan->g.T * plan->g.H * plan->g.W : 0;
    const ptrdiff_t entries = pieces ? plan->vectors * pieces : 0;
    const REAL *line = ahead->at, *next = line, *x = 0;
    const ptrdiff_t asks = ahead->asks, stride = ahead->stride, stop = terms->stop;
    /* Patches take registers, so what is asked for meanwhile is not asked for slowly. */
    const ptrdiff_t pace = pieces ? (ptrdiff_t) (64 / sizeof(REAL)) : ahead->step;
    ptrdiff_t asked = 0, tap = 0, entry = 0;
    VECTOR sum[ROWS][2];
    UNROLL
    for (int i = 0; i < rows; i++) {
        PREFETCH(c + i * pitch);
        PREFETCH(c + i * pitch + COLUMNS - 1);
        sum[i][0] = sum[i][1] = (VECTOR) {0};
    }
    for (ptrdiff_t k = terms->start, some = terms->left; k < stop; k += terms->gap, some = terms->run) {
        const ptrdiff_t end = some < stop - k ? k + some : stop;
        if (pieces) {
            tap = (patches->row + k) % taps;
            entry = tap * entries + patches->v * pieces;
            x = (const REAL *) patches->x + (patches->row + k) / taps * volume;
        }
        for (; k < end; k++) {
            UNALIGNED *at = (UNALIGNED *) (b + k * COLUMNS), *at_right = (UNALIGNED *) (b + k * COLUMNS + LANES);
            VECTOR left, right;
            const unsigned quarters = quartered ? patches->quarters[tap] : 0;
            PREFETCH(next);
            asked++;
            next = asked == asks ? line + stride : next + pace;
            line = asked == asks ? next : line;
            asked = asked == asks ? 0 : asked;
            if (pieces) {
                left = NAME(column)(x, plan, entry, pieces, step, step, 0, 0);
                right = NAME(column)(x, plan, entry + pieces, pieces, step, step, 0, 0);
                if (!quartered) { /* no other rows will want them */
                    *at = left;
                    *at_right = right;
                }
                entry += entries;
                if (++tap == taps) {
                    tap = 0;
                    entry -= taps * entries;
                    x += volume;
                }
            } else {
                left = *at;
                right = *at_right;
            }
#define TERM(first, last) NAME(term)(sum, a + k, left, right, first, last)
            if (!quartered) {
                TERM(0, rows);
            } else {
                if (quarters & 1)
                    TERM(0, rows / 4);
                if (quarters & 2)
                    TERM(rows / 4, rows / 2);
                if (quarters & 4)
                    TERM(rows / 2, rows / 4 * 3);
                if (quarters & 8)
                    TERM(rows / 4 * 3, rows);
            }
#undef TERM
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNALIGNED *to = (UNALIGNED *) (c + i * pitch);
        UNALIGNED *to_right = (UNALIGNED *) (c + i * pitch + LANES);
        /* Added to 0 if to nothing else: a sum of terms that are too small is 0 then, not -0. */
        const VECTOR before = add ? (VECTOR) *to : (VECTOR) {0};
        const VECTOR before_right = add ? (VECTOR) *to_right : (VECTOR) {0};
        *to = before + sum[i][0];
        *to_right = before_right + sum[i][1];
    }
}

/* c (rows, columns) = or += those terms of a (rows, depth) b (depth, columns), for 1 to ROWS rows; from row to row
   of c it is `pitch` values, of a PITCH, of b as many as it has columns. Where patches are given, b is made of
   them in passing, for ROWS rows and a plan that `passes`. With each term something of what lies ahead is asked for. */
TARGET static void NAME(multiply)(ptrdiff_t rows, const struct terms *terms, const REAL *a, REAL *b,
                                  REAL *c, ptrdiff_t pitch, int add, const struct ahead *ahead,
                                  const struct patches *patches)
{
#define PASSING(pieces, step, quartered) \
    NAME(tile)(ROWS, terms, a, b, c, pitch, add, ahead, patches, pieces, step, quartered)
    if (ROWS % 4 == 0 && patches && patches->quarters && patches->plan->pieces <= 2) {
        if (patches->plan->pieces == 1)
            PASSING(1, 1, 1);
        else
            PASSING(2, 1, 1);
        return;
    }
    if (patches)
        switch (8 * (int) patches->plan->g.sW + (patches->plan->pieces < 8 ? patches->plan->pieces : 0)) {
            case 9: PASSING(1, 1, 0); return;
            case 10: PASSING(2, 1, 0); return;
            case 11: PASSING(3, 1, 0); return;
            case 12: PASSING(4, 1, 0); return;
            case 17: PASSING(1, 2, 0); return;
            case 18: PASSING(2, 2, 0); return;
        }
#undef PASSING
#define CASE(n) case n: NAME(tile)(n < ROWS ? n : ROWS, terms, a, b, c, pitch, add, ahead, 0, 0, 0, 0); break;
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

/* Whether all values of a (rows, depth) are finite; from row to row it is PITCH. */
TARGET static int NAME(finite)(const REAL *a, ptrdiff_t rows, ptrdiff_t depth)
{
    REAL lanes[LANES], sum = 0;
    VECTOR nothing = {0};
    for (ptrdiff_t i = 0; i < rows; i++, a += PITCH) {
        ptrdiff_t k = 0;
        for (; k + LANES <= depth; k += LANES) {
            const VECTOR some = *(const UNALIGNED *) (a + k);
            nothing += some - some;
        }
        for (; k < depth; k++)
            sum += a[k] - a[k];
    }
    *(UNALIGNED *) lanes = nothing;
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum == 0;
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
