/* The passes of a batch norm over a plane, for the best instruction set that there is. */
#ifndef REFNET_BATCH_NORM_H
#define REFNET_BATCH_NORM_H

#include "sums.h"

/* y = (x - mean) scale + b, and dx = scale ((dy - of_mean) - (x - mean) of_variance): in double, rounded once. The mean
   is high + low, and low, no more than a deviation, is taken off where no digit is lost: with b and of_mean. */
#define REFNET_LOOPS "batch_norm_loops.h"
#include "versions.h"

#define REFNET_PASSES(GIVEN, REAL, SUFFIX)                                                                     \
    static inline void refnet_normalise_##SUFFIX(const GIVEN* x, struct refnet_pair mean, double scale,        \
                                                 double shift, REAL* y, ptrdiff_t n) {                         \
        REFNET_BEST(refnet_normalise_##SUFFIX)(x, mean, scale, shift, y, n);                                   \
    }                                                                                                          \
    static inline void refnet_project_##SUFFIX(const REAL* dy, const GIVEN* x, struct refnet_pair mean,        \
                                               double scale, double of_mean, double of_variance, REAL* dx,     \
                                               ptrdiff_t n) {                                                  \
        REFNET_BEST(refnet_project_##SUFFIX)(dy, x, mean, scale, of_mean, of_variance, dx, n);                 \
    }
REFNET_PASSES(float, float, float32)
REFNET_PASSES(double, float, kept)
REFNET_PASSES(double, double, float64)

#endif
