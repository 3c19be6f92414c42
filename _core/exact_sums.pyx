"""Sums that are rounded once."""

from libc.stdint cimport int64_t

from refnet._core cimport accumulator, environment
from refnet._core.accumulator cimport Accumulator
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment


cdef class Sum:
    """One exact sum of finite doubles and of products of two; what tests reach `accumulator.h` by."""

    cdef Accumulator sum_

    def __cinit__(self):
        accumulator.clear(&self.sum_)

    def clear(self):
        """Begin again with 0."""
        accumulator.clear(&self.sum_)

    def add(self, const double[::1] x):
        """Add all x."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(x.shape[0]):
                accumulator.add(&self.sum_, x[i])

    def add_products(self, const double[::1] x, const double[::1] y):
        """Add all x y."""
        cdef Py_ssize_t i
        require(x.shape[0] == y.shape[0])
        with nogil:
            for i in range(x.shape[0]):
                accumulator.add_product(&self.sum_, x[i], y[i])

    def over(self, int64_t count):
        """The sum divided by a positive count, rounded to float64 and to float32; by 1 without a division."""
        cdef Environment before
        cdef double wide
        cdef float narrow
        require(count > 0)
        before = environment.enter_default()
        if count == 1:
            wide, narrow = accumulator.to_double(&self.sum_), accumulator.to_float(&self.sum_)
        else:
            wide = accumulator.divided_to_double(&self.sum_, count)
            narrow = accumulator.divided_to_float(&self.sum_, count)
        environment.restore(before)
        return wide, narrow
