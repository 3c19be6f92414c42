from cython cimport floating
from libc.string cimport memset


# Sums whose error does not grow with the number of terms; sums.h states their order and their error.
cdef extern from "sums.h" nogil:
    ctypedef struct Pair "struct refnet_pair":
        double high, low
    Pair added "refnet_added"(Pair, double)
    Pair divided "refnet_divided"(Pair, double)
    void total_float32 "refnet_total_float32"(const float*, Py_ssize_t, Pair*)
    void total_float64 "refnet_total_float64"(const double*, Py_ssize_t, Pair*)
    void product_float32 "refnet_product_float32"(const float*, const float*, Py_ssize_t, Pair*)
    void product_float64 "refnet_product_float64"(const double*, const double*, Py_ssize_t, Pair*)
    void centred_product_float32 "refnet_centred_product_float32"(const float*, const float*, Pair, Py_ssize_t, Pair*)
    void centred_product_float64 "refnet_centred_product_float64"(const double*, const double*, Pair, Py_ssize_t, Pair*)
    void centred_square_float32 "refnet_centred_square_float32"(const float*, Pair, Py_ssize_t, Pair*)
    void centred_square_float64 "refnet_centred_square_float64"(const double*, Pair, Py_ssize_t, Pair*)


cdef inline Pair zero() noexcept nogil:
    cdef Pair sum_
    sum_.high = sum_.low = 0
    return sum_


cdef inline void add_total(const floating* a, Py_ssize_t P, Pair* sum_) noexcept nogil:
    """Add all of a."""
    if floating is float:
        total_float32(a, P, sum_)
    else:
        total_float64(a, P, sum_)


cdef inline void add_product(const floating* a, const floating* b, Py_ssize_t P, Pair* sum_) noexcept nogil:
    """Add all a b."""
    if floating is float:
        product_float32(a, b, P, sum_)
    else:
        product_float64(a, b, P, sum_)


cdef inline void add_centred_product(const floating* a, const floating* b, Pair mean, Py_ssize_t P,
                                     Pair* sum_) noexcept nogil:
    """Add all a (b - mean)."""
    if floating is float:
        centred_product_float32(a, b, mean, P, sum_)
    else:
        centred_product_float64(a, b, mean, P, sum_)


cdef inline void add_centred_square(const floating* a, Pair mean, Py_ssize_t P, Pair* sum_) noexcept nogil:
    """Add all (a - mean) squared."""
    if floating is float:
        centred_square_float32(a, mean, P, sum_)
    else:
        centred_square_float64(a, mean, P, sum_)


cdef inline floating total(const floating* a, Py_ssize_t P) noexcept nogil:
    """Sum of a, rounded."""
    cdef Pair sum_ = zero()
    add_total(a, P, &sum_)
    return <floating> sum_.high


cdef inline floating product(const floating* a, const floating* b, Py_ssize_t P) noexcept nogil:
    """Sum of a b, rounded."""
    cdef Pair sum_ = zero()
    add_product(a, b, P, &sum_)
    return <floating> sum_.high


cdef enum:
    LINE = 512
    SHORT = 16


# Sums that are made side by side, a term of each at a time, in chains of at most SHORT terms, whose totals are added to
# a sum of two numbers, as in sums.h: |error| <= (16 u + 2^-106 n / 8) sum |terms|, u that of the chains' type.
cdef struct Totals:
    Pair total[LINE]
    Py_ssize_t length, terms
    bint spilled


cdef inline void begin(floating* chain, Totals* totals, Py_ssize_t length) noexcept nogil:
    totals.length, totals.terms, totals.spilled = length, 0, False
    memset(chain, 0, length * sizeof(floating))


cdef inline void spill(floating* chain, Totals* totals) noexcept nogil:
    """Add the chains to the totals, and begin new ones."""
    cdef Py_ssize_t i
    if not totals.spilled:
        memset(totals.total, 0, totals.length * sizeof(Pair))
    for i in range(totals.length):
        totals.total[i] = added(totals.total[i], chain[i])
    memset(chain, 0, totals.length * sizeof(floating))
    totals.terms, totals.spilled = 0, True


cdef inline void count(floating* chain, Totals* totals) noexcept nogil:
    """Each chain may have one more term now."""
    totals.terms += 1
    if totals.terms == SHORT:
        spill(chain, totals)


cdef inline void finish(floating* chain, Totals* totals) noexcept nogil:
    """Make each chain the whole sum, rounded."""
    cdef Py_ssize_t i
    if totals.spilled:
        spill(chain, totals)
        for i in range(totals.length):
            chain[i] = <floating> totals.total[i].high
