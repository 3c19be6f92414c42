"""Dropout with a given mask, element by element."""

from cython cimport floating
from cython.parallel cimport prange

from refnet._core cimport openmp
from refnet._core.sizes cimport require


def apply(const floating[::1] x, const floating[::1] mask, floating[::1] y,
          floating keep):
    """y = x mask keep."""
    cdef Py_ssize_t i
    require(mask.shape[0] == x.shape[0] and y.shape[0] == x.shape[0])
    with nogil:
        for i in prange(x.shape[0], schedule="static", use_threads_if=openmp.pays(x.shape[0])):
            y[i] = x[i] * mask[i] * keep
