/* One version of the gather of patches: included with what micro_kernel_template.h is included with, and where
   the processor has such, KEEP, HAS, MASK_OF, MERGE, EVEN and OR.

   The patch matrix of a 3D convolution has one row for each (channel, tap) and one column for each output
   position, both in C order; what a tap reads in the padding is zero. Columns are made a vector at a time. A
   vector is cut into pieces where a line of output positions ends; the lanes of a piece read side by side (or
   `sW` apart) in one line of the input, and lanes that would read outside are masked. Which lanes, and where
   from, is planned once for all channels. */

/* How a plan keeps some lanes: where they begin, and end. */
#ifndef KEEP
#define KEEP(first, last) ((first) | (last) << 8)
#define HAS(kept, lane) ((lane) >= ((kept) & 255) && (lane) < (kept) >> 8)
#endif

#ifndef MERGE
#define MASK_OF(kept) (kept)
#define MERGE NAME(merge)
#define PUT NAME(put)
INLINE VECTOR NAME(merge)(VECTOR found, unsigned kept, const REAL *p)
{
    REAL lanes[LANES];
    *(UNALIGNED *) lanes = found;
    for (unsigned lane = kept & 255; lane < kept >> 8; lane++)
        lanes[lane] = p[lane];
    return *(UNALIGNED *) lanes;
}

INLINE void NAME(put)(REAL *p, unsigned kept, VECTOR v)
{
    REAL lanes[LANES];
    *(UNALIGNED *) lanes = v;
    for (unsigned lane = kept & 255; lane < kept >> 8; lane++)
        p[lane] = lanes[lane];
}
#endif

/* The stride along W if vectors can be read so, or 0: value by value. */
#ifdef EVEN
#define STEP(stride) ((stride) <= 2 ? (int) (stride) : 0)
#else
#define STEP(stride) ((int) ((stride) == 1))
#endif

/* Plan what each piece reads at one tap, of the pieces [begin, end) of a plan, in the entries from `to` on. */
INLINE TARGET void NAME(plan_tap)(struct plan *plan, ptrdiff_t to, ptrdiff_t begin, ptrdiff_t end,
                                  ptrdiff_t kt, ptrdiff_t kh, ptrdiff_t kw, const int step)
{
    const struct geometry *g = &plan->g;
    const ptrdiff_t *t = plan->t + begin, *h = plan->h + begin, *w = plan->w + begin;
    const ptrdiff_t *first = plan->first + begin, *last = plan->last + begin;
    const ptrdiff_t *base = plan->base + begin;
    ptrdiff_t *from = plan->from + to;
    unsigned short *mask = plan->mask + to, *high = plan->high + to;
    const ptrdiff_t T = g->T, H = g->H, W = g->W, stride = g->sW;
    const ptrdiff_t frame = kt * g->dT, line = kh * g->dH, column = kw * g->dW;
    const ptrdiff_t shift = (frame * H + line) * W + column;
    for (ptrdiff_t i = 0; i < end - begin; i++) {
        const ptrdiff_t at = w[i] + column;
        const ptrdiff_t low = step == 1 ? -at : step == 2 ? (1 - at) >> 1 : (stride - 1 - at) / stride;
        const ptrdiff_t most = step == 1 ? W - at : step == 2 ? (W - at + 1) >> 1 : (W - at + stride - 1) / stride;
        ptrdiff_t begin_lane = low > first[i] ? low : first[i], end_lane = most < last[i] ? most : last[i];
        const int some = (t[i] + frame >= 0) & (t[i] + frame < T) & (h[i] + line >= 0) & (h[i] + line < H)
                         & (begin_lane < end_lane);
        begin_lane = some ? begin_lane : 0;
        end_lane = some ? end_lane : 0;
        from[i] = some ? base[i] + shift : 0;
        if (step == 2) {
            const ptrdiff_t half = LANES - 1;
            begin_lane = 2 * begin_lane;
            end_lane = some ? 2 * end_lane - 1 : begin_lane;
            const ptrdiff_t left = begin_lane > half ? begin_lane - half : 0, right = end_lane > half ? end_lane - half : 0;
            high[i] = (unsigned short) KEEP(left, right);
            begin_lane = begin_lane < LANES ? begin_lane : LANES;
            end_lane = end_lane < LANES ? end_lane : LANES;
        }
        mask[i] = (unsigned short) KEEP(begin_lane, end_lane);
    }
}

/* Plan so many taps from `tap` on, for vectors of columns [v, v + vectors) of a plan. */
INLINE TARGET void NAME(plan_taps)(struct plan *plan, ptrdiff_t tap, ptrdiff_t taps, ptrdiff_t v,
                                   ptrdiff_t vectors, const int step)
{
    const struct geometry *g = &plan->g;
    const ptrdiff_t begin = v * plan->pieces, end = (v + vectors) * plan->pieces;
    ptrdiff_t kw = tap % g->kW, kh = tap / g->kW % g->kH, kt = tap / (g->kW * g->kH);
    for (ptrdiff_t i = 0; i < taps; i++) {
        NAME(plan_tap)(plan, i * plan->vectors * plan->pieces + begin, begin, end, kt, kh, kw, step);
        if (++kw == g->kW) {
            kw = 0;
            if (++kh == g->kH) {
                kh = 0;
                if (++kt == g->kT)
                    kt = 0;
            }
        }
    }
}

INLINE TARGET void NAME(plan_some)(struct plan *plan, ptrdiff_t tap, ptrdiff_t taps, ptrdiff_t v,
                                   ptrdiff_t vectors)
{
    const int step = STEP(plan->g.sW);
    switch (step) {
        case 1: NAME(plan_taps)(plan, tap, taps, v, vectors, 1); break;
        case 2: NAME(plan_taps)(plan, tap, taps, v, vectors, 2); break;
        default: NAME(plan_taps)(plan, tap, taps, v, vectors, 0);
    }
}

/* Plan the gather of columns [start, start + count), completed by zeros to so many whole `vectors`. */
TARGET static void NAME(plan)(struct plan *plan, const struct geometry *g, ptrdiff_t start, ptrdiff_t count,
                              ptrdiff_t vectors)
{
    const ptrdiff_t taps = g->kT * g->kH * g->kW;
    plan->g = *g;
    plan->vectors = vectors;
    plan->pieces = 1;
    /* A channel that follows soon; of more taps, one reads what another has read. */
    plan->later = taps == 1 ? 4 * g->T * g->H * g->W : 0;
    for (ptrdiff_t v = 0; v * LANES < count; v++) {
        const ptrdiff_t columns = count - v * LANES < LANES ? count - v * LANES : LANES;
        const int pieces = (int) (((start + v * LANES) % g->oW + columns - 1) / g->oW + 1);
        plan->pieces = pieces > plan->pieces ? pieces : plan->pieces;
    }
    ptrdiff_t ow = start % g->oW, oh = start / g->oW % g->oH, ot = start / (g->oW * g->oH);
    for (ptrdiff_t v = 0; v < vectors; v++) {
        ptrdiff_t columns = count - v * LANES < LANES ? count - v * LANES : LANES, lane = 0;
        for (ptrdiff_t i = v * plan->pieces; i < (v + 1) * plan->pieces; i++) {
            const ptrdiff_t left = g->oW - ow;
            ptrdiff_t taken = columns - lane < left ? columns - lane : left;
            taken = taken < 0 ? 0 : taken;
            plan->t[i] = ot * g->sT - g->pT;
            plan->h[i] = oh * g->sH - g->pH;
            plan->w[i] = (ow - lane) * g->sW - g->pW;
            plan->base[i] = (plan->t[i] * g->H + plan->h[i]) * g->W + plan->w[i];
            plan->first[i] = lane;
            plan->last[i] = lane + taken;
            lane += taken;
            if ((ow += taken) == g->oW) {
                ow = 0;
                if (++oh == g->oH) {
                    oh = 0;
                    ot++;
                }
            }
        }
    }
    if (taps <= DEPTH)
        NAME(plan_some)(plan, 0, taps, 0, vectors);
}

/* One vector of columns, of so many pieces from entry `at` of a plan on. What is read `later` comes nearer; pieces
   after the first that have no lane may be skipped. */
INLINE TARGET VECTOR NAME(column)(const REAL *x, const struct plan *plan, ptrdiff_t at, int pieces, const int step,
                                  ptrdiff_t stride, ptrdiff_t later, const int skip)
{
    const ptrdiff_t *from = plan->from + at;
    const unsigned short *mask = plan->mask + at;
    VECTOR found = {0};
    UNROLL
    for (int i = 0; i < pieces; i++) {
        const REAL *p = x + from[i];
        if (skip && i && !(mask[i] | (step == 2 ? plan->high[at + i] : 0)))
            continue;
        if (later) {
            PREFETCH(p + later);
            if (step == 2)
                PREFETCH(p + later + LANES);
        }
        if (step == 1)
            found = MERGE(found, MASK_OF(mask[i]), p);
#ifdef EVEN
        else if (step == 2)
            found = OR(found, EVEN(MERGE((VECTOR) {0}, MASK_OF(mask[i]), p),
                                   MERGE((VECTOR) {0}, MASK_OF(plan->high[at + i]), p + LANES - 1)));
#endif
        else {
            REAL lanes[LANES];
            *(UNALIGNED *) lanes = found;
            for (int lane = 0; lane < LANES; lane++)
                if (HAS(mask[i], lane))
                    lanes[lane] = p[lane * stride];
            found = *(UNALIGNED *) lanes;
        }
    }
    return found;
}

/* Rows of vectors [v, v + vectors), from tap `tap` of [first, last) of the plan on; `left` are of the first channel. */
INLINE TARGET void NAME(walk)(const REAL *x, REAL *tile, const struct plan *plan, ptrdiff_t first, ptrdiff_t last,
                              ptrdiff_t tap, ptrdiff_t left, ptrdiff_t depth, ptrdiff_t v, ptrdiff_t vectors,
                              ptrdiff_t pitch, ptrdiff_t panel, const int pieces, const int step)
{
    const ptrdiff_t volume = plan->g.T * plan->g.H * plan->g.W, stride = plan->g.sW;
    const ptrdiff_t line = plan->vectors * pieces, later = plan->later;
    for (ptrdiff_t k = 0; k < depth; k++) {
        REAL *to = tile + k * pitch;
        ptrdiff_t at = tap * line + v * pieces;
        for (ptrdiff_t i = 0; i < vectors; i += 2, to += panel, at += 2 * pieces) {
            *(UNALIGNED *) to = NAME(column)(x, plan, at, pieces, step, stride, later, 1);
            if (i + 1 < vectors)
                *(UNALIGNED *) (to + LANES) = NAME(column)(x, plan, at + pieces, pieces, step, stride, later, 1);
        }
        if (++tap == last)
            tap = first;
        if (--left == 0) {
            left = last - first;
            x += volume;
        }
    }
}

/* tile <- rows [row, row_stop) of the patches of x (C, T, H, W), of each channel those of taps [low, high), in
   vectors of columns [v, v + vectors) of a plan; all taps if there are more than DEPTH.

   From row to row of the tile it is `pitch` values, from one pair of vectors to the next `panel`. */
TARGET static void NAME(gather)(const REAL *x, REAL *tile, struct plan *plan, ptrdiff_t low, ptrdiff_t high,
                                ptrdiff_t row, ptrdiff_t row_stop, ptrdiff_t v, ptrdiff_t vectors, ptrdiff_t pitch,
                                ptrdiff_t panel)
{
    const struct geometry *g = &plan->g;
    const ptrdiff_t volume = g->T * g->H * g->W, taps = high - low;
    const int pieces = plan->pieces, whole = g->kT * g->kH * g->kW <= DEPTH;
    for (ptrdiff_t depth; row < row_stop; row += depth, tile += depth * pitch) {
        const ptrdiff_t left = taps - row % taps;
        depth = whole || row_stop - row < DEPTH ? row_stop - row : DEPTH;
        if (!whole)
            NAME(plan_some)(plan, row % taps, depth, v, vectors);
#define WALK(pieces, step) \
    NAME(walk)(x + row / taps * volume, tile, plan, whole ? low : 0, whole ? high : depth, whole ? high - left : 0, \
               left, depth, v, vectors, pitch, panel, pieces, step)
        switch (4 * STEP(g->sW) + (pieces < 4 ? pieces : 0)) {
            case 5: WALK(1, 1); break;
            case 6: WALK(2, 1); break;
            case 7: WALK(3, 1); break;
            case 4: WALK(pieces, 1); break;
            case 9: WALK(1, 2); break;
            case 8: case 10: case 11: WALK(pieces, 2); break;
            default: WALK(pieces, 0);
        }
#undef WALK
    }
}
