/* The versions of the micro-kernel, and which of them this processor runs.

   micro_kernel_template.h is included once for each version and floating-point type. A version is
   compiled for its own instruction set whatever the flags of the build, and chosen at run time. */

#include <stddef.h>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define REFNET_X86 1
#include <immintrin.h>
#endif

/* Terms in a chain of multiply-adds: see conv3d.pyx. */
#define DEPTH 256
/* From row to row of the left operand; not a power of two, or the rows would compete for the same cache sets. */
#define PITCH (DEPTH + 8)

/* Chains that `spin` runs at once: more than a multiply-add's latency times two, and they fit in registers. */
#define CHAINS 12

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)

/* What every processor has: vectors of 16 bytes where the compiler knows vectors, or single values. */
#define VERSION baseline
#define TARGET
#define ROWS 4
#define FMA(a, b, c) ((a) * (b) + (c))

#define REAL double
#ifdef __GNUC__
#define LANES 2
#define SPREAD(a) {a, a}
#else
#define LANES 1
#define SPREAD(a) a
#endif
#include "micro_kernel_template.h"

#define REAL float
#ifdef __GNUC__
#define LANES 4
#define SPREAD(a) {a, a, a, a}
#else
#define LANES 1
#define SPREAD(a) a
#endif
#include "micro_kernel_template.h"

#undef VERSION
#undef TARGET
#undef ROWS
#undef FMA

#ifdef REFNET_X86
#define VERSION avx2
#define TARGET __attribute__((target("avx2,fma")))
#define ROWS 6

#define REAL double
#define LANES 4
#define SPREAD(a) _mm256_set1_pd(a)
#define FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#include "micro_kernel_template.h"
#undef FMA

#define REAL float
#define LANES 8
#define SPREAD(a) _mm256_set1_ps(a)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#include "micro_kernel_template.h"
#undef FMA

#undef VERSION
#undef TARGET
#undef ROWS

#define VERSION avx512
#define TARGET __attribute__((target("avx512f")))
#define ROWS 12

#define REAL double
#define LANES 8
#define SPREAD(a) _mm512_set1_pd(a)
#define FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#include "micro_kernel_template.h"
#undef FMA

#define REAL float
#define LANES 16
#define SPREAD(a) _mm512_set1_ps(a)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#include "micro_kernel_template.h"
#undef FMA

#undef VERSION
#undef TARGET
#undef ROWS
#endif

struct version {
    const char *name;
    int fused;                          /* whether a multiply-add rounds once */
    ptrdiff_t rows;                     /* of a tile, at most */
    ptrdiff_t columns_double, columns_float;
    void (*multiply_double)(ptrdiff_t, ptrdiff_t, const double *, const double *, double *, ptrdiff_t, int);
    void (*multiply_float)(ptrdiff_t, ptrdiff_t, const float *, const float *, float *, ptrdiff_t, int);
    double (*spin_double)(ptrdiff_t);
    float (*spin_float)(ptrdiff_t);
};

/* From the least to the most demanding. */
static const struct version VERSIONS[] = {
    {"baseline", 0, rows_baseline_double, columns_baseline_double, columns_baseline_float,
     multiply_baseline_double, multiply_baseline_float, spin_baseline_double, spin_baseline_float},
#ifdef REFNET_X86
    {"avx2", 1, rows_avx2_double, columns_avx2_double, columns_avx2_float,
     multiply_avx2_double, multiply_avx2_float, spin_avx2_double, spin_avx2_float},
    {"avx512", 1, rows_avx512_double, columns_avx512_double, columns_avx512_float,
     multiply_avx512_double, multiply_avx512_float, spin_avx512_double, spin_avx512_float},
#endif
};

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
