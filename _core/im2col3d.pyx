"""Patches of a volume as a matrix, packed tile by tile into the layout that the micro-kernel reads.

The patch matrix of a 3D convolution has one row for each (channel, tap) and one column for each
output position, both in C order. Positions in the padding read as zero.

A run of output positions along W reads a line of input positions along W, so the work is done a
run at a time; and where a tap's runs lie is found once for all channels, which repeat it.
"""

from cython cimport floating
from libc.string cimport memcpy


cdef double ZEROS[TILE_COLUMNS]


cdef Geometry geometry(volume, kernel, stride, pad, dilation, output):
    cdef Geometry g
    g.T, g.H, g.W = volume
    g.kT, g.kH, g.kW = kernel
    g.sT, g.sH, g.sW = stride
    g.pT, g.pH, g.pW = pad
    g.dT, g.dH, g.dW = dilation
    g.oT, g.oH, g.oW = output
    return g


# `count` output positions along W, the columns from `at` on of a tile; the first of them is at `w`,
# and reads the input line (t, h) with the tap (0, 0).
cdef struct Line:
    Py_ssize_t at, count, t, h, w


# `count` columns from `at` on that read the volume, from `offset` in a channel on.
cdef struct Run:
    Py_ssize_t at, count, offset


cdef inline Py_ssize_t first_inside(Py_ssize_t offset, Py_ssize_t stride) noexcept nogil:
    """The smallest o >= 0 with o * stride + offset >= 0."""
    return 0 if offset >= 0 else -offset if stride == 1 else (-offset + stride - 1) // stride


cdef inline void copy(void* to, const void* source, Py_ssize_t size) noexcept nogil:
    """Copy so many bytes, a multiple of 4, in moves of fixed sizes; the last two may overlap."""
    cdef char* a = <char*> to
    cdef const char* b = <const char*> source
    cdef Py_ssize_t i = 0
    if size >= 32:
        while i + 32 < size:
            memcpy(a + i, b + i, 32)
            i += 32
        memcpy(a + size - 32, b + size - 32, 32)
    elif size >= 16:
        memcpy(a, b, 16)
        memcpy(a + size - 16, b + size - 16, 16)
    elif size >= 8:
        memcpy(a, b, 8)
        memcpy(a + size - 8, b + size - 8, 8)
    else:
        memcpy(a, b, 4)


cdef Py_ssize_t find_lines(const Geometry* g, Py_ssize_t start, Py_ssize_t count, Line* lines) noexcept nogil:
    """Cut the output positions [start, start + count) at the ends of lines; return how many there are."""
    cdef Py_ssize_t found = 0, at = 0, w = start % g.oW, h = start // g.oW % g.oH, t = start // (g.oW * g.oH)
    while at < count:
        lines[found] = Line(at, min(g.oW - w, count - at), t * g.sT - g.pT, h * g.sH - g.pH, w)
        at += lines[found].count
        found += 1
        w = 0
        h += 1
        if h == g.oH:
            h = 0
            t += 1
    return found


cdef void gather(const floating* x, floating* tile, const Geometry* g, Py_ssize_t row_start, Py_ssize_t row_stop,
                 Py_ssize_t start, Py_ssize_t count, Py_ssize_t width, Py_ssize_t pitch) noexcept nogil:
    """tile <- rows [row_start, row_stop), columns [start, start + count) of the patch matrix of x (C, T, H, W).

    The rows of the tile are `pitch` values apart, zero from `count` to `width` <= TILE_COLUMNS.
    """
    cdef Line lines[TILE_COLUMNS]
    cdef Run runs[TILE_COLUMNS]
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, volume = g.T * g.H * g.W, depth = row_stop - row_start
    cdef Py_ssize_t line_count = find_lines(g, start, count, lines), run_count, covered
    cdef Py_ssize_t c = row_start // taps, kw = row_start % g.kW, kh = row_start // g.kW % g.kH
    cdef Py_ssize_t kt = row_start // (g.kW * g.kH) % g.kT
    cdef Py_ssize_t tap, i, j, t, h, w, inside, outside, first, last, row, repeats
    cdef const floating* line
    cdef floating* to
    for tap in range(min(taps, depth)):
        repeats = (depth - tap + taps - 1) // taps
        w = kw * g.dW - g.pW
        inside, outside = first_inside(w, g.sW), first_inside(w - g.W, g.sW)
        run_count = covered = 0
        for i in range(line_count):
            t = lines[i].t + kt * g.dT
            h = lines[i].h + kh * g.dH
            first = max(inside - lines[i].w, 0)
            last = min(outside - lines[i].w, lines[i].count)
            if 0 <= t < g.T and 0 <= h < g.H and first < last:
                runs[run_count] = Run(lines[i].at + first, last - first,
                                      (t * g.H + h) * g.W + (lines[i].w + first) * g.sW + w)
                run_count += 1
                covered += last - first
        if covered < width:
            for row in range(repeats):
                copy(tile + (tap + row * taps) * pitch, ZEROS, width * sizeof(floating))
        for i in range(run_count):
            line = x + c * volume + runs[i].offset
            to = tile + tap * pitch + runs[i].at
            for row in range(repeats):
                if g.sW == 1:
                    copy(to, line, runs[i].count * sizeof(floating))
                else:
                    for j in range(runs[i].count):
                        to[j] = line[j * g.sW]
                line += volume
                to += taps * pitch
        kw += 1
        if kw == g.kW:
            kw = 0
            kh += 1
            if kh == g.kH:
                kh = 0
                kt += 1
                if kt == g.kT:
                    kt = 0
                    c += 1
