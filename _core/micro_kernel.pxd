from cython cimport floating


cdef enum:
    DEPTH = 256   # terms in a chain of multiply-adds
    PITCH = 264   # values from row to row of a packed left operand
    WIDEST = 32   # columns of the widest panel
    TALLEST = 12  # rows of the tallest tile


cdef int active() noexcept nogil
cdef Py_ssize_t columns(int version, const floating* any) noexcept nogil
cdef Py_ssize_t rows_of_tile(int version, Py_ssize_t rows) noexcept nogil
cdef void multiply(int version, Py_ssize_t rows, Py_ssize_t depth, const floating* a, const floating* b,
                   floating* c, Py_ssize_t pitch, bint add) noexcept nogil
