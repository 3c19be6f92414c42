from cython cimport floating
from libc.string cimport memset


# Sums whose error does not grow with the number of terms; sums.h states their order and their error.
cdef extern from "sums.h" nogil:
    ctypedef struct Pair "struct refnet_pair":
        double high, low
    ctypedef struct Planes "struct refnet_planes":
        Py_ssize_t planes, apart, n, step
    Pair added "refnet_added"(Pair, double)
    void compensated "refnet_compensated"(const double*, Py_ssize_t, Pair*)
    void total_float32 "refnet_total_float32"(const float*, const float*, Pair, Planes, Pair*)
    void total_float64 "refnet_total_float64"(const double*, const double*, Pair, Planes, Pair*)
    void dot_float32 "refnet_dot_float32"(const float*, const float*, Pair, Planes, Pair*)
    void dot_float64 "refnet_dot_float64"(const double*, const double*, Pair, Planes, Pair*)
    enum:
        KEPT "REFNET_KEPT"
    void offset_float32 "refnet_offset_float32"(const float*, const float*, Pair, Planes, Pair*)
    void offset_float64 "refnet_offset_float64"(const double*, const double*, Pair, Planes, Pair*)
    void moments_kept "refnet_moments_kept"(const float*, const float*, Pair, Planes, Pair*, double*)
    void products_kept "refnet_products_kept"(const float*, const float*, Pair, Planes, Pair*, double*)
    double without "refnet_without"(double, double)
    void moments_float32 "refnet_moments_float32"(const float*, const float*, Pair, Planes, Pair*)
    void moments_float64 "refnet_moments_float64"(const double*, const double*, Pair, Planes, Pair*)
    void products_float32 "refnet_products_float32"(const float*, const float*, Pair, Planes, Pair*)
    void products_float64 "refnet_products_float64"(const double*, const double*, Pair, Planes, Pair*)


cdef inline Pair pair(double high, double low) noexcept nogil:
    cdef Pair sum_
    sum_.high, sum_.low = high, low
    return sum_


cdef inline Planes planes(Py_ssize_t count, Py_ssize_t apart, Py_ssize_t n) noexcept nogil:
    """Planes of n values, `apart` values from one to the next, that are summed together."""
    cdef Planes all_
    all_.planes, all_.apart, all_.n, all_.step = count, apart, n, 0
    return all_


cdef inline void add_totals(const floating* a, Planes all_, Pair* sums) noexcept nogil:
    """Add all a."""
    if floating is float:
        total_float32(a, a, pair(0, 0), all_, sums)
    else:
        total_float64(a, a, pair(0, 0), all_, sums)


cdef inline double dot(const floating* a, const floating* b, Planes all_) noexcept nogil:
    """Sum of all a b."""
    cdef Pair sum_ = pair(0, 0)
    if floating is float:
        dot_float32(a, b, pair(0, 0), all_, &sum_)
    else:
        dot_float64(a, b, pair(0, 0), all_, &sum_)
    return sum_.high


cdef inline double offset(const floating* a, Pair mean, Planes all_) noexcept nogil:
    """Sum of all (a - mean); of floats, mean.low is left out."""
    cdef Pair sum_ = pair(0, 0)
    if floating is float:
        offset_float32(a, a, mean, all_, &sum_)
    else:
        offset_float64(a, a, mean, all_, &sum_)
    return sum_.high


cdef inline void add_moments(const floating* a, Pair mean, Planes all_, Pair* sums, double* kept) noexcept nogil:
    """Add all (a - mean) to the first sum, and their squares to the second; of floats, mean.low is left out.

    Of floats, a - mean.high is put where `kept` says, if anywhere.
    """
    if floating is float:
        if kept != NULL:
            moments_kept(a, a, mean, all_, sums, kept)
        else:
            moments_float32(a, a, mean, all_, sums)
    else:
        moments_float64(a, a, mean, all_, sums)


cdef struct Products:
    double product, total


cdef inline Products products_of(const floating* a, const floating* b, Pair mean, Planes all_,
                                 double* kept) noexcept nogil:
    """Sum of all a (b - mean), and of all a. Of floats, b - mean.high is put where `kept` says, if anywhere."""
    cdef Pair sums[2]
    cdef Products found
    sums[0] = sums[1] = pair(0, 0)
    if floating is float:
        if kept != NULL:
            products_kept(a, b, mean, all_, sums, kept)
        else:
            products_float32(a, b, mean, all_, sums)
        found.product = without(sums[0].high, mean.low * sums[1].high)
    else:
        products_float64(a, b, mean, all_, sums)
        found.product = sums[0].high
    found.total = sums[1].high
    return found


cdef inline double total(const floating* a, Planes all_) noexcept nogil:
    """Sum of all a."""
    cdef Pair sum_ = pair(0, 0)
    add_totals(a, all_, &sum_)
    return sum_.high


cdef enum:
    LINE = 512
    SHORT = 16


# Sums that are made side by side, a term of each at a time, in chains of at most SHORT terms, whose totals are added to
# a sum of two numbers, as in sums.h: |error| <= (16 u + 2^-106 n / 8) sum |terms|, u that of the chains' type.
cdef struct Totals:
    Pair total[LINE]
    Py_ssize_t length, terms
    bint spilled


cdef inline void begin(Totals* totals, Py_ssize_t length) noexcept nogil:
    """Begin `length` sums; their first chains are to begin with 0 or a term, each of them."""
    totals.length, totals.terms, totals.spilled = length, 0, False


cdef inline void clear(floating* chain, const Totals* totals) noexcept nogil:
    """Begin each chain with 0."""
    memset(chain, 0, totals.length * sizeof(floating))


cdef inline void spill(floating* chain, Totals* totals) noexcept nogil:
    """Add the chains to the totals, and begin new ones."""
    cdef Py_ssize_t i
    if not totals.spilled:
        memset(totals.total, 0, totals.length * sizeof(Pair))
    for i in range(totals.length):
        totals.total[i] = added(totals.total[i], chain[i])
    clear(chain, totals)
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
