/* A multiply-add that rounds once, where there may be no instruction for it: a b + c, rounded to nearest, of vectors of
   16 bytes. Additions and products alone, and C's `fma` where those would over- or underflow.

   To round to odd is to keep an exact value, and else to take of the two numbers around it the one whose last bit is
   1. What is so rounded, and then to nearest with at least two bits less, is the exact value's nearest number
   (Boldo and Melquiond, IEEE Trans. Comput. 57, 2008). */

#ifndef REFNET_MULTIPLY_ADD_H
#define REFNET_MULTIPLY_ADD_H

#include <math.h>

#ifdef __GNUC__

typedef double DOUBLES __attribute__((vector_size(16)));
typedef long long LONGS __attribute__((vector_size(16)));
typedef float FLOATS __attribute__((vector_size(16)));
typedef float FLOAT_PAIR __attribute__((vector_size(8)));

/* a + b less its rounded value (Knuth). */
INLINE DOUBLES sum_error(DOUBLES a, DOUBLES b, DOUBLES sum)
{
    const DOUBLES b_found = sum - a;
    return (a - (sum - b_found)) + (b - b_found);
}

/* a b less its rounded value (Veltkamp and Dekker): factors are cut into halves, whose products are exact. */
INLINE DOUBLES product_error(DOUBLES a, DOUBLES b, DOUBLES product)
{
    const DOUBLES a_far = a * 0x1p27 + a, b_far = b * 0x1p27 + b;
    const DOUBLES a_high = a_far - (a_far - a), b_high = b_far - (b_far - b);
    const DOUBLES a_low = a - a_high, b_low = b - b_high;
    return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low);
}

/* a + b, rounded to odd. */
INLINE DOUBLES sum_to_odd(DOUBLES a, DOUBLES b)
{
    const DOUBLES sum = a + b, error = sum_error(a, b, sum);
    const LONGS is_inexact = (error < 0) | (error > 0); /* not where the sum is infinite, and its error NaN */
    const LONGS is_even = ((LONGS) sum & 1) - 1, towards_zero = (error < 0) ^ (sum < 0);
    return (DOUBLES) ((LONGS) sum + (is_inexact & is_even & (towards_zero | 1)));
}

INLINE LONGS is_at_most(DOUBLES a, double limit)
{
    return (DOUBLES) ((LONGS) a & 0x7fffffffffffffff) <= limit;
}

/* The product, with its error, and c are added without any error but that of the last addition, whose smaller term is
   rounded to odd: figure 5 of the paper. */
INLINE DOUBLES multiply_add_doubles(DOUBLES a, DOUBLES b, DOUBLES c)
{
    const DOUBLES product = a * b, low = product_error(a, b, product);
    const DOUBLES middle = c + low, rest = sum_error(c, low, middle);
    const DOUBLES high = product + middle, left = sum_error(product, middle, high);
    const LONGS is_zero = (a == 0) | (b == 0), is_product_exact = is_zero | ~is_at_most(product, 0x1p-960);
    const LONGS is_safe = is_product_exact & is_at_most(product, 0x1p1000) & is_at_most(c, 0x1p1000)
                        & is_at_most(a, 0x1p990) & is_at_most(b, 0x1p990);
    DOUBLES sum = high + sum_to_odd(rest, left);
    if (!(is_safe[0] & is_safe[1]))
        for (int i = 0; i < 2; i++)
            sum[i] = fma(a[i], b[i], c[i]);
    return (DOUBLES) ((is_zero & (LONGS) (product + c)) | (~is_zero & (LONGS) sum));
}

/* Values i and i + 1 of a vector, as doubles. */
#define WIDENED(v, i) __builtin_convertvector(((FLOAT_PAIR) {v[i], v[(i) + 1]}), DOUBLES)

/* Products of float are exact in double, and never near its limits. Pairs are converted as
   vectors: from conversions one by one, GCC 12 made loops that give other sums (-O1 and Clang did not). */
INLINE FLOATS multiply_add_floats(FLOATS a, FLOATS b, FLOATS c)
{
    const DOUBLES low = sum_to_odd(WIDENED(a, 0) * WIDENED(b, 0), WIDENED(c, 0));
    const DOUBLES high = sum_to_odd(WIDENED(a, 2) * WIDENED(b, 2), WIDENED(c, 2));
    const FLOAT_PAIR first = __builtin_convertvector(low, FLOAT_PAIR), last = __builtin_convertvector(high, FLOAT_PAIR);
    return (FLOATS) {first[0], first[1], last[0], last[1]};
}

#undef WIDENED

#else

#define multiply_add_doubles fma
#define multiply_add_floats fmaf

#endif

#endif
