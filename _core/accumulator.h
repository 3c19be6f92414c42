/* Sums of doubles, and of products of two doubles, without any rounding: one integer of 4352 bits, whose last bit is
   worth 2^-2208 (Kulisch's long accumulator; with carries that are delayed, as in Neal, arXiv:1505.05571). Integers
   alone: neither the mode of rounding nor flags that flush subnormal numbers change anything.

   A digit has 32 bits and lives in 64: each term adds less than 2^32 to each digit that it touches, so carries can wait
   for SETTLE_EVERY terms. Between two times that they are carried, a digit may be negative. A product of doubles is a
   multiple of 2^-2148 and less than 2^2048, and there is room for the sum of 2^60 of them: digit 135 begins at 2^2112.

   Only the digits [lowest, highest) have been written since `accumulator_clear`: it takes no time, and the memory of a
   new accumulator needs no value.

   Results are rounded once, to nearest, ties to even: an exact zero is +0, what is not zero and rounds to it keeps its
   sign, and what rounds to more than the largest number is infinite. What is added must be finite, a count positive. */
#ifndef REFNET_ACCUMULATOR_H
#define REFNET_ACCUMULATOR_H

#include <stdint.h>
#include <string.h>

/* Who includes this does not need all of it. */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

enum {
    ACCUMULATOR_DIGITS = 136,
    ACCUMULATOR_LAST_BIT = -2208,
    ACCUMULATOR_SETTLE_EVERY = 4096,
    /* Digits of a quotient below the last one of a sum: two for a count of 63 bits, three to be rounded. */
    ACCUMULATOR_FRACTION = 5
};

#define ACCUMULATOR_DIGIT UINT64_C(0xffffffff)

struct accumulator {
    int64_t digit[ACCUMULATOR_DIGITS];
    int32_t lowest, highest, terms;
};

static inline void accumulator_clear(struct accumulator* a)
{
    a->lowest = ACCUMULATOR_DIGITS;
    a->highest = a->terms = 0;
}

/* Carry what digits hold beyond 32 bits; the last of them keeps the sign. Returns the number of digits then. */
static int32_t accumulator_carried(int64_t* digit, int32_t count)
{
    int64_t carry = 0;
    for (int32_t i = 0; i < count; ++i) {
        const int64_t whole = digit[i] + carry, kept = (int64_t)((uint64_t)whole & ACCUMULATOR_DIGIT);
        if (i == count - 1 && whole >= -(INT64_C(1) << 31) && whole < INT64_C(1) << 31) {
            digit[i] = whole;
            return count;
        }
        digit[i] = kept;
        carry = (whole - kept) / (INT64_C(1) << 32);
    }
    if (count > 0) digit[count++] = carry;
    return count;
}

/* Have digits [first, last) among those that are written. */
static void accumulator_reach(struct accumulator* a, int32_t first, int32_t last)
{
    if (a->lowest >= a->highest) a->lowest = a->highest = first;
    while (a->lowest > first) a->digit[--a->lowest] = 0;
    while (a->highest < last) a->digit[a->highest++] = 0;
}

static inline void accumulator_prepare(struct accumulator* a, int32_t first, int32_t last)
{
    if (first < a->lowest || last > a->highest) accumulator_reach(a, first, last);
    if (++a->terms == ACCUMULATOR_SETTLE_EVERY) {
        a->highest = a->lowest + accumulator_carried(a->digit + a->lowest, a->highest - a->lowest);
        a->terms = 1;
    }
}

static inline void accumulator_add_digit(int64_t* digit, uint64_t value, uint64_t is_negative)
{
    *digit += is_negative ? -(int64_t)value : (int64_t)value;
}

/* The bits that leave 64 when a word is shifted to the left, by at most 63. */
static inline uint64_t accumulator_spilled(uint64_t word, int shift)
{
    return word >> 1 >> (63 - shift);
}

/* |x| = significand 2^exponent. */
static inline uint64_t accumulator_significand(uint64_t bits, int* exponent)
{
    const uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    const int biased = (int)(bits >> 52 & 0x7ff);
    *exponent = biased ? biased - 1075 : -1074;
    return biased ? fraction | UINT64_C(1) << 52 : fraction;
}

static inline void accumulator_add(struct accumulator* a, double x)
{
    uint64_t bits;
    int exponent;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t significand = accumulator_significand(bits, &exponent), is_negative = bits >> 63;
    const int at = exponent - ACCUMULATOR_LAST_BIT, first = at / 32, shift = at % 32;
    if (significand == 0) return;
    accumulator_prepare(a, first, first + 3);
    const uint64_t low = significand << shift;
    int64_t* digit = a->digit + first;
    accumulator_add_digit(digit, low & ACCUMULATOR_DIGIT, is_negative);
    accumulator_add_digit(digit + 1, low >> 32, is_negative);
    accumulator_add_digit(digit + 2, accumulator_spilled(significand, shift), is_negative);
}

/* The product of two significands is 2^64 high + low. */
static inline uint64_t accumulator_product(uint64_t x, uint64_t y, uint64_t* high)
{
#ifdef __SIZEOF_INT128__
    const unsigned __int128 product = (unsigned __int128)x * y;
    *high = (uint64_t)(product >> 64);
    return (uint64_t)product;
#else
    const uint64_t x_low = x & ACCUMULATOR_DIGIT, x_high = x >> 32, y_low = y & ACCUMULATOR_DIGIT, y_high = y >> 32;
    const uint64_t low = x_low * y_low, middle = x_high * y_low + (low >> 32);
    const uint64_t other = x_low * y_high + (middle & ACCUMULATOR_DIGIT);
    *high = x_high * y_high + (middle >> 32) + (other >> 32);
    return (other << 32) | (low & ACCUMULATOR_DIGIT);
#endif
}

static inline void accumulator_add_product(struct accumulator* a, double x, double y)
{
    uint64_t x_bits, y_bits, high;
    int x_exponent, y_exponent;
    memcpy(&x_bits, &x, sizeof x_bits);
    memcpy(&y_bits, &y, sizeof y_bits);
    const uint64_t x_significand = accumulator_significand(x_bits, &x_exponent);
    const uint64_t y_significand = accumulator_significand(y_bits, &y_exponent);
    const uint64_t is_negative = (x_bits ^ y_bits) >> 63;
    const int at = x_exponent + y_exponent - ACCUMULATOR_LAST_BIT, first = at / 32, shift = at % 32;
    if (x_significand == 0 || y_significand == 0) return;
    accumulator_prepare(a, first, first + 5);
    const uint64_t low = accumulator_product(x_significand, y_significand, &high);
    const uint64_t lower = low << shift, upper = high << shift | accumulator_spilled(low, shift);
    int64_t* digit = a->digit + first;
    accumulator_add_digit(digit, lower & ACCUMULATOR_DIGIT, is_negative);
    accumulator_add_digit(digit + 1, lower >> 32, is_negative);
    accumulator_add_digit(digit + 2, upper & ACCUMULATOR_DIGIT, is_negative);
    accumulator_add_digit(digit + 3, upper >> 32, is_negative);
    accumulator_add_digit(digit + 4, accumulator_spilled(high, shift), is_negative);
}

/* |sum| / divisor: digits of 32 bits, `last_bit` the exponent of the last one's last bit, and whether something is left
   below it. */
struct accumulator_magnitude {
    uint32_t digit[ACCUMULATOR_DIGITS + ACCUMULATOR_FRACTION + 1];
    int count, last_bit;
    uint64_t is_negative, rest;
};

static void accumulator_magnitude(const struct accumulator* a, struct accumulator_magnitude* m)
{
    int64_t digit[ACCUMULATOR_DIGITS + 1];
    int32_t count = a->highest > a->lowest ? a->highest - a->lowest : 0;
    for (int32_t i = 0; i < count; ++i) digit[i] = a->digit[a->lowest + i];
    count = accumulator_carried(digit, count);
    m->is_negative = count > 0 && digit[count - 1] < 0;
    if (m->is_negative) {
        for (int32_t i = 0; i < count; ++i) digit[i] = -digit[i];
        count = accumulator_carried(digit, count);
    }
    for (int32_t i = 0; i < count; ++i) m->digit[i] = (uint32_t)digit[i];
    m->count = count;
    m->last_bit = ACCUMULATOR_LAST_BIT + 32 * a->lowest;
    m->rest = 0;
}

/* Long division, digit by digit from the first. */
static void accumulator_divide(struct accumulator_magnitude* m, uint64_t divisor)
{
    uint64_t rest = 0;
    m->count += ACCUMULATOR_FRACTION;
    m->last_bit -= 32 * ACCUMULATOR_FRACTION;
    for (int i = m->count - 1; i >= 0; --i) {
        const uint32_t next = i < ACCUMULATOR_FRACTION ? 0 : m->digit[i - ACCUMULATOR_FRACTION];
        uint64_t quotient = 0;
        if (divisor <= ACCUMULATOR_DIGIT) {
            rest = rest << 32 | next;
            quotient = rest / divisor;
            rest %= divisor;
        } else {
            for (int bit = 31; bit >= 0; --bit) {
                rest = rest << 1 | (next >> bit & 1);
                quotient = quotient << 1 | (rest >= divisor);
                if (rest >= divisor) rest -= divisor;
            }
        }
        m->digit[i] = (uint32_t)quotient;
    }
    m->rest = rest;
}

/* The bits of the nearest number of a format of `precision` bits whose smallest number is 2^smallest, sign excluded;
   too large a number has more than an infinity. */
static uint64_t accumulator_rounded(const struct accumulator_magnitude* m, int precision, int smallest)
{
    int first = m->count - 1;
    while (first >= 0 && m->digit[first] == 0) --first;
    if (first < 0) return 0;
    /* The 64 bits from the first that is 1, and whether some bit behind them is. */
    const uint64_t second = first > 0 ? m->digit[first - 1] : 0, third = first > 1 ? m->digit[first - 2] : 0;
    int zeros = 0;
    while (!(m->digit[first] >> (31 - zeros) & 1)) ++zeros;
    const uint64_t two = (uint64_t)m->digit[first] << 32 | second;
    const uint64_t leading = two << zeros | third >> (32 - zeros);
    uint64_t rest = m->rest | (third << zeros & ACCUMULATOR_DIGIT);
    for (int i = 0; i < first - 2; ++i) rest |= m->digit[i];
    /* Of these, all that are worth 2^unit and more are kept. */
    const int exponent = m->last_bit + 32 * first + 31 - zeros;
    const int unit = exponent - precision + 1 > smallest ? exponent - precision + 1 : smallest;
    const int kept_bits = exponent - unit + 1;
    if (kept_bits < 0) return 0;
    const uint64_t kept = kept_bits > 0 ? leading >> (64 - kept_bits) : 0, half = leading >> (63 - kept_bits) & 1;
    const int is_more = (leading << kept_bits << 1 | rest) != 0;
    /* A significand that is added to the exponent before it carries into it. */
    return ((uint64_t)(unit - smallest) << (precision - 1)) + kept + (half && (is_more || (kept & 1)));
}

static double accumulator_magnitude_to_double(const struct accumulator_magnitude* m)
{
    uint64_t bits = accumulator_rounded(m, 53, -1074);
    if (bits > UINT64_C(0x7ff) << 52) bits = UINT64_C(0x7ff) << 52;
    bits |= m->is_negative << 63;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float accumulator_magnitude_to_float(const struct accumulator_magnitude* m)
{
    uint64_t found = accumulator_rounded(m, 24, -149);
    if (found > UINT64_C(0xff) << 23) found = UINT64_C(0xff) << 23;
    const uint32_t bits = (uint32_t)(found | m->is_negative << 31);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double accumulator_to_double(const struct accumulator* a)
{
    struct accumulator_magnitude m;
    accumulator_magnitude(a, &m);
    return accumulator_magnitude_to_double(&m);
}

static float accumulator_to_float(const struct accumulator* a)
{
    struct accumulator_magnitude m;
    accumulator_magnitude(a, &m);
    return accumulator_magnitude_to_float(&m);
}

/* The sum divided by a positive count, rounded once. */
static double accumulator_divided_to_double(const struct accumulator* a, int64_t count)
{
    struct accumulator_magnitude m;
    accumulator_magnitude(a, &m);
    accumulator_divide(&m, (uint64_t)count);
    return accumulator_magnitude_to_double(&m);
}

static float accumulator_divided_to_float(const struct accumulator* a, int64_t count)
{
    struct accumulator_magnitude m;
    accumulator_magnitude(a, &m);
    accumulator_divide(&m, (uint64_t)count);
    return accumulator_magnitude_to_float(&m);
}

#endif
