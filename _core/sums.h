/* Sums of many terms, whose error does not grow with their number, in loops that compilers vectorise. All is
   computed in double, for float data too: products of floats are exact there.

   A sum of n terms is made in blocks of 1024, in order. In a block, sixteen lanes add every sixteenth term each, 64
   of them in a chain from 0; lanes i and i + 8 are added, then i and i + 4, i + 2, i + 1; and then what is left of the
   last block, at most fifteen terms that are a chain of their own. A block's total is added to a sum of two numbers,
   high + low, by algorithm 4 of Joldes, Muller and Popescu, ACM TOMS 44(2), 2017, of relative error 2 u u, u = 2^-53.
   So

       |error of high + low| <= (68 u + 2 u u n / 1024) sum |terms|.

   Terms that are rounded (products of doubles, x - mean) have those errors beside. Plain doubles lose nothing in their
   lanes either (TwoSum: Knuth, TAOCP 2, 4.2.2, theorem B), but for the rounding of what they lost:

       |error of high + low| <= (2^-93 + 2^-115 n) sum |terms|.

   Only + - * and conversions: all versions below give the same bits. What is infinite or NaN stays so.
*/
#ifndef REFNET_SUMS_H
#define REFNET_SUMS_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define REFNET_SUMS_VERSIONS __attribute__((target_clones("default", "avx2")))
#else
#define REFNET_SUMS_VERSIONS
#endif

/* Doubles that are computed at once, and how they are read: values of vectors live in registers, where compilers do
   not always put sixteen doubles by themselves. */
#ifdef __GNUC__
enum { REFNET_WIDTH = 4 };
typedef double refnet_vector __attribute__((vector_size(32)));
typedef float refnet_floats __attribute__((vector_size(16)));
static inline void refnet_load_float32(refnet_vector* v, const float* p) {
    refnet_floats floats;
    memcpy(&floats, p, sizeof floats);
    *v = __builtin_convertvector(floats, refnet_vector);
}
#else
enum { REFNET_WIDTH = 1 };
typedef double refnet_vector;
static inline void refnet_load_float32(refnet_vector* v, const float* p) { *v = *p; }
#endif
static inline void refnet_load_float64(refnet_vector* v, const double* p) { memcpy(v, p, sizeof *v); }

/* Who includes this does not need all of it. */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

enum { REFNET_LANES = 16, REFNET_CHAIN = 64, REFNET_BLOCK = REFNET_LANES * REFNET_CHAIN };

/* An unevaluated sum: high is the sum of both, rounded. */
struct refnet_pair {
    double high, low;
};

static inline struct refnet_pair refnet_added(struct refnet_pair sum, double term) {
    const double rough = sum.high + term, back = rough - sum.high;
    const double lost = ((sum.high - (rough - back)) + (term - back)) + sum.low;
    const double high = rough + lost;
    /* Of an infinity nothing is lost. */
    if (!isfinite(high)) return (struct refnet_pair){rough, 0};
    return (struct refnet_pair){high, lost - (high - rough)};
}

/* sum / n, to about twice the precision of double. */
static inline struct refnet_pair refnet_divided(struct refnet_pair sum, double n) {
    const double high = sum.high / n;
    if (!isfinite(high)) return (struct refnet_pair){high, 0};
    return (struct refnet_pair){high, (fma(-high, n, sum.high) + sum.low) / n};
}

/* A function that adds to a pair, of the arrays a and b, n terms each: the vector `term` is TERM of the vectors u
   and v of their values. */
#define REFNET_SUM(NAME, TYPE, LOAD_B, TERM, ...)                                                             \
    REFNET_SUMS_VERSIONS                                                                                      \
    static void NAME(__VA_ARGS__, ptrdiff_t n, struct refnet_pair* sum) {                                     \
        enum { VECTORS = REFNET_LANES / REFNET_WIDTH };                                                       \
        struct refnet_pair so_far = *sum;                                                                     \
        for (ptrdiff_t block = 0; block < n; block += REFNET_BLOCK) {                                         \
            const ptrdiff_t end = n - block < REFNET_BLOCK ? n : block + REFNET_BLOCK;                        \
            const ptrdiff_t whole = end - (end - block) % REFNET_LANES;                                       \
            refnet_vector lane[VECTORS] = {0};                                                                \
            double rest = 0, four[4];                                                                         \
            for (ptrdiff_t p = block; p < whole; p += REFNET_LANES)                                           \
                for (int i = 0; i < VECTORS; ++i) {                                                           \
                    refnet_vector u, v;                                                                       \
                    refnet_load_##TYPE(&u, a + p + i * REFNET_WIDTH);                                         \
                    LOAD_B(TYPE, &v, b + p + i * REFNET_WIDTH);                                               \
                    lane[i] += TERM(u, v);                                                                    \
                }                                                                                             \
            for (ptrdiff_t p = whole; p < end; ++p) rest += TERM((double)a[p], (double)b[p]);                 \
            for (int i = 0; i < VECTORS / 2; ++i) lane[i] += lane[i + VECTORS / 2];                           \
            for (int i = 0; i < VECTORS / 4; ++i) lane[i] += lane[i + VECTORS / 4];                           \
            memcpy(four, lane, sizeof four);                                                                  \
            so_far = refnet_added(so_far, ((four[0] + four[2]) + (four[1] + four[3])) + rest);                \
        }                                                                                                     \
        *sum = so_far;                                                                                        \
    }
#define REFNET_NO_B(TYPE, v, p) (void)(v)
#define REFNET_B(TYPE, v, p) refnet_load_##TYPE(v, p)

#define REFNET_VALUE(u, v) (u)
#define REFNET_PRODUCT(u, v) ((u) * (v))
#define REFNET_CENTRED(u) (((u) - mean.high) - mean.low)
#define REFNET_CENTRED_PRODUCT(u, v) ((u) * REFNET_CENTRED(v))
#define REFNET_CENTRED_SQUARE(u, v) (REFNET_CENTRED(u) * REFNET_CENTRED(u))

REFNET_SUM(refnet_total_float32, float32, REFNET_NO_B, REFNET_VALUE, const float* restrict a)
REFNET_SUM(refnet_product_float32, float32, REFNET_B, REFNET_PRODUCT, const float* restrict a, const float* restrict b)
REFNET_SUM(refnet_centred_product_float32, float32, REFNET_B, REFNET_CENTRED_PRODUCT, const float* restrict a,
           const float* restrict b, struct refnet_pair mean)
REFNET_SUM(refnet_centred_square_float32, float32, REFNET_NO_B, REFNET_CENTRED_SQUARE, const float* restrict a,
           struct refnet_pair mean)
REFNET_SUM(refnet_product_float64, float64, REFNET_B, REFNET_PRODUCT, const double* restrict a,
           const double* restrict b)
REFNET_SUM(refnet_centred_product_float64, float64, REFNET_B, REFNET_CENTRED_PRODUCT, const double* restrict a,
           const double* restrict b, struct refnet_pair mean)
REFNET_SUM(refnet_centred_square_float64, float64, REFNET_NO_B, REFNET_CENTRED_SQUARE, const double* restrict a,
           struct refnet_pair mean)

/* One more term of a sum, and what its rounding loses. */
#define REFNET_COMPENSATED(TYPE, SUM, LOST, TERM)                                                             \
    do {                                                                                                      \
        const TYPE term = (TERM), rough = (SUM) + term;                                                       \
        const TYPE back = rough - (SUM);                                                                      \
        (LOST) += ((SUM) - (rough - back)) + (term - back);                                                   \
        (SUM) = rough;                                                                                        \
    } while (0)

/* The same of plain doubles: each lane keeps what its additions lost, too. */
REFNET_SUMS_VERSIONS
static void refnet_total_float64(const double* restrict a, ptrdiff_t n, struct refnet_pair* sum) {
    enum { VECTORS = REFNET_LANES / REFNET_WIDTH };
    struct refnet_pair so_far = *sum;
    for (ptrdiff_t block = 0; block < n; block += REFNET_BLOCK) {
        const ptrdiff_t end = n - block < REFNET_BLOCK ? n : block + REFNET_BLOCK;
        const ptrdiff_t whole = end - (end - block) % REFNET_LANES;
        refnet_vector lane[VECTORS] = {0}, lost[VECTORS] = {0};
        double rest = 0, rest_lost = 0, four[4], four_lost[4];
        for (ptrdiff_t p = block; p < whole; p += REFNET_LANES)
            for (int i = 0; i < VECTORS; ++i) {
                refnet_vector u;
                refnet_load_float64(&u, a + p + i * REFNET_WIDTH);
                REFNET_COMPENSATED(refnet_vector, lane[i], lost[i], u);
            }
        for (ptrdiff_t p = whole; p < end; ++p) REFNET_COMPENSATED(double, rest, rest_lost, a[p]);
        for (int half = VECTORS / 2; half >= VECTORS / 4; half /= 2)
            for (int i = 0; i < half; ++i) {
                lost[i] += lost[i + half];
                REFNET_COMPENSATED(refnet_vector, lane[i], lost[i], lane[i + half]);
            }
        memcpy(four, lane, sizeof four);
        memcpy(four_lost, lost, sizeof four_lost);
        for (int half = 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) {
                four_lost[i] += four_lost[i + half];
                REFNET_COMPENSATED(double, four[i], four_lost[i], four[i + half]);
            }
        four_lost[0] += rest_lost;
        REFNET_COMPENSATED(double, four[0], four_lost[0], rest);
        so_far = refnet_added(so_far, four[0]);
        if (isfinite(four_lost[0])) so_far = refnet_added(so_far, four_lost[0]);
    }
    *sum = so_far;
}

#endif
