/* One version of the gather of patches: included with what micro_kernel_template.h is included with, and where
   the processor has such, MASK, MASK_OF, MERGE, EVEN and OR.

   The patch matrix of a 3D convolution has one row for each (channel, tap) and one column for each output
   position, both in C order; what a tap reads in the padding is zero. Columns are made a vector at a time. A
   vector is cut into pieces where a line of output positions ends; the lanes of a piece read side by side (or
   `sW` apart) in one line of the input, and lanes that would read outside are masked. Which lanes, and where
   from, is found once for a tap and serves all channels. */

#ifndef MERGE
#define MASK struct lanes
#define MASK_OF(first, last) ((struct lanes) {first, last})
#define MERGE NAME(merge)
INLINE VECTOR NAME(merge)(VECTOR found, struct lanes mask, const REAL *p)
{
    REAL lanes[LANES];
    *(UNALIGNED *) lanes = found;
    for (int lane = mask.first; lane < mask.last; lane++)
        lanes[lane] = p[lane];
    return *(UNALIGNED *) lanes;
}
#endif

/* to <- one vector of columns, made of some pieces, for each of so many channels; their rows are `pitch` apart. */
INLINE TARGET void NAME(column)(const REAL *x, ptrdiff_t volume, REAL *to, ptrdiff_t pitch, ptrdiff_t channels,
                                ptrdiff_t stride, int pieces, const int *first, const int *last,
                                const ptrdiff_t *offset)
{
    if (stride == 1 && pieces <= 2) {
        const MASK one = pieces > 0 ? MASK_OF(first[0], last[0]) : MASK_OF(0, 0);
        const MASK two = pieces > 1 ? MASK_OF(first[1], last[1]) : MASK_OF(0, 0);
        const REAL *left = x + (pieces > 0 ? offset[0] : 0), *right = x + (pieces > 1 ? offset[1] : 0);
        for (ptrdiff_t c = 0; c < channels; c++)
            *(UNALIGNED *) (to + c * pitch) = MERGE(MERGE((VECTOR) {0}, one, left + c * volume), two, right + c * volume);
        return;
    }
    for (ptrdiff_t c = 0; c < channels; c++)
        *(UNALIGNED *) (to + c * pitch) = (VECTOR) {0};
    for (int i = 0; i < pieces; i++) {
        const REAL *from = x + offset[i];
#ifdef EVEN
        if (stride == 2) {
            const int begin = 2 * first[i], end = last[i] > first[i] ? 2 * last[i] - 1 : begin, half = LANES - 1;
            const MASK low = MASK_OF(begin < LANES ? begin : LANES, end < LANES ? end : LANES);
            const MASK high = MASK_OF(begin > half ? begin - half : 0, end > half ? end - half : 0);
            for (ptrdiff_t c = 0; c < channels; c++) {
                const VECTOR found = EVEN(MERGE((VECTOR) {0}, low, from + c * volume),
                                          MERGE((VECTOR) {0}, high, from + c * volume + half));
                *(UNALIGNED *) (to + c * pitch) = OR(found, *(UNALIGNED *) (to + c * pitch));
            }
            continue;
        }
#endif
        for (ptrdiff_t c = 0; c < channels; c++)
            for (int lane = first[i]; lane < last[i]; lane++)
                to[c * pitch + lane] = from[c * volume + lane * stride];
    }
}

/* tile <- rows [row, row_stop), columns [start, start + count) of the patches of x (C, T, H, W), completed by
   zeros to so many whole `vectors`, GATHERED columns at most.

   From row to row of the tile it is `pitch` values, from one pair of vectors to the next `panel`. */
TARGET static void NAME(gather)(const REAL *x, REAL *tile, const struct geometry *g, ptrdiff_t row,
                                ptrdiff_t row_stop, ptrdiff_t start, ptrdiff_t count, ptrdiff_t vectors,
                                ptrdiff_t pitch, ptrdiff_t panel)
{
    ptrdiff_t t[2 * GATHERED], h[2 * GATHERED], w[2 * GATHERED], begin[2 * GATHERED], end[2 * GATHERED];
    ptrdiff_t offset[2 * GATHERED];
    int first[2 * GATHERED], last[2 * GATHERED], first_piece[GATHERED + 1];
    MASK mask[2 * GATHERED];
    const ptrdiff_t taps = g->kT * g->kH * g->kW, volume = g->T * g->H * g->W, depth = row_stop - row;
    const ptrdiff_t T = g->T, H = g->H, W = g->W, stride = g->sW;
    int pieces = 0;

    /* `w` is what lane 0 reads, or would. */
    ptrdiff_t ow = start % g->oW, oh = start / g->oW % g->oH, ot = start / (g->oW * g->oH);
    for (int v = 0; v < vectors; v++) {
        const ptrdiff_t columns = count - v * LANES < LANES ? count - v * LANES : LANES;
        first_piece[v] = pieces;
        for (ptrdiff_t lane = 0; lane < columns;) {
            const ptrdiff_t left = g->oW - ow, taken = left < columns - lane ? left : columns - lane;
            t[pieces] = ot * g->sT - g->pT;
            h[pieces] = oh * g->sH - g->pH;
            w[pieces] = (ow - lane) * g->sW - g->pW;
            begin[pieces] = lane;
            end[pieces++] = lane += taken;
            if ((ow += taken) == g->oW) {
                ow = 0;
                if (++oh == g->oH) {
                    oh = 0;
                    ot++;
                }
            }
        }
    }
    first_piece[vectors] = pieces;

    ptrdiff_t channel = row / taps, kw = row % g->kW, kh = row / g->kW % g->kH, kt = row / (g->kW * g->kH) % g->kT;
    for (ptrdiff_t tap = 0; tap < taps && tap < depth; tap++) {
        const ptrdiff_t at_t = kt * g->dT, at_h = kh * g->dH, at_w = kw * g->dW;
        for (int i = 0; i < pieces; i++) {
            const ptrdiff_t frame = t[i] + at_t, line = h[i] + at_h, column = w[i] + at_w;
            const int inside = (frame >= 0) & (frame < T) & (line >= 0) & (line < H);
            const ptrdiff_t low = stride == 1 ? -column : (stride - 1 - column) / stride;
            const ptrdiff_t high = stride == 1 ? W - column : (W - column + stride - 1) / stride;
            const ptrdiff_t from = low > begin[i] ? low : begin[i], to = high < end[i] ? high : end[i];
            const int some = inside & (from < to);
            first[i] = some ? (int) from : 0;
            last[i] = some ? (int) to : 0;
            offset[i] = (frame * H + line) * W + column;
        }
        const REAL *source = x + channel * volume;
        if (taps == 1 && stride == 1) {
            for (int i = 0; i < pieces; i++)
                mask[i] = MASK_OF(first[i], last[i]);
            for (ptrdiff_t r = 0; r < depth; r++, source += volume)
                for (int v = 0; v < vectors; v++) {
                    VECTOR found = {0};
                    for (int i = first_piece[v]; i < first_piece[v + 1]; i++)
                        found = MERGE(found, mask[i], source + offset[i]);
                    *(UNALIGNED *) (tile + r * pitch + v / 2 * panel + v % 2 * LANES) = found;
                }
        } else
            for (int v = 0; v < vectors; v++) {
                const int i = first_piece[v], some = first_piece[v + 1] - i;
                REAL *to = tile + tap * pitch + v / 2 * panel + v % 2 * LANES;
                NAME(column)(source, volume, to, taps * pitch, (depth - tap + taps - 1) / taps, stride, some,
                             first + i, last + i, offset + i);
            }
        if (++kw == g->kW) {
            kw = 0;
            if (++kh == g->kH) {
                kh = 0;
                if (++kt == g->kT) {
                    kt = 0;
                    channel++;
                }
            }
        }
    }
}
