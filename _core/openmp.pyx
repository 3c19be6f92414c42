"""The only door to OpenMP: whether it was compiled in, how many threads, which one this is.

Built without OpenMP, everything runs on one thread and gives the same bits.
"""

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define REFNET_OPENMP 1
    #else
    #define REFNET_OPENMP 0
    #define omp_get_max_threads() 1
    #define omp_get_thread_num() 0
    #define omp_set_num_threads(count)
    #endif
    """
    const bint REFNET_OPENMP
    int omp_get_max_threads() noexcept nogil
    int omp_get_thread_num() noexcept nogil
    void omp_set_num_threads(int count) noexcept nogil

# Whether every kernel is to keep to the thread that calls it: no lock of OpenMP's is taken then.
cdef bint alone = False


cdef bint enabled() noexcept nogil:
    return REFNET_OPENMP


cdef int max_threads() noexcept nogil:
    return 1 if alone else omp_get_max_threads()


cdef int thread_num() noexcept nogil:
    return omp_get_thread_num()


cdef bint pays(Py_ssize_t work) noexcept nogil:
    """Whether that many elements read, or eight times as many multiply-adds, are worth a team of threads."""
    return work >= 1 << 16 and not alone


def is_enabled():
    """Whether the kernels were compiled with OpenMP."""
    return bool(enabled())


def threads():
    """How many threads a parallel loop started from this Python thread may use."""
    return max_threads()


def use_threads(int count):
    """Let parallel loops that this Python thread starts from now on have that many threads, at least 1."""
    omp_set_num_threads(count)


def use_one_thread():
    """Run everything that this process starts from now on, on the thread that starts it."""
    global alone
    alone = True
