"""3D convolution by im2col and GEMM, tile by tile: forward, input gradient, weight gradient.

For each sample and group, with K = C/groups * kT * kH * kW taps a patch and P = oT * oH * oW
output positions, and with the patch matrix X (K, P) of the input,

    Y = W X,    dX = W' dY,    dW = dY X'.

X is never held whole. It is cut into tiles whose shape follows from the problem
alone; each product of a tile runs on one thread, and a sum over tiles is taken
in one order by one thread. So the bits do not depend on how many threads there are.

A pointwise convolution (1x1x1 kernel, stride 1, no padding) reads its input as X directly.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memset

from refnet._core cimport openmp
from refnet._core.blas cimport gemm
from refnet._core.im2col3d cimport Geometry, fits, gather, geometry, scatter
from refnet._core.sizes cimport require


cdef int require_sizes(Geometry g, const floating[:, :, :, :, ::1] x, const floating[:, ::1] w,
                       const floating[:, :, ::1] y, const floating[:, ::1] workspace,
                       Py_ssize_t groups, Py_ssize_t tile) except -1:
    """Raise unless x (N, C, T, H, W), w (C_out, K) and y (N, C_out, P) are of one convolution."""
    require(groups > 0 and x.shape[1] % groups == 0 and w.shape[0] % groups == 0)
    require(w.shape[1] == x.shape[1] // groups * g.kT * g.kH * g.kW)
    require(fits(&g, x.shape[2] * x.shape[3] * x.shape[4], y.shape[2]))
    require(y.shape[0] == x.shape[0] and y.shape[1] == w.shape[0])
    require(workspace.shape[0] >= openmp.max_threads() and 0 < tile <= workspace.shape[1])
    return 0


cdef bint is_pointwise(Geometry g) noexcept nogil:
    return (g.kT == g.kH == g.kW == g.sT == g.sH == g.sW == 1 and g.pT == g.pH == g.pW == 0)


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


def forward(const floating[:, :, :, :, ::1] x, const floating[:, ::1] w,
            floating[:, :, ::1] y, floating[:, ::1] workspace,
            kernel, stride, pad, dilation, output, Py_ssize_t groups,
            Py_ssize_t tile_rows, Py_ssize_t tile_columns):
    """y (N, C_out, P) = w (C_out, K) times the patches of x (N, C, T, H, W).

    workspace is (threads, at least tile_rows * tile_columns).
    """
    cdef Geometry g = geometry((x.shape[2], x.shape[3], x.shape[4]), kernel, stride, pad, dilation,
                               output)
    cdef Py_ssize_t C = x.shape[1] // groups, M = w.shape[0] // groups
    cdef Py_ssize_t K = w.shape[1], P = y.shape[2]
    cdef Py_ssize_t tiles = ceil_div(P, tile_columns), task, n, group, start, stop, row, row_stop
    cdef Py_ssize_t work = y.shape[0] * y.shape[1] * P * K // 8
    cdef bint pointwise = is_pointwise(g)
    cdef floating* columns
    require_sizes(g, x, w, y, workspace, groups, tile_rows * tile_columns)
    with nogil:
        for task in prange(x.shape[0] * groups * tiles, schedule="dynamic",
                           use_threads_if=openmp.pays(work)):
            n = task // (groups * tiles)
            group = task // tiles % groups
            start = task % tiles * tile_columns
            stop = min(start + tile_columns, P)
            if pointwise:
                gemm(False, False, M, stop - start, K, &w[group * M, 0], K,
                     &x[n, group * C, 0, 0, 0] + start, P, <floating> 0,
                     &y[n, group * M, start], P)
            else:
                columns = &workspace[openmp.thread_num(), 0]
                row = 0
                while row < K:
                    row_stop = min(row + tile_rows, K)
                    gather(x[n, group * C:(group + 1) * C], columns, g, row, row_stop, start, stop)
                    gemm(False, False, M, stop - start, row_stop - row, &w[group * M, row], K,
                         columns, stop - start, <floating> (row > 0),
                         &y[n, group * M, start], P)
                    row = row_stop


def input_gradient(const floating[:, :, ::1] dy, const floating[:, ::1] w,
                   floating[:, :, :, :, ::1] dx, floating[:, ::1] workspace,
                   kernel, stride, pad, dilation, output, Py_ssize_t groups,
                   Py_ssize_t tile_channels, Py_ssize_t tile_columns):
    """dx (N, C, T, H, W) = the patch gradients w' dy, each added back where it was read.

    A task owns some channels of dx, so that no two add to the same place. workspace is
    (threads, at least tile_channels * taps * tile_columns).
    """
    cdef Geometry g = geometry((dx.shape[2], dx.shape[3], dx.shape[4]), kernel, stride, pad,
                               dilation, output)
    cdef Py_ssize_t C = dx.shape[1] // groups, M = w.shape[0] // groups
    cdef Py_ssize_t K = w.shape[1], P = dy.shape[2], taps = g.kT * g.kH * g.kW
    cdef Py_ssize_t tiles, task, n, group, start, stop, c, row, row_stop
    cdef Py_ssize_t work = dy.shape[0] * dy.shape[1] * P * K // 8
    cdef floating* columns
    require_sizes(g, dx, w, dy, workspace, groups,
                  tile_channels * taps * tile_columns)
    if is_pointwise(g):
        tiles = ceil_div(P, tile_columns)
        with nogil:
            for task in prange(dx.shape[0] * groups * tiles, schedule="dynamic",
                               use_threads_if=openmp.pays(work)):
                n = task // (groups * tiles)
                group = task // tiles % groups
                start = task % tiles * tile_columns
                stop = min(start + tile_columns, P)
                gemm(True, False, K, stop - start, M, &w[group * M, 0], K,
                     &dy[n, group * M, start], P, <floating> 0,
                     &dx[n, group * C, 0, 0, 0] + start, P)
        return
    tiles = ceil_div(C, tile_channels)
    with nogil:
        for task in prange(dx.shape[0] * groups * tiles, schedule="dynamic",
                           use_threads_if=openmp.pays(work)):
            n = task // (groups * tiles)
            group = task // tiles % groups
            c = task % tiles * tile_channels
            row = c * taps
            row_stop = min(c + tile_channels, C) * taps
            memset(&dx[n, group * C + c, 0, 0, 0], 0,
                   (row_stop - row) // taps * g.T * g.H * g.W * sizeof(floating))
            columns = &workspace[openmp.thread_num(), 0]
            start = 0
            while start < P:
                stop = min(start + tile_columns, P)
                gemm(True, False, row_stop - row, stop - start, M, &w[group * M, row], K,
                     &dy[n, group * M, start], P, <floating> 0, columns, stop - start)
                scatter(columns, dx[n, group * C:(group + 1) * C], g, row, row_stop, start, stop)
                start = stop


def weight_gradient(const floating[:, :, ::1] dy, const floating[:, :, :, :, ::1] x,
                    floating[:, ::1] dw, floating[:, ::1] workspace,
                    kernel, stride, pad, dilation, output, Py_ssize_t groups,
                    Py_ssize_t tile_rows, Py_ssize_t tile_columns):
    """dw (C_out, K) = dy times the transposed patches of x, summed over the samples.

    A task owns some columns of dw and adds up samples and tiles in order. workspace is
    (threads, at least tile_rows * tile_columns).
    """
    cdef Geometry g = geometry((x.shape[2], x.shape[3], x.shape[4]), kernel, stride, pad, dilation,
                               output)
    cdef Py_ssize_t C = x.shape[1] // groups, M = dw.shape[0] // groups
    cdef Py_ssize_t K = dw.shape[1], P = dy.shape[2]
    cdef Py_ssize_t tiles = ceil_div(K, tile_rows), task, n, group, start, stop, row, row_stop
    cdef Py_ssize_t work = dy.shape[0] * dy.shape[1] * P * K // 8
    cdef bint pointwise = is_pointwise(g)
    cdef floating* columns
    require_sizes(g, x, dw, dy, workspace, groups, tile_rows * tile_columns)
    with nogil:
        for task in prange(groups * tiles, schedule="dynamic",
                           use_threads_if=openmp.pays(work)):
            group = task // tiles
            row = task % tiles * tile_rows
            row_stop = min(row + tile_rows, K)
            columns = &workspace[openmp.thread_num(), 0]
            for n in range(x.shape[0]):
                if pointwise:
                    gemm(False, True, M, row_stop - row, P, &dy[n, group * M, 0], P,
                         &x[n, group * C + row, 0, 0, 0], P, <floating> (n > 0),
                         &dw[group * M, row], K)
                    continue
                start = 0
                while start < P:
                    stop = min(start + tile_columns, P)
                    gather(x[n, group * C:(group + 1) * C], columns, g, row, row_stop, start, stop)
                    gemm(False, True, M, row_stop - row, stop - start,
                         &dy[n, group * M, start], P, columns, stop - start,
                         <floating> (n > 0 or start > 0), &dw[group * M, row], K)
                    start = stop
