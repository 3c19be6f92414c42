/* The kernels of one version and type: included with VERSION, TARGET, REAL, LANES, ROWS, SPREAD and FMA defined,
   and what the files below want where there is such; all but VERSION, TARGET and ROWS end here. */

#define NAME(what) JOIN(what, VERSION, REAL)
#define VECTOR NAME(vector)
#define UNALIGNED NAME(unaligned)
#define COLUMNS (2 * LANES)

#ifdef __GNUC__
typedef REAL VECTOR __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL UNALIGNED __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#else
typedef REAL VECTOR;
typedef REAL UNALIGNED;
#endif

#include "gather_template.h"
#include "micro_kernel_template.h"
#include "moves_template.h"

#undef NAME
#undef VECTOR
#undef UNALIGNED
#undef COLUMNS
#undef REAL
#undef LANES
#undef SPREAD
#undef FMA
#undef MASK_OF
#undef KEEP
#undef HAS
#undef MERGE
#undef PUT
#undef EVEN
#undef STEP
#undef OR
#undef PIECES
#undef LOW
#undef HIGH
#undef LOW_PAIRS
#undef HIGH_PAIRS
#undef LEFT_HALVES
#undef RIGHT_HALVES
#undef STREAM
