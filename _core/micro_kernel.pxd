from cython cimport floating

from refnet._core.im2col3d cimport Geometry


cdef extern from "micro_kernel.h":
    ctypedef struct Plan "struct plan":
        int pieces


cdef enum:
    DEPTH = 256   # terms in a chain of multiply-adds
    PITCH = 264   # values from row to row of a packed left operand
    WIDEST = 32   # columns of the widest panel
    TALLEST = 12  # rows of the tallest tile


cdef int active() noexcept nogil
cdef Py_ssize_t columns(int version, const floating* any) noexcept nogil
cdef Py_ssize_t rows_of_tile(int version, Py_ssize_t rows) noexcept nogil
cdef void multiply(int version, Py_ssize_t rows, Py_ssize_t depth, const floating* a, const floating* b,
                   floating* c, Py_ssize_t pitch, bint add, const floating* ahead, Py_ssize_t lines,
                   Py_ssize_t stride) noexcept nogil
cdef void plan(int version, const floating* any, Plan* plan, const Geometry* g, Py_ssize_t start,
               Py_ssize_t count, Py_ssize_t columns) noexcept nogil
cdef void gather(int version, const floating* x, floating* tile, Plan* plan, Py_ssize_t row, Py_ssize_t row_stop,
                 Py_ssize_t start, Py_ssize_t columns, Py_ssize_t pitch, Py_ssize_t panel) noexcept nogil
