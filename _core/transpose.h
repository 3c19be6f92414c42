/* to (count, width) <- from (rows, count), whose rows are `pitch` values apart; rows are a multiple of 4, counts
   of 4 are done by small squares in vectors of 16 bytes, where the compiler knows such. */

#include <stddef.h>

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define REFNET_SQUARES 1
typedef double refnet_double2 __attribute__((vector_size(16), aligned(8), may_alias));
typedef float refnet_float4 __attribute__((vector_size(16), aligned(4), may_alias));
#endif

static inline void refnet_transpose_double(const double *from, ptrdiff_t pitch, double *to, ptrdiff_t width,
                                           ptrdiff_t rows, ptrdiff_t count)
{
    ptrdiff_t i = 0;
#ifdef REFNET_SQUARES
    for (; i + 2 <= count; i += 2)
        for (ptrdiff_t row = 0; row < rows; row += 2) {
            const refnet_double2 a = *(const refnet_double2 *) (from + row * pitch + i);
            const refnet_double2 b = *(const refnet_double2 *) (from + (row + 1) * pitch + i);
            *(refnet_double2 *) (to + i * width + row) = __builtin_shufflevector(a, b, 0, 2);
            *(refnet_double2 *) (to + (i + 1) * width + row) = __builtin_shufflevector(a, b, 1, 3);
        }
#endif
    for (; i < count; i++)
        for (ptrdiff_t row = 0; row < rows; row++)
            to[i * width + row] = from[row * pitch + i];
}

static inline void refnet_transpose_float(const float *from, ptrdiff_t pitch, float *to, ptrdiff_t width,
                                          ptrdiff_t rows, ptrdiff_t count)
{
    ptrdiff_t i = 0;
#ifdef REFNET_SQUARES
    for (; i + 4 <= count; i += 4)
        for (ptrdiff_t row = 0; row < rows; row += 4) {
            const refnet_float4 a = *(const refnet_float4 *) (from + row * pitch + i);
            const refnet_float4 b = *(const refnet_float4 *) (from + (row + 1) * pitch + i);
            const refnet_float4 c = *(const refnet_float4 *) (from + (row + 2) * pitch + i);
            const refnet_float4 d = *(const refnet_float4 *) (from + (row + 3) * pitch + i);
            const refnet_float4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
            const refnet_float4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
            const refnet_float4 ab_ = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            const refnet_float4 cd_ = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            *(refnet_float4 *) (to + i * width + row) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            *(refnet_float4 *) (to + (i + 1) * width + row) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            *(refnet_float4 *) (to + (i + 2) * width + row) = __builtin_shufflevector(ab_, cd_, 0, 1, 4, 5);
            *(refnet_float4 *) (to + (i + 3) * width + row) = __builtin_shufflevector(ab_, cd_, 2, 3, 6, 7);
        }
#endif
    for (; i < count; i++)
        for (ptrdiff_t row = 0; row < rows; row++)
            to[i * width + row] = from[row * pitch + i];
}
