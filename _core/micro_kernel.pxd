from cython cimport floating

from refnet._core.simd cimport Exact, Simd


cdef const Simd* active(const floating* any) noexcept nogil
cdef const Exact* active_exact() noexcept nogil
cdef Py_ssize_t next_rows(const Simd* simd, Py_ssize_t rows) noexcept nogil
cdef void store_fence() noexcept nogil
