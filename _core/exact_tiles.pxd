from refnet._core.geometry cimport Geometry
from refnet._core.interrupt cimport Turn
from refnet._core.simd cimport Exact, Simd
from refnet._core.tiles cimport Subkernel, Tiling
from refnet._core.write_back cimport OutputMap


cdef Tiling exact_tiling(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t repeats, Py_ssize_t threads,
                         Py_ssize_t nr) noexcept nogil
cdef void convolve_exactly(const Simd* simd, const Exact* exact, const double* x, const double* w, const double* b,
                           double* y, unsigned char* memory, const Subkernel* kernel, const OutputMap* map,
                           Py_ssize_t channels, Py_ssize_t rows, Py_ssize_t groups, bint coarse,
                           const Tiling* tiling, Py_ssize_t task, Turn* signals) noexcept nogil
cdef void weigh_exactly(const Simd* simd, const Exact* exact, const double* dy, const double* x, const double* b,
                        double* dw, unsigned char* memory, const Geometry* g, Py_ssize_t samples,
                        Py_ssize_t channels, Py_ssize_t filters, Py_ssize_t groups, bint coarse,
                        const Tiling* tiling, Py_ssize_t task, Turn* signals) noexcept nogil
