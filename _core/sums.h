/* Sums of many terms, whose error does not grow with their number. All is computed in double, for float data too:
   products of floats are exact there.

   A sum of n terms is made in blocks of 512, in order. In a block, sixteen lanes add every sixteenth term each, 32
   of them in a chain from 0; lanes i and i + 8 are added, then i and i + 4, i + 2, i + 1; and then what is left of the
   last block, at most fifteen terms that are a chain of their own. A block's total is added to a sum of two numbers,
   high + low, by algorithm 4 of Joldes, Muller and Popescu, ACM TOMS 44(2), 2017, of relative error 2 u u, u = 2^-53.
   So

       |error of high + low| <= (36 u + 2 u u n / 512) sum |terms|.

   Terms that are rounded (products of doubles, x - centre) have those errors beside. Sums of planes, one behind the
   other, are such a sum of blocks, too; a plane begins with a new block.

   The same order with what each addition lost in a lane of its own (TwoSum: Knuth, TAOCP 2, 4.2.2, theorem B), those
   lanes added alike, is `refnet_compensated`, of doubles; it loses nothing but what rounds there:

       |error of high + low| <= (2^-94 + 2^-114 n) sum |terms|.

   Of floats, the second number of a mean is taken off the sum of products, not off each value: it is within u of the
   first, and so beyond the last digit of what values differ by.

   Only + - * and conversions: all versions of sums_loops.h give the same bits. What is infinite or NaN stays so.
*/
#ifndef REFNET_SUMS_H
#define REFNET_SUMS_H

#include <math.h>
#include <stddef.h>
#include <string.h>

/* For loops that compilers vectorise by themselves. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define REFNET_SUMS_VERSIONS __attribute__((target_clones("default", "avx2")))
#define REFNET_VERSIONS __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define REFNET_SUMS_VERSIONS
#define REFNET_VERSIONS
#endif

/* Who includes this does not need all of it. */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

enum { REFNET_LANES = 16, REFNET_CHAIN = 32, REFNET_BLOCK = REFNET_LANES * REFNET_CHAIN };

/* Values of a float channel that are kept, as doubles, from its sums to its results: not a power of two, lest two rows
   of them have the same place in a cache. */
enum { REFNET_KEPT = 520 };

/* An unevaluated sum: high is the sum of both, rounded. */
struct refnet_pair {
    double high, low;
};

/* Planes of n values, `apart` values from one to the next. The sums of the first are added to the pairs at `sums`, and
   those of each next one to the pairs `step` further on: 0 makes one sum of all. */
struct refnet_planes {
    ptrdiff_t planes, apart, n, step;
};

static inline struct refnet_pair refnet_added(struct refnet_pair sum, double term) {
    const double rough = sum.high + term, back = rough - sum.high;
    const double lost = ((sum.high - (rough - back)) + (term - back)) + sum.low;
    const double high = rough + lost;
    /* Of an infinity nothing is lost. */
    if (!isfinite(high)) return (struct refnet_pair){rough, 0};
    return (struct refnet_pair){high, lost - (high - rough)};
}

/* Of what is infinite, and will be with its other part, nothing is taken off. */
static inline double refnet_without(double whole, double part) {
    return isfinite(part) ? whole - part : whole;
}

#define REFNET_LOOPS "sums_loops.h"
#include "versions.h"

#define REFNET_DOOR(NAME, REAL)                                                                                \
    static inline void NAME(const REAL* a, const REAL* b, struct refnet_pair mean, struct refnet_planes all,   \
                            struct refnet_pair* sums) {                                                        \
        REFNET_BEST(NAME)(a, b, mean, &all, sums, NULL);                                                       \
    }
#define REFNET_KEEPING(NAME, REAL)                                                                             \
    static inline void NAME(const REAL* a, const REAL* b, struct refnet_pair mean, struct refnet_planes all,   \
                            struct refnet_pair* sums, double* kept) {                                          \
        REFNET_BEST(NAME)(a, b, mean, &all, sums, kept);                                                       \
    }
REFNET_DOOR(refnet_total_float32, float)
REFNET_DOOR(refnet_total_float64, double)
REFNET_DOOR(refnet_dot_float32, float)
REFNET_DOOR(refnet_dot_float64, double)
REFNET_DOOR(refnet_offset_float32, float)
REFNET_DOOR(refnet_offset_float64, double)
REFNET_DOOR(refnet_moments_float32, float)
REFNET_DOOR(refnet_moments_float64, double)
REFNET_DOOR(refnet_products_float32, float)
REFNET_DOOR(refnet_products_float64, double)
REFNET_KEEPING(refnet_moments_kept, float)
REFNET_KEEPING(refnet_products_kept, float)

static inline void refnet_compensated(const double* a, ptrdiff_t n, struct refnet_pair* sum) {
    REFNET_BEST(refnet_compensated)(a, n, sum);
}

#endif
