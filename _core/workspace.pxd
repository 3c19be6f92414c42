# One thread's workspace, carved up by the function that sizes it.

from libc.stdint cimport uintptr_t

from refnet._core.blocking cimport CACHE_LINE, KC, LHS_PITCH, MAX_NR, MC, NC, TILE_PITCH
from refnet._core.simd cimport GatherPlan


# Which rows of weights a thread has packed, and from which term on.
cdef struct PackedLhs:
    const void* weights
    Py_ssize_t first


# Of which subkernel a thread has planned what which columns gather.
cdef struct PlannedColumns:
    const void* kernel
    Py_ssize_t start, stop


cdef struct Workspace:
    PackedLhs* packed
    PlannedColumns* planned
    void* lhs         # MC rows of KC values, LHS_PITCH apart: the packed left operand
    void* rhs         # KC x NC values, in panels of NR columns: the packed right operand, a strip
    void* tile        # MC rows of TILE_COLUMNS values, TILE_PITCH apart, or fewer longer ones: sums of a tile
    void* lines       # MAX_NR rows of KC values, LHS_PITCH apart, that are transposed next
    GatherPlan* plan


# The next part of the workspace, which begins with a cache line.
cdef inline void* claim(uintptr_t* at, Py_ssize_t size) noexcept nogil:
    cdef uintptr_t start = (at[0] + CACHE_LINE - 1) & ~<uintptr_t> (CACHE_LINE - 1)
    at[0] = start + size
    return <void*> start


# Carve a workspace out of the memory from `base` on; return how many bytes it takes at most, wherever that
# lies.
cdef inline Py_ssize_t carve(Workspace* workspace, void* base, Py_ssize_t itemsize) noexcept nogil:
    cdef uintptr_t at = <uintptr_t> base
    workspace.packed = <PackedLhs*> claim(&at, sizeof(PackedLhs))
    workspace.planned = <PlannedColumns*> claim(&at, sizeof(PlannedColumns))
    workspace.lhs = claim(&at, MC * LHS_PITCH * itemsize)
    workspace.rhs = claim(&at, KC * NC * itemsize)
    workspace.tile = claim(&at, MC * TILE_PITCH * itemsize)
    workspace.lines = claim(&at, MAX_NR * LHS_PITCH * itemsize)
    workspace.plan = <GatherPlan*> claim(&at, sizeof(GatherPlan))
    return <Py_ssize_t> (at - <uintptr_t> base) + CACHE_LINE
