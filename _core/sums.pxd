from cython cimport floating


# Sums over a plane of P values, each in eight interleaved partial sums: fewer roundings in a row, and
# eight additions that need not wait for each other.

cdef inline floating total(const floating* a, Py_ssize_t P) noexcept nogil:
    """Sum of a."""
    cdef Py_ssize_t p, whole = P - P % 8
    cdef floating s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0
    for p in range(0, whole, 8):
        s0 += a[p]
        s1 += a[p + 1]
        s2 += a[p + 2]
        s3 += a[p + 3]
        s4 += a[p + 4]
        s5 += a[p + 5]
        s6 += a[p + 6]
        s7 += a[p + 7]
    for p in range(whole, P):
        s0 += a[p]
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


cdef inline floating product(const floating* a, const floating* b, floating centre,
                             Py_ssize_t P) noexcept nogil:
    """Sum of a (b - centre)."""
    cdef Py_ssize_t p, whole = P - P % 8
    cdef floating s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0
    for p in range(0, whole, 8):
        s0 += a[p] * (b[p] - centre)
        s1 += a[p + 1] * (b[p + 1] - centre)
        s2 += a[p + 2] * (b[p + 2] - centre)
        s3 += a[p + 3] * (b[p + 3] - centre)
        s4 += a[p + 4] * (b[p + 4] - centre)
        s5 += a[p + 5] * (b[p + 5] - centre)
        s6 += a[p + 6] * (b[p + 6] - centre)
        s7 += a[p + 7] * (b[p + 7] - centre)
    for p in range(whole, P):
        s0 += a[p] * (b[p] - centre)
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


cdef inline floating square(const floating* a, floating centre, Py_ssize_t P) noexcept nogil:
    """Sum of (a - centre) squared."""
    cdef Py_ssize_t p, whole = P - P % 8
    cdef floating s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0
    for p in range(0, whole, 8):
        s0 += (a[p] - centre) * (a[p] - centre)
        s1 += (a[p + 1] - centre) * (a[p + 1] - centre)
        s2 += (a[p + 2] - centre) * (a[p + 2] - centre)
        s3 += (a[p + 3] - centre) * (a[p + 3] - centre)
        s4 += (a[p + 4] - centre) * (a[p + 4] - centre)
        s5 += (a[p + 5] - centre) * (a[p + 5] - centre)
        s6 += (a[p + 6] - centre) * (a[p + 6] - centre)
        s7 += (a[p + 7] - centre) * (a[p + 7] - centre)
    for p in range(whole, P):
        s0 += (a[p] - centre) * (a[p] - centre)
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
