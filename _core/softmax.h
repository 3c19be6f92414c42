/* Softmax of a row, in loops that compilers vectorise, and the exponential that it needs: of numbers
   that are not above 0.

   x = k ln 2 + r with k whole and |r| <= ln 2 / 2 (W. J. Cody and W. Waite, 1980: ln 2 in two parts, the
   first of 32 bits, so that its multiples are exact); exp(x) = 2^k exp(r), and exp(r) by its Taylor
   polynomial of degree 13, whose remainder is below 2^-57. Only + - * and shifts: every version below
   gives the same bits. NaN stays NaN; what is below the smallest number becomes 0.
*/
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define REFNET_VERSIONS __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define REFNET_VERSIONS
#endif

static inline double refnet_exp(double x) {
    const double to_whole = 6755399441055744.0; /* 1.5 * 2^52: adding it leaves no fraction */
    const double least = -746.0, smallest = 0x1p-1000;
    const double bounded = x < least ? least : x;
    const double shifted = bounded * 0x1.71547652b82fep+0 + to_whole;
    const double k = shifted - to_whole;
    const double r = (bounded - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = 1.0 + (p * r * r + r);
    /* 2^k in two factors: alone it would be no normal number where the result is none. */
    const double whole = k < -1000.0 ? k + 1000.0 : k;
    const double biased = whole + 1023.0 + to_whole;
    uint64_t bits;
    double power;
    memcpy(&bits, &biased, 8);
    bits <<= 52;
    memcpy(&power, &bits, 8);
    return p * power * (k < -1000.0 ? smallest : 1.0);
}

/* One row of n values: largest in sixteen interleaved races; y = exp(x - largest), summed in sixteen
   interleaved partial sums; y over the sum. Returns the sum. Of a row with NaN all of y is NaN. */
#define REFNET_SOFTMAX(NAME, REAL)                                                        \
    REFNET_VERSIONS                                                                       \
    static REAL NAME(const REAL* restrict x, REAL* restrict y, REAL* largest, ptrdiff_t n) { \
        enum { LANES = 16 };                                                              \
        const ptrdiff_t whole = n - n % LANES;                                            \
        REAL best[LANES], sum[LANES];                                                     \
        for (int i = 0; i < LANES; ++i) best[i] = x[0], sum[i] = 0;                       \
        for (ptrdiff_t k = 0; k < whole; k += LANES)                                      \
            for (int i = 0; i < LANES; ++i) best[i] = x[k + i] > best[i] ? x[k + i] : best[i]; \
        for (ptrdiff_t k = whole; k < n; ++k) best[0] = x[k] > best[0] ? x[k] : best[0];  \
        for (int i = 1; i < LANES; ++i) best[0] = best[i] > best[0] ? best[i] : best[0];  \
        const REAL centre = *largest = best[0];                                           \
        for (ptrdiff_t k = 0; k < n; ++k) y[k] = (REAL)refnet_exp((double)(x[k] - centre)); \
        for (ptrdiff_t k = 0; k < whole; k += LANES)                                      \
            for (int i = 0; i < LANES; ++i) sum[i] += y[k + i];                           \
        for (ptrdiff_t k = whole; k < n; ++k) sum[0] += y[k];                             \
        for (int half = LANES / 2; half > 0; half /= 2)                                   \
            for (int i = 0; i < half; ++i) sum[i] += sum[i + half];                       \
        for (ptrdiff_t k = 0; k < n; ++k) y[k] /= sum[0];                                 \
        return sum[0];                                                                    \
    }

REFNET_SOFTMAX(refnet_softmax_float64, double)
REFNET_SOFTMAX(refnet_softmax_float32, float)
