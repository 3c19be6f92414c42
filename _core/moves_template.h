/* One version of what moves values: transposed, in turn, copied, past the caches. Included with what
   micro_kernel_template.h is included with, and where there is such, PIECES, LOW, HIGH, for float LOW_PAIRS and
   HIGH_PAIRS, LEFT_HALVES and RIGHT_HALVES, and STREAM. */

/* Values in 16 bytes. */
#define SQUARE ((ptrdiff_t) (16 / sizeof(REAL)))

/* to (values, rows), `width` values apart, <- from (rows, values), `pitch` values apart.

   16 bytes of each of LANES rows at once: a vector has those of every SQUAREth row, so that the squares in which
   vectors are transposed give whole vectors of rows in order. */
TARGET static void NAME(transpose)(const REAL *from, ptrdiff_t pitch, REAL *to, ptrdiff_t width, ptrdiff_t rows,
                                   ptrdiff_t values)
{
    ptrdiff_t row = 0;
#ifdef PIECES
    for (; row + LANES <= rows; row += LANES, from += LANES * pitch, to += LANES) {
        ptrdiff_t i = 0;
        for (; i + SQUARE <= values; i += SQUARE) {
            REAL *column = to + i * width;
            const VECTOR a = PIECES(from + i, SQUARE * pitch), b = PIECES(from + i + pitch, SQUARE * pitch);
#ifdef LOW_PAIRS
            const VECTOR c = PIECES(from + i + 2 * pitch, SQUARE * pitch);
            const VECTOR d = PIECES(from + i + 3 * pitch, SQUARE * pitch);
            const VECTOR ab = LOW(a, b), cd = LOW(c, d), ab_high = HIGH(a, b), cd_high = HIGH(c, d);
            *(UNALIGNED *) column = LOW_PAIRS(ab, cd);
            *(UNALIGNED *) (column + width) = HIGH_PAIRS(ab, cd);
            *(UNALIGNED *) (column + 2 * width) = LOW_PAIRS(ab_high, cd_high);
            *(UNALIGNED *) (column + 3 * width) = HIGH_PAIRS(ab_high, cd_high);
#else
            *(UNALIGNED *) column = LOW(a, b);
            *(UNALIGNED *) (column + width) = HIGH(a, b);
#endif
        }
        for (; i < values; i++)
            for (ptrdiff_t lane = 0; lane < LANES; lane++)
                to[i * width + lane] = from[lane * pitch + i];
    }
#endif
    for (; row < rows; row++, from += pitch, to++)
        for (ptrdiff_t i = 0; i < values; i++)
            to[i * width] = from[i];
}

#undef SQUARE

/* to (groups, sections, run) = or += from (sections, groups, run); what is `ahead` of it comes nearer. */
TARGET static void NAME(regroup)(const REAL *from, REAL *to, ptrdiff_t groups, ptrdiff_t sections, ptrdiff_t run,
                                 int add, ptrdiff_t ahead)
{
    for (ptrdiff_t group = 0; group < groups; group++)
        for (ptrdiff_t section = 0; section < sections; section++, to += run) {
            const REAL *values = from + (section * groups + group) * run;
            for (ptrdiff_t i = 0; i < run; i += LANES) {
                const unsigned kept = KEEP(0, run - i < LANES ? run - i : LANES);
                VECTOR some = MERGE((VECTOR) {0}, MASK_OF(kept), values + i);
                if (add)
                    some = MERGE((VECTOR) {0}, MASK_OF(kept), to + i) + some;
                PREFETCH(to + i + ahead);
                PUT(to + i, MASK_OF(kept), some);
            }
        }
}

/* to (2 n) <- the values of two lines of n in turn. */
TARGET static void NAME(alternate)(const REAL *first, const REAL *second, REAL *to, ptrdiff_t n)
{
    ptrdiff_t i = 0;
#ifdef LEFT_HALVES
    for (; i + LANES <= n; i += LANES) {
        const VECTOR a = *(const UNALIGNED *) (first + i), b = *(const UNALIGNED *) (second + i);
        *(UNALIGNED *) (to + 2 * i) = LEFT_HALVES(a, b);
        *(UNALIGNED *) (to + 2 * i + LANES) = RIGHT_HALVES(a, b);
    }
#endif
    for (; i < n; i++) {
        to[2 * i] = first[i];
        to[2 * i + 1] = second[i];
    }
}

/* to (n + zeros) <- n values, and zeros, past the caches: but for the cache lines that it shares. */
TARGET static void NAME(stream)(const REAL *from, ptrdiff_t n, ptrdiff_t zeros, REAL *to)
{
    const ptrdiff_t end = n + zeros;
    ptrdiff_t i = 0;
#ifdef STREAM
    const ptrdiff_t line = 64 / sizeof(REAL), head = -((size_t) to / sizeof(REAL)) & (line - 1);
    if (head + line <= end) {
        for (; i < head; i++)
            to[i] = i < n ? from[i] : 0;
        for (; i + line <= end; i += line)
            for (ptrdiff_t j = i; j < i + line; j += LANES) {
                VECTOR some = {0};
                if (j + LANES <= n)
                    some = *(const UNALIGNED *) (from + j);
                else if (j < n)
                    some = MERGE(some, MASK_OF(KEEP(0, n - j)), from + j);
                STREAM(to + j, some);
            }
    }
#endif
    for (; i < n; i++)
        to[i] = from[i];
    for (; i < end; i++)
        to[i] = 0;
}

/* to (rows, n), PITCH values apart, <- from, `pitch` values apart. */
TARGET static void NAME(copy)(const REAL *from, ptrdiff_t pitch, REAL *to, ptrdiff_t rows, ptrdiff_t n)
{
    for (ptrdiff_t row = 0; row < rows; row++, from += pitch, to += PITCH) {
        ptrdiff_t i = 0;
        for (; i + 4 * LANES <= n; i += 4 * LANES) {
            const UNALIGNED *values = (const UNALIGNED *) (from + i);
            UNALIGNED *copies = (UNALIGNED *) (to + i);
            const VECTOR a = values[0], b = values[1], c = values[2], d = values[3];
            copies[0] = a;
            copies[1] = b;
            copies[2] = c;
            copies[3] = d;
        }
        for (; i < n; i++)
            to[i] = from[i];
    }
}
