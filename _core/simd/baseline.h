/* What every processor has: vectors of 16 bytes where the compiler knows vectors, else single values. There
   may be no instruction for a multiply-add. */

#include "multiply_add.h"

#define ISA baseline
#define TARGET
#define MR 4
#define UNROLLED 1
#define PLANE_LINES 0
#define CHANNEL_SEGMENTS 1
#define IN_REGISTER(v)

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define LOAD_ROWS(p, apart) (*(const UNALIGNED *) (p))
#define UNPACK_LOW(a, b) __builtin_shufflevector(a, b, 0, 2)
#define UNPACK_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#define ROTATE_2(v) __builtin_shufflevector(v, v, 1, 0)
#endif
#define REAL double
#define EXACT_ROWS 2
#define FMA(a, b, c) multiply_add_doubles(a, b, c)
#ifdef __GNUC__
#define LANES 2
#define BROADCAST(a) {a, a}
#else
#define LANES 1
#define BROADCAST(a) a
#endif
#include "kernels.h"

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define LOAD_ROWS(p, apart) (*(const UNALIGNED *) (p))
#define UNPACK_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define UNPACK_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define UNPACK_LOW_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define UNPACK_HIGH_PAIRS(a, b) __builtin_shufflevector(a, b, 2, 3, 6, 7)
#define ROTATE_2(v) __builtin_shufflevector(v, v, 1, 0, 3, 2)
#define ROTATE_4(v) __builtin_shufflevector(v, v, 1, 2, 3, 0)
#endif
#define REAL float
#define FMA(a, b, c) multiply_add_floats(a, b, c)
#ifdef __GNUC__
#define LANES 4
#define BROADCAST(a) {a, a, a, a}
#else
#define LANES 1
#define BROADCAST(a) a
#endif
#include "kernels.h"

#undef ISA
#undef TARGET
#undef MR
#undef UNROLLED
#undef PLANE_LINES
#undef CHANNEL_SEGMENTS
#undef IN_REGISTER
