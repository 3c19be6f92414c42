/* The versions of the kernels of convolution, and which of them this processor runs.

   version.h is included once for each version and floating-point type. A version is compiled for its own
   instruction set whatever the flags of the build, and chosen at run time. */

#include <stddef.h>

#include "operands.h"

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define REFNET_X86 1
#include <immintrin.h>
#endif

/* Chains that `spin` runs at once: more than a multiply-add's latency times two, and they fit in registers. */
#define CHAINS 12

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)

#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define INLINE static
#define UNROLL
#define PREFETCH(p)
#endif

/* What every processor has: vectors of 16 bytes where the compiler knows vectors, or single values. */
#define VERSION baseline
#define TARGET
#define ROWS 4

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define PIECES(p, apart) (*(const UNALIGNED *) (p))
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 2)
#define HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#endif
#define REAL double
#define FMA(a, b, c) ((a) * (b) + (c))
#ifdef __GNUC__
#define LANES 2
#define SPREAD(a) {a, a}
#else
#define LANES 1
#define SPREAD(a) a
#endif
#include "version.h"

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define PIECES(p, apart) (*(const UNALIGNED *) (p))
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define LOW_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define HIGH_PAIRS(a, b) __builtin_shufflevector(a, b, 2, 3, 6, 7)
#endif
#define REAL float
#define FMA(a, b, c) ((a) * (b) + (c))
#ifdef __GNUC__
#define LANES 4
#define SPREAD(a) {a, a, a, a}
#else
#define LANES 1
#define SPREAD(a) a
#endif
#include "version.h"

#undef VERSION
#undef TARGET
#undef ROWS

#ifdef REFNET_X86
/* Ones between zeros: read from the right place, the mask of some lanes. */
static const int ONES[24] = {0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
static const long long LONG_ONES[12] = {0, 0, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0};

#define VERSION avx2
#define TARGET __attribute__((target("avx2,fma")))
#define ROWS 6

#define LOAD_ONES(p) _mm256_loadu_si256((const __m256i *) (p))

#define REAL double
#define LANES 4
#define SPREAD(a) _mm256_set1_pd(a)
#define FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define MASK_OF(kept) \
    _mm256_and_si256(LOAD_ONES(LONG_ONES + 4 - ((kept) & 255)), LOAD_ONES(LONG_ONES + 8 - ((kept) >> 8)))
#define MERGE(found, mask, p) _mm256_or_pd(found, _mm256_maskload_pd(p, mask))
#define STREAM(p, v) _mm256_stream_pd(p, v)
#define PUT(p, mask, v) _mm256_maskstore_pd(p, mask, v)
#define OR(a, b) _mm256_or_pd(a, b)
#define PIECES(p, apart) _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd((p) + (apart)), 1)
#define LOW(a, b) _mm256_unpacklo_pd(a, b)
#define HIGH(a, b) _mm256_unpackhi_pd(a, b)
#define LEFT_HALVES(a, b) _mm256_permute2f128_pd(LOW(a, b), HIGH(a, b), 0x20)
#define RIGHT_HALVES(a, b) _mm256_permute2f128_pd(LOW(a, b), HIGH(a, b), 0x31)
#define EVEN(low, high) _mm256_permute4x64_pd(_mm256_shuffle_pd(low, high, 0xA), 0xD8)
#include "version.h"

#define REAL float
#define LANES 8
#define SPREAD(a) _mm256_set1_ps(a)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MASK_OF(kept) _mm256_and_si256(LOAD_ONES(ONES + 8 - ((kept) & 255)), LOAD_ONES(ONES + 16 - ((kept) >> 8)))
#define MERGE(found, mask, p) _mm256_or_ps(found, _mm256_maskload_ps(p, mask))
#define STREAM(p, v) _mm256_stream_ps(p, v)
#define PUT(p, mask, v) _mm256_maskstore_ps(p, mask, v)
#define OR(a, b) _mm256_or_ps(a, b)
#define PIECES(p, apart) _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps((p) + (apart)), 1)
#define LOW(a, b) _mm256_unpacklo_ps(a, b)
#define HIGH(a, b) _mm256_unpackhi_ps(a, b)
#define LOW_PAIRS(a, b) _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define HIGH_PAIRS(a, b) _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define LEFT_HALVES(a, b) _mm256_permute2f128_ps(LOW(a, b), HIGH(a, b), 0x20)
#define RIGHT_HALVES(a, b) _mm256_permute2f128_ps(LOW(a, b), HIGH(a, b), 0x31)
#define EVEN(low, high) \
    _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xD8)), 0xD8))
#include "version.h"

#undef VERSION
#undef TARGET
#undef ROWS

#define INSERT(to, p, i) _mm512_insertf32x4(to, _mm_loadu_ps((const float *) (p)), i)
#define FOUR_PIECES(p, apart) \
    INSERT(INSERT(INSERT(_mm512_castps128_ps512(_mm_loadu_ps((const float *) (p))), (p) + (apart), 1), \
                  (p) + 2 * (apart), 2), (p) + 3 * (apart), 3)

#define VERSION avx512
#define TARGET __attribute__((target("avx512f")))
#define ROWS 12

#define REAL double
#define LANES 8
#define SPREAD(a) _mm512_set1_pd(a)
#define FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define KEEP(first, last) ((1u << (last)) - (1u << (first)))
#define MASK_OF(kept) ((__mmask8) (kept))
#define HAS(kept, lane) ((kept) >> (lane) & 1)
#define MERGE(found, mask, p) _mm512_mask_loadu_pd(found, mask, p)
#define STREAM(p, v) _mm512_stream_pd(p, v)
#define PUT(p, mask, v) _mm512_mask_storeu_pd(p, mask, v)
#define OR(a, b) _mm512_castsi512_pd(_mm512_or_si512(_mm512_castpd_si512(a), _mm512_castpd_si512(b)))
#define PIECES(p, apart) _mm512_castps_pd(FOUR_PIECES(p, apart))
#define LOW(a, b) _mm512_unpacklo_pd(a, b)
#define HIGH(a, b) _mm512_unpackhi_pd(a, b)
#define LEFT_HALVES(a, b) _mm512_permutex2var_pd(a, _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), b)
#define RIGHT_HALVES(a, b) _mm512_permutex2var_pd(a, _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4), b)
#define EVEN(low, high) _mm512_permutex2var_pd(low, _mm512_set_epi64(15, 13, 11, 9, 6, 4, 2, 0), high)
#include "version.h"

#define REAL float
#define LANES 16
#define SPREAD(a) _mm512_set1_ps(a)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define KEEP(first, last) ((1u << (last)) - (1u << (first)))
#define MASK_OF(kept) ((__mmask16) (kept))
#define HAS(kept, lane) ((kept) >> (lane) & 1)
#define MERGE(found, mask, p) _mm512_mask_loadu_ps(found, mask, p)
#define STREAM(p, v) _mm512_stream_ps(p, v)
#define PUT(p, mask, v) _mm512_mask_storeu_ps(p, mask, v)
#define OR(a, b) _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(a), _mm512_castps_si512(b)))
#define PIECES(p, apart) FOUR_PIECES(p, apart)
#define LOW(a, b) _mm512_unpacklo_ps(a, b)
#define HIGH(a, b) _mm512_unpackhi_ps(a, b)
#define LOW_PAIRS(a, b) _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define HIGH_PAIRS(a, b) _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define LEFT_HALVES(a, b) \
    _mm512_permutex2var_ps(a, _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0), b)
#define RIGHT_HALVES(a, b) \
    _mm512_permutex2var_ps(a, _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8), b)
#define EVEN(low, high) \
    _mm512_permutex2var_ps(low, _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 14, 12, 10, 8, 6, 4, 2, 0), high)
#include "version.h"

#undef VERSION
#undef TARGET
#undef ROWS
#endif

/* What one version does with one type. */
#define KERNELS(REAL) \
    struct kernels_##REAL { \
        void (*multiply)(ptrdiff_t, const struct terms *, const REAL *, REAL *, REAL *, ptrdiff_t, int, \
                         const struct ahead *, const struct patches *); \
        int (*finite)(const REAL *, ptrdiff_t, ptrdiff_t); \
        void (*plan)(struct plan *, const struct geometry *, ptrdiff_t, ptrdiff_t, ptrdiff_t); \
        void (*gather)(const REAL *, REAL *, struct plan *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, \
                       ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t); \
        void (*transpose)(const REAL *, ptrdiff_t, REAL *, ptrdiff_t, ptrdiff_t, ptrdiff_t); \
        void (*alternate)(const REAL *, const REAL *, REAL *, ptrdiff_t); \
        void (*copy)(const REAL *, ptrdiff_t, REAL *, ptrdiff_t, ptrdiff_t); \
        void (*stream)(const REAL *, ptrdiff_t, ptrdiff_t, REAL *); \
        void (*regroup)(const REAL *, REAL *, ptrdiff_t, ptrdiff_t, ptrdiff_t, int, ptrdiff_t); \
        REAL (*spin)(ptrdiff_t); \
        ptrdiff_t columns; /* of a panel of the right operand */ \
    }
KERNELS(double);
KERNELS(float);

struct version {
    const char *name;
    int fused;                  /* whether a multiply-add rounds once */
    ptrdiff_t rows;             /* of a tile, at most */
    int masks;                  /* whether vectors of patches are read at once */
    struct kernels_double of_double;
    struct kernels_float of_float;
};

#define OF(version, real) \
    {multiply_##version##_##real, finite_##version##_##real, plan_##version##_##real, gather_##version##_##real, \
     transpose_##version##_##real, alternate_##version##_##real, copy_##version##_##real, stream_##version##_##real, \
     regroup_##version##_##real, \
     spin_##version##_##real, columns_##version##_##real}

/* From the least to the most demanding. */
static const struct version VERSIONS[] = {
    {"baseline", 0, rows_baseline_double, 0, OF(baseline, double), OF(baseline, float)},
#ifdef REFNET_X86
    {"avx2", 1, rows_avx2_double, 1, OF(avx2, double), OF(avx2, float)},
    {"avx512", 1, rows_avx512_double, 1, OF(avx512, double), OF(avx512, float)},
#endif
};

/* After this others see what was streamed. */
static void settle(void)
{
#ifdef REFNET_X86
    _mm_sfence();
#endif
}

/* How many of them this processor runs. */
static int count_versions(void)
{
#ifdef REFNET_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return 3;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 2;
#endif
    return 1;
}
