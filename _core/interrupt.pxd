cdef extern from *:
    """
    #ifdef _MSC_VER
    #define refnet_load(flag) (*(volatile const int*) (flag))
    #define refnet_store(flag, value) (*(volatile int*) (flag) = (value))
    #else
    #define refnet_load(flag) __atomic_load_n(flag, __ATOMIC_RELAXED)
    #define refnet_store(flag, value) __atomic_store_n(flag, value, __ATOMIC_RELAXED)
    #endif
    """
    int load "refnet_load"(const int* flag) noexcept nogil
    void store "refnet_store"(int* flag, int value) noexcept nogil


# Of a call of a kernel, for all of its threads: whether a signal's handler has raised an exception.
cdef struct Watch:
    int stopped


# Of a thread: how much it may do until it looks, and when handlers ran last. Only the one that Python knows runs them.
cdef struct Turn:
    Watch* watch
    Py_ssize_t left
    double last
    bint is_calling


cdef Turn turn(Watch* watch) noexcept nogil
cdef bint look(Turn* turn) noexcept nogil
cdef int finish(const Watch* watch) except -1
cdef int between() except -1


# Whether to stop, before so much work: elements that are read, or vectors of multiply-adds.
cdef inline bint asked(Turn* turn, Py_ssize_t work) noexcept nogil:
    turn.left -= work
    return turn.left < 0 and look(turn)
