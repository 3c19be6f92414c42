/* Whether an interval around a computed value holds but one number of a format: then it is the exact value, rounded.
   Rounding is monotonic: if both ends are rounded to one number, so is all that lies between them. */

#ifndef REFNET_EXACT_ROUND_H
#define REFNET_EXACT_ROUND_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Above 1 by more than what the error of an interval, and its ends, lose to rounding. */
#define WIDER (1 + 0x1p-20)

/* high + low, which is off by `error` at most, rounded; NaN if that is not decided. An exact zero is +0. */
static inline double rounded_pair(double high, double low, double error)
{
    const double sum = high + low, taken = sum - high;
    const double rest = (high - (sum - taken)) + (low - taken);
    const double wide = WIDER * error + 0x1p-51 * fabs(rest);
    const double up = sum + (rest + wide), down = sum + (rest - wide);
    return up == down ? up + 0.0 : NAN;
}

/* high + low + more, likewise. */
static inline double rounded_triple(double high, double low, double more, double error)
{
    const double sum = high + more, taken = sum - high;
    const double rest = low + ((high - (sum - taken)) + (more - taken));
    return rounded_pair(sum, rest, error + 0x1p-52 * (fabs(rest) + fabs(low)));
}

/* y <- values that are off by at most error * errors, rounded to float; NaN where that is not decided. A value of
   either sign may round to zero: then the ends have different bits. */
static inline void round_to_floats(const double *values, const double *errors, double error, ptrdiff_t n, float *y)
{
    enum { BLOCK = 256 };
    int32_t up[BLOCK], down[BLOCK];
    for (ptrdiff_t first = 0; first < n; first += BLOCK) {
        const int count = n - first < BLOCK ? (int) (n - first) : BLOCK;
        float ends[2 * BLOCK];
        for (int i = 0; i < count; i++) {
            const double value = values[first + i] + 0.0, off = WIDER * (error * errors[first + i]);
            const double wide = off + (off > 0 ? 0x1p-51 * fabs(value) : 0);
            ends[i] = (float) (value + wide);
            ends[BLOCK + i] = (float) (value - wide);
        }
        memcpy(up, ends, sizeof up);
        memcpy(down, ends + BLOCK, sizeof down);
        for (int i = 0; i < count; i++)
            up[i] = up[i] == down[i] ? up[i] : 0x7fc00000;
        memcpy(y + first, up, count * sizeof *y);
    }
}

#endif
