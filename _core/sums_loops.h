/* The loops of sums.h, for an instruction set of versions.h: in vectors, as compilers do not always put sixteen lanes
   into registers by themselves. */

#define LOAD_FLOAT32(v, p) v = WIDEN(p)
#define LOAD_FLOAT64(v, p) memcpy(&v, p, sizeof v)

/* COUNT sums at once, of FIRST and SECOND of the values u and v of a and b. KEEP sees each of them, too. */
#define SUMS(NAME, REAL, LOAD, COUNT, FIRST, SECOND, KEEP)                                                     \
    TARGET static void NAMED(NAME)(const REAL* a, const REAL* b, struct refnet_pair mean,                      \
                                   const struct refnet_planes* all, struct refnet_pair* sums, double* kept) {  \
        enum { VECTORS = REFNET_LANES / WIDTH };                                                               \
        const ptrdiff_t n = all->n;                                                                            \
        for (ptrdiff_t plane = 0; plane < all->planes; ++plane) {                                              \
            for (ptrdiff_t block = 0; block < n; block += REFNET_BLOCK) {                                      \
                const ptrdiff_t end = n - block < REFNET_BLOCK ? n : block + REFNET_BLOCK;                     \
                const ptrdiff_t whole = end - (end - block) % REFNET_LANES;                                    \
                VECTOR lane[COUNT][VECTORS];                                                                   \
                double rest[COUNT] = {0};                                                                      \
                memset(lane, 0, sizeof lane);                                                                  \
                for (ptrdiff_t p = block; p < whole; p += REFNET_LANES)                                        \
                    for (int i = 0; i < VECTORS; ++i) {                                                        \
                        VECTOR u, v;                                                                           \
                        LOAD(u, a + p + i * WIDTH);                                                            \
                        LOAD(v, b + p + i * WIDTH);                                                            \
                        (void)v;                                                                               \
                        KEEP(VECTOR, ALL_MINUS, kept + plane * n + p + i * WIDTH, u, v);                       \
                        lane[0][i] += FIRST(ALL_MINUS, u, v);                                                  \
                        if (COUNT > 1) lane[COUNT - 1][i] = PLUS(SECOND(ALL_MINUS, u, v), lane[COUNT - 1][i]); \
                    }                                                                                          \
                for (ptrdiff_t p = whole; p < end; ++p) {                                                      \
                    const double u = a[p], v = b[p];                                                           \
                    (void)v;                                                                                   \
                    KEEP(double, ONE_MINUS, kept + plane * n + p, u, v);                                       \
                    rest[0] += FIRST(ONE_MINUS, u, v);                                                         \
                    if (COUNT > 1) rest[COUNT - 1] += SECOND(ONE_MINUS, u, v);                                 \
                }                                                                                              \
                for (int s = 0; s < COUNT; ++s) {                                                              \
                    for (int i = 0; i < VECTORS / 2; ++i) lane[s][i] += lane[s][i + VECTORS / 2];              \
                    for (int i = 0; i < VECTORS / 4; ++i) lane[s][i] += lane[s][i + VECTORS / 4];              \
                    for (int i = 0; i < VECTORS / 8; ++i) lane[s][i] += lane[s][i + VECTORS / 8];              \
                    for (int i = 0; i < VECTORS / 16; ++i) lane[s][i] += lane[s][i + VECTORS / 16];            \
                    const double total = FOLD(lane[s][0]) + rest[s];                                           \
                    /* What is added to nothing is not rounded. */                                             \
                    sums[s] = sums[s].high == 0 ? (struct refnet_pair){total, 0} : refnet_added(sums[s], total);\
                }                                                                                              \
            }                                                                                                  \
            a += all->apart;                                                                                   \
            b += all->apart;                                                                                   \
            sums += all->step;                                                                                 \
        }                                                                                                      \
    }

#define NOT_KEPT(TYPE, MINUS, p, u, v) (void)0
#define KEPT_FROM_HIGH(TYPE, MINUS, p, u, v)           \
    do {                                               \
        const TYPE from_high = FROM_HIGH(MINUS, u, v); \
        memcpy(p, &from_high, sizeof from_high);       \
    } while (0)
#define KEPT_SECOND(TYPE, MINUS, p, u, v) KEPT_FROM_HIGH(TYPE, MINUS, p, v, v)

#define ONE_MINUS(u, x) ((u) - (x))
#define ALL_MINUS(u, x) MINUS(u, SPREAD(x))
#define VALUE(MINUS, u, v) (u)
#define FROM_HIGH(MINUS, u, v) MINUS(u, mean.high)
#define SQUARE_FROM_HIGH(MINUS, u, v) (FROM_HIGH(MINUS, u, v) * FROM_HIGH(MINUS, u, v))
#define PRODUCT(MINUS, u, v) ((u) * (v))
#define PRODUCT_FROM_HIGH(MINUS, u, v) ((u) * FROM_HIGH(MINUS, v, v))
#define CENTRED(MINUS, u, v) MINUS(MINUS(u, mean.high), mean.low)
#define CENTRED_SQUARE(MINUS, u, v) (CENTRED(MINUS, u, v) * CENTRED(MINUS, u, v))
#define CENTRED_PRODUCT(MINUS, u, v) ((u) * CENTRED(MINUS, v, v))

SUMS(refnet_total_float32, float, LOAD_FLOAT32, 1, VALUE, VALUE, NOT_KEPT)
SUMS(refnet_total_float64, double, LOAD_FLOAT64, 1, VALUE, VALUE, NOT_KEPT)
SUMS(refnet_dot_float32, float, LOAD_FLOAT32, 1, PRODUCT, VALUE, NOT_KEPT)
SUMS(refnet_dot_float64, double, LOAD_FLOAT64, 1, PRODUCT, VALUE, NOT_KEPT)
SUMS(refnet_offset_float32, float, LOAD_FLOAT32, 1, FROM_HIGH, VALUE, NOT_KEPT)
SUMS(refnet_offset_float64, double, LOAD_FLOAT64, 1, CENTRED, VALUE, NOT_KEPT)
SUMS(refnet_moments_float32, float, LOAD_FLOAT32, 2, FROM_HIGH, SQUARE_FROM_HIGH, NOT_KEPT)
SUMS(refnet_moments_kept, float, LOAD_FLOAT32, 2, FROM_HIGH, SQUARE_FROM_HIGH, KEPT_FROM_HIGH)
SUMS(refnet_moments_float64, double, LOAD_FLOAT64, 2, CENTRED, CENTRED_SQUARE, NOT_KEPT)
SUMS(refnet_products_float32, float, LOAD_FLOAT32, 2, PRODUCT_FROM_HIGH, VALUE, NOT_KEPT)
SUMS(refnet_products_kept, float, LOAD_FLOAT32, 2, PRODUCT_FROM_HIGH, VALUE, KEPT_SECOND)
SUMS(refnet_products_float64, double, LOAD_FLOAT64, 2, CENTRED_PRODUCT, VALUE, NOT_KEPT)

/* One more term of a sum, and what its rounding loses. */
#define ADD(TYPE, SUM, LOST, TERM)                          \
    do {                                                    \
        const TYPE term = (TERM), rough = (SUM) + term;     \
        const TYPE back = rough - (SUM);                    \
        (LOST) += ((SUM) - (rough - back)) + (term - back); \
        (SUM) = rough;                                      \
    } while (0)

TARGET static void NAMED(refnet_compensated)(const double* a, ptrdiff_t n, struct refnet_pair* sum) {
    enum { VECTORS = REFNET_LANES / WIDTH };
    for (ptrdiff_t block = 0; block < n; block += REFNET_BLOCK) {
        const ptrdiff_t end = n - block < REFNET_BLOCK ? n : block + REFNET_BLOCK;
        const ptrdiff_t whole = end - (end - block) % REFNET_LANES;
        VECTOR lane[VECTORS], lost[VECTORS];
        double rest = 0, rest_lost = 0, each[WIDTH], each_lost[WIDTH];
        memset(lane, 0, sizeof lane);
        memset(lost, 0, sizeof lost);
        for (ptrdiff_t p = block; p < whole; p += REFNET_LANES)
            for (int i = 0; i < VECTORS; ++i) {
                VECTOR u;
                LOAD_FLOAT64(u, a + p + i * WIDTH);
                ADD(VECTOR, lane[i], lost[i], u);
            }
        for (ptrdiff_t p = whole; p < end; ++p) ADD(double, rest, rest_lost, a[p]);
        for (int half = VECTORS / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) {
                lost[i] += lost[i + half];
                ADD(VECTOR, lane[i], lost[i], lane[i + half]);
            }
        memcpy(each, lane, sizeof each);
        memcpy(each_lost, lost, sizeof each_lost);
        for (int half = WIDTH / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) {
                each_lost[i] += each_lost[i + half];
                ADD(double, each[i], each_lost[i], each[i + half]);
            }
        each_lost[0] += rest_lost;
        ADD(double, each[0], each_lost[0], rest);
        *sum = refnet_added(*sum, each[0]);
        if (isfinite(each_lost[0])) *sum = refnet_added(*sum, each_lost[0]);
    }
}

#undef ADD
#undef VALUE
#undef FROM_HIGH
#undef SQUARE_FROM_HIGH
#undef CENTRED
#undef ONE_MINUS
#undef ALL_MINUS
#undef CENTRED_SQUARE
#undef CENTRED_PRODUCT
#undef PRODUCT
#undef PRODUCT_FROM_HIGH
#undef NOT_KEPT
#undef KEPT_FROM_HIGH
#undef KEPT_SECOND
#undef SUMS
#undef LOAD_FLOAT32
#undef LOAD_FLOAT64
