/* The micro-kernel: a micro-tile of MR x NR sums in registers, and what looks at packed operands. See kernels.h.

   A chain is summed in the order of its terms, from 0, and added to what c holds: with macro_kernel.pyx this is the
   definition of every sum. It takes 2 MR accumulators, two vectors of rhs, and one value of lhs in all lanes. */

/* One term of rows [first, last). */
INLINE TARGET void NAME(term)(VECTOR sum[MR][2], const REAL *lhs, VECTOR left, VECTOR right, const int first,
                              const int last)
{
    UNROLL
    for (int i = first; i < last; i++) {
        const VECTOR factor = BROADCAST(lhs[i * LHS_PITCH]);
        sum[i][0] = FMA(factor, left, sum[i][0]);
        sum[i][1] = FMA(factor, right, sum[i][1]);
    }
}

/* Where rhs lies, in place of a number of segments: packed, or at offsets. */
#ifndef PACKED
#define PACKED 0
#define AT_OFFSETS (-1)
#endif

/* Term k of all rows, of an rhs that is packed or at offsets. */
INLINE TARGET void NAME(term_at)(VECTOR sum[MR][2], const struct micro_tile *tile, const REAL *lhs, const REAL *rhs,
                                 ptrdiff_t k, const int rows, const int segments)
{
    const REAL *const left = segments == AT_OFFSETS ? rhs + tile->offsets[k] : rhs + k * NR;
    const REAL *const right = left + (segments == AT_OFFSETS ? tile->right : LANES);
    NAME(term)(sum, lhs + k, *(const UNALIGNED *) left, *(const UNALIGNED *) right, 0, rows);
}

/* The micro-kernel for `rows` rows; `segments` of each vector are gathered if packing is fused into it. */
INLINE TARGET void NAME(sum)(const struct micro_tile *tile, const int rows, const int segments, const int step,
                             const int quartered)
{
    const struct fused_pack *fused = tile->fused;
    const int gathers = segments > 0;
    const struct gather_plan *plan = gathers ? fused->plan : 0;
    const ptrdiff_t taps = gathers ? plan->g.kT * plan->g.kH * plan->g.kW : 0;
    const ptrdiff_t volume = gathers ? plan->g.T * plan->g.H * plan->g.W : 0;
    const ptrdiff_t entries = gathers ? plan->vectors * segments : 0;
    const struct terms *terms = tile->terms;
    const REAL *lhs = tile->lhs, *x = 0;
    const int stores = gathers && !quartered && fused->stores;
    REAL *rhs = tile->rhs, *c = tile->c;
    const ptrdiff_t pitch = tile->pitch, stop = terms->stop;
    const ptrdiff_t right_sums = segments == AT_OFFSETS ? tile->right_sums : LANES;
    /* Fused packing needs the registers: it takes a line with every term, throttled or not. */
    const ptrdiff_t step_bytes = gathers ? CACHE_LINE : tile->prefetch.step;
    const ptrdiff_t run_bytes = tile->prefetch.count * tile->prefetch.step, stride = tile->prefetch.stride;
    const ptrdiff_t to_next_run = stride - run_bytes;
    const char *next = tile->prefetch.at, *run_end = next + run_bytes;
    ptrdiff_t tap = 0, entry = 0;
    static const REAL zeros[LANES];
    VECTOR sum[MR][2];
    const REAL *row = c;
    UNROLL
    for (int i = 0; i < rows; i++, row += pitch) {
        COMPUTED_HERE(row);
        PREFETCH(row);
        PREFETCH(row + NR - 1);
        sum[i][0] = sum[i][1] = (VECTOR) {0};
    }
#define PREFETCH_NEXT(lines) \
    if (gathers || next) { \
        UNROLL \
        for (int line_ = 0; line_ < lines; line_++) \
            PREFETCH(next + line_ * step_bytes); \
        next += lines * step_bytes; \
        const int run_ended_ = next >= run_end; \
        next = run_ended_ ? run_end + to_next_run : next; \
        run_end = run_ended_ ? run_end + stride : run_end; \
    }
    for (ptrdiff_t k = terms->start, run = terms->first_run; k < stop; k += terms->gap, run = terms->run) {
        const ptrdiff_t end = run < stop - k ? k + run : stop;
        if (!gathers) {
            for (; k + UNROLLED <= end; k += UNROLLED) {
                PREFETCH_NEXT((UNROLLED + PREFETCH_TERMS - 1) / PREFETCH_TERMS)
                UNROLL
                for (int i = 0; i < UNROLLED; i++)
                    NAME(term_at)(sum, tile, lhs, rhs, k + i, rows, segments);
            }
            for (; k < end; k++)
                NAME(term_at)(sum, tile, lhs, rhs, k, rows, segments);
            continue;
        }
        tap = (fused->row + k) % taps;
        entry = tap * entries + fused->vector * segments;
        x = (const REAL *) fused->x + (fused->row + k) / taps * volume;
        for (; k < end; k++) {
            if (quartered || !BIT_MASKS)
                FORGET(); /* too many pointers: one spilled to a vector register waits behind multiply-adds */
            const unsigned quarters = quartered ? fused->quarters[tap] : 0;
            PREFETCH_NEXT(1)
            const VECTOR left = NAME(column)(x, plan, entry, segments, step, step, 0, 0);
            const VECTOR right = NAME(column)(x, plan, entry + segments, segments, step, step, 0, 0);
            if (stores) {
                *(UNALIGNED *) (rhs + k * NR) = left;
                *(UNALIGNED *) (rhs + k * NR + LANES) = right;
            }
            entry += entries;
            if (++tap == taps) {
                tap = 0;
                entry -= taps * entries;
                x += volume;
            }
#define TERM(first, last) NAME(term)(sum, lhs + k, left, right, first, last)
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
#undef PREFETCH_NEXT
    /* A first chain is added to 0: a sum of nothing but underflow is 0 then, not -0. */
    const REAL *before = tile->accumulate ? c : zeros;
    const ptrdiff_t before_pitch = tile->accumulate ? pitch : 0, before_right_sums = tile->accumulate ? right_sums : 0;
    UNROLL
    for (int i = 0; i < rows; i++, c += pitch, before += before_pitch) {
        if (segments != PACKED && !quartered && i >= tile->rows)
            break;
        COMPUTED_HERE(c);
        COMPUTED_HERE(before);
        const VECTOR left = *(const UNALIGNED *) before + sum[i][0];
        const VECTOR right = *(const UNALIGNED *) (before + before_right_sums) + sum[i][1];
        *(UNALIGNED *) c = left;
        *(UNALIGNED *) (c + right_sums) = right;
    }
}

/* Rows of four subkernels, packing fused into all of them. */
TARGET static void NAME(quartered)(const struct micro_tile *tile)
{
    if (tile->fused->plan->segments == 1)
        NAME(sum)(tile, MR, 1, 1, 1);
    else
        NAME(sum)(tile, MR, 2, 1, 1);
}

/* Packing fused into 4, 8 or MR rows, for plans that im2col3d.packs_fused: the compiler makes a loop of each. */
TARGET static void NAME(fused)(const struct micro_tile *tile)
{
    const struct gather_plan *plan = tile->fused->plan;
#define FUSED(rows) \
    switch (8 * (int) plan->g.sW + (plan->segments < 8 ? plan->segments : 0)) { \
        case 9: NAME(sum)(tile, rows, 1, 1, 0); return; \
        case 10: NAME(sum)(tile, rows, 2, 1, 0); return; \
        case 11: NAME(sum)(tile, rows, 3, 1, 0); return; \
        case 12: NAME(sum)(tile, rows, 4, 1, 0); return; \
        case 17: NAME(sum)(tile, rows, 1, 2, 0); return; \
        case 18: NAME(sum)(tile, rows, 2, 2, 0); return; \
    }
    if (tile->rows <= 4) {
        FUSED(4)
#if MR > 8
    } else if (tile->rows <= 8) {
        FUSED(8)
#endif
    } else {
        FUSED(MR)
    }
#undef FUSED
}

/* 4, 8 or MR rows, times what lies at offsets. */
TARGET static void NAME(at_offsets)(const struct micro_tile *tile)
{
    if (tile->rows <= 4)
        NAME(sum)(tile, 4, AT_OFFSETS, 0, 0);
#if MR > 8
    else if (tile->rows <= 8)
        NAME(sum)(tile, 8, AT_OFFSETS, 0, 0);
#endif
    else
        NAME(sum)(tile, MR, AT_OFFSETS, 0, 0);
}

/* For 1 to MR rows. */
TARGET static void NAME(micro_kernel)(const struct micro_tile *tile)
{
    if (tile->offsets) {
        NAME(at_offsets)(tile);
        return;
    }
    if (MR % 4 == 0 && tile->fused && tile->fused->quarters && tile->fused->plan->segments <= 2) {
        NAME(quartered)(tile);
        return;
    }
    if (tile->fused) {
        NAME(fused)(tile);
        return;
    }
#define ROWS(n) case n: NAME(sum)(tile, n < MR ? n : MR, PACKED, 0, 0); break;
    switch (tile->rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4)
#if MR > 4
        ROWS(5) ROWS(6)
#endif
#if MR > 6
        ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#endif
    }
#undef ROWS
}

/* Where spans are added: dw (channels, sections, run) = or += a span's sums (sections, channels, run). What lies
   `prefetch_distance` behind is prefetched. */
TARGET static void NAME(add_span)(const void *sums, void *dw, ptrdiff_t channels, ptrdiff_t sections, ptrdiff_t run,
                                  int accumulate, ptrdiff_t prefetch_distance)
{
    REAL *to = dw;
    for (ptrdiff_t channel = 0; channel < channels; channel++)
        for (ptrdiff_t section = 0; section < sections; section++, to += run) {
            const REAL *from = (const REAL *) sums + (section * channels + channel) * run;
            for (ptrdiff_t i = 0; i < run; i += LANES) {
                const unsigned lanes = LANE_RANGE(0, run - i < LANES ? run - i : LANES);
                VECTOR sum = MASKED_LOAD((VECTOR) {0}, MASK(lanes), from + i);
                if (accumulate)
                    sum = MASKED_LOAD((VECTOR) {0}, MASK(lanes), to + i) + sum;
                PREFETCH(to + i + prefetch_distance);
                MASKED_STORE(to + i, MASK(lanes), sum);
            }
        }
}

/* Whether all values of lhs (rows, depth), LHS_PITCH apart, are finite. */
TARGET static int NAME(all_finite)(const void *lhs, ptrdiff_t rows, ptrdiff_t depth)
{
    const REAL *row = lhs;
    REAL lanes[LANES], sum = 0;
    VECTOR zeros = {0}, more[3] = {{0}, {0}, {0}}; /* four, so that additions need not wait for each other */
    for (ptrdiff_t i = 0; i < rows; i++, row += LHS_PITCH) {
        ptrdiff_t k = 0;
        for (; k + 4 * LANES <= depth; k += 4 * LANES) {
            const UNALIGNED *some = (const UNALIGNED *) (row + k);
            zeros += some[0] - some[0];
            UNROLL
            for (int j = 0; j < 3; j++)
                more[j] += some[j + 1] - some[j + 1];
        }
        for (; k + LANES <= depth; k += LANES) {
            const VECTOR some = *(const UNALIGNED *) (row + k);
            zeros += some - some;
        }
        for (; k < depth; k++)
            sum += row[k] - row[k];
    }
    *(UNALIGNED *) lanes = (zeros + more[0]) + (more[1] + more[2]);
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum == 0;
}

/* n rounds of SPIN_CHAINS vectors of multiply-adds that wait for nothing but their own chain: the fastest there is.
   The sum of the chains is returned, and no two begin alike, so that none can be left out. */
TARGET static double NAME(spin)(ptrdiff_t n)
{
    const VECTOR half = BROADCAST((REAL) 0.5);
    VECTOR chain[SPIN_CHAINS];
    REAL lanes[LANES], sum = 0;
    UNROLL
    for (int i = 0; i < SPIN_CHAINS; i++)
        chain[i] = (VECTOR) BROADCAST((REAL) i);
    for (ptrdiff_t k = 0; k < n; k++) {
        UNROLL
        for (int i = 0; i < SPIN_CHAINS; i++)
            chain[i] = FMA(chain[i], half, half);
    }
    for (int i = 0; i < SPIN_CHAINS; i++) {
        *(UNALIGNED *) lanes = chain[i];
        for (int lane = 0; lane < LANES; lane++)
            sum += lanes[lane];
    }
    return (double) sum;
}
