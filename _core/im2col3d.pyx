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


# `count` output positions along W, kept from `at` on in a row of the tile; the first of them is at `w`,
# and reads the input line (t, h) with the tap (0, 0).
cdef struct Line:
    Py_ssize_t at, count, t, h, w


# `count` values of a row that are read from the volume, from `offset` in a channel on.
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
    if size == 64:
        memcpy(a, b, 64)
    elif size >= 32:
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


cdef Py_ssize_t find_lines(const Geometry* g, Py_ssize_t start, Py_ssize_t count, Py_ssize_t width,
                           Py_ssize_t panel, Line* lines) noexcept nogil:
    """Cut the output positions [start, start + count) at the ends of lines and panels; how many are there."""
    cdef Py_ssize_t w = start % g.oW, h = start // g.oW % g.oH, t = start // (g.oW * g.oH)
    cdef Py_ssize_t found = 0, column = 0
    cdef Line line
    while column < count:
        line.at = column // width * panel + column % width
        line.count = min(g.oW - w, width - column % width, count - column)
        line.t, line.h, line.w = t * g.sT - g.pT, h * g.sH - g.pH, w
        lines[found] = line
        found += 1
        column += line.count
        w += line.count
        if w == g.oW:
            w = 0
            h += 1
            if h == g.oH:
                h = 0
                t += 1
    return found


cdef void gather(const floating* x, floating* tile, const Geometry* g,
                 Py_ssize_t row_start, Py_ssize_t row_stop, Py_ssize_t start, Py_ssize_t count,
                 Py_ssize_t width, Py_ssize_t pitch, Py_ssize_t panel) noexcept nogil:
    """tile <- rows [row_start, row_stop), columns [start, start + count) of the patches of x (C, T, H, W).

    The tile is made of panels of `width` columns; from row to row of a panel it is `pitch` values, from
    panel to panel `panel`. At most TILE_COLUMNS columns; those that complete the last panel are zero.
    """
    cdef Line lines[TILE_COLUMNS]
    cdef Run runs[TILE_COLUMNS]
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, volume = g.T * g.H * g.W, depth = row_stop - row_start
    cdef Py_ssize_t panels = (count + width - 1) // width
    cdef Py_ssize_t line_count = find_lines(g, start, count, width, panel, lines), run_count, covered
    cdef Py_ssize_t c = row_start // taps, kw = row_start % g.kW, kh = row_start // g.kW % g.kH
    cdef Py_ssize_t kt = row_start // (g.kW * g.kH) % g.kT
    cdef Py_ssize_t tap, i, j, t, h, w, inside, outside, first, last, row
    cdef const floating* channel
    cdef const floating* line
    cdef floating* to
    for tap in range(min(taps, depth)):
        w = kw * g.dW - g.pW
        inside, outside = first_inside(w, g.sW), first_inside(w - g.W, g.sW)
        run_count = covered = 0
        for i in range(line_count):
            t = lines[i].t + kt * g.dT
            h = lines[i].h + kh * g.dH
            first = max(inside - lines[i].w, 0)
            last = min(outside - lines[i].w, lines[i].count)
            if 0 <= t < g.T and 0 <= h < g.H and first < last:
                runs[run_count].at = lines[i].at + first
                runs[run_count].count = last - first
                runs[run_count].offset = (t * g.H + h) * g.W + (lines[i].w + first) * g.sW + w
                run_count += 1
                covered += last - first
        channel, row = x + c * volume, tap
        while row < depth:
            to = tile + row * pitch
            if covered < panels * width:
                for i in range(panels):
                    copy(to + i * panel, ZEROS, width * sizeof(floating))
            for i in range(run_count):
                line = channel + runs[i].offset
                if g.sW == 1:
                    copy(to + runs[i].at, line, runs[i].count * sizeof(floating))
                elif g.sW == 2:  # a constant that the compiler makes shuffles of
                    for j in range(runs[i].count):
                        to[runs[i].at + j] = line[j * 2]
                else:
                    for j in range(runs[i].count):
                        to[runs[i].at + j] = line[j * g.sW]
            channel += volume
            row += taps
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
