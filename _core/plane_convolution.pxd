from cython cimport floating

from refnet._core.simd cimport Simd
from refnet._core.tiles cimport Convolution


# How a convolution with few channels in a group is computed where they lie: so many `lines` of an output frame at once,
# cut into `vectors`, the last of which may be partial. A task is `of_task` groups of all samples, or what is left.
cdef struct PlaneConvolution:
    const Convolution* conv
    Py_ssize_t samples, groups, of_task, terms, lines, vectors


cdef PlaneConvolution plane_convolution(const Simd* simd, const Convolution* conv, Py_ssize_t samples,
                                        Py_ssize_t groups) noexcept nogil
cdef bint pays(const Simd* simd, const PlaneConvolution* convolution) noexcept nogil
cdef void convolve_planes(const Simd* simd, const floating* x, const floating* w, floating* y, unsigned char* memory,
                          const PlaneConvolution* convolution, Py_ssize_t task) noexcept nogil
