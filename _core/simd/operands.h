/* What the kernels of simd.h are told: which terms to take, what to prefetch, where the patches of an image lie. */

#ifndef REFNET_OPERANDS_H
#define REFNET_OPERANDS_H

#include <stddef.h>

#include "blocking.h"
#include "geometry.h"

/* Terms of a product, of 0 to `stop`: `first_run` from `start` on, then always `run` after a `gap`. */
struct terms {
    ptrdiff_t start, first_run, run, gap, stop;
};

/* Cache lines to prefetch: `count` of a row, `step` bytes from one to the next, and `stride` bytes from row to row.
   A step of half a line prefetches each line twice, and so half as fast. */
struct prefetch_run {
    const char *at;
    ptrdiff_t count, step, stride;
};

/* Where the patches of some columns lie: im2col3d.pyx plans it. Each vector of columns has the same number of segments.
   Of each segment: what its lane 0 reads on each axis at tap 0, or would, and its lanes [first, last). Of each segment
   at each tap, tap by tap: where lane 0 reads, and which lanes read inside, as LANE_RANGE says. With stride 2, `mask`
   is of the LANES values from there on, and `high` of those from LANES - 1 on. */
struct gather_plan {
    struct geometry g;
    ptrdiff_t vectors, prefetch_distance; /* the latter in values */
    int segments;
    ptrdiff_t t[MAX_TILE_COLUMNS], h[MAX_TILE_COLUMNS], w[MAX_TILE_COLUMNS];
    ptrdiff_t base[MAX_TILE_COLUMNS], first[MAX_TILE_COLUMNS], last[MAX_TILE_COLUMNS];
    ptrdiff_t source[KC * MAX_TILE_COLUMNS];
    unsigned short mask[KC * MAX_TILE_COLUMNS], high[KC * MAX_TILE_COLUMNS];
};

/* Rows of the patch matrix, of each channel the taps [first_tap, stop_tap) of a plan, beginning with `tap` of the first
   channel; and columns from `column` of the plan on, whole vectors. They are stored `pitch` values from row to row, and
   `panel` values from one pair of vectors to the next. */
struct gather_region {
    ptrdiff_t first_tap, stop_tap, tap, rows, column, columns, pitch, panel;
};

/* Packing fused into the micro-kernel: rows of the patch matrix of x, from `row` on, in two vectors of a plan from
   `vector` on, are gathered while the first rows of the left operand are multiplied by them, and stored if there are
   other rows to read them. If there are `quarters`, the rows of the left operand are of four subkernels: quarter i has
   only zeros at the taps whose bit i is not set, and they are left out. */
struct fused_pack {
    const void *x;
    struct gather_plan *plan;
    ptrdiff_t row, vector;
    const unsigned short *quarters;
    int stores;
};

/* One call of the micro-kernel: c (rows, NR) = or += those terms of lhs (rows, KC) times rhs (KC, NR).

   Rows of lhs are LHS_PITCH values apart, those of rhs NR, those of c `pitch`. With `offsets`, rhs is not packed: its row
   k is two vectors, offsets[k] values behind rhs, the second `right` values behind the first; and so a row of c, of
   which the second is `right_sums` values behind the first, and stored after it. Then, and if packing is fused, lhs has
   4, 8 or MR rows, those after the first `rows` anything finite. The last two are BLIS's auxinfo: what to prefetch, one
   line with every PREFETCH_TERMS, or nothing if it is at NULL, and how the call packs rhs, or NULL where it is packed
   already; where it packs, it prefetches a line with every term, and `prefetch` is not at NULL. */
struct micro_tile {
    ptrdiff_t rows, pitch;
    const struct terms *terms;
    const void *lhs;
    void *rhs, *c;
    const ptrdiff_t *offsets;
    ptrdiff_t right, right_sums;
    int accumulate;
    struct prefetch_run prefetch;
    const struct fused_pack *fused;
};

/* One call of the micro-kernel of channels: sums of some lines of the kernel, of weights (terms, lanes), times an
   image. They are those of CHANNEL_POSITIONS positions of an output line, or of two lines, `channel_segments` of
   struct simd: from[i] is where the first of them reads, and its sum lies to[i] values behind `sums`. Line k of the
   kernel has `taps` terms, the first of which reads offsets[k] values behind; terms read what is `apart`, positions
   what is `step` values apart. */
struct channel_tile {
    const struct terms *lines;
    const void *weights, *image;
    const ptrdiff_t *offsets, *from, *to;
    ptrdiff_t taps, apart, step;
    void *sums;
};

/* One call of the micro-kernel of planes: `lines` output lines of one filter, PLANE_LINES at most, a vector of positions
   each, of which `lanes_stored` are stored. They are sums over `frames` planes, at least one, of each of `channels`. x
   is what lane 0 of the first line reads at its first tap, or would; planes are `x_frame` and `x_channel` values apart,
   the weights of a plane 9, those of a channel `w_channel`. Lines of y are `y_line` values apart, and lines that are
   read `x_line`; bit j of `lines_read` is whether the j-th of these is inside. Taps of a line read what is `apart`,
   inside in the `lanes` of the tap, as LANE_RANGE has them. What lies `x_next` values behind the last plane is
   prefetched. */
struct plane_tile {
    const void *x, *weights;
    void *y;
    ptrdiff_t channels, frames, x_channel, w_channel, x_frame, x_next, x_line, y_line, apart, lines;
    unsigned lines_read, lanes[3], lanes_stored;
};

/* One call of the micro-kernel of channels' gradients: chains (rotations, terms, lanes), of which there are `runs` runs
   of `run` terms from `chains` on, += dy (count, lanes), transposed, times an image, for `count` output positions, from
   `first` of a line of `width` on. With rotation r, lane l takes dy of lane l + r, where the `rotations` lanes of its
   group go round. Of a position, terms of run k read offsets[k] values behind the image, and, if there are 3, beside
   each other; else there is 1. Lines read what is `pitch`, positions what is `step` values apart, lanes if there are 3
   terms. */
struct channel_gradient {
    const void *dy, *image;
    const ptrdiff_t *offsets;
    ptrdiff_t rotations, terms, runs, run, first, count, width, pitch, step;
    void *chains;
};

/* One call of the micro-kernel of exact sums: c + low (rows, NR) = or += some terms of lhs, `rows` rows LHS_PITCH apart,
   times the panel rhs; rows of c, and of low, are `pitch` values apart. No value of a row of lhs or a column of rhs
   exceeds its scale, which is a power of two, or zero. */
struct exact_tile {
    ptrdiff_t rows, pitch;
    const struct terms *terms;
    const double *lhs, *rhs, *row_scales, *column_scales;
    double *c, *low;
    int accumulate;
};

/* Terms of the sums of a line, the taps of a line of the kernel, or some of them where a chain begins or ends: where the
   first reads for the line's first position, relative to that position's place in the first channel of the chain; where
   its weights lie in a panel; which tap it is; and how many there are. */
struct line_run {
    ptrdiff_t at, weights;
    unsigned short tap, count;
};

/* Whether a tap lies outside for the line's first or last position. */
enum { FIRST_OUTSIDE = 1, LAST_OUTSIDE = 2 };

/* One call of the micro-kernel of lines: c (`positions`, filters) = or += the terms of `count` runs of x times
   weights (KC, filters), a panel; rows of c are `pitch` values apart. Positions read what is `step` values apart, 1
   or LINE_STEP, terms of a run, of which there are `taps` at most, what is `apart`. What the runs read `next_line`
   values behind x is prefetched.

   With LINE_VECTORS there are LINE_POSITIONS, or half as many, or TAP_CHANNELS: for dw they are channels of x, terms
   are positions, and weights are dy. For the ends of the line that are in `edges`, the taps that are `outside` are
   left out (which is looked at for every tap of a run, edges or not), and a line of `prefetch` is prefetched with
   every term but the last. Else there are LEAST_POSITIONS to LINE_POSITIONS and LINE_TAPS, or WIDE_POSITIONS and WIDE_TAPS, and
   the first and last columns that they read are `skipped`. Unless `second` is 0, there are half of LINE_POSITIONS of
   a second line, too, so many values behind in x, and `second_sums` in c. */
struct line_tile {
    const void *x, *weights;
    void *c;
    ptrdiff_t pitch, next_line;
    const struct line_run *runs;
    ptrdiff_t count;
    unsigned edges;
    const unsigned char *outside;
    ptrdiff_t skipped[2];
    ptrdiff_t positions, step, taps, apart, second, second_sums;
    int accumulate;
    struct prefetch_run prefetch;
};

#endif
