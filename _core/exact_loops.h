/* The loops of exact_sums.h, for an instruction set of versions.h: compilers put them into its vectors. */

/* One sum of n that are side by side: the first. */
TARGET static void NAMED(exact_fold)(struct exact_sums* s, ptrdiff_t n)
{
    while (n > 1) {
        const ptrdiff_t half = (n + 1) / 2;
        for (ptrdiff_t i = 0; i < n - half; ++i) exact_add_sum(s, i, half + i);
        n = half;
    }
}

#define EXACT_LOOPS(REAL, TYPE)                                                                                \
    /* Add every stride-th x, each to a sum of its own, from the first on. */                                  \
    TARGET static void NAMED(exact_add_##TYPE)(struct exact_sums* s, ptrdiff_t first, const REAL* x,           \
                                               ptrdiff_t stride, ptrdiff_t n)                                  \
    {                                                                                                          \
        if (stride == 1)                                                                                       \
            for (ptrdiff_t i = 0; i < n; ++i) exact_add_term(s, first + i, x[i]);                              \
        else                                                                                                   \
            for (ptrdiff_t i = 0; i < n; ++i) exact_add_term(s, first + i, x[i * stride]);                     \
    }                                                                                                          \
    /* Add x times a weight, each to a sum of its own. */                                                      \
    TARGET static void NAMED(exact_add_weighted_##TYPE)(struct exact_sums* s, const REAL* x,                   \
                                                         const struct exact_weight* weight, ptrdiff_t n)       \
    {                                                                                                          \
        const struct exact_weight factor = *weight;                                                            \
        for (ptrdiff_t i = 0; i < n; ++i) exact_add_weighted(s, i, x[i], factor);                              \
    }                                                                                                          \
    /* Round n sums over a count, which is whole and at most 2^53; return how many are not decided. */         \
    TARGET static ptrdiff_t NAMED(exact_round_##TYPE)(struct exact_sums* s, ptrdiff_t first, double count,     \
                                                      REAL* y, ptrdiff_t n)                                    \
    {                                                                                                          \
        int64_t undecided = 0;                                                                                 \
        if (count == 1)                                                                                        \
            for (ptrdiff_t i = first; i < first + n; ++i) {                                                    \
                s->undecided[i] = exact_decide_##TYPE(s->high[i], s->low[i], s->rest[i], 1, y + i - first);    \
                undecided += s->undecided[i];                                                                  \
            }                                                                                                  \
        else                                                                                                   \
            for (ptrdiff_t i = first; i < first + n; ++i) {                                                    \
                s->undecided[i] = exact_decide_##TYPE(s->high[i], s->low[i], s->rest[i], count, y + i - first);\
                undecided += s->undecided[i];                                                                  \
            }                                                                                                  \
        return (ptrdiff_t)undecided;                                                                           \
    }

EXACT_LOOPS(float, float32)
EXACT_LOOPS(double, float64)

/* Add x y, each to a sum of its own; products of floats are doubles. */
TARGET static void NAMED(exact_add_products_float32)(struct exact_sums* s, const float* x, const float* y, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; ++i) exact_add_term(s, i, (double)x[i] * y[i]);
}

TARGET static void NAMED(exact_add_products_float64)(struct exact_sums* s, const double* x, const double* y,
                                              ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; ++i) exact_add_product(s, i, x[i], y[i]);
}

/* y = scale x + shift, rounded once; a shift of -0 must have been made +0, and then an exact zero is +0. */
TARGET static void NAMED(exact_line_float32)(const float* x, float scale, float shift, float* y, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; ++i) y[i] = fmaf(scale, x[i], shift);
}

TARGET static void NAMED(exact_line_float64)(const double* x, double scale, double shift, double* y, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; ++i) y[i] = fma(scale, x[i], shift);
}

/* y = scale x + g, rounded once; where that is an exact zero, +0. */
TARGET static void NAMED(exact_line_to_float32)(const float* x, float scale, const float* g, float* y, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; ++i) y[i] = fmaf(scale, x[i], g[i] + 0.0f);
}

TARGET static void NAMED(exact_line_to_float64)(const double* x, double scale, const double* g, double* y, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; ++i) y[i] = fma(scale, x[i], g[i] + 0.0);
}

#undef EXACT_LOOPS
