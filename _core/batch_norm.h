/* The passes of a batch norm over a plane, in loops that compilers vectorise. */
#ifndef REFNET_BATCH_NORM_H
#define REFNET_BATCH_NORM_H

#include "sums.h"

/* Of what is infinite, and will be with its other part, nothing is taken off. */
static inline double refnet_without(double whole, double part) {
    return isfinite(part) ? whole - part : whole;
}

/* y = (x - mean) scale + b, and dx = scale ((dy - of_mean) - (x - mean) of_variance): in double, rounded once. The mean
   is high + low, and low, no more than a deviation, is taken off where no digit is lost: with b and of_mean. */
#define REFNET_PASSES(REAL, SUFFIX, VERSIONS)                                                                   \
    VERSIONS                                                                                                    \
    static void refnet_normalise_##SUFFIX(const REAL* restrict x, struct refnet_pair mean, double scale,        \
                                          double shift, REAL* restrict y, ptrdiff_t n) {                        \
        const double all = refnet_without(shift, mean.low * scale);                                             \
        for (ptrdiff_t p = 0; p < n; ++p) y[p] = (REAL)((x[p] - mean.high) * scale + all);                      \
    }                                                                                                           \
    VERSIONS                                                                                                    \
    static void refnet_project_##SUFFIX(const REAL* restrict dy, const REAL* restrict x,                        \
                                        struct refnet_pair mean, double scale, double of_mean,                  \
                                        double of_variance, REAL* restrict dx, ptrdiff_t n) {                   \
        const double all = refnet_without(of_mean, mean.low * of_variance);                                     \
        for (ptrdiff_t p = 0; p < n; ++p)                                                                       \
            dx[p] = (REAL)(scale * ((dy[p] - all) - (x[p] - mean.high) * of_variance));                         \
    }

/* Conversions of floats keep two registers busy where those of AVX-512 need one. */
REFNET_PASSES(float, float32, REFNET_VERSIONS)
REFNET_PASSES(double, float64, REFNET_SUMS_VERSIONS)

#endif
