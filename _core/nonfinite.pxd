from cython cimport floating

from refnet._core.geometry cimport Geometry
from refnet._core.simd cimport Simd
from refnet._core.tiles cimport Convolution


cdef bint reads_padding(const Geometry* g) noexcept nogil
cdef bint all_finite(const Simd* simd, const floating* values, Py_ssize_t n) noexcept nogil
cdef bint met_padding(const Simd* simd, const floating* w, const floating* y, const Convolution* conv,
                      Py_ssize_t samples, Py_ssize_t groups) noexcept nogil
cdef int sum_again(const floating* x, const floating* w, floating* y, const Convolution* conv, Py_ssize_t samples,
                   Py_ssize_t groups) except -1
cdef int sum_weights_again(const floating* dy, const floating* x, floating* dw, const Geometry* g, Py_ssize_t samples,
                           Py_ssize_t filters, Py_ssize_t channels, Py_ssize_t groups) except -1
