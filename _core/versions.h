/* Loops for each instruction set: who includes this has defined REFNET_LOOPS, the file that has them, which is
   included once for each. It finds these defined:

   VERSION     the name of the instruction set, and NAMED(name), that of a function for it
   TARGET      the attribute that compiles for it
   VECTOR      WIDTH doubles, which live in a register
   WIDEN(p)    as many floats, made doubles
   NARROW(p, v)  puts a vector there, rounded to floats
   FOLD(v)     the sum of a vector: lanes i and i + 4, i + 2, i + 1
   PLUS(u, v), MINUS(u, v)   u + v and u - v, as u * 1 + v where that keeps another unit busy than additions do

   REFNET_BEST(name) is then the function for the best instruction set that there is. */
#ifndef REFNET_VERSIONS_H
#define REFNET_VERSIONS_H

#define REFNET_JOIN_(a, b) a##_##b
#define REFNET_JOIN(a, b) REFNET_JOIN_(a, b)
#define NAMED(name) REFNET_JOIN(name, VERSION)

#ifdef __GNUC__
typedef double refnet_two __attribute__((vector_size(16)));
typedef float refnet_two_floats __attribute__((vector_size(8)));
static inline refnet_two refnet_widen_two(const float* p) {
    refnet_two_floats floats;
    memcpy(&floats, p, sizeof floats);
    return __builtin_convertvector(floats, refnet_two);
}
static inline void refnet_narrow_two(float* p, refnet_two v) {
    const refnet_two_floats floats = __builtin_convertvector(v, refnet_two_floats);
    memcpy(p, &floats, sizeof floats);
}
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

#define REFNET_AVX2 __attribute__((target("avx2,fma")))
REFNET_AVX2 static inline double refnet_fold_four(__m256d v) {
    const __m128d two = _mm256_castpd256_pd128(v) + _mm256_extractf128_pd(v, 1);
    return two[0] + two[1];
}
#define REFNET_AVX512 __attribute__((target("avx512f")))
REFNET_AVX512 static inline double refnet_fold_eight(__m512d v) {
    const __m256d four = _mm512_castpd512_pd256(v) + _mm512_extractf64x4_pd(v, 1);
    const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
    return two[0] + two[1];
}

#define REFNET_BEST(NAME)                                                                                  \
    (__builtin_cpu_supports("avx512f")                                  ? REFNET_JOIN(NAME, avx512)        \
     : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")  ? REFNET_JOIN(NAME, avx2)          \
                                                                        : REFNET_JOIN(NAME, baseline))
#else
#define REFNET_BEST(NAME) REFNET_JOIN(NAME, baseline)
#endif

#endif

#define VERSION baseline
#define TARGET
#define SPREAD(x) (x)
#define PLUS(u, v) ((u) + (v))
#define MINUS(u, v) ((u) - (v))
#ifdef __GNUC__
#define VECTOR refnet_two
#define WIDTH 2
#define WIDEN(p) refnet_widen_two(p)
#define NARROW(p, v) refnet_narrow_two(p, v)
#define FOLD(v) ((v)[0] + (v)[1])
#else
#define VECTOR double
#define WIDTH 1
#define WIDEN(p) (*(p))
#define NARROW(p, v) (*(p) = (float)(v))
#define FOLD(v) (v)
#endif
#include REFNET_LOOPS
#include "versions_end.h"

#if defined(__GNUC__) && defined(__x86_64__)

#define VERSION avx2
#define TARGET REFNET_AVX2
#define VECTOR __m256d
#define WIDTH 4
#define WIDEN(p) _mm256_cvtps_pd(_mm_loadu_ps(p))
#define NARROW(p, v) _mm_storeu_ps(p, _mm256_cvtpd_ps(v))
#define FOLD(v) refnet_fold_four(v)
#define SPREAD(x) _mm256_set1_pd(x)
#define PLUS(u, v) _mm256_fmadd_pd(u, SPREAD(1), v)
#define MINUS(u, v) _mm256_fmsub_pd(u, SPREAD(1), v)
#include REFNET_LOOPS
#include "versions_end.h"

#define VERSION avx512
#define TARGET REFNET_AVX512
#define VECTOR __m512d
#define WIDTH 8
#define WIDEN(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#define NARROW(p, v) _mm256_storeu_ps(p, _mm512_cvtpd_ps(v))
#define FOLD(v) refnet_fold_eight(v)
#define SPREAD(x) _mm512_set1_pd(x)
#define PLUS(u, v) _mm512_fmadd_pd(u, SPREAD(1), v)
#define MINUS(u, v) _mm512_fmsub_pd(u, SPREAD(1), v)
#include REFNET_LOOPS
#include "versions_end.h"

#endif
#undef REFNET_LOOPS
