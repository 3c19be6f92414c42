/* Sums in registers that know how far they are off: side by side, a term of each at a time. Most are rounded from there;
   the others need accumulator.h.

   A sum is three doubles. high is the sum of the terms, each addition rounded; low the sum of what those additions
   lost, each addition rounded; rest the sum of the magnitudes of what these lost. What an addition loses is found
   without an error, under- and overflow aside (TwoSum: Knuth, TAOCP 2, 4.2.2, theorem B), so that of n terms

       |high + low - sum| <= rest (1 + n 2^-53),

   and where rest is 0, high + low is the sum. Additions of doubles are exact where they are subnormal. An overflow
   leaves an infinity or NaN in high, low or rest, where it stays: such a sum is not decided. docs/exact.md has the
   proofs, with products, quotients and the decision.

   Only + - * /, multiply-adds that round once, and choices: every version gives the same bits. */
#ifndef REFNET_EXACT_SUMS_H
#define REFNET_EXACT_SUMS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Who includes this does not need all of it. */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-function"
#define EXACT_INLINE static inline __attribute__((always_inline))
#else
#define EXACT_INLINE static inline
#endif

enum { EXACT_LANES = 128 };

struct exact_sums {
    double high[EXACT_LANES], low[EXACT_LANES], rest[EXACT_LANES];
    int64_t undecided[EXACT_LANES];
};

/* A factor of products: high + low, off by at most error. That is 0 where the factor is high, else at least 2^-160 of
   it. */
struct exact_weight {
    double high, low, error;
};

static inline void exact_begin(struct exact_sums* s, ptrdiff_t n)
{
    memset(s->high, 0, (size_t)n * sizeof(double));
    memset(s->low, 0, (size_t)n * sizeof(double));
    memset(s->rest, 0, (size_t)n * sizeof(double));
}

/* sum + term, and what that loses. */
EXACT_INLINE double exact_two_sum(double* sum, double term)
{
    const double before = *sum, after = before + term, back = after - before;
    *sum = after;
    return (before - (after - back)) + (term - back);
}

EXACT_INLINE void exact_add_low(struct exact_sums* s, ptrdiff_t i, double term)
{
    s->rest[i] += fabs(exact_two_sum(&s->low[i], term));
}

EXACT_INLINE void exact_add_term(struct exact_sums* s, ptrdiff_t i, double term)
{
    exact_add_low(s, i, exact_two_sum(&s->high[i], term));
}

/* A product and its error, which is a double where the product is at least 2^-960, and else within 2^-1074 of one. */
EXACT_INLINE void exact_add_product(struct exact_sums* s, ptrdiff_t i, double x, double y)
{
    const double product = x * y, error = fma(x, y, -product);
    exact_add_term(s, i, product);
    exact_add_low(s, i, error);
    s->rest[i] += ((fabs(product) < 0x1p-960) & (x != 0) & (y != 0)) ? 0x1p-1074 : 0;
}

/* A product with a factor of two doubles; that of the second is rounded. */
EXACT_INLINE void exact_add_weighted(struct exact_sums* s, ptrdiff_t i, double x, struct exact_weight weight)
{
    const double beside = weight.low * x;
    exact_add_product(s, i, x, weight.high);
    exact_add_low(s, i, beside);
    s->rest[i] += fabs(beside) * 0x1p-52 + weight.error * fabs(x);
    s->rest[i] += ((fabs(weight.high * x) < 0x1p-800) & (x != 0) & (weight.error != 0)) ? 0x1p-1070 : 0;
}

/* Sums that are added: what one has lost the other has lost, too. */
EXACT_INLINE void exact_add_sum(struct exact_sums* s, ptrdiff_t i, ptrdiff_t from)
{
    exact_add_term(s, i, s->high[from]);
    exact_add_low(s, i, s->low[from]);
    s->rest[i] += s->rest[from];
}

/* high + low is off by at most 2 rest, which has room for its own roundings. All numbers between two that round to the
   same number round to it. */
EXACT_INLINE int64_t exact_decide_float64(double high, double low, double rest, double count, double* y)
{
    /* Where nothing is lost, a sum or a quotient of two doubles, rounded as IEEE 754 has it. */
    const int is_double = (rest == 0) & (low == 0);
    double first, last, sure = 1;
    if (count == 1) {
        const double margin = rest == 0 ? 0 : 2 * rest + fabs(low) * 0x1p-51;
        first = high + (low - margin);
        last = high + (low + margin);
    } else {
        const double quotient = high / count, rest_of_high = fma(-quotient, count, high);
        const double left = rest_of_high + low, more = left / count;
        /* Both quotients may be exact, as by a power of two: then nothing is lost. */
        const int is_exact = (rest == 0) & (rest_of_high == 0) & (fma(-more, count, low) == 0);
        const double margin = is_exact ? 0 : 4 * (rest / count) + fabs(more) * 0x1p-50;
        first = is_double ? quotient : quotient + (more - margin);
        last = is_double ? quotient : quotient + (more + margin);
        sure = (fabs(high) > 0x1p-800) | is_double;
    }
    *y = ((high == 0) & (low == 0)) ? 0 : first;
    return !((first == last) & (sure != 0) & (fabs(high) <= 0x1p1000) & (rest <= 0x1p1000)
             & ((first != 0) | is_double));
}

EXACT_INLINE int64_t exact_decide_float32(double high, double low, double rest, double count, float* y)
{
    const double quotient = count == 1 ? high : high / count;
    const int is_exact = (rest == 0) & (low == 0) & (count == 1 ? 1 : fma(-quotient, count, high) == 0);
    const double margin = is_exact ? 0 : 4 * ((fabs(low) + rest) / count) + fabs(quotient) * 0x1p-50;
    const float first = (float)(quotient - margin), last = (float)(quotient + margin);
    *y = ((high == 0) & (low == 0)) ? 0 : first;
    return !((first == last) & (rest <= 0x1p1000) & ((first != 0) | is_exact));
}

#define REFNET_LOOPS "exact_loops.h"
#include "versions.h"

/* A loop for the best instruction set that there is. */
#define EXACT_DOOR(NAME, ARGUMENTS, ...)                                                                       \
    static inline void NAME ARGUMENTS { REFNET_BEST(NAME)(__VA_ARGS__); }
EXACT_DOOR(exact_fold, (struct exact_sums* s, ptrdiff_t n), s, n)
#define EXACT_DOORS(REAL, TYPE)                                                                                \
    EXACT_DOOR(exact_add_##TYPE,                                                                               \
               (struct exact_sums* s, ptrdiff_t first, const REAL* x, ptrdiff_t stride, ptrdiff_t n), s, first, x,\
               stride, n)                                                                                      \
    EXACT_DOOR(exact_add_products_##TYPE, (struct exact_sums* s, const REAL* x, const REAL* y, ptrdiff_t n),   \
               s, x, y, n)                                                                                     \
    EXACT_DOOR(exact_add_weighted_##TYPE,                                                                      \
               (struct exact_sums* s, const REAL* x, const struct exact_weight* weight, ptrdiff_t n), s, x,    \
               weight, n)                                                                                      \
    EXACT_DOOR(exact_line_##TYPE, (const REAL* x, REAL scale, REAL shift, REAL* y, ptrdiff_t n), x, scale,     \
               shift, y, n)                                                                                    \
    EXACT_DOOR(exact_line_to_##TYPE, (const REAL* x, REAL scale, const REAL* g, REAL* y, ptrdiff_t n), x,      \
               scale, g, y, n)                                                                                 \
    static inline ptrdiff_t exact_round_##TYPE(struct exact_sums* s, ptrdiff_t first, double count, REAL* y,   \
                                               ptrdiff_t n)                                                    \
    {                                                                                                          \
        return REFNET_BEST(exact_round_##TYPE)(s, first, count, y, n);                                         \
    }
EXACT_DOORS(float, float32)
EXACT_DOORS(double, float64)
#undef EXACT_DOORS
#undef EXACT_DOOR

#endif
