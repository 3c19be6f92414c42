/* The gather of patches into a packed operand, a vector of columns at a time, as im2col3d.pyx has planned it.
   See kernels.h.

   Optional: LANE_RANGE, HAS_LANE, MASK, MASKED_LOAD, MASKED_STORE, EVEN_LANES, OR. */

/* The lanes [first, last), as a plan keeps them. */
#ifndef LANE_RANGE
#define LANE_RANGE(first, last) ((first) | (last) << 8)
#define HAS_LANE(lanes, lane) ((lane) >= ((lanes) & 255) && (lane) < (lanes) >> 8)
#endif

#define BIT_MASKS (LANE_RANGE(0, 2) == 3)

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
    if (lanes == LANE_RANGE(0, LANES))
        return *(const UNALIGNED *) p;
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

#ifdef EVEN_LANES
#define MAX_VECTOR_STRIDE 2 /* the stride along W up to which vectors are loaded; beyond it, value by value */
#else
#define MAX_VECTOR_STRIDE 1
#endif

/* One vector of columns: the segments from entry `at` of a plan on. What lies `distance` further is prefetched;
   segments after the first that have no lane may be skipped. They are where a mask takes more than a register, and no
   mask is made where all lanes are of one segment: of the same columns, the same taps are. */
INLINE TARGET VECTOR NAME(column)(const REAL *x, const struct gather_plan *plan, ptrdiff_t at, int segments,
                                  const int step, ptrdiff_t stride, ptrdiff_t distance, const int skip)
{
    const ptrdiff_t *source = plan->source + at;
    const unsigned short *mask = plan->mask + at;
    VECTOR found = {0};
    if (!BIT_MASKS && step == 1 && mask[0] == LANE_RANGE(0, LANES)) {
        if (distance)
            PREFETCH(x + source[0] + distance);
        return *(const UNALIGNED *) (x + source[0]);
    }
    UNROLL
    for (int i = 0; i < segments; i++) {
        const REAL *p = x + source[i];
        if ((skip || !BIT_MASKS) && i && !(mask[i] | (step == 2 ? plan->high[at + i] : 0)))
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

INLINE TARGET void NAME(gather_rows)(const REAL *x, const struct gather_plan *plan, const struct gather_region *region,
                                     REAL *to, const int segments, const int step)
{
    const ptrdiff_t volume = plan->g.T * plan->g.H * plan->g.W, stride = plan->g.sW;
    const ptrdiff_t line = plan->vectors * segments, distance = plan->prefetch_distance;
    const ptrdiff_t v = region->column / LANES, vectors = region->columns / LANES, panel = region->panel;
    ptrdiff_t tap = region->tap;
    for (ptrdiff_t k = 0; k < region->rows; k++, to += region->pitch) {
        REAL *row = to;
        ptrdiff_t at = tap * line + v * segments;
        for (ptrdiff_t i = 0; i < vectors; i += 2, row += panel, at += 2 * segments) {
            *(UNALIGNED *) row = NAME(column)(x, plan, at, segments, step, stride, distance, 1);
            if (i + 1 < vectors)
                *(UNALIGNED *) (row + LANES)
                    = NAME(column)(x, plan, at + segments, segments, step, stride, distance, 1);
        }
        if (++tap == region->stop_tap) {
            tap = region->first_tap;
            x += volume;
        }
    }
}

/* to <- a region of the patch matrix of x, which begins with the region's first channel. */
TARGET static void NAME(gather)(const void *x, const struct gather_plan *plan, const struct gather_region *region,
                                void *to)
{
    const int segments = plan->segments;
    const int step = plan->g.sW <= MAX_VECTOR_STRIDE ? (int) plan->g.sW : 0;
#define GATHER(segments, step) NAME(gather_rows)(x, plan, region, to, segments, step)
    switch (4 * step + (segments < 4 ? segments : 0)) {
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
