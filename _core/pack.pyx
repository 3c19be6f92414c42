"""Packing: operands copied into the order in which the micro-kernel reads them.

The left operand is packed in rows of KC values, LHS_PITCH apart, of which the micro-kernel takes MR at a
time; the right one in panels of NR columns. Patches of x are gathered by im2col3d.pyx.
"""

from cython cimport floating
from libc.string cimport memcpy

from refnet._core.blocking cimport CACHE_LINE, KC, LHS_PITCH, ceil_div
from refnet._core.im2col3d cimport pack_patch_rows


cdef void pack_lhs(const Simd* simd, const floating* w, floating* lhs, const Geometry* g, const LhsLayout* layout,
                   Py_ssize_t rows, Range terms) noexcept nogil:
    """lhs (rows, at most KC) <- the terms [low, high) of the rows of weights that begin at w."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW
    if layout.dense:
        simd.copy(w + terms.low, layout.row, lhs, LHS_PITCH, rows, terms.high - terms.low)
    elif taps == 1 and layout.row == 1:
        pack_transposed(simd, w, lhs, layout, rows, terms)
    elif (taps >= 8 and layout.w == 1 and (layout.h == g.kW or g.kH == 1)
          and (layout.t == g.kH * g.kW or g.kT == 1)):
        pack_channels(w, lhs, taps, layout, rows, terms)
    else:
        pack_taps(w, lhs, g, layout, rows, terms)


cdef void pack_transposed(const Simd* simd, const floating* w, floating* lhs, const LhsLayout* layout,
                          Py_ssize_t rows, Range terms) noexcept nogil:
    """Pack weights of one tap whose columns are dense, a cache line of terms at a time."""
    cdef Py_ssize_t line = CACHE_LINE // <Py_ssize_t> sizeof(floating), block, first, last
    for block in range(terms.low // line, ceil_div(terms.high, line)):
        first, last = max(terms.low, block * line), min((block + 1) * line, terms.high)
        simd.transpose(w + layout.first + first * layout.channel, layout.channel, lhs + first - terms.low, LHS_PITCH,
                       last - first, rows)


cdef void pack_channels(const floating* w, floating* lhs, Py_ssize_t taps, const LhsLayout* layout,
                        Py_ssize_t rows, Range terms) noexcept nogil:
    """Pack weights whose taps of a channel are dense, a channel at a time."""
    cdef Py_ssize_t row, i, last
    for row in range(rows):
        i = terms.low
        while i < terms.high:
            last = min(i + taps - i % taps, terms.high)
            memcpy(lhs + row * LHS_PITCH + i - terms.low,
                   w + row * layout.row + layout.first + i // taps * layout.channel + i % taps,
                   (last - i) * sizeof(floating))
            i = last


cdef void pack_taps(const floating* w, floating* lhs, const Geometry* g, const LhsLayout* layout, Py_ssize_t rows,
                    Range terms) noexcept nogil:
    """Pack weights of any layout, value by value; a channel at a time, whose taps lie near each other."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, count = terms.high - terms.low, row, i, first = 0, last
    cdef Py_ssize_t channel = terms.low // taps, kt = terms.low % taps // (g.kW * g.kH)
    cdef Py_ssize_t kh = terms.low // g.kW % g.kH, kw = terms.low % g.kW
    cdef Py_ssize_t offsets[KC]
    for i in range(count):  # counted, for divisions would take as long as the copies
        offsets[i] = layout.first + channel * layout.channel + kt * layout.t + kh * layout.h + kw * layout.w
        kw += 1
        if kw == g.kW:
            kw = 0
            kh += 1
            if kh == g.kH:
                kh = 0
                kt += 1
                if kt == g.kT:
                    kt = 0
                    channel += 1
    while first < count:
        last = min(first + taps - (terms.low + first) % taps, count)
        for row in range(rows):
            for i in range(first, last):
                lhs[row * LHS_PITCH + i] = w[row * layout.row + offsets[i]]
        first = last


cdef void pack_rows(const Simd* simd, const LhsSource* source, Py_ssize_t row, Py_ssize_t rows,
                    floating* lhs) noexcept nogil:
    """lhs <- `rows` rows of a source, from `row` on."""
    cdef const floating* values = <const floating*> source.rows
    if source.plan:
        row += source.first
        pack_patch_rows(simd, values, source.plan, source.taps, Range(row, row + rows), lhs)
    else:
        simd.copy(values + row * source.pitch, source.pitch, lhs, LHS_PITCH, rows, source.depth)


cdef void pack_rhs(const Simd* simd, const floating* lines, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t depth,
                   floating* panel) noexcept nogil:
    """panel (depth, NR) <- lines (rows, depth), `pitch` apart, transposed, and zeros."""
    cdef Py_ssize_t row, i
    simd.transpose(lines, pitch, panel, simd.nr, rows, depth)
    if rows < simd.nr:
        for i in range(depth):
            for row in range(rows, simd.nr):
                panel[i * simd.nr + row] = 0
