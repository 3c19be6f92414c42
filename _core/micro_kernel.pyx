"""The register-blocked kernels of convolution, in the version that fits the processor.

Each element of a product is one chain of multiply-adds from 0, in the order of its terms. In the
versions avx2 and avx512 a multiply-add is fused, it rounds once, and both give the same bits; baseline
rounds the product, then the sum.
"""

from cython cimport floating
from cython.parallel cimport prange

from refnet._core cimport openmp


cdef extern from "micro_kernel.h" nogil:
    ctypedef struct OfDouble "struct kernels_double":
        void (*multiply)(Py_ssize_t, const Terms*, const double*, double*, double*, Py_ssize_t, bint,
                         const Ahead*, const Patches*) noexcept nogil
        bint (*finite)(const double*, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*transpose)(const double*, Py_ssize_t, double*, Py_ssize_t, Py_ssize_t,
                          Py_ssize_t) noexcept nogil
        void (*alternate)(const double*, const double*, double*, Py_ssize_t) noexcept nogil
        void (*copy)(const double*, Py_ssize_t, double*, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*stream)(const double*, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        void (*regroup)(const double*, double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, int,
                        Py_ssize_t) noexcept nogil
        double (*spin)(Py_ssize_t) noexcept nogil
        void (*plan)(Plan*, const Geometry*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*gather)(const double*, double*, Plan*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                       Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        Py_ssize_t columns
    ctypedef struct OfFloat "struct kernels_float":
        void (*multiply)(Py_ssize_t, const Terms*, const float*, float*, float*, Py_ssize_t, bint,
                         const Ahead*, const Patches*) noexcept nogil
        bint (*finite)(const float*, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*transpose)(const float*, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t,
                          Py_ssize_t) noexcept nogil
        void (*alternate)(const float*, const float*, float*, Py_ssize_t) noexcept nogil
        void (*copy)(const float*, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*stream)(const float*, Py_ssize_t, Py_ssize_t, float*) noexcept nogil
        void (*regroup)(const float*, float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, int,
                        Py_ssize_t) noexcept nogil
        float (*spin)(Py_ssize_t) noexcept nogil
        void (*plan)(Plan*, const Geometry*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*gather)(const float*, float*, Plan*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                       Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        Py_ssize_t columns
    ctypedef struct Version "struct version":
        const char* name
        bint fused
        Py_ssize_t rows
        bint masks
        OfDouble of_double
        OfFloat of_float
    enum: CHAINS
    const Version VERSIONS[]
    int count_versions()
    void settle_streams "settle"() noexcept nogil


cdef int supported = count_versions()
cdef int chosen = supported - 1


cdef int active() noexcept nogil:
    """The version that products are computed with; asked once at the start of an operation."""
    return chosen


cdef Py_ssize_t columns(int version, const floating* any) noexcept nogil:
    """How many columns a panel of the right operand has: two vectors."""
    if floating is double:
        return VERSIONS[version].of_double.columns
    else:
        return VERSIONS[version].of_float.columns


cdef Py_ssize_t rows_of_tile(int version, Py_ssize_t rows) noexcept nogil:
    """How many rows the next tile takes when so many are left.

    The last two tiles share them: a tile of one or two rows has too few sums to keep the multipliers busy.
    """
    cdef Py_ssize_t most = VERSIONS[version].rows
    return rows if rows <= most else min(most, (rows + 1) // 2)


cdef void multiply(int version, Py_ssize_t rows, const Terms* terms, const floating* a, floating* b,
                   floating* c, Py_ssize_t pitch, bint add, const Ahead* ahead,
                   const Patches* patches) noexcept nogil:
    """c (rows, columns) = or += those terms of a (rows, depth) b (depth, columns), for one tile.

    Rows of a are PITCH values apart, those of c `pitch` values, those of b as many as it has columns. Unless
    patches are NULL, b is made of them. With each term something of what lies ahead is asked for.
    """
    if floating is double:
        VERSIONS[version].of_double.multiply(rows, terms, a, b, c, pitch, add, ahead, patches)
    else:
        VERSIONS[version].of_float.multiply(rows, terms, a, b, c, pitch, add, ahead, patches)


cdef bint passes(int version, Py_ssize_t rows, const Plan* plan) noexcept nogil:
    """Whether patches should be gathered in passing, while the first of so many rows are multiplied.

    Not where that takes longer than to multiply, nor where each value is gathered once: whole lines come
    faster from memory.
    """
    cdef Py_ssize_t taps = plan.g.kT * plan.g.kH * plan.g.kW
    return (VERSIONS[version].masks and rows_of_tile(version, rows) == VERSIONS[version].rows
            and 1 < taps <= DEPTH
            and (plan.g.sW == 1 and plan.pieces <= 4 or plan.g.sW == 2 and plan.pieces <= 2))


cdef bint finite(int version, const floating* a, Py_ssize_t rows, Py_ssize_t depth) noexcept nogil:
    """Whether all values of a (rows, depth), whose rows are PITCH values apart, are finite."""
    if floating is double:
        return VERSIONS[version].of_double.finite(a, rows, depth)
    else:
        return VERSIONS[version].of_float.finite(a, rows, depth)


cdef void plan(int version, const floating* any, Plan* plan, const Geometry* g, Py_ssize_t start,
               Py_ssize_t count, Py_ssize_t columns) noexcept nogil:
    """Plan the gather of columns [start, start + count), completed by zeros to so many `columns`.

    They are whole vectors, and at most PLANNED.
    """
    if floating is double:
        VERSIONS[version].of_double.plan(plan, g, start, count,
                                         2 * columns // VERSIONS[version].of_double.columns)
    else:
        VERSIONS[version].of_float.plan(plan, g, start, count,
                                        2 * columns // VERSIONS[version].of_float.columns)


cdef void gather(int version, const floating* x, floating* tile, Plan* plan, Range taps, Py_ssize_t row,
                 Py_ssize_t row_stop, Py_ssize_t start, Py_ssize_t columns, Py_ssize_t pitch,
                 Py_ssize_t panel) noexcept nogil:
    """tile <- rows [row, row_stop), columns [start, start + columns) of a plan, of patches of x (C, T, H, W).

    Rows are of some taps of each channel; of all, if there are more than DEPTH. Columns are whole vectors.
    From row to row of the tile it is `pitch` values, from one panel of two vectors to the next `panel`.
    """
    if floating is double:
        VERSIONS[version].of_double.gather(x, tile, plan, taps.low, taps.high, row, row_stop,
                                           2 * start // VERSIONS[version].of_double.columns,
                                           2 * columns // VERSIONS[version].of_double.columns, pitch, panel)
    else:
        VERSIONS[version].of_float.gather(x, tile, plan, taps.low, taps.high, row, row_stop,
                                          2 * start // VERSIONS[version].of_float.columns,
                                          2 * columns // VERSIONS[version].of_float.columns, pitch, panel)


cdef void transpose(int version, const floating* lines, Py_ssize_t pitch, floating* to, Py_ssize_t width,
                    Py_ssize_t rows, Py_ssize_t values) noexcept nogil:
    """to (values, rows), `width` values apart, <- lines (rows, values), `pitch` values apart."""
    if floating is double:
        VERSIONS[version].of_double.transpose(lines, pitch, to, width, rows, values)
    else:
        VERSIONS[version].of_float.transpose(lines, pitch, to, width, rows, values)


cdef void alternate(int version, const floating* first, const floating* second, floating* to,
                    Py_ssize_t n) noexcept nogil:
    """to (2 n) <- the values of two lines of n in turn."""
    if floating is double:
        VERSIONS[version].of_double.alternate(first, second, to, n)
    else:
        VERSIONS[version].of_float.alternate(first, second, to, n)


cdef void copy(int version, const floating* lines, Py_ssize_t pitch, floating* to, Py_ssize_t rows,
               Py_ssize_t values) noexcept nogil:
    """to (rows, values), PITCH values apart, <- lines, `pitch` values apart."""
    if floating is double:
        VERSIONS[version].of_double.copy(lines, pitch, to, rows, values)
    else:
        VERSIONS[version].of_float.copy(lines, pitch, to, rows, values)


cdef void stream(int version, const floating* values, Py_ssize_t n, Py_ssize_t zeros,
                 floating* to) noexcept nogil:
    """to (n + zeros) <- n values, and zeros, past the caches; others see them after `settle`."""
    if floating is double:
        VERSIONS[version].of_double.stream(values, n, zeros, to)
    else:
        VERSIONS[version].of_float.stream(values, n, zeros, to)


cdef void settle() noexcept nogil:
    """Have others see what was streamed."""
    settle_streams()


cdef void regroup(int version, const floating* lines, floating* to, Py_ssize_t groups, Py_ssize_t sections,
                  Py_ssize_t run, bint add, Py_ssize_t ahead) noexcept nogil:
    """to (groups, sections, run) = or += lines (sections, groups, run); what is `ahead` comes nearer."""
    if floating is double:
        VERSIONS[version].of_double.regroup(lines, to, groups, sections, run, add, ahead)
    else:
        VERSIONS[version].of_float.regroup(lines, to, groups, sections, run, add, ahead)


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
    cdef int _thread, threads = openmp.max_threads(), version = chosen
    cdef double total = 0
    with nogil:
        for _thread in prange(threads, schedule="static", chunksize=1):
            if double_precision:
                total += VERSIONS[version].of_double.spin(rounds)
            else:
                total += VERSIONS[version].of_float.spin(rounds)
    cdef Py_ssize_t double_columns = VERSIONS[version].of_double.columns
    cdef Py_ssize_t panel = double_columns if double_precision else VERSIONS[version].of_float.columns
    return threads * rounds * CHAINS * (panel // 2), total


def use(str version):
    """Compute everything from now on with that version; for tests."""
    global chosen
    chosen = versions().index(version)
