# Flat blobs are walked in pieces of this length: one piece, one task.
cdef enum:
    PIECE = 1 << 14


cdef inline Py_ssize_t pieces(Py_ssize_t size) noexcept nogil:
    return (size + PIECE - 1) // PIECE


cdef inline Py_ssize_t length(Py_ssize_t piece, Py_ssize_t size) noexcept nogil:
    return min(<Py_ssize_t> PIECE, size - piece * PIECE)


# Planes of P values that are one task: short ones, lest tasks cost more than what is done in them.
cdef inline Py_ssize_t planes_together(Py_ssize_t P) noexcept nogil:
    return max(1, 512 // max(1, P))
