/* The passes of a batch norm over a plane, in loops that compilers vectorise. */
#ifndef REFNET_BATCH_NORM_H
#define REFNET_BATCH_NORM_H

#include "sums.h"

/* y = ((x - mean) scale) + b, and dx = scale ((dy - of_mean) - (x - mean) of_variance): in double, rounded once. */
#define REFNET_PASSES(REAL, SUFFIX)                                                                             \
    REFNET_SUMS_VERSIONS                                                                                        \
    static void refnet_normalise_##SUFFIX(const REAL* restrict x, struct refnet_pair mean, double scale,        \
                                          double shift, REAL* restrict y, ptrdiff_t n) {                        \
        for (ptrdiff_t p = 0; p < n; ++p) y[p] = (REAL)(REFNET_CENTRED((double)x[p]) * scale + shift);          \
    }                                                                                                           \
    REFNET_SUMS_VERSIONS                                                                                        \
    static void refnet_project_##SUFFIX(const REAL* restrict dy, const REAL* restrict x,                        \
                                        struct refnet_pair mean, double scale, double of_mean,                  \
                                        double of_variance, REAL* restrict dx, ptrdiff_t n) {                   \
        for (ptrdiff_t p = 0; p < n; ++p)                                                                       \
            dx[p] = (REAL)(scale * (((double)dy[p] - of_mean) - REFNET_CENTRED((double)x[p]) * of_variance));   \
    }

REFNET_PASSES(float, float32)
REFNET_PASSES(double, float64)

#endif
