/* Every instruction set that the compiler can build for, and which of them this processor has.

   Each is compiled for itself, whatever the flags of the build, and chosen at run time: micro_kernel.pyx. */

#ifndef REFNET_DISPATCH_H
#define REFNET_DISPATCH_H

#include <float.h>

#include "simd.h"

_Static_assert(FLT_EVAL_METHOD == 0, "every operation is rounded to the type of its operands");

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define REFNET_X86 1
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__aarch64__)
#define REFNET_AARCH64 1
#include <arm_neon.h>
#endif

/* Chains that `spin` runs at once: more than a multiply-add's latency times two, and they fit in registers. */
enum { SPIN_CHAINS = 12 };

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 32")
#define LIKELY(condition) __builtin_expect(condition, 1)
#define PREFETCH(p) __builtin_prefetch(p)
#define PREFETCH_TO_WRITE(p) __builtin_prefetch(p, 1)
#define PREFETCH_L2(p) __builtin_prefetch(p, 0, 2)
#define FORGET() __asm__ volatile("" : : : "memory") /* what memory held: it is loaded again */
#define COMPUTED_HERE(p) __asm__("" : "+r"(p))       /* computes an address here, not earlier with others */
#else
#define INLINE static
#define NOINLINE
#define UNROLL
#define LIKELY(condition) (condition)
#define PREFETCH(p)
#define PREFETCH_TO_WRITE(p)
#define PREFETCH_L2(p)
#define FORGET()
#define COMPUTED_HERE(p)
#endif

#include "baseline.h"
#ifdef REFNET_X86
#include "avx2.h"
#include "avx512.h"
#elif defined(REFNET_AARCH64)
#include "neon.h"
#endif

/* From the least to the most demanding; of each, the kernels of double and of float. */
static const struct simd *const SIMD[][2] = {
    {&simd_baseline_double, &simd_baseline_float},
#ifdef REFNET_X86
    {&simd_avx2_double, &simd_avx2_float},
    {&simd_avx512_double, &simd_avx512_float},
#elif defined(REFNET_AARCH64)
    {&simd_neon_double, &simd_neon_float},
#endif
};

/* The same of exact sums. */
static const struct exact *const EXACT[] = {
    &exact_baseline_double,
#ifdef REFNET_X86
    &exact_avx2_double,
    &exact_avx512_double,
#elif defined(REFNET_AARCH64)
    &exact_neon_double,
#endif
};

/* How many of them this processor has. */
static int count_supported(void)
{
#ifdef REFNET_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return 3;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 2;
    return 1;
#else
    return sizeof SIMD / sizeof *SIMD;
#endif
}

/* Other threads see what was stored past the caches after this. */
static void store_fence(void)
{
#ifdef REFNET_X86
    _mm_sfence();
#endif
}

#endif
