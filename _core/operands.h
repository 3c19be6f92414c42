/* What conv3d.pyx tells the kernels of micro_kernel.h: how operands lie, which terms to take, what comes next. */

#ifndef REFNET_OPERANDS_H
#define REFNET_OPERANDS_H

#include "geometry.h"

/* Terms in a chain of multiply-adds: see conv3d.pyx. */
#define DEPTH 256
/* From row to row of the left operand; not a power of two, or the rows would compete for the same cache sets. */
#define PITCH (DEPTH + 8)
/* Columns of patches that are planned at once, at most. */
#define PLANNED 1024

/* Terms of a product: of 0 to `stop`, from `start` on, so many as are `left`, then always `run` after a `gap`. */
struct terms {
    ptrdiff_t start, left, run, gap, stop;
};

/* What is to come nearer: `asks` in a row, `step` values from one to the next, and from row to row it is `stride`
   values. A step of half a cache line asks half as fast. */
struct ahead {
    const void *at;
    ptrdiff_t asks, step, stride;
};

/* Where the patches of some columns lie: see gather_template.h. Of each piece, what its lane 0 reads on each axis
   at tap 0, or would, and the lanes that it has; of each piece at each tap, where lane 0 reads, and which lanes do.
   With stride 2, `mask` is of the LANES values from there on, and `high` of those from LANES - 1 on. It is `later`
   values to what is read some time after that. */
struct plan {
    struct geometry g;
    ptrdiff_t vectors, later;
    int pieces; /* of each vector */
    ptrdiff_t t[PLANNED], h[PLANNED], w[PLANNED], base[PLANNED], first[PLANNED], last[PLANNED];
    ptrdiff_t from[DEPTH * PLANNED];
    unsigned short mask[DEPTH * PLANNED], high[DEPTH * PLANNED];
};

/* Rows of patches of x that no tile has been made of yet, from `row` on, in two vectors of a plan from `v` on. If
   there are quarters, the rows of the left operand are of four kinds: the i-th quarter has only zeros at the taps
   where bit i is not set, and they are left out. */
struct patches {
    const void *x;
    struct plan *plan;
    ptrdiff_t row, v;
    const unsigned short *quarters;
};

#endif
