/* The gather of patches into a packed operand: im2col, a vector of columns at a time. See kernels.h.

   The patch matrix of a 3D convolution has one row for each (channel, tap) and one column for each output position,
   both in C order; what a tap reads in the padding is zero. A vector of columns is cut into segments where a line of
   output positions ends. The lanes of a segment read neighbours (or every `sW`-th value) of one line of the input, and
   lanes that would read outside are masked. Which lanes, and where from, is planned once for all channels.

   Optional: LANE_RANGE, HAS_LANE, MASK, MASKED_LOAD, MASKED_STORE, EVEN_LANES, OR. */

/* The lanes [first, last), as a plan keeps them. */
#ifndef LANE_RANGE
#define LANE_RANGE(first, last) ((first) | (last) << 8)
#define HAS_LANE(lanes, lane) ((lane) >= ((lanes) & 255) && (lane) < (lanes) >> 8)
#endif

#ifdef MASKED_LOAD
#define MASKED_LOADS 1
#else
#define MASKED_LOADS 0
#define MASK(lanes) (lanes)
#define MASKED_LOAD NAME(masked_load)
#define MASKED_STORE NAME(masked_store)
INLINE VECTOR NAME(masked_load)(VECTOR found, unsigned lanes, const REAL *p)
{
    REAL values[LANES];
    *(UNALIGNED *) values = found;
    for (unsigned lane = lanes & 255; lane < lanes >> 8; lane++)
        values[lane] = p[lane];
    return *(UNALIGNED *) values;
}

INLINE void NAME(masked_store)(REAL *p, unsigned lanes, VECTOR v)
{
    REAL values[LANES];
    *(UNALIGNED *) values = v;
    for (unsigned lane = lanes & 255; lane < lanes >> 8; lane++)
        p[lane] = values[lane];
}
#endif

/* The stride along W if vectors are loaded, or 0: value by value. */
#ifdef EVEN_LANES
#define VECTOR_STRIDE(stride) ((stride) <= 2 ? (int) (stride) : 0)
#else
#define VECTOR_STRIDE(stride) ((int) ((stride) == 1))
#endif

/* Plan what the segments [begin, end) of a plan read at one tap: its entries from `to` on. */
INLINE TARGET void NAME(plan_tap)(struct gather_plan *plan, ptrdiff_t to, ptrdiff_t begin, ptrdiff_t end,
                                  ptrdiff_t kt, ptrdiff_t kh, ptrdiff_t kw, const int step)
{
    const struct geometry *g = &plan->g;
    const ptrdiff_t *t = plan->t + begin, *h = plan->h + begin, *w = plan->w + begin;
    const ptrdiff_t *first = plan->first + begin, *last = plan->last + begin;
    const ptrdiff_t *base = plan->base + begin;
    ptrdiff_t *source = plan->source + to;
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
        source[i] = some ? base[i] + shift : 0;
        if (step == 2) {
            const ptrdiff_t half = LANES - 1;
            begin_lane = 2 * begin_lane;
            end_lane = some ? 2 * end_lane - 1 : begin_lane;
            const ptrdiff_t left = begin_lane > half ? begin_lane - half : 0;
            const ptrdiff_t right = end_lane > half ? end_lane - half : 0;
            high[i] = (unsigned short) LANE_RANGE(left, right);
            begin_lane = begin_lane < LANES ? begin_lane : LANES;
            end_lane = end_lane < LANES ? end_lane : LANES;
        }
        mask[i] = (unsigned short) LANE_RANGE(begin_lane, end_lane);
    }
}

/* Plan so many taps from `tap` on, for vectors [v, v + vectors) of columns. */
INLINE TARGET void NAME(plan_taps)(struct gather_plan *plan, ptrdiff_t tap, ptrdiff_t taps, ptrdiff_t v,
                                   ptrdiff_t vectors, const int step)
{
    const struct geometry *g = &plan->g;
    const ptrdiff_t begin = v * plan->segments, end = (v + vectors) * plan->segments;
    ptrdiff_t kw = tap % g->kW, kh = tap / g->kW % g->kH, kt = tap / (g->kW * g->kH);
    for (ptrdiff_t i = 0; i < taps; i++) {
        NAME(plan_tap)(plan, i * plan->vectors * plan->segments + begin, begin, end, kt, kh, kw, step);
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

INLINE TARGET void NAME(plan_rows)(struct gather_plan *plan, ptrdiff_t tap, ptrdiff_t taps, ptrdiff_t v,
                                   ptrdiff_t vectors)
{
    const int step = VECTOR_STRIDE(plan->g.sW);
    switch (step) {
        case 1: NAME(plan_taps)(plan, tap, taps, v, vectors, 1); break;
        case 2: NAME(plan_taps)(plan, tap, taps, v, vectors, 2); break;
        default: NAME(plan_taps)(plan, tap, taps, v, vectors, 0);
    }
}

/* Plan the gather of columns [start, start + count), completed by zeros to so many `columns`, whole vectors. */
TARGET static void NAME(plan_gather)(struct gather_plan *plan, const struct geometry *g, ptrdiff_t start,
                                     ptrdiff_t count, ptrdiff_t columns)
{
    const ptrdiff_t taps = g->kT * g->kH * g->kW, vectors = columns / LANES;
    plan->g = *g;
    plan->vectors = vectors;
    plan->segments = 1;
    /* Kernels of one tap prefetch a later channel; of more taps, one reads what another has read. */
    plan->prefetch_distance = taps == 1 ? 4 * g->T * g->H * g->W : 0;
    for (ptrdiff_t v = 0; v * LANES < count; v++) {
        const ptrdiff_t lanes = count - v * LANES < LANES ? count - v * LANES : LANES;
        const int segments = (int) (((start + v * LANES) % g->oW + lanes - 1) / g->oW + 1);
        plan->segments = segments > plan->segments ? segments : plan->segments;
    }
    ptrdiff_t ow = start % g->oW, oh = start / g->oW % g->oH, ot = start / (g->oW * g->oH);
    for (ptrdiff_t v = 0; v < vectors; v++) {
        ptrdiff_t lanes = count - v * LANES < LANES ? count - v * LANES : LANES, lane = 0;
        for (ptrdiff_t i = v * plan->segments; i < (v + 1) * plan->segments; i++) {
            const ptrdiff_t left = g->oW - ow;
            ptrdiff_t taken = lanes - lane < left ? lanes - lane : left;
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
    if (taps <= KC)
        NAME(plan_rows)(plan, 0, taps, 0, vectors);
}

/* One vector of columns, of so many segments from entry `at` of a plan on. What lies `distance` further is prefetched;
   segments after the first that have no lane may be skipped. */
INLINE TARGET VECTOR NAME(column)(const REAL *x, const struct gather_plan *plan, ptrdiff_t at, int segments,
                                  const int step, ptrdiff_t stride, ptrdiff_t distance, const int skip)
{
    const ptrdiff_t *source = plan->source + at;
    const unsigned short *mask = plan->mask + at;
    VECTOR found = {0};
    UNROLL
    for (int i = 0; i < segments; i++) {
        const REAL *p = x + source[i];
        if (skip && i && !(mask[i] | (step == 2 ? plan->high[at + i] : 0)))
            continue;
        if (distance) {
            PREFETCH(p + distance);
            if (step == 2)
                PREFETCH(p + distance + LANES);
        }
        if (step == 1)
            found = MASKED_LOAD(found, MASK(mask[i]), p);
#ifdef EVEN_LANES
        else if (step == 2)
            found = OR(found, EVEN_LANES(MASKED_LOAD((VECTOR) {0}, MASK(mask[i]), p),
                                         MASKED_LOAD((VECTOR) {0}, MASK(plan->high[at + i]), p + LANES - 1)));
#endif
        else {
            REAL values[LANES];
            *(UNALIGNED *) values = found;
            for (int lane = 0; lane < LANES; lane++)
                if (HAS_LANE(mask[i], lane))
                    values[lane] = p[lane * stride];
            found = *(UNALIGNED *) values;
        }
    }
    return found;
}

/* `depth` rows of some vectors, from tap `tap` of [first, last) of the plan on; `left` are of the first channel. */
struct NAME(rows) {
    ptrdiff_t first, last, tap, left, depth, vector, vectors, pitch, panel;
};

INLINE TARGET void NAME(gather_rows)(const REAL *x, REAL *to, const struct gather_plan *plan,
                                     const struct NAME(rows) *rows, const int segments, const int step)
{
    const ptrdiff_t volume = plan->g.T * plan->g.H * plan->g.W, stride = plan->g.sW;
    const ptrdiff_t line = plan->vectors * segments, distance = plan->prefetch_distance;
    const ptrdiff_t vectors = rows->vectors, panel = rows->panel;
    ptrdiff_t tap = rows->tap, left = rows->left;
    for (ptrdiff_t k = 0; k < rows->depth; k++) {
        REAL *row = to + k * rows->pitch;
        ptrdiff_t at = tap * line + rows->vector * segments;
        for (ptrdiff_t i = 0; i < vectors; i += 2, row += panel, at += 2 * segments) {
            *(UNALIGNED *) row = NAME(column)(x, plan, at, segments, step, stride, distance, 1);
            if (i + 1 < vectors)
                *(UNALIGNED *) (row + LANES)
                    = NAME(column)(x, plan, at + segments, segments, step, stride, distance, 1);
        }
        if (++tap == rows->last)
            tap = rows->first;
        if (--left == 0) {
            left = rows->last - rows->first;
            x += volume;
        }
    }
}

/* to <- a region of the patch matrix of x (C, T, H, W); all taps of it if there are more than KC.

   From row to row it is `pitch` values, from one panel of two vectors to the next `panel`. */
TARGET static void NAME(gather)(const void *x_, struct gather_plan *plan, const struct gather_region *region, void *to_,
                                ptrdiff_t pitch, ptrdiff_t panel)
{
    const struct geometry *g = &plan->g;
    const ptrdiff_t low = region->first_tap, high = region->stop_tap, taps = high - low;
    const ptrdiff_t volume = g->T * g->H * g->W;
    const int segments = plan->segments, whole = g->kT * g->kH * g->kW <= KC;
    struct NAME(rows) rows = {0, 0, 0, 0, 0, region->column / LANES, region->columns / LANES, pitch, panel};
    REAL *to = to_;
    for (ptrdiff_t row = region->row; row < region->stop_row; row += rows.depth, to += rows.depth * pitch) {
        const REAL *x = (const REAL *) x_ + row / taps * volume;
        rows.left = taps - row % taps;
        rows.depth = whole || region->stop_row - row < KC ? region->stop_row - row : KC;
        rows.first = whole ? low : 0;
        rows.last = whole ? high : rows.depth;
        rows.tap = whole ? high - rows.left : 0;
        if (!whole)
            NAME(plan_rows)(plan, row % taps, rows.depth, rows.vector, rows.vectors);
#define GATHER(segments, step) NAME(gather_rows)(x, to, plan, &rows, segments, step)
        switch (4 * VECTOR_STRIDE(g->sW) + (segments < 4 ? segments : 0)) {
            case 5: GATHER(1, 1); break;
            case 6: GATHER(2, 1); break;
            case 7: GATHER(3, 1); break;
            case 4: GATHER(segments, 1); break;
            case 9: GATHER(1, 2); break;
            case 8: case 10: case 11: GATHER(segments, 2); break;
            default: GATHER(segments, 0);
        }
#undef GATHER
    }
}
