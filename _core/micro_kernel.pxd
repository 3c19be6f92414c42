from cython cimport floating

from refnet._core.im2col3d cimport Geometry


cdef extern from "operands.h":
    ctypedef struct Plan "struct plan":
        Geometry g
        int pieces
    ctypedef struct Terms "struct terms":
        Py_ssize_t start, left, run, gap, stop
    ctypedef struct Ahead "struct ahead":
        const void* at
        Py_ssize_t asks, step, stride
    ctypedef struct Patches "struct patches":
        const void* x
        Plan* plan
        Py_ssize_t row, v
        const unsigned short* quarters


cdef enum:
    DEPTH = 256   # terms in a chain of multiply-adds
    PITCH = 264   # values from row to row of a packed left operand
    WIDEST = 32   # columns of the widest panel
    TALLEST = 12  # rows of the tallest tile


# From low on, below high: taps of a channel, or frames.
cdef struct Range:
    Py_ssize_t low, high


cdef int active() noexcept nogil
cdef Py_ssize_t columns(int version, const floating* any) noexcept nogil
cdef Py_ssize_t rows_of_tile(int version, Py_ssize_t rows) noexcept nogil
cdef void multiply(int version, Py_ssize_t rows, const Terms* terms, const floating* a, floating* b,
                   floating* c, Py_ssize_t pitch, bint add, const Ahead* ahead,
                   const Patches* patches) noexcept nogil
cdef bint passes(int version, Py_ssize_t rows, const Plan* plan) noexcept nogil
cdef bint finite(int version, const floating* a, Py_ssize_t rows, Py_ssize_t depth) noexcept nogil
cdef void plan(int version, const floating* any, Plan* plan, const Geometry* g, Py_ssize_t start,
               Py_ssize_t count, Py_ssize_t columns) noexcept nogil
cdef void gather(int version, const floating* x, floating* tile, Plan* plan, Range taps, Py_ssize_t row,
                 Py_ssize_t row_stop, Py_ssize_t start, Py_ssize_t columns, Py_ssize_t pitch,
                 Py_ssize_t panel) noexcept nogil
cdef void transpose(int version, const floating* lines, Py_ssize_t pitch, floating* to, Py_ssize_t width,
                    Py_ssize_t rows, Py_ssize_t values) noexcept nogil
cdef void alternate(int version, const floating* first, const floating* second, floating* to,
                    Py_ssize_t n) noexcept nogil
cdef void copy(int version, const floating* lines, Py_ssize_t pitch, floating* to, Py_ssize_t rows,
               Py_ssize_t values) noexcept nogil
cdef void stream(int version, const floating* values, Py_ssize_t n, Py_ssize_t zeros,
                 floating* to) noexcept nogil
cdef void settle() noexcept nogil
cdef void regroup(int version, const floating* lines, floating* to, Py_ssize_t groups, Py_ssize_t sections,
                  Py_ssize_t run, bint add, Py_ssize_t ahead) noexcept nogil
