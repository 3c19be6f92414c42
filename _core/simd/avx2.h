/* AVX2 and FMA: 16 registers of 32 bytes. */

#define ISA avx2
#define TARGET __attribute__((target("avx2,fma")))
#define MR 6
#define UNROLLED 8
#define LINE_BY_TAPS
#define PLANE_LINES 0
#define CHANNEL_SEGMENTS 1
#define IN_REGISTER(v) __asm__ volatile("" : "+x"(v))

/* Ones between zeros: read from the right place, the mask of some lanes. */
static const int ONES[24] = {0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
static const long long LONG_ONES[12] = {0, 0, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0};

#define LOAD_ONES(p) _mm256_loadu_si256((const __m256i *) (p))

#define REAL double
#define EXACT_ROWS 2
#define LANES 4
#define BROADCAST(a) _mm256_set1_pd(a)
#define FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define MASK(lanes) \
    _mm256_and_si256(LOAD_ONES(LONG_ONES + 4 - ((lanes) & 255)), LOAD_ONES(LONG_ONES + 8 - ((lanes) >> 8)))
#define MASKED_LOAD(found, mask, p) _mm256_or_pd(found, _mm256_maskload_pd(p, mask))
#define MASKED_STORE(p, mask, v) _mm256_maskstore_pd(p, mask, v)
#define STORE_NONTEMPORAL(p, v) _mm256_stream_pd(p, v)
#define OR(a, b) _mm256_or_pd(a, b)
#define LOAD_ROWS(p, apart) \
    _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd((p) + (apart)), 1)
#define ROTATE_2(v) _mm256_permute_pd(v, 5)
#define ROTATE_4(v) _mm256_permute4x64_pd(v, 0x39)
#define UNPACK_LOW(a, b) _mm256_unpacklo_pd(a, b)
#define UNPACK_HIGH(a, b) _mm256_unpackhi_pd(a, b)
#define INTERLEAVE_LOW(a, b) _mm256_permute2f128_pd(UNPACK_LOW(a, b), UNPACK_HIGH(a, b), 0x20)
#define INTERLEAVE_HIGH(a, b) _mm256_permute2f128_pd(UNPACK_LOW(a, b), UNPACK_HIGH(a, b), 0x31)
#define EVEN_LANES(low, high) _mm256_permute4x64_pd(_mm256_shuffle_pd(low, high, 0xA), 0xD8)
#include "kernels.h"

#define REAL float
#define LANES 8
#define BROADCAST(a) _mm256_set1_ps(a)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MASK(lanes) _mm256_and_si256(LOAD_ONES(ONES + 8 - ((lanes) & 255)), LOAD_ONES(ONES + 16 - ((lanes) >> 8)))
#define MASKED_LOAD(found, mask, p) _mm256_or_ps(found, _mm256_maskload_ps(p, mask))
#define MASKED_STORE(p, mask, v) _mm256_maskstore_ps(p, mask, v)
#define STORE_NONTEMPORAL(p, v) _mm256_stream_ps(p, v)
#define OR(a, b) _mm256_or_ps(a, b)
#define LOAD_ROWS(p, apart) \
    _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps((p) + (apart)), 1)
#define ROTATE_2(v) _mm256_permute_ps(v, 0xB1)
#define ROTATE_4(v) _mm256_permute_ps(v, 0x39)
#define UNPACK_LOW(a, b) _mm256_unpacklo_ps(a, b)
#define UNPACK_HIGH(a, b) _mm256_unpackhi_ps(a, b)
#define UNPACK_LOW_PAIRS(a, b) _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define UNPACK_HIGH_PAIRS(a, b) _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define INTERLEAVE_LOW(a, b) _mm256_permute2f128_ps(UNPACK_LOW(a, b), UNPACK_HIGH(a, b), 0x20)
#define INTERLEAVE_HIGH(a, b) _mm256_permute2f128_ps(UNPACK_LOW(a, b), UNPACK_HIGH(a, b), 0x31)
#define EVEN_LANES(low, high) \
    _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xD8)), 0xD8))
#include "kernels.h"

#undef LOAD_ONES
#undef ISA
#undef TARGET
#undef MR
#undef UNROLLED
#undef PLANE_LINES
#undef CHANNEL_SEGMENTS
#undef LINE_BY_TAPS
#undef IN_REGISTER
