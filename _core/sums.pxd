from cython cimport floating


# Sums over a plane of P values, each in sixteen interleaved partial sums: fewer roundings in a row, and
# sixteen additions that need not wait for each other.
cdef enum:
    LANES = 16


cdef inline floating folded(floating* s) noexcept nogil:
    """Sum of the partial sums, pair by pair."""
    cdef Py_ssize_t i
    for i in range(8):
        s[i] += s[i + 8]
    for i in range(4):
        s[i] += s[i + 4]
    return (s[0] + s[2]) + (s[1] + s[3])


cdef inline floating total(const floating* a, Py_ssize_t P) noexcept nogil:
    """Sum of a."""
    cdef Py_ssize_t block, p, i
    cdef floating s[LANES]
    for i in range(LANES):
        s[i] = 0
    for block in range(P // LANES):
        p = block * LANES
        for i in range(LANES):
            s[i] += a[p + i]
    for p in range(P - P % LANES, P):
        s[0] += a[p]
    return folded(s)


cdef inline floating product(const floating* a, const floating* b, floating centre,
                             Py_ssize_t P) noexcept nogil:
    """Sum of a (b - centre)."""
    cdef Py_ssize_t block, p, i
    cdef floating s[LANES]
    for i in range(LANES):
        s[i] = 0
    for block in range(P // LANES):
        p = block * LANES
        for i in range(LANES):
            s[i] += a[p + i] * (b[p + i] - centre)
    for p in range(P - P % LANES, P):
        s[0] += a[p] * (b[p] - centre)
    return folded(s)


cdef inline floating square(const floating* a, floating centre, Py_ssize_t P) noexcept nogil:
    """Sum of (a - centre) squared."""
    cdef Py_ssize_t block, p, i
    cdef floating s[LANES]
    for i in range(LANES):
        s[i] = 0
    for block in range(P // LANES):
        p = block * LANES
        for i in range(LANES):
            s[i] += (a[p + i] - centre) * (a[p + i] - centre)
    for p in range(P - P % LANES, P):
        s[0] += (a[p] - centre) * (a[p] - centre)
    return folded(s)
