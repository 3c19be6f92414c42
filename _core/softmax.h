/* A row of softmax and of cross-entropy, in loops that compilers vectorise. Both dtypes are computed in
   double and rounded to their own where a result is stored.

   e[k] = exp(x[k] - largest); their sum is that of sums.h, for double compensated. With e as elementary.h
   states it, y and dx are within 9 u and 10 u of the exact ones, u = 2^-53, and for float within 0.6 ulp;
   where they are subnormal, within the smallest number there is. */
#include "elementary.h"
#include "sums.h"

/* Lanes of the race for the largest value; and values of a part: a longer row is gone through part by part, and once
   more for its results. */
enum { REFNET_RACES = 64, REFNET_PART = 4096 };

/* From all lanes to one, pair by pair; in loops of constant length, which are vectorised. */
#define REFNET_HALVE(HALF) \
    for (int i = 0; i < HALF; ++i) best[i] = best[i + HALF] > best[i] ? best[i + HALF] : best[i];

/* What a row's e add up to: those of all classes but the label, and the label's own. */
typedef struct {
    double largest, others, of_label;
} refnet_row;

/* The difference of doubles is a double and a rest (TwoSum again), unless there is nothing left of its
   exponential. That of floats loses nothing that counts. */
static inline double refnet_e_float64(double x, double largest) {
    const double d = x - largest, shift = d - x, rest = (x - (d - shift)) - (largest + shift);
    return refnet_exp(d, d < -746.0 ? 0.0 : rest);
}

static inline double refnet_e_float32(float x, double largest) {
    return refnet_exp_for_float(x - largest);
}

/* e of n values of x, n <= REFNET_PART. */
#define REFNET_EXPONENTIALS(NAME, REAL, E)                                                \
    REFNET_VERSIONS                                                                       \
    static void NAME(const REAL* restrict x, double* restrict e, ptrdiff_t n, double largest) { \
        for (ptrdiff_t k = 0; k < n; ++k) e[k] = E(x[k], largest);                        \
    }

REFNET_EXPONENTIALS(refnet_exponentials_float64, double, refnet_e_float64)
REFNET_EXPONENTIALS(refnet_exponentials_float32, float, refnet_e_float32)

/* A sum of exponentials: of those of floats, what additions lose does not count. */
static inline void refnet_sum_float32(const double* e, ptrdiff_t n, struct refnet_pair* sum) {
    refnet_total_float64(e, e, (struct refnet_pair){0.0, 0.0}, (struct refnet_planes){1, n, n, 0}, sum);
}

/* The sums of n values of x; without a label (-1) all are others. e is that of the last part. */
#define REFNET_ROW(NAME, REAL, EXPONENTIALS, SUM)                                                        \
    REFNET_VERSIONS                                                                                      \
    static refnet_row NAME(const REAL* restrict x, double* restrict e, ptrdiff_t n, ptrdiff_t label) {   \
        REAL best[REFNET_RACES];                                                                         \
        struct refnet_pair sum = {0.0, 0.0};                                                             \
        const ptrdiff_t whole = n - n % REFNET_RACES;                                                    \
        for (int i = 0; i < REFNET_RACES; ++i) best[i] = x[0];                                           \
        for (ptrdiff_t k = 0; k < whole; k += REFNET_RACES)                                              \
            for (int i = 0; i < REFNET_RACES; ++i) best[i] = x[k + i] > best[i] ? x[k + i] : best[i];    \
        for (int i = 0; i < n - whole; ++i) best[i] = x[whole + i] > best[i] ? x[whole + i] : best[i];   \
        REFNET_HALVE(32) REFNET_HALVE(16) REFNET_HALVE(8) REFNET_HALVE(4) REFNET_HALVE(2) REFNET_HALVE(1) \
        refnet_row row = {best[0], 0.0, 0.0};                                                            \
        for (ptrdiff_t start = 0; start < n; start += REFNET_PART) {                                     \
            const ptrdiff_t count = n - start < REFNET_PART ? n - start : REFNET_PART;                   \
            EXPONENTIALS(x + start, e, count, row.largest);                                              \
            if (start <= label && label < start + count) {                                               \
                row.of_label = e[label - start];                                                         \
                e[label - start] = 0.0;                                                                  \
            }                                                                                            \
            SUM(e, count, &sum);                                                                         \
        }                                                                                                \
        row.others = sum.high;                                                                           \
        return row;                                                                                      \
    }

REFNET_ROW(refnet_row_float64, double, refnet_exponentials_float64, refnet_compensated)
REFNET_ROW(refnet_row_float32, float, refnet_exponentials_float32, refnet_sum_float32)

/* y = e (1 / sum). */
#define REFNET_SOFTMAX(NAME, REAL, ROW, EXPONENTIALS)                                       \
    REFNET_VERSIONS                                                                         \
    static void NAME(const REAL* restrict x, REAL* restrict y, ptrdiff_t n) {               \
        double e[REFNET_PART];                                                              \
        const refnet_row row = ROW(x, e, n, -1);                                            \
        const double reciprocal = 1.0 / row.others;                                         \
        for (ptrdiff_t start = 0; start < n; start += REFNET_PART) {                        \
            const ptrdiff_t count = n - start < REFNET_PART ? n - start : REFNET_PART;      \
            if (n > REFNET_PART) EXPONENTIALS(x + start, e, count, row.largest);            \
            for (ptrdiff_t k = 0; k < count; ++k) y[start + k] = (REAL)(e[k] * reciprocal); \
        }                                                                                   \
    }

REFNET_SOFTMAX(refnet_softmax_float64, double, refnet_row_float64, refnet_exponentials_float64)
REFNET_SOFTMAX(refnet_softmax_float32, float, refnet_row_float32, refnet_exponentials_float32)

/* dx = y (dy - mean), mean the sum of dy y, in the dtype. */
#define REFNET_SOFTMAX_GRADIENT(NAME, REAL)                                                                    \
    REFNET_VERSIONS                                                                                            \
    static void NAME(const REAL* restrict dy, const REAL* restrict y, REAL mean, REAL* restrict dx, ptrdiff_t n) { \
        for (ptrdiff_t k = 0; k < n; ++k) dx[k] = y[k] * (dy[k] - mean);                                       \
    }

REFNET_SOFTMAX_GRADIENT(refnet_softmax_gradient_float64, double)
REFNET_SOFTMAX_GRADIENT(refnet_softmax_gradient_float32, float)

/* log(sum) - (x[label] - largest), with the rest of sum = others + of_label, so that a small loss is not
   lost beside 1: log(sum + rest) = log(sum) + rest / sum. */
static inline double refnet_loss(refnet_row row, double of_label) {
    const struct refnet_pair sum = refnet_added((struct refnet_pair){row.others, 0.0}, row.of_label);
    return refnet_log(sum.high) + sum.low / sum.high - (of_label - row.largest);
}

static double refnet_loss_float64(const double* x, ptrdiff_t n, ptrdiff_t label) {
    double e[REFNET_PART];
    return refnet_loss(refnet_row_float64(x, e, n, label), x[label]);
}

static double refnet_loss_float32(const float* x, ptrdiff_t n, ptrdiff_t label) {
    double e[REFNET_PART];
    return refnet_loss(refnet_row_float32(x, e, n, label), x[label]);
}

/* dx = e dy / sum, and at the label -others dy / sum: its softmax less 1 would cancel. */
#define REFNET_LOSS_GRADIENT(NAME, REAL, ROW, EXPONENTIALS)                                                \
    REFNET_VERSIONS                                                                                        \
    static void NAME(const REAL* restrict x, REAL* restrict dx, ptrdiff_t n, ptrdiff_t label, double dy) { \
        double e[REFNET_PART];                                                                             \
        const refnet_row row = ROW(x, e, n, label);                                                        \
        const double scale = dy / (row.others + row.of_label);                                             \
        for (ptrdiff_t start = 0; start < n; start += REFNET_PART) {                                       \
            const ptrdiff_t count = n - start < REFNET_PART ? n - start : REFNET_PART;                     \
            if (n > REFNET_PART) EXPONENTIALS(x + start, e, count, row.largest);                           \
            for (ptrdiff_t k = 0; k < count; ++k) dx[start + k] = (REAL)(e[k] * scale);                    \
        }                                                                                                  \
        dx[label] = (REAL)((0.0 - row.others) * scale);                                                    \
    }

REFNET_LOSS_GRADIENT(refnet_loss_gradient_float64, double, refnet_row_float64, refnet_exponentials_float64)
REFNET_LOSS_GRADIENT(refnet_loss_gradient_float32, float, refnet_row_float32, refnet_exponentials_float32)
