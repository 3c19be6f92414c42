"""Which instruction set's kernels run: the best that the processor has, unless a test asks for another.

Each element of a product is one chain of multiply-adds from 0, in the order of its terms. A multiply-add
rounds once under each of them, so all give the same bits: baseline works it out where the others have an
instruction (simd/multiply_add.h), and is slow.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, openmp
from refnet._core.environment cimport Environment


cdef extern from "simd/dispatch.h" nogil:
    const Simd* const SIMD[][2]
    const Exact* const EXACT[]
    int count_supported()
    void fence "store_fence"()
    enum: SPIN_CHAINS


cdef int supported = count_supported()
cdef int chosen = supported - 1


cdef const Simd* active(const floating* any) noexcept nogil:
    """The kernels for a floating-point type; an operation takes them once, when it starts."""
    return SIMD[chosen][0] if floating is double else SIMD[chosen][1]


cdef const Exact* active_exact() noexcept nogil:
    """The kernels of exact sums, of the same instruction set."""
    return EXACT[chosen]


cdef Py_ssize_t next_rows(const Simd* simd, Py_ssize_t rows) noexcept nogil:
    """How many of the `rows` that are left the next micro-tile takes: MR, but the last two share theirs.

    A micro-tile of one or two rows has too few sums to keep the multipliers busy.
    """
    return rows if rows <= simd.mr else min(simd.mr, (rows + 1) // 2)


cdef void store_fence() noexcept nogil:
    """Other threads see what was stored past the caches after this."""
    fence()


def versions():
    """The instruction sets that this processor runs, the least demanding first."""
    return [SIMD[i][0].name.decode() for i in range(supported)]


def name():
    """The instruction set in use."""
    return SIMD[chosen][0].name.decode()


def use(str version):
    """Compute everything from now on with that instruction set; for tests."""
    global chosen
    chosen = versions().index(version)


def spin(Py_ssize_t rounds, bint double_precision):
    """Do nothing but multiply-adds in registers, on every thread: how many, and their sum.

    No product of as many terms can take less time.
    """
    cdef const Simd* simd = SIMD[chosen][0 if double_precision else 1]
    cdef int _thread, threads = openmp.max_threads()
    cdef double total = 0
    cdef Environment before
    with nogil, parallel(use_threads_if=threads > 1):
        before = environment.enter_default()
        for _thread in prange(threads, schedule="static", chunksize=1):
            total += simd.spin(rounds)
        environment.restore(before)
    return threads * rounds * SPIN_CHAINS * (simd.nr // 2), total
