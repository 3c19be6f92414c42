# The kernels of one instruction set and floating-point type: see simd/simd.h, and simd/operands.h for what
# they take.

from refnet._core.geometry cimport Geometry


cdef extern from "simd/simd.h":
    ctypedef struct Terms "struct terms":
        Py_ssize_t start, first_run, run, gap, stop
    ctypedef struct PrefetchRun "struct prefetch_run":
        const char* at
        Py_ssize_t count, step, stride
    ctypedef struct GatherPlan "struct gather_plan":
        Geometry g
        Py_ssize_t vectors, prefetch_distance
        int segments
        Py_ssize_t* t
        Py_ssize_t* h
        Py_ssize_t* w
        Py_ssize_t* base
        Py_ssize_t* first
        Py_ssize_t* last
        Py_ssize_t* source
        unsigned short* mask
        unsigned short* high
    ctypedef struct GatherRegion "struct gather_region":
        Py_ssize_t first_tap, stop_tap, tap, rows, column, columns, pitch, panel
    ctypedef struct FusedPack "struct fused_pack":
        const void* x
        GatherPlan* plan
        Py_ssize_t row, vector
        const unsigned short* quarters
        bint stores
    ctypedef struct MicroTile "struct micro_tile":
        Py_ssize_t rows, pitch
        const Terms* terms
        const void* lhs
        void* rhs
        void* c
        const Py_ssize_t* offsets
        Py_ssize_t right, right_sums
        bint accumulate
        PrefetchRun prefetch
        const FusedPack* fused
    enum: FIRST_OUTSIDE
    enum: LAST_OUTSIDE
    ctypedef struct LineRun "struct line_run":
        Py_ssize_t at, weights
        unsigned short tap, count
    ctypedef struct LineTile "struct line_tile":
        const void* x
        const void* weights
        void* c
        Py_ssize_t pitch, next_line
        const LineRun* runs
        Py_ssize_t count
        unsigned edges
        const unsigned char* outside
        Py_ssize_t* skipped
        Py_ssize_t positions, step, taps, apart, second, second_sums
        bint accumulate
        PrefetchRun prefetch
    ctypedef struct PlaneTile "struct plane_tile":
        const void* x
        const void* weights
        void* y
        Py_ssize_t channels, frames, x_channel, w_channel, x_frame, x_next, x_line, y_line, apart
        Py_ssize_t lines
        unsigned lines_read
        unsigned* lanes
        unsigned lanes_stored
    ctypedef struct ChannelTile "struct channel_tile":
        const Terms* lines
        const void* weights
        const void* image
        const Py_ssize_t* offsets
        const Py_ssize_t* from_ "from"
        const Py_ssize_t* to
        Py_ssize_t taps, apart, step
        void* sums
    ctypedef struct ChannelGradient "struct channel_gradient":
        const void* dy
        const void* image
        const Py_ssize_t* offsets
        Py_ssize_t rotations, terms, runs, run, first, count, width, pitch, step
        void* chains
    ctypedef struct ExactTile "struct exact_tile":
        Py_ssize_t rows, pitch
        const Terms* terms
        const double* lhs
        const double* rhs
        const double* row_scales
        const double* column_scales
        double* c
        double* low
        bint accumulate
    ctypedef struct Exact "struct exact":
        Py_ssize_t rows
        void kernel(const ExactTile* tile) noexcept nogil
        void column_scales(const double* panel, Py_ssize_t depth, double* scales) noexcept nogil
    double scale_above(double value) noexcept nogil
    ctypedef struct Simd "struct simd":
        const char* name
        bint masked_loads
        int vector_stride
        bint bit_masks
        Py_ssize_t mr, nr, line_filters, half_line_filters
        bint taps_at_once
        Py_ssize_t tap_filters, plane_lines, channel_segments
        Py_ssize_t[9] channel_terms  # MAX_ROTATIONS + 1
        void micro_kernel(const MicroTile* tile) noexcept nogil
        void line_kernel(const LineTile* tile) noexcept nogil
        void plane_sums(const PlaneTile* tile) noexcept nogil
        void channel_sums(const ChannelTile* tile) noexcept nogil
        void channel_gradients(const ChannelGradient* gradient) noexcept nogil
        void to_channels(const void* const* rows, Py_ssize_t offset, Py_ssize_t count, void* to) noexcept nogil
        void from_channels(const void* values, Py_ssize_t count, void* const* rows, Py_ssize_t offset,
                           Py_ssize_t channels) noexcept nogil
        void add_span(const void* sums, void* dw, Py_ssize_t channels, Py_ssize_t sections, Py_ssize_t run,
                      bint accumulate, Py_ssize_t prefetch_distance) noexcept nogil
        void gather(const void* x, const GatherPlan* plan, const GatherRegion* region, void* to) noexcept nogil
        void transpose(const void* rows, Py_ssize_t pitch, void* to, Py_ssize_t width, Py_ssize_t count,
                       Py_ssize_t values) noexcept nogil
        void interleave(const void* first, const void* second, void* to, Py_ssize_t n) noexcept nogil
        void store_nontemporal(const void* values, Py_ssize_t n, Py_ssize_t zeros, void* to) noexcept nogil
        void copy(const void* rows, Py_ssize_t pitch, void* to, Py_ssize_t to_pitch, Py_ssize_t count,
                  Py_ssize_t n) noexcept nogil
        bint all_finite(const void* lhs, Py_ssize_t rows, Py_ssize_t depth) noexcept nogil
        void linear_forward(const void* x, const void* w, void* y, Py_ssize_t samples, Py_ssize_t rows, Py_ssize_t D,
                            Py_ssize_t y_pitch) noexcept nogil
        void linear_input_gradient(const void* dy, const void* w, void* dx, Py_ssize_t samples, Py_ssize_t K,
                                   Py_ssize_t columns, Py_ssize_t pitch) noexcept nogil
        void linear_weight_gradient(const void* dy, const void* x, void* dw, Py_ssize_t samples, Py_ssize_t rows,
                                    Py_ssize_t D, Py_ssize_t pitch) noexcept nogil
        double spin(Py_ssize_t rounds) noexcept nogil


# The lanes [first, last), as LANE_RANGE of the instruction set has them.
cdef inline unsigned short lane_mask(const Simd* simd, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return <unsigned short> ((1 << last) - (1 << first) if simd.bit_masks else first | last << 8)
