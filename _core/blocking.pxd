# The block sizes, from C, and what sizes are cut by.
cdef extern from "blocking.h":
    enum:
        KC
        MC
        NC
        MAX_MR
        MAX_NR
        LINE_POSITIONS
        LINE_STEP
        LEAST_POSITIONS
        LINE_TAPS
        WIDE_TAPS
        WIDE_POSITIONS
        CHANNEL_POSITIONS
        MAX_ROTATIONS
        TAP_CHANNELS
        SPAN_CHAINS
        PAD
        LHS_PITCH
        TILE_COLUMNS
        MAX_TILE_COLUMNS
        TILE_PITCH
        MAX_BLOCKS
        MAX_PANELS
        MAX_TILE_PANELS
        TRANSPOSED
        W_PHASES
        MERGED_PHASES
        PREFETCH_TERMS
        PREFETCH_LINES
        CACHE_LINE


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b
