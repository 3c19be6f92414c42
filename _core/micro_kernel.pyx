"""The register-blocked product of packed panels, in the version that fits the processor.

Each element of a product is one chain of multiply-adds from 0, in the order of its terms. In the
versions avx2 and avx512 a multiply-add is fused, it rounds once, and both give the same bits; baseline
rounds the product, then the sum.
"""

from cython cimport floating
from cython.parallel cimport prange

from refnet._core cimport openmp


cdef extern from "micro_kernel.h" nogil:
    ctypedef struct Version "struct version":
        const char* name
        bint fused
        Py_ssize_t rows
        Py_ssize_t columns_double
        Py_ssize_t columns_float
        void (*multiply_double)(Py_ssize_t, Py_ssize_t, const double*, const double*, double*, Py_ssize_t,
                                bint) noexcept nogil
        void (*multiply_float)(Py_ssize_t, Py_ssize_t, const float*, const float*, float*, Py_ssize_t,
                               bint) noexcept nogil
        double (*spin_double)(Py_ssize_t) noexcept nogil
        float (*spin_float)(Py_ssize_t) noexcept nogil
    enum: CHAINS
    const Version VERSIONS[]
    int count_versions()


cdef int supported = count_versions()
cdef int chosen = supported - 1


cdef int active() noexcept nogil:
    """The version that products are computed with; asked once at the start of an operation."""
    return chosen


cdef Py_ssize_t columns(int version, const floating* any) noexcept nogil:
    """How many columns a panel of the right operand has."""
    if floating is double:
        return VERSIONS[version].columns_double
    else:
        return VERSIONS[version].columns_float


cdef Py_ssize_t rows_of_tile(int version, Py_ssize_t rows) noexcept nogil:
    """How many rows the next tile takes when so many are left.

    The last two tiles share them: a tile of one or two rows has too few sums to keep the multipliers busy.
    """
    cdef Py_ssize_t most = VERSIONS[version].rows
    return rows if rows <= most else min(most, (rows + 1) // 2)


cdef void multiply(int version, Py_ssize_t rows, Py_ssize_t depth, const floating* a, const floating* b,
                   floating* c, Py_ssize_t pitch, bint add) noexcept nogil:
    """c (rows, columns) = or += a (rows, depth) b (depth, columns), for one tile and at most DEPTH terms.

    Rows of a are PITCH values apart, those of c `pitch` values, those of b as many as it has columns.
    """
    if floating is double:
        VERSIONS[version].multiply_double(rows, depth, a, b, c, pitch, add)
    else:
        VERSIONS[version].multiply_float(rows, depth, a, b, c, pitch, add)


def versions():
    """The versions that this processor runs, the least demanding first."""
    return [VERSIONS[i].name.decode() for i in range(supported)]


def name():
    """The version in use."""
    return VERSIONS[chosen].name.decode()


def is_fused():
    """Whether a multiply-add of the version in use rounds once."""
    return bool(VERSIONS[chosen].fused)


def spin(Py_ssize_t rounds, bint double_precision):
    """Do nothing but multiply-adds in registers, on every thread: how many, and their sum.

    No product of so many terms can take less time.
    """
    cdef int thread, threads = openmp.max_threads(), version = chosen
    cdef double total = 0
    with nogil:
        for thread in prange(threads, schedule="static", chunksize=1):
            if double_precision:
                total += VERSIONS[version].spin_double(rounds)
            else:
                total += VERSIONS[version].spin_float(rounds)
    lanes = (VERSIONS[version].columns_double if double_precision else VERSIONS[version].columns_float) // 2
    return threads * rounds * CHAINS * lanes, total


def use(str version):
    """Compute everything from now on with that version; for tests."""
    global chosen
    chosen = versions().index(version)
