/* The kernels of one instruction set and floating-point type, and its micro-tile.

   A new kernel is a function in one of the templates (micro_kernel.h, line_kernel.h, plane_kernel.h, channel_kernel.h,
   gather.h, moves.h, linear.h), a line in the list below and its declaration in simd.pxd. */

#ifndef REFNET_SIMD_H
#define REFNET_SIMD_H

#include <math.h>

#include "operands.h"

#define SIMD_KERNELS(KERNEL) \
    KERNEL(void, micro_kernel, (const struct micro_tile *tile)) \
    KERNEL(void, line_kernel, (const struct line_tile *tile)) \
    KERNEL(void, plane_sums, (const struct plane_tile *tile)) \
    KERNEL(void, channel_sums, (const struct channel_tile *tile)) \
    KERNEL(void, channel_gradients, (const struct channel_gradient *gradient)) \
    KERNEL(void, to_channels, (const void *const *rows, ptrdiff_t offset, ptrdiff_t count, void *to)) \
    KERNEL(void, from_channels, (const void *from, ptrdiff_t count, void *const *rows, ptrdiff_t offset, \
                                 ptrdiff_t channels)) \
    KERNEL(void, add_span, (const void *sums, void *dw, ptrdiff_t channels, ptrdiff_t sections, ptrdiff_t run, \
                            int accumulate, ptrdiff_t prefetch_distance)) \
    KERNEL(void, gather, (const void *x, const struct gather_plan *plan, const struct gather_region *region, \
                          void *to)) \
    KERNEL(void, transpose, (const void *from, ptrdiff_t pitch, void *to, ptrdiff_t width, ptrdiff_t rows, \
                             ptrdiff_t values)) \
    KERNEL(void, interleave, (const void *first, const void *second, void *to, ptrdiff_t n)) \
    KERNEL(void, store_nontemporal, (const void *from, ptrdiff_t n, ptrdiff_t zeros, void *to)) \
    KERNEL(void, copy, (const void *from, ptrdiff_t pitch, void *to, ptrdiff_t to_pitch, ptrdiff_t rows, \
                        ptrdiff_t n)) \
    KERNEL(int, all_finite, (const void *lhs, ptrdiff_t rows, ptrdiff_t depth)) \
    KERNEL(void, linear_forward, (const void *x, const void *w, void *y, ptrdiff_t samples, ptrdiff_t rows, \
                                  ptrdiff_t D, ptrdiff_t y_pitch)) \
    KERNEL(void, linear_input_gradient, (const void *dy, const void *w, void *dx, ptrdiff_t samples, ptrdiff_t K, \
                                         ptrdiff_t columns, ptrdiff_t pitch)) \
    KERNEL(void, linear_weight_gradient, (const void *dy, const void *x, void *dw, ptrdiff_t samples, \
                                          ptrdiff_t rows, ptrdiff_t D, ptrdiff_t pitch)) \
    KERNEL(double, spin, (ptrdiff_t rounds))

#define KERNEL_FIELD(result, name, arguments) result(*name) arguments;

struct simd {
    const char *name;
    int masked_loads;  /* whether a vector of patches is loaded at once, */
    int vector_stride; /* up to which stride along W, */
    int bit_masks;     /* and whether LANE_RANGE has a bit for each lane */
    ptrdiff_t mr, nr;  /* the micro-tile: rows at most, and columns, two vectors */
    ptrdiff_t line_filters, half_line_filters; /* of a micro-tile of LINE_POSITIONS, and half; 0 if there is none */
    int taps_at_once;                          /* whether a line of the kernel must have LINE_TAPS or WIDE_TAPS */
    ptrdiff_t tap_filters;                     /* of one of TAP_CHANNELS; 0 if there is none */
    ptrdiff_t plane_lines;                     /* of one whose lanes are positions of a line; 0 if there is none */
    ptrdiff_t channel_segments; /* of CHANNEL_POSITIONS, of one whose lanes are channels, */
    ptrdiff_t channel_terms[MAX_ROTATIONS + 1]; /* and terms of its dw for so many rotations; 0 if there is none */
    SIMD_KERNELS(KERNEL_FIELD)
};

#undef KERNEL_FIELD

/* The kernels of exact sums of double, and the rows of their micro-tile. */
struct exact {
    ptrdiff_t rows;
    void (*kernel)(const struct exact_tile *tile);
    void (*column_scales)(const double *panel, ptrdiff_t depth, double *scales);
};

/* A scale is not less than this: then nothing that underflows counts. */
#define LEAST_SCALE 0x1p-400

/* The least power of two above a value that is not negative, or infinity; 0 for 0. */
static inline double scale_above(double value)
{
    int exponent;
    frexp(value, &exponent);
    return value == 0 ? 0 : value < LEAST_SCALE ? LEAST_SCALE : ldexp(1, exponent);
}

#endif
