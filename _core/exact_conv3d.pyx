"""3D convolution of float64, each element the exact sum rounded once, or NaN where exact_settle.pyx is to decide.

Doors and the loop over tiles, in parallel; exact_tiles.pyx computes one. y, dx and dw are those of conv3d.pyx, which
says what is a term; the exact sum has no order.
"""

from cython.parallel cimport parallel, prange

from refnet._core cimport environment, interrupt, micro_kernel, openmp
from refnet._core.checks cimport require
from refnet._core.convolution cimport require_convolution, whole_kernel
from refnet._core.environment cimport Environment
from refnet._core.exact_tiles cimport convolve_exactly, exact_tiling, weigh_exactly
from refnet._core.geometry cimport Geometry, geometry, in_long_lines
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.phases cimport phase_kernel, phase_map
from refnet._core.simd cimport Exact, Simd
from refnet._core.tiles cimport Subkernel, Tiling
from refnet._core.workspace cimport Workspace, carve
from refnet._core.write_back cimport OutputMap


cdef int require_sizes(const Geometry* g, const double[:, :, :, :, ::1] x, const double[:, ::1] w,
                       const double[:, :, ::1] y, const unsigned char[:, ::1] workspace,
                       Py_ssize_t groups) except -1:
    """Raise unless the arrays are of one convolution, and there is workspace for every thread."""
    cdef Workspace carved
    require_convolution(g, x, w, y, groups)
    require(workspace.shape[0] >= openmp.max_threads() and workspace.shape[1] >= carve(&carved, NULL, sizeof(double)))
    return 0


cdef const double* bias(const double[::1] b, Py_ssize_t size) except? NULL:
    """What is added to `size` rows or columns; NULL if b is empty."""
    require(b.shape[0] == 0 or b.shape[0] == size)
    return &b[0] if b.shape[0] else NULL


def forward(const double[:, :, :, :, ::1] x, const double[:, ::1] w, const double[::1] b, double[:, :, ::1] y,
            unsigned char[:, ::1] workspace, window, Py_ssize_t groups, bint coarse):
    """y (N, C_out, P) = w (C_out, K) times the patches of x (N, C, T, H, W), plus b (C_out), or nothing if it is empty.

    `coarse`: no sum in float64 rounds. The window is (kernel, stride, pad, dilation, output); workspace is that of
    conv3d.pyx.
    """
    cdef Geometry g = geometry((x.shape[2], x.shape[3], x.shape[4]), window)
    cdef Subkernel kernel
    cdef OutputMap map
    require_sizes(&g, x, w, y, workspace, groups)
    kernel = whole_kernel(&g, w.shape[0] // groups, w.shape[1])
    map.first, map.volume = 0, y.shape[2]
    map.t, map.h, map.w = g.oH * g.oW, g.oW, 1
    map.lines_of_frame, map.positions_of_line = g.oH, g.oW
    convolve(&x[0, 0, 0, 0, 0], &w[0, 0], bias(b, y.shape[1]), &y[0, 0, 0], workspace, &kernel, &map,
             x.shape[1] // groups, w.shape[0] // groups, x.shape[0], groups, coarse)


def backward_data(const double[:, :, ::1] dy, const double[:, ::1] w, double[:, :, :, :, ::1] dx,
                  unsigned char[:, ::1] workspace, window, Py_ssize_t groups, bint coarse):
    """dx (N, C, T, H, W), zeros before, = what each position's taps gather from dy (N, C_out, P), phase by phase."""
    cdef Geometry g = geometry((dx.shape[2], dx.shape[3], dx.shape[4]), window)
    cdef Py_ssize_t filters = w.shape[0] // max(1, groups), t, h, v
    cdef Subkernel kernel
    cdef OutputMap map
    require_sizes(&g, dx, w, dy, workspace, groups)
    for t in range(min(g.sT, g.T)):
        for h in range(min(g.sH, g.H)):
            for v in range(min(g.sW, g.W)):
                map = phase_map(&g, t, h, v, 1)
                kernel = phase_kernel(&g, t, h, v, &map, filters, w.shape[1])
                if not kernel.empty:
                    convolve(&dy[0, 0, 0], &w[0, 0], NULL, &dx[0, 0, 0, 0, 0], workspace, &kernel, &map, filters,
                             dx.shape[1] // groups, dx.shape[0], groups, coarse)


cdef int convolve(const double* x, const double* w, const double* b, double* y, unsigned char[:, ::1] workspace,
                  const Subkernel* kernel, const OutputMap* map, Py_ssize_t channels, Py_ssize_t rows,
                  Py_ssize_t samples, Py_ssize_t groups, bint coarse) except -1:
    """y (samples, groups * rows, map) = weights times the patches of x (samples, groups * channels, ...), plus b."""
    cdef const Simd* simd = micro_kernel.active(x)
    cdef const Exact* exact = micro_kernel.active_exact()
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, terms = channels * g.kT * g.kH * g.kW, task
    cdef Tiling tiling = exact_tiling(rows, P, samples * groups, openmp.max_threads(), simd.nr)
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    with nogil, parallel(use_threads_if=openmp.pays(samples * groups * rows * P * terms // 2)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for task in prange(tiling.tasks, schedule="dynamic"):
            if not interrupt.asked(&turn, 1):
                convolve_exactly(simd, exact, x, w, b, y, &workspace[openmp.thread_num(), 0], kernel, map, channels,
                                 rows, groups, coarse, &tiling, task, &turn)
        environment.restore(before)
    return interrupt.finish(&watch)


def backward_weights(const double[:, :, ::1] dy, const double[:, :, :, :, ::1] x, const double[::1] b,
                     double[:, ::1] dw, unsigned char[:, ::1] workspace, window, Py_ssize_t groups, bint coarse):
    """dw (C_out, K) = dy (N, C_out, P) times the transposed patches of x, over all samples, plus b (K) or nothing."""
    cdef Geometry g = geometry((x.shape[2], x.shape[3], x.shape[4]), window)
    cdef const Simd* simd = micro_kernel.active(&x[0, 0, 0, 0, 0])
    cdef const Exact* exact = micro_kernel.active_exact()
    cdef Py_ssize_t task, filters, channels, samples = x.shape[0]
    cdef const double* added
    cdef Tiling tiling
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    require_sizes(&g, x, dw, dy, workspace, groups)
    added = bias(b, dw.shape[1])
    g = in_long_lines(g)
    filters, channels = dw.shape[0] // groups, x.shape[1] // groups
    tiling = exact_tiling(dw.shape[1], filters, groups, openmp.max_threads(), simd.nr)
    with nogil, parallel(use_threads_if=openmp.pays(samples * dy.shape[2] * dw.shape[0] * dw.shape[1] // 2)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for task in prange(tiling.tasks, schedule="dynamic"):
            if not interrupt.asked(&turn, 1):
                weigh_exactly(simd, exact, &dy[0, 0, 0], &x[0, 0, 0, 0, 0], added, &dw[0, 0],
                              &workspace[openmp.thread_num(), 0], &g, samples, channels, filters, groups, coarse,
                              &tiling, task, &turn)
        environment.restore(before)
    interrupt.finish(&watch)
