/* The passes of a batch norm over a plane, for an instruction set of versions.h. */

#define LOAD_FLOAT32(v, p) v = WIDEN(p)
#define LOAD_FLOAT64(v, p) memcpy(&v, p, sizeof v)
#define STORE_FLOAT32(p, v) NARROW(p, v)
#define STORE_FLOAT64(p, v) memcpy(p, &v, sizeof v)
#define LESS_HIGH(u) MINUS(u, SPREAD(mean.high))
#define ONE_LESS_HIGH(u) ((u) - mean.high)
#define AS_KEPT(u) (u)
#define ONE_AS_KEPT(u) (u)

#define PASSES(GIVEN, LOAD, REAL, LOAD_REAL, STORE, SUFFIX, LESS)                                              \
    TARGET static void NAMED(refnet_normalise_##SUFFIX)(const GIVEN* restrict x, struct refnet_pair mean,      \
                                                        double scale, double shift, REAL* restrict y,          \
                                                        ptrdiff_t n) {                                         \
        const double all = refnet_without(shift, mean.low * scale);                                            \
        ptrdiff_t p = 0;                                                                                       \
        for (; p + WIDTH <= n; p += WIDTH) {                                                                   \
            VECTOR u;                                                                                          \
            LOAD(u, x + p);                                                                                    \
            u = LESS(u) * scale;                                                                               \
            u = PLUS(u, SPREAD(all));                                                                          \
            STORE(y + p, u);                                                                                   \
        }                                                                                                      \
        for (; p < n; ++p) y[p] = (REAL)(ONE_##LESS(x[p]) * scale + all);                                      \
    }                                                                                                          \
    TARGET static void NAMED(refnet_project_##SUFFIX)(const REAL* restrict dy, const GIVEN* restrict x,        \
                                                      struct refnet_pair mean, double scale, double of_mean,   \
                                                      double of_variance, REAL* restrict dx, ptrdiff_t n) {    \
        const double all = refnet_without(of_mean, mean.low * of_variance);                                    \
        ptrdiff_t p = 0;                                                                                       \
        for (; p + WIDTH <= n; p += WIDTH) {                                                                   \
            VECTOR u, v;                                                                                       \
            LOAD_REAL(u, dy + p);                                                                              \
            LOAD(v, x + p);                                                                                    \
            v = LESS(v) * of_variance;                                                                         \
            u = scale * (MINUS(u, SPREAD(all)) - v);                                                           \
            STORE(dx + p, u);                                                                                  \
        }                                                                                                      \
        for (; p < n; ++p)                                                                                     \
            dx[p] = (REAL)(scale * ((dy[p] - all) - ONE_##LESS(x[p]) * of_variance));                          \
    }

PASSES(float, LOAD_FLOAT32, float, LOAD_FLOAT32, STORE_FLOAT32, float32, LESS_HIGH)
PASSES(double, LOAD_FLOAT64, float, LOAD_FLOAT32, STORE_FLOAT32, kept, AS_KEPT)
PASSES(double, LOAD_FLOAT64, double, LOAD_FLOAT64, STORE_FLOAT64, float64, LESS_HIGH)

#undef PASSES
#undef AS_KEPT
#undef LESS_HIGH
#undef ONE_AS_KEPT
#undef ONE_LESS_HIGH
#undef STORE_FLOAT64
#undef STORE_FLOAT32
#undef LOAD_FLOAT64
#undef LOAD_FLOAT32
