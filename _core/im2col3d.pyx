"""Patches of a volume as columns of a matrix, and back, one tile at a time.

The patch matrix of a 3D convolution has one row for each (channel, tap) and one column for each
output position, both in C order; `gather` copies the tile [row_start, row_stop) x [start, stop)
of it out of a volume, `scatter` adds such a tile to a volume. Positions in the padding read as
zero and swallow what is added to them.

A run of output positions along W reads a line of input positions along W, so the work is done a
run at a time: the part [first, last) of a run falls into the volume, the rest into padding.
"""

from cython cimport floating
from libc.string cimport memcpy, memset


cdef Geometry geometry(volume, kernel, stride, pad, dilation, output):
    cdef Geometry g
    g.T, g.H, g.W = volume
    g.kT, g.kH, g.kW = kernel
    g.sT, g.sH, g.sW = stride
    g.pT, g.pH, g.pW = pad
    g.dT, g.dH, g.dW = dilation
    g.oT, g.oH, g.oW = output
    return g


cdef inline Py_ssize_t clip(Py_ssize_t value, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    return low if value < low else high if value > high else value


cdef inline Py_ssize_t first_inside(Py_ssize_t offset, Py_ssize_t stride) noexcept nogil:
    """The smallest o >= 0 with o * stride + offset >= 0."""
    return 0 if offset >= 0 else (-offset + stride - 1) // stride


cdef struct Run:
    Py_ssize_t length           # output positions in this run
    Py_ssize_t first, last      # those of them that read the volume
    Py_ssize_t c, t, h, w       # the input position that `first` reads
    Py_ssize_t kt, kh, kw       # the tap of this row of the patch matrix
    Py_ssize_t ot, oh, ow       # the output position at which the next run starts
    Py_ssize_t inside, outside  # along W, the output positions that read the volume


cdef inline Run row_of(const Geometry* g, Py_ssize_t row, Py_ssize_t start) noexcept nogil:
    """The walk along one row of the patch matrix, before its first run."""
    cdef Run run
    run.kw = row % g.kW * g.dW - g.pW
    run.kh = row // g.kW % g.kH * g.dH - g.pH
    run.kt = row // (g.kW * g.kH) % g.kT * g.dT - g.pT
    run.c = row // (g.kW * g.kH * g.kT)
    run.inside = first_inside(run.kw, g.sW)
    run.outside = first_inside(run.kw - g.W, g.sW)
    run.ow = start % g.oW
    run.oh = start // g.oW % g.oH
    run.ot = start // (g.oW * g.oH)
    return run


cdef inline void next_run(const Geometry* g, Run* run, Py_ssize_t remaining) noexcept nogil:
    """The next run of the row: up to the end of a line of output positions, or of the tile."""
    run.length = min(g.oW - run.ow, remaining)
    run.t = run.ot * g.sT + run.kt
    run.h = run.oh * g.sH + run.kh
    run.first = run.last = 0
    if 0 <= run.t < g.T and 0 <= run.h < g.H:
        run.first = clip(run.inside - run.ow, 0, run.length)
        run.last = clip(run.outside - run.ow, run.first, run.length)
        run.w = (run.ow + run.first) * g.sW + run.kw
    run.ow = 0
    run.oh += 1
    if run.oh == g.oH:
        run.oh = 0
        run.ot += 1


cdef void gather(const floating[:, :, :, ::1] x, floating* columns, Geometry g,
                 Py_ssize_t row_start, Py_ssize_t row_stop,
                 Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """columns <- the tile of the patch matrix of x (C, T, H, W)."""
    cdef Run run
    cdef Py_ssize_t row, position, i
    cdef const floating* line
    for row in range(row_start, row_stop):
        run = row_of(&g, row, start)
        position = start
        while position < stop:
            next_run(&g, &run, stop - position)
            memset(columns, 0, run.first * sizeof(floating))
            if run.first < run.last:
                line = &x[run.c, run.t, run.h, run.w]
                if g.sW == 1:
                    memcpy(columns + run.first, line, (run.last - run.first) * sizeof(floating))
                else:
                    for i in range(run.last - run.first):
                        columns[run.first + i] = line[i * g.sW]
            memset(columns + run.last, 0, (run.length - run.last) * sizeof(floating))
            columns += run.length
            position += run.length


cdef void scatter(const floating* columns, floating[:, :, :, ::1] dx, Geometry g,
                  Py_ssize_t row_start, Py_ssize_t row_stop,
                  Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """dx (C, T, H, W) += the tile of patch gradients, each added where `gather` read it."""
    cdef Run run
    cdef Py_ssize_t row, position, i
    cdef floating* line
    for row in range(row_start, row_stop):
        run = row_of(&g, row, start)
        position = start
        while position < stop:
            next_run(&g, &run, stop - position)
            if run.first < run.last:
                line = &dx[run.c, run.t, run.h, run.w]
                for i in range(run.last - run.first):
                    line[i * g.sW] += columns[run.first + i]
            columns += run.length
            position += run.length
