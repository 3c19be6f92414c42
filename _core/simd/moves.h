/* Kernels that move values: transposed, interleaved, copied, stored past the caches. See kernels.h.

   Optional: LOAD_ROWS, LOAD_SQUARES, UNPACK_LOW, UNPACK_HIGH, for float UNPACK_LOW_PAIRS and UNPACK_HIGH_PAIRS,
   INTERLEAVE_LOW, INTERLEAVE_HIGH, STORE_NONTEMPORAL. */

/* Values in 16 bytes, and how many times 16 bytes a vector has. */
#define SQUARE ((ptrdiff_t) (16 / sizeof(REAL)))
#define SQUARES (LANES / SQUARE)

#ifdef LOAD_ROWS
/* column (SQUARE) <- row (SQUARE), transposed square by square. */
INLINE TARGET void NAME(transpose_squares)(const VECTOR *row, VECTOR *column)
{
#ifdef UNPACK_LOW_PAIRS
    const VECTOR ab = UNPACK_LOW(row[0], row[1]), cd = UNPACK_LOW(row[2], row[3]);
    const VECTOR ab_high = UNPACK_HIGH(row[0], row[1]), cd_high = UNPACK_HIGH(row[2], row[3]);
    column[0] = UNPACK_LOW_PAIRS(ab, cd);
    column[1] = UNPACK_HIGH_PAIRS(ab, cd);
    column[2] = UNPACK_LOW_PAIRS(ab_high, cd_high);
    column[3] = UNPACK_HIGH_PAIRS(ab_high, cd_high);
#else
    column[0] = UNPACK_LOW(row[0], row[1]);
    column[1] = UNPACK_HIGH(row[0], row[1]);
#endif
}
#endif

/* column (LANES) <- a block (LANES, LANES) of rows `pitch` values apart, transposed.

   A vector has 16 bytes of every SQUAREth row, so that the squares in which vectors are transposed give whole vectors
   of rows in order. What is read of one row is read at once: lines a power of two apart compete for the same sets of
   the cache. */
INLINE TARGET void NAME(transpose_block)(const REAL *from, ptrdiff_t pitch, VECTOR *column)
{
#ifdef LOAD_ROWS
    VECTOR square[SQUARES][SQUARE];
    UNROLL
    for (int i = 0; i < SQUARE; i++) {
#ifdef LOAD_SQUARES
        LOAD_SQUARES(square[0][i], square[1][i], square[2][i], square[3][i], from + i * pitch, SQUARE * pitch);
#else
        UNROLL
        for (int j = 0; j < SQUARES; j++)
            square[j][i] = LOAD_ROWS(from + i * pitch + j * SQUARE, SQUARE * pitch);
#endif
    }
    UNROLL
    for (int j = 0; j < SQUARES; j++)
        NAME(transpose_squares)(square[j], column + j * SQUARE);
#else
    REAL values[LANES];
    for (int i = 0; i < LANES; i++) {
        for (int lane = 0; lane < LANES; lane++)
            values[lane] = from[lane * pitch + i];
        column[i] = *(UNALIGNED *) values;
    }
#endif
}

/* to (values, rows), `width` values apart, <- from (rows, values), `pitch` values apart. */
TARGET static void NAME(transpose)(const void *from_, ptrdiff_t pitch, void *to_, ptrdiff_t width, ptrdiff_t rows,
                                   ptrdiff_t values)
{
    const REAL *from = from_;
    REAL *to = to_;
    ptrdiff_t row = 0;
#ifdef LOAD_ROWS
    for (; row + LANES <= rows && SQUARE <= values; row += LANES, from += LANES * pitch, to += LANES) {
        ptrdiff_t begin = 0;
        for (; begin + LANES <= values; begin += LANES) {
            VECTOR column[LANES];
            NAME(transpose_block)(from + begin, pitch, column);
            UNROLL
            for (int j = 0; j < LANES; j++)
                *(UNALIGNED *) (to + (begin + j) * width) = column[j];
        }
        for (; begin < values; begin += SQUARE) {
            const ptrdiff_t i = begin + SQUARE <= values ? begin : values - SQUARE; /* the last overlaps another */
            VECTOR some[SQUARE], column[SQUARE];
            UNROLL
            for (int j = 0; j < SQUARE; j++)
                some[j] = LOAD_ROWS(from + i + j * pitch, SQUARE * pitch);
            NAME(transpose_squares)(some, column);
            UNROLL
            for (int j = 0; j < SQUARE; j++)
                *(UNALIGNED *) (to + (i + j) * width) = column[j];
        }
    }
#endif
    for (; row < rows; row++, from += pitch, to++)
        for (ptrdiff_t i = 0; i < values; i++)
            to[i * width] = from[i];
}

/* to (count, LANES) <- `count` values of LANES rows each, from `offset` on. What lies behind is overwritten: LANES - 1
   vectors at most. */
TARGET static void NAME(to_channels)(const void *const *rows, ptrdiff_t offset, ptrdiff_t count, void *to_)
{
    REAL *to = to_;
    for (ptrdiff_t i = 0; i < count; i += LANES, to += LANES * LANES) {
        const unsigned lanes = LANE_RANGE(0, count - i < LANES ? count - i : LANES);
        REAL block[LANES * LANES];
        VECTOR column[LANES];
        UNROLL
        for (int lane = 0; lane < LANES; lane++) {
            const REAL *row = (const REAL *) rows[lane] + offset + i;
            *(UNALIGNED *) (block + lane * LANES) = MASKED_LOAD((VECTOR) {0}, MASK(lanes), row);
            PREFETCH(row + 4 * LANES);
        }
        NAME(transpose_block)(block, LANES, column);
        UNROLL
        for (int j = 0; j < LANES; j++)
            *(UNALIGNED *) (to + j * LANES) = column[j];
    }
}

/* `count` values of `channels` rows each, from `offset` on, <- from (count, LANES). What lies behind is read: LANES - 1
   vectors at most. */
TARGET static void NAME(from_channels)(const void *from_, ptrdiff_t count, void *const *rows, ptrdiff_t offset,
                                       ptrdiff_t channels)
{
    const REAL *from = from_;
    for (ptrdiff_t i = 0; i < count; i += LANES, from += LANES * LANES) {
        const unsigned lanes = LANE_RANGE(0, count - i < LANES ? count - i : LANES);
        VECTOR column[LANES];
        NAME(transpose_block)(from, LANES, column);
        UNROLL
        for (int lane = 0; lane < LANES; lane++)
            if (lane < channels)
                MASKED_STORE((REAL *) rows[lane] + offset + i, MASK(lanes), column[lane]);
    }
}

#undef SQUARE
#undef SQUARES

/* to (n, 2) <- two lines of n values. */
TARGET static void NAME(interleave)(const void *first_, const void *second_, void *to_, ptrdiff_t n)
{
    const REAL *first = first_, *second = second_;
    REAL *to = to_;
    ptrdiff_t i = 0;
#ifdef INTERLEAVE_LOW
    for (; i + LANES <= n; i += LANES) {
        const VECTOR a = *(const UNALIGNED *) (first + i), b = *(const UNALIGNED *) (second + i);
        *(UNALIGNED *) (to + 2 * i) = INTERLEAVE_LOW(a, b);
        *(UNALIGNED *) (to + 2 * i + LANES) = INTERLEAVE_HIGH(a, b);
    }
#endif
    for (; i < n; i++) {
        to[2 * i] = first[i];
        to[2 * i + 1] = second[i];
    }
}

/* to (n + zeros) <- n values and zeros, past the caches but for cache lines that are shared with something else. */
TARGET static void NAME(store_nontemporal)(const void *from_, ptrdiff_t n, ptrdiff_t zeros, void *to_)
{
    const REAL *from = from_;
    REAL *to = to_;
    const ptrdiff_t end = n + zeros;
    ptrdiff_t i = 0;
#ifdef STORE_NONTEMPORAL
    const ptrdiff_t line = CACHE_LINE / sizeof(REAL), head = -((size_t) to / sizeof(REAL)) & (line - 1);
    if (head + line <= end) {
        for (; i < head; i++)
            to[i] = i < n ? from[i] : 0;
        for (; i + line <= end; i += line)
            for (ptrdiff_t j = i; j < i + line; j += LANES) {
                VECTOR some = {0};
                if (j + LANES <= n)
                    some = *(const UNALIGNED *) (from + j);
                else if (j < n)
                    some = MASKED_LOAD(some, MASK(LANE_RANGE(0, n - j)), from + j);
                STORE_NONTEMPORAL(to + j, some);
            }
    }
#endif
    for (; i < n; i++)
        to[i] = from[i];
    for (; i < end; i++)
        to[i] = 0;
}

/* to (rows, n), rows `to_pitch` values apart, <- from, `pitch` values apart. */
TARGET static void NAME(copy)(const void *from_, ptrdiff_t pitch, void *to_, ptrdiff_t to_pitch, ptrdiff_t rows,
                              ptrdiff_t n)
{
    const REAL *from = from_;
    REAL *to = to_;
    const ptrdiff_t whole = n / LANES * LANES;
    const unsigned lanes = LANE_RANGE(0, n - whole);
    for (ptrdiff_t row = 0; row < rows; row++, from += pitch, to += to_pitch) {
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
        for (; i < whole; i += LANES)
            *(UNALIGNED *) (to + i) = *(const UNALIGNED *) (from + i);
        if (i < n)
            MASKED_STORE(to + i, MASK(lanes), MASKED_LOAD((VECTOR) {0}, MASK(lanes), from + i));
    }
}
