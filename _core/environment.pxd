# The floating-point environment: how results are rounded, whether subnormal numbers are kept, what traps. A thread has
# its own.

cdef extern from "<fenv.h>" nogil:
    ctypedef struct Environment "fenv_t":
        pass

cdef Environment enter_default() noexcept nogil
cdef void restore(Environment before) noexcept nogil
