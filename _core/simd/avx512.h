/* AVX-512 (F alone): 32 registers of 64 bytes, and masks. */

#define ISA avx512
#define TARGET __attribute__((target("avx512f")))
#define MR 12
#define UNROLLED 8
#define LINE_VECTORS 2
#define PLANE_LINES 14
#define CHANNEL_SEGMENTS 2
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#define MASK_IN_REGISTER(mask) __asm__("" : "+k"(mask))

#define LANE_RANGES(first, last) ((1u << (last)) - (1u << (first)))
#define INSERT(to, p, i) _mm512_insertf32x4(to, _mm_loadu_ps((const float *) (p)), i)
#define LOAD_FOUR_ROWS(p, apart) \
    INSERT(INSERT(INSERT(_mm512_castps128_ps512(_mm_loadu_ps((const float *) (p))), (p) + (apart), 1), \
                  (p) + 2 * (apart), 2), (p) + 3 * (apart), 3)

/* 32 bytes of each of two rows. */
#define LOAD_TWO_ROWS(p, apart) \
    _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd((const double *) (p))), \
                       _mm256_loadu_pd((const double *) ((p) + (apart))), 1)

/* Four rows of four squares each, transposed: two steps of pairs, the first while loading. */
#define TRANSPOSE_SQUARES(cast, a, b, c, d, p, apart) \
    do { \
        const __m512d low_ = LOAD_TWO_ROWS(p, apart), high_ = LOAD_TWO_ROWS((p) + LANES / 2, apart); \
        const __m512d more_low_ = LOAD_TWO_ROWS((p) + 2 * (apart), apart); \
        const __m512d more_high_ = LOAD_TWO_ROWS((p) + 2 * (apart) + LANES / 2, apart); \
        a = cast(_mm512_shuffle_f64x2(low_, more_low_, 0x88)); \
        b = cast(_mm512_shuffle_f64x2(low_, more_low_, 0xDD)); \
        c = cast(_mm512_shuffle_f64x2(high_, more_high_, 0x88)); \
        d = cast(_mm512_shuffle_f64x2(high_, more_high_, 0xDD)); \
    } while (0)

#define REAL double
#define EXACT_ROWS 4
#define LANES 8
#define BROADCAST(a) _mm512_set1_pd(a)
#define FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define LANE_RANGE(first, last) LANE_RANGES(first, last)
#define HAS_LANE(lanes, lane) ((lanes) >> (lane) & 1)
#define MASK(lanes) ((__mmask8) (lanes))
#define MASKED_LOAD(found, mask, p) _mm512_mask_loadu_pd(found, mask, p)
#define MASKED_STORE(p, mask, v) _mm512_mask_storeu_pd(p, mask, v)
#define STORE_NONTEMPORAL(p, v) _mm512_stream_pd(p, v)
#define OR(a, b) _mm512_castsi512_pd(_mm512_or_si512(_mm512_castpd_si512(a), _mm512_castpd_si512(b)))
#define LOAD_ROWS(p, apart) _mm512_castps_pd(LOAD_FOUR_ROWS(p, apart))
#define LOAD_SQUARES(a, b, c, d, p, apart) TRANSPOSE_SQUARES(, a, b, c, d, p, apart)
#define ROTATE_2(v) _mm512_permute_pd(v, 0x55)
#define ROTATE_4(v) _mm512_permutex_pd(v, 0x39)
#define UNPACK_LOW(a, b) _mm512_unpacklo_pd(a, b)
#define UNPACK_HIGH(a, b) _mm512_unpackhi_pd(a, b)
#define INTERLEAVE_LOW(a, b) _mm512_permutex2var_pd(a, _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), b)
#define INTERLEAVE_HIGH(a, b) _mm512_permutex2var_pd(a, _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4), b)
#define EVEN_LANES(low, high) _mm512_permutex2var_pd(low, _mm512_set_epi64(15, 13, 11, 9, 6, 4, 2, 0), high)
#include "kernels.h"

#define REAL float
#define LANES 16
#define BROADCAST(a) _mm512_set1_ps(a)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define LANE_RANGE(first, last) LANE_RANGES(first, last)
#define HAS_LANE(lanes, lane) ((lanes) >> (lane) & 1)
#define MASK(lanes) ((__mmask16) (lanes))
#define MASKED_LOAD(found, mask, p) _mm512_mask_loadu_ps(found, mask, p)
#define MASKED_STORE(p, mask, v) _mm512_mask_storeu_ps(p, mask, v)
#define STORE_NONTEMPORAL(p, v) _mm512_stream_ps(p, v)
#define OR(a, b) _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(a), _mm512_castps_si512(b)))
#define LOAD_ROWS(p, apart) LOAD_FOUR_ROWS(p, apart)
#define LOAD_SQUARES(a, b, c, d, p, apart) TRANSPOSE_SQUARES(_mm512_castpd_ps, a, b, c, d, p, apart)
#define ROTATE_2(v) _mm512_permute_ps(v, 0xB1)
#define ROTATE_4(v) _mm512_permute_ps(v, 0x39)
#define ROTATE_8(v) _mm512_permutexvar_ps(_mm512_set_epi32(8, 15, 14, 13, 12, 11, 10, 9, 0, 7, 6, 5, 4, 3, 2, 1), v)
#define UNPACK_LOW(a, b) _mm512_unpacklo_ps(a, b)
#define UNPACK_HIGH(a, b) _mm512_unpackhi_ps(a, b)
#define UNPACK_LOW_PAIRS(a, b) _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define UNPACK_HIGH_PAIRS(a, b) _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define INTERLEAVE_LOW(a, b) \
    _mm512_permutex2var_ps(a, _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0), b)
#define INTERLEAVE_HIGH(a, b) \
    _mm512_permutex2var_ps(a, _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8), b)
#define EVEN_LANES(low, high) \
    _mm512_permutex2var_ps(low, _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 14, 12, 10, 8, 6, 4, 2, 0), high)
#include "kernels.h"

#undef LANE_RANGES
#undef INSERT
#undef LOAD_FOUR_ROWS
#undef LOAD_TWO_ROWS
#undef TRANSPOSE_SQUARES
#undef ISA
#undef TARGET
#undef MR
#undef UNROLLED
#undef LINE_VECTORS
#undef PLANE_LINES
#undef CHANNEL_SEGMENTS
#undef IN_REGISTER
#undef MASK_IN_REGISTER
