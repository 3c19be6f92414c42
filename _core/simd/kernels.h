/* The kernels of one instruction set and floating-point type: included with

       ISA, TARGET                    the instruction set: its name, how functions are compiled for it
       MR, UNROLLED                   rows of its micro-tile, terms that it takes at once
       PLANE_LINES                    lines of the micro-kernel of planes, or 0 where it is not used
       CHANNEL_SEGMENTS               2 where there are 32 registers, else 1
       MASK_IN_REGISTER(mask)         keeps a mask in a register, with PLANE_LINES
       IN_REGISTER(v)                 keeps a value in a register; with 16, computes it before what comes later
       REAL, LANES, BROADCAST, FMA    the type, lanes of a vector, a value in all lanes, a multiply-add of one rounding

   defined, LINE_VECTORS, or LINE_BY_TAPS, where the micro-kernel of lines is used, EXACT_ROWS where exact
   sums are made, and what the templates below call optional where the instruction set has it. What depends on the type
   is undefined at the end, so that it can be included again. */

#define NAME(what) JOIN(what, ISA, REAL)
#define VECTOR NAME(vector)
#define UNALIGNED NAME(unaligned)
#define NR (2 * LANES)

#ifdef __GNUC__
typedef REAL VECTOR __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL UNALIGNED __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#else
typedef REAL VECTOR;
typedef REAL UNALIGNED;
#endif

_Static_assert(MR <= MAX_MR && MIN_NR <= NR && NR <= MAX_NR, "the micro-tile of " TEXT(ISA));

#include "gather.h"
#include "line_kernel.h"
#include "micro_kernel.h"
#include "moves.h"
#include "linear.h"
#include "plane_kernel.h"
#include "channel_kernel.h"

#define KERNEL_ENTRY(result, name, arguments) NAME(name),
static const struct simd NAME(simd) = {TEXT(ISA), MASKED_LOADS, MAX_VECTOR_STRIDE, BIT_MASKS, MR, NR,
                                       LINE_FILTERS, HALF_LINE_FILTERS, TAPS_AT_ONCE, TAP_FILTERS, PLANE_LINES,
                                       CHANNEL_SEGMENTS,
                                       {[1] = TERMS_OF_1, [2] = TERMS_OF_2, [4] = TERMS_OF_4, [8] = TERMS_OF_8},
                                       SIMD_KERNELS(KERNEL_ENTRY)};

#ifdef EXACT_ROWS
#include "exact_kernel.h"
static const struct exact JOIN(exact, ISA, REAL) = {EXACT_ROWS, NAME(exact_kernel), NAME(column_scales)};
#undef EXACT_ROWS
#endif

#undef KERNEL_ENTRY
#undef LINE_FILTERS
#undef HALF_LINE_FILTERS
#undef TAP_FILTERS
#undef TAPS_AT_ONCE
#undef NAME
#undef VECTOR
#undef UNALIGNED
#undef NR
#undef REAL
#undef LANES
#undef BROADCAST
#undef FMA
#undef MASKED_LOADS
#undef LANE_RANGE
#undef BIT_MASKS
#undef HAS_LANE
#undef MASK
#undef MASKED_LOAD
#undef MASKED_STORE
#undef EVEN_LANES
#undef MAX_VECTOR_STRIDE
#undef OR
#undef LOAD_ROWS
#undef LOAD_SQUARES
#undef UNPACK_LOW
#undef UNPACK_HIGH
#undef UNPACK_LOW_PAIRS
#undef UNPACK_HIGH_PAIRS
#undef INTERLEAVE_LOW
#undef INTERLEAVE_HIGH
#undef STORE_NONTEMPORAL
#undef ROTATE_2
#undef ROTATE_4
#undef ROTATE_8
#undef TERMS_OF_1
#undef TERMS_OF_2
#undef TERMS_OF_4
#undef TERMS_OF_8
#undef REGISTERS
