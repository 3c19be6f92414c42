/* The exponential and the logarithm of softmax and cross-entropy. Only + - * / in double, choices and
   shifts, in a stated order: with nothing contracted (-ffp-contract=off) every compiler, processor and
   width of vectors gives the same bits. u is 2^-53, an ulp the distance of two doubles (floats) around
   the exact value; all errors are of the exact function of the given argument.

   exp, of x <= 0 (what softmax asks for), is within 0.68 ulp, and where the result is subnormal within
   0.84 of the smallest number. x = k ln 2 + r with k whole and |r| <= ln 2 / 2 + 2^-40.
   - Reduction (W. J. Cody and W. Waite, 1980): ln 2 = C1 + C2, C1 of 32 bits. k has 11 bits at most, so
     k C1 and x - k C1 are exact; k C2 < 2^-22 has an error below 2^-75. r is their difference, rounded,
     and c what that rounding lost, with the rest of x if it has one: c <= 2^-43, c^2 counts for nothing.
   - Polynomial: exp(r) = 1 + r + q, q = r^2 P(r), of degree 12: the Chebyshev expansion of exp on that
     interval cut off there, which leaves less than 2 I_13(ln 2 / 2) < 2^-64 (Bessel's I); with
     coefficients rounded, and 1 for the first two, below 2^-60.9 of exp(r). That is 0.005 ulp.
   - Rounding, for r < 0, where an ulp is 2^-53: q < 2^-4.2, so r^2, P and their product put at most
     (0.028 + 0.035 + 0.031) ulp into q; 1 + r is a number s and an exact rest e; exp(r + c) = s + (e +
     (c (s + q) + q)): c (s + q) is off by 2^-94, the two inner additions by 2 * 0.031 ulp, the last one
     by 0.5. For r > 0 an ulp is twice that and q < 2^-3.8: less.
   - 2^k: a product that is exact, and one with 2^-1000 that is rounded if it is subnormal.
   exp of float, of x <= 0 again, is within 0.55 ulp, and where it is subnormal within 0.55 of the smallest
   float: t = x / ln 2 in double (its rounding moves the result by 2^-45 of it), t = k + r with k whole,
   |r| <= 1/2, both exact; 2^r by the Chebyshev expansion of degree 6, which leaves less than 2 I_7(ln 2 / 2)
   < 2^-28.9, with 1 for the first coefficient 2^-28.5 of the result, 0.045 ulp; k is added to the exponent.
   What comes of it is rounded to float once. Both give 1 for 0.
   log is within 0.6 ulp. x = 2^k m with sqrt(1/2) <= m < sqrt(2) up to a rounding; log m = 2 atanh(s),
   s = f / (2 + f), f = m - 1 exactly.
   - s = h + l, h its first 26 bits, l = (f - h (2 + f)) / (2 + f), where h times the first 26 bits of
     2 + f is exact, and so is the difference to f: l is below 2^-25 s, with an error below 2^-75 s.
   - log m = 2 h + (2 l + 2 s^3 (1/3 + s^2/5 + ... + s^22/25)); |s| < 0.1716, so the series leaves less
     than 2^-70 of log m. The bracket is below 0.01 of log m, and eight roundings of it put at most 0.08 u
     of log m into it, which is 0.08 ulp or less; the last sum 0.5.
   - k ln 2 = k C1 + k C2: k C1 is exact, its sum with 2 h a number and an exact rest. Where k is not 0
     that number is not below 0.34, so the bracket is no larger a part of it, and k C2 and the rest smaller.
   log of 0 is -inf, of +inf +inf, of what is negative NaN. Of NaN both are NaN. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define REFNET_LN2_HIGH 0x1.62e42feep-1
#define REFNET_LN2_LOW 0x1.a39ef35793c76p-33

static inline uint64_t refnet_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}

static inline double refnet_of_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

/* 1.5 * 2^52: a sum with it is whole, and its last bits are those of the whole number. */
#define REFNET_WHOLE 6755399441055744.0

/* exp(x + rest) for x <= 0 and a rest of at most half an ulp of x, rounded to double. */
static inline double refnet_exp(double x, double rest) {
    const double bounded = x < -746.0 ? -746.0 : x;
    const double shifted = bounded * 0x1.71547652b82fep+0 + REFNET_WHOLE;
    const double k = shifted - REFNET_WHOLE;
    const double high = bounded - k * REFNET_LN2_HIGH, low = k * REFNET_LN2_LOW;
    const double r = high - low, c = ((high - r) - low) + rest;
    double p = 0x1.1f9768aae6830p-29;
    p = p * r + 0x1.af785e0a5e05cp-26;
    p = p * r + 0x1.27e4c357e96f5p-22;
    p = p * r + 0x1.71dde76a2f6d2p-19;
    p = p * r + 0x1.a01a01b27d6afp-16;
    p = p * r + 0x1.a01a01b802660p-13;
    p = p * r + 0x1.6c16c16c13a9cp-10;
    p = p * r + 0x1.111111110db75p-7;
    p = p * r + 0x1.555555555555dp-5;
    p = p * r + 0x1.5555555555562p-3;
    p = p * r + 0.5;
    const double s = 1.0 + r, e = r - (s - 1.0), q = (r * r) * p;
    const double power = refnet_of_bits((refnet_bits(shifted) + 1023 + 1000) << 52);
    return (s + (e + (c * (s + q) + q))) * power * 0x1p-1000;
}

/* exp(x) for x <= 0, to within 2^-28.5 of it, to be rounded to float; 0 where that would be. x is a difference
   of floats: the last bits of a NaN are 0, and it stays one when they are added. */
static inline double refnet_exp_for_float(double x) {
    const double t = x * 0x1.71547652b82fep+0;
    const double shifted = t + REFNET_WHOLE;
    const double r = t - (shifted - REFNET_WHOLE);
    double p = 0x1.446c7dbc19a0dp-13;
    p = p * r + 0x1.5f48c72939e4ap-10;
    p = p * r + 0x1.3b29d8b5593e6p-7;
    p = p * r + 0x1.c6aecc557b119p-5;
    p = p * r + 0x1.ebfbe0aa0c6a6p-3;
    p = p * r + 0x1.62e430d045900p-1;
    p = p * r + 1.0;
    return t <= -150.0 ? 0.0 : refnet_of_bits(refnet_bits(p) + (refnet_bits(shifted) << 52));
}

/* log(x). */
static inline double refnet_log(double x) {
    if (!(x > 0.0)) return x == 0.0 ? -INFINITY : NAN;
    if (x > 0x1.fffffffffffffp+1023) return x;
    const int is_subnormal = x < 0x1p-1022;
    const uint64_t bits = refnet_bits(is_subnormal ? x * 0x1p54 : x);
    /* The exponent goes up at sqrt(2), not at 2. */
    const uint64_t up = bits + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd);
    const double k = (double)((int)(up >> 52) - 1023 - (is_subnormal ? 54 : 0));
    const double m = refnet_of_bits((up & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd);
    const double f = m - 1.0, t = 1.0 + m, s = f / t;
    const double h = refnet_of_bits(refnet_bits(s) & 0xfffffffff8000000);
    const double t_high = refnet_of_bits(refnet_bits(t) & 0xfffffffff8000000), t_low = m - (t_high - 1.0);
    const double l = ((f - h * t_high) - h * t_low) / t;
    const double z = s * s;
    double p = 2.0 / 25.0;
    p = p * z + 2.0 / 23.0;
    p = p * z + 2.0 / 21.0;
    p = p * z + 2.0 / 19.0;
    p = p * z + 2.0 / 17.0;
    p = p * z + 2.0 / 15.0;
    p = p * z + 2.0 / 13.0;
    p = p * z + 2.0 / 11.0;
    p = p * z + 2.0 / 9.0;
    p = p * z + 2.0 / 7.0;
    p = p * z + 2.0 / 5.0;
    p = p * z + 2.0 / 3.0;
    const double high = k * REFNET_LN2_HIGH, sum = high + 2.0 * h, rest = (high - sum) + 2.0 * h;
    return sum + (rest + ((2.0 * l + s * z * p) + k * REFNET_LN2_LOW));
}
