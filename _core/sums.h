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

#define REFNET_CENTRED(u) (((u) - mean.high) - mean.low)

#define REFNET_JOIN_(a, b) a##_##b
#define REFNET_JOIN(a, b) REFNET_JOIN_(a, b)

#define VERSION baseline
#define TARGET
#ifdef __GNUC__
typedef double refnet_two __attribute__((vector_size(16)));
typedef float refnet_two_floats __attribute__((vector_size(8)));
static inline refnet_two refnet_widen_two(const float* p) {
    refnet_two_floats floats;
    memcpy(&floats, p, sizeof floats);
    return __builtin_convertvector(floats, refnet_two);
}
#define VECTOR refnet_two
#define WIDTH 2
#define WIDEN(p) refnet_widen_two(p)
#define FOLD(v) ((v)[0] + (v)[1])
#else
#define VECTOR double
#define WIDTH 1
#define WIDEN(p) (*(p))
#define FOLD(v) (v)
#endif
#include "sums_loops.h"

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

#define REFNET_AVX2 __attribute__((target("avx2")))
REFNET_AVX2 static inline double refnet_fold_four(__m256d v) {
    const __m128d two = _mm256_castpd256_pd128(v) + _mm256_extractf128_pd(v, 1);
    return two[0] + two[1];
}
#define VERSION avx2
#define TARGET REFNET_AVX2
#define VECTOR __m256d
#define WIDTH 4
#define WIDEN(p) _mm256_cvtps_pd(_mm_loadu_ps(p))
#define FOLD(v) refnet_fold_four(v)
#include "sums_loops.h"

#define REFNET_AVX512 __attribute__((target("avx512f")))
REFNET_AVX512 static inline double refnet_fold_eight(__m512d v) {
    const __m256d four = _mm512_castpd512_pd256(v) + _mm512_extractf64x4_pd(v, 1);
    const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
    return two[0] + two[1];
}
#define VERSION avx512
#define TARGET REFNET_AVX512
#define VECTOR __m512d
#define WIDTH 8
#define WIDEN(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#define FOLD(v) refnet_fold_eight(v)
#include "sums_loops.h"

#define REFNET_BEST(NAME)                                          \
    (__builtin_cpu_supports("avx512f") ? REFNET_JOIN(NAME, avx512) \
     : __builtin_cpu_supports("avx2")  ? REFNET_JOIN(NAME, avx2)   \
                                       : REFNET_JOIN(NAME, baseline))
#else
#define REFNET_BEST(NAME) REFNET_JOIN(NAME, baseline)
#endif

#define REFNET_DOOR(NAME, REAL)                                                                                \
    static inline void NAME(const REAL* a, const REAL* b, struct refnet_pair mean, struct refnet_planes all,   \
                            struct refnet_pair* sums) {                                                        \
        REFNET_BEST(NAME)(a, b, mean, &all, sums);                                                             \
    }
REFNET_DOOR(refnet_total_float32, float)
REFNET_DOOR(refnet_total_float64, double)
REFNET_DOOR(refnet_moments_float32, float)
REFNET_DOOR(refnet_moments_float64, double)
REFNET_DOOR(refnet_products_float32, float)
REFNET_DOOR(refnet_products_float64, double)

static inline void refnet_compensated(const double* a, ptrdiff_t n, struct refnet_pair* sum) {
    REFNET_BEST(refnet_compensated)(a, n, sum);
}

#endif
