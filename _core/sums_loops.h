/* The loops of sums.h, for one instruction set. The includer defines its name VERSION; the attribute TARGET that
   compiles for it; VECTOR, of WIDTH doubles, which live in registers, where compilers do not always put sixteen by
   themselves; WIDEN(p), as many floats made doubles; FOLD(v), the sum of a vector: lanes i and i + 4, i + 2, i + 1. */

#define NAMED(name) REFNET_JOIN(name, VERSION)
#define LOAD_FLOAT32(v, p) v = WIDEN(p)
#define LOAD_FLOAT64(v, p) memcpy(&v, p, sizeof v)

/* COUNT sums at once, of FIRST and SECOND of the values u and v of a and b. */
#define SUMS(NAME, REAL, LOAD, COUNT, FIRST, SECOND)                                                           \
    TARGET static void NAMED(NAME)(const REAL* a, const REAL* b, struct refnet_pair mean,                      \
                                   const struct refnet_planes* all, struct refnet_pair* sums) {                \
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
                        lane[0][i] += FIRST(u, v);                                                             \
                        if (COUNT > 1) lane[COUNT - 1][i] += SECOND(u, v);                                     \
                    }                                                                                          \
                for (ptrdiff_t p = whole; p < end; ++p) {                                                      \
                    const double u = a[p], v = b[p];                                                           \
                    (void)v;                                                                                   \
                    rest[0] += FIRST(u, v);                                                                    \
                    if (COUNT > 1) rest[COUNT - 1] += SECOND(u, v);                                            \
                }                                                                                              \
                for (int s = 0; s < COUNT; ++s) {                                                              \
                    for (int i = 0; i < VECTORS / 2; ++i) lane[s][i] += lane[s][i + VECTORS / 2];              \
                    for (int i = 0; i < VECTORS / 4; ++i) lane[s][i] += lane[s][i + VECTORS / 4];              \
                    for (int i = 0; i < VECTORS / 8; ++i) lane[s][i] += lane[s][i + VECTORS / 8];              \
                    for (int i = 0; i < VECTORS / 16; ++i) lane[s][i] += lane[s][i + VECTORS / 16];            \
                    const double total = FOLD(lane[s][0]) + rest[s];                                           \
                    /* What is added to nothing is not rounded. */                                             \
                    sums[s] = sums[s].high == 0 ? (struct refnet_pair){total, 0} : refnet_added(sums[s], total); \
                }                                                                                              \
            }                                                                                                  \
            a += all->apart;                                                                                   \
            b += all->apart;                                                                                   \
            sums += all->step;                                                                                 \
        }                                                                                                      \
    }

#define VALUE(u, v) (u)
#define FROM_HIGH(u, v) ((u) - mean.high)
#define SQUARE_FROM_HIGH(u, v) (FROM_HIGH(u, v) * FROM_HIGH(u, v))
#define CENTRED(u, v) REFNET_CENTRED(u)
#define CENTRED_SQUARE(u, v) (REFNET_CENTRED(u) * REFNET_CENTRED(u))
#define CENTRED_PRODUCT(u, v) ((u) * REFNET_CENTRED(v))

SUMS(refnet_total_float32, float, LOAD_FLOAT32, 1, VALUE, VALUE)
SUMS(refnet_total_float64, double, LOAD_FLOAT64, 1, VALUE, VALUE)
SUMS(refnet_moments_float32, float, LOAD_FLOAT32, 2, FROM_HIGH, SQUARE_FROM_HIGH)
SUMS(refnet_moments_float64, double, LOAD_FLOAT64, 2, CENTRED, CENTRED_SQUARE)
SUMS(refnet_products_float32, float, LOAD_FLOAT32, 2, CENTRED_PRODUCT, VALUE)
SUMS(refnet_products_float64, double, LOAD_FLOAT64, 2, CENTRED_PRODUCT, VALUE)

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
#undef CENTRED_SQUARE
#undef CENTRED_PRODUCT
#undef SUMS
#undef LOAD_FLOAT32
#undef LOAD_FLOAT64
#undef NAMED
#undef FOLD
#undef WIDEN
#undef VECTOR
#undef WIDTH
#undef TARGET
#undef VERSION
