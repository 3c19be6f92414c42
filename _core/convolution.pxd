# What the kernels of a convolution have in common: the check of their arrays' sizes, and forward's subkernel.

from cython cimport floating

from refnet._core.checks cimport require
from refnet._core.geometry cimport Geometry, fits, in_long_lines
from refnet._core.tiles cimport Subkernel


# Raise unless x (N, C, T, H, W), w (C_out, K) and y (N, C_out, P) are of one convolution.
cdef inline int require_convolution(const Geometry* g, const floating[:, :, :, :, ::1] x, const floating[:, ::1] w,
                                    const floating[:, :, ::1] y, Py_ssize_t groups) except -1:
    require(groups > 0 and x.shape[1] % groups == 0 and w.shape[0] % groups == 0)
    require(w.shape[1] == x.shape[1] // groups * g.kT * g.kH * g.kW)
    require(fits(g, x.shape[2] * x.shape[3] * x.shape[4], y.shape[2]))
    require(y.shape[0] == x.shape[0] and y.shape[1] == w.shape[0])
    return 0


# All taps, for groups of `filters` filters of K weights.
cdef inline Subkernel whole_kernel(const Geometry* g, Py_ssize_t filters, Py_ssize_t K) noexcept nogil:
    cdef Subkernel kernel
    kernel.g = in_long_lines(g[0])
    kernel.layout.first = 0
    kernel.layout.group, kernel.layout.row = filters * K, K
    kernel.layout.channel, kernel.layout.t = g.kT * g.kH * g.kW, g.kH * g.kW
    kernel.layout.h, kernel.layout.w = g.kW, 1
    kernel.layout.dense = True
    kernel.empty = False
    kernel.phases_at = kernel.quarters = NULL
    return kernel
