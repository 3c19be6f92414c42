from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.im2col3d cimport Range
from refnet._core.simd cimport GatherPlan, Simd


# How weights lie: how far apart they are from group to group, row to row of the left operand, channel to
# channel of its columns, and tap to tap along T, H, W, beginning at `first`; dense if a row lies as it is
# packed.
cdef struct LhsLayout:
    Py_ssize_t first, group, row, channel, t, h, w
    bint dense


# Rows of a left operand that are packed when their turn comes: copied from `rows`, `pitch` apart, or, with a
# plan, gathered from the patches of x = `rows` at some taps, from row `first` on. Of each row `depth` values;
# they are kept for another strip, or replaced by the next rows.
cdef struct LhsSource:
    const void* rows
    Py_ssize_t pitch, depth
    GatherPlan* plan
    Range taps
    Py_ssize_t first
    bint keep


cdef void pack_lhs(const Simd* simd, const floating* w, floating* lhs, const Geometry* g, const LhsLayout* layout,
                   Py_ssize_t rows, Range terms) noexcept nogil
cdef void pack_rows(const Simd* simd, const LhsSource* source, Py_ssize_t row, Py_ssize_t rows,
                    floating* lhs) noexcept nogil
cdef void pack_rhs(const Simd* simd, const floating* lines, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t depth,
                   floating* panel) noexcept nogil
