/* Advanced SIMD of AArch64, which every such processor has: 32 registers of 16 bytes. */

#define ISA neon
#define TARGET
#define MR 12
#define UNROLLED 8
#define PLANE_LINES 0
#define CHANNEL_SEGMENTS 2
#define IN_REGISTER(v) __asm__("" : "+w"(v))

#define ZIP_PAIRS(zip, a, b) vreinterpretq_f32_f64(zip(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))

#define REAL double
#define EXACT_ROWS 4
#define LANES 2
#define BROADCAST(a) vdupq_n_f64(a)
#define FMA(a, b, c) vfmaq_f64(c, a, b)
#define OR(a, b) vreinterpretq_f64_u64(vorrq_u64(vreinterpretq_u64_f64(a), vreinterpretq_u64_f64(b)))
#define LOAD_ROWS(p, apart) vld1q_f64(p)
#define ROTATE_2(v) vextq_f64(v, v, 1)
#define UNPACK_LOW(a, b) vzip1q_f64(a, b)
#define UNPACK_HIGH(a, b) vzip2q_f64(a, b)
#define INTERLEAVE_LOW(a, b) vzip1q_f64(a, b)
#define INTERLEAVE_HIGH(a, b) vzip2q_f64(a, b)
#define EVEN_LANES(low, high) vcombine_f64(vget_low_f64(low), vget_high_f64(high))
#include "kernels.h"

#define REAL float
#define LANES 4
#define BROADCAST(a) vdupq_n_f32(a)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define OR(a, b) vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
#define LOAD_ROWS(p, apart) vld1q_f32(p)
#define ROTATE_2(v) vrev64q_f32(v)
#define ROTATE_4(v) vextq_f32(v, v, 1)
#define UNPACK_LOW(a, b) vzip1q_f32(a, b)
#define UNPACK_HIGH(a, b) vzip2q_f32(a, b)
#define UNPACK_LOW_PAIRS(a, b) ZIP_PAIRS(vzip1q_f64, a, b)
#define UNPACK_HIGH_PAIRS(a, b) ZIP_PAIRS(vzip2q_f64, a, b)
#define INTERLEAVE_LOW(a, b) vzip1q_f32(a, b)
#define INTERLEAVE_HIGH(a, b) vzip2q_f32(a, b)
#define EVEN_LANES(low, high) \
    vcombine_f32(vget_low_f32(vuzp1q_f32(low, low)), vget_low_f32(vuzp2q_f32(high, high)))
#include "kernels.h"

#undef ZIP_PAIRS
#undef ISA
#undef TARGET
#undef MR
#undef UNROLLED
#undef PLANE_LINES
#undef CHANNEL_SEGMENTS
#undef IN_REGISTER
