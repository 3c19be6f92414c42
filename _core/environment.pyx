"""The floating-point environment that every kernel is defined in: C's default one.

Results are rounded to nearest, subnormal numbers are kept, nothing traps (C11, 7.6, and IEC 60559). A library that was
built with fast-math leaves another one behind when it is loaded, and threads inherit it from the thread that starts
them. So every thread of every kernel begins with `enter_default` and ends with `restore`:

    with nogil, parallel(...):
        before = environment.enter_default()
        for i in prange(...):
            ...
        environment.restore(before)
"""

from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit

from numpy import seterr


cdef extern from "<fenv.h>" nogil:
    const Environment* FE_DFL_ENV
    int fegetenv(Environment* before)
    int fesetenv(const Environment* wanted)


cdef Environment enter_default() noexcept nogil:
    """Set the environment of this thread to C's default; return the one that it had."""
    cdef Environment before
    fegetenv(&before)
    fesetenv(FE_DFL_ENV)
    return before


cdef void restore(Environment before) noexcept nogil:
    """Give this thread its environment back."""
    fesetenv(&before)


cdef class Default:
    """A context in which this thread has the default environment; for what NumPy computes."""

    cdef Environment before

    def __enter__(self):
        self.before = enter_default()

    def __exit__(self, *exception):
        restore(self.before)


cdef class errstate:
    """What `numpy.errstate` is, and no signal comes between it and what it has set.

    NumPy keeps its error handling in a variable of the context (PEP 567). Here a `with` has a context of its own, which
    nothing leaves: no handler's exception ends this code before the caller's context is back.

    Parameters
    ----------
    **kinds
        Those of `numpy.seterr`.
    """

    cdef dict kinds
    cdef object context

    def __init__(self, **kinds):
        self.kinds = kinds

    def __enter__(self):
        self.context = PyContext_CopyCurrent()
        PyContext_Enter(self.context)
        try:
            seterr(**self.kinds)
        except BaseException:
            PyContext_Exit(self.context)
            raise

    def __exit__(self, *exception):
        PyContext_Exit(self.context)
