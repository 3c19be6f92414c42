"""Backward-data of a strided convolution, decomposed into convolutions of stride 1.

The positions of x that are equal modulo the stride are reached by the same taps, and gather from neighbouring
positions of dy. They are a *phase*, (t, h, v) with t below the stride along T and so on; its gradient is a
convolution of dy of stride 1 by some taps of the kernel, the phase's *subkernel* (as in XNNPACK's
deconvolution):

    dx[m s + v] = sum of w[tap] dy[m + q]  over the taps of which  tap d = v + p - q s  for a whole q.

Phases that are neighbours along W are computed together, one subkernel after the other, so that whole lines
of dx are written. For x of few channels all phases are one product: the *merged* subkernel has a row for each
phase and channel and a column for each place q from which some phase gathers, with zeros where a phase has no
tap.
"""

from cython cimport floating

from refnet._core.blocking cimport MERGED_PHASES, ceil_div
from refnet._core.geometry cimport in_long_lines


# The taps of a phase along one axis: the first, from tap to tap, and how many; none has 0.
cdef struct PhaseTaps:
    Py_ssize_t first, step, count


cdef PhaseTaps phase_taps(Py_ssize_t phase, Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad,
                          Py_ssize_t dilation) noexcept nogil:
    """The taps that reach the positions phase, phase + stride, ... along one axis."""
    cdef PhaseTaps taps = PhaseTaps(0, 1, 0)
    while taps.first < kernel and (phase + pad - taps.first * dilation) % stride != 0:
        taps.first += 1
    while taps.step < kernel and taps.step * dilation % stride != 0:
        taps.step += 1
    taps.count = ceil_div(kernel - taps.first, taps.step)
    return taps


cdef bint has_taps(Py_ssize_t phase, Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad,
                   Py_ssize_t dilation) noexcept nogil:
    """Whether a tap reaches the positions phase, phase + stride, ... along one axis."""
    return phase_taps(phase, kernel, stride, pad, dilation).count > 0


cdef OutputMap phase_map(const Geometry* g, Py_ssize_t t, Py_ssize_t h, Py_ssize_t v,
                         Py_ssize_t beside) noexcept nogil:
    """Where the gradients of phase (t, h, v) lie; `beside` counts it and the phases to its right."""
    cdef OutputMap map
    map.first = (t * g.H + h) * g.W + v
    map.t, map.h, map.w = g.sT * g.H * g.W, g.sH * g.W, g.sW
    map.frames, map.lines, map.width = ceil_div(g.T - t, g.sT), ceil_div(g.H - h, g.sH), g.W - v
    map.volume = g.T * g.H * g.W
    map.lines_of_frame, map.positions_of_line = map.lines, ceil_div(g.W - v, g.sW)
    map.beside = beside
    map.zeros = map.last_zeros = 0
    map.dense = g.sT == g.sH == g.sW == 1
    map.nontemporal = False
    return map


cdef Subkernel phase_kernel(const Geometry* g, Py_ssize_t t, Py_ssize_t h, Py_ssize_t v, const OutputMap* map,
                            Py_ssize_t filters, Py_ssize_t K) noexcept nogil:
    """The subkernel of phase (t, h, v), for groups of `filters` filters of K weights; a map has its positions."""
    cdef PhaseTaps along_t = phase_taps(t, g.kT, g.sT, g.pT, g.dT)
    cdef PhaseTaps along_h = phase_taps(h, g.kH, g.sH, g.pH, g.dH)
    cdef PhaseTaps along_w = phase_taps(v, g.kW, g.sW, g.pW, g.dW)
    cdef Subkernel kernel
    kernel.empty = along_t.count == 0 or along_h.count == 0 or along_w.count == 0
    kernel.phases_at = kernel.quarters = NULL
    kernel.layout.first = (along_t.first * g.kH + along_h.first) * g.kW + along_w.first
    kernel.layout.group = filters * K
    kernel.layout.row = g.kT * g.kH * g.kW  # a row is a channel of x, its terms are of every filter
    kernel.layout.channel = K
    kernel.layout.t = along_t.step * g.kH * g.kW
    kernel.layout.h = along_h.step * g.kW
    kernel.layout.w = along_w.step
    kernel.layout.dense = False
    kernel.g.T, kernel.g.H, kernel.g.W = g.oT, g.oH, g.oW
    kernel.g.kT, kernel.g.kH, kernel.g.kW = along_t.count, along_h.count, along_w.count
    kernel.g.sT = kernel.g.sH = kernel.g.sW = 1
    # The first tap gathers from q = (v + p - tap d) / s, a whole number, and each later one from further
    # left.
    kernel.g.pT = -(t + g.pT - along_t.first * g.dT) // g.sT
    kernel.g.pH = -(h + g.pH - along_h.first * g.dH) // g.sH
    kernel.g.pW = -(v + g.pW - along_w.first * g.dW) // g.sW
    kernel.g.dT = -(along_t.step * g.dT // g.sT)
    kernel.g.dH = -(along_h.step * g.dH // g.sH)
    kernel.g.dW = -(along_w.step * g.dW // g.sW)
    kernel.g.oT, kernel.g.oH, kernel.g.oW = map.frames, map.lines_of_frame, map.positions_of_line
    kernel.g = in_long_lines(kernel.g)
    return kernel


cdef bint are_merged(const Geometry* g, Py_ssize_t channels) noexcept nogil:
    """Whether all phases are one product: x has few channels in a group, and a place is a tap of most phases."""
    return (channels <= MERGED_CHANNELS and 1 < g.sT * g.sH * g.sW <= MERGED_PHASES
            and g.dT == g.dH == g.dW == 1 and g.kT >= g.sT and g.kH >= g.sH and g.kW >= g.sW)


cdef inline Py_ssize_t last_place(Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad) noexcept nogil:
    """The least q of any phase along one axis, -floor((kernel - 1 - pad) / stride)."""
    cdef Py_ssize_t reach = kernel - 1 - pad
    return -(reach // stride) if reach >= 0 else ceil_div(-reach, stride)


cdef Places merged_places(const Geometry* g) noexcept nogil:
    """The places q = (v + p - tap) / s of all phases: from the greatest, (s - 1 + p) / s, down to the least."""
    cdef Places places
    places.first_T = (g.sT - 1 + g.pT) // g.sT
    places.first_H = (g.sH - 1 + g.pH) // g.sH
    places.first_W = (g.sW - 1 + g.pW) // g.sW
    places.T = places.first_T - last_place(g.kT, g.sT, g.pT) + 1
    places.H = places.first_H - last_place(g.kH, g.sH, g.pH) + 1
    places.W = places.first_W - last_place(g.kW, g.sW, g.pW) + 1
    return places


cdef Subkernel merged_kernel(const Geometry* g, const Places* places, Py_ssize_t rows, Py_ssize_t filters,
                             const unsigned short* phases_at) noexcept nogil:
    """The merged subkernel, for groups of `rows` rows and `filters` filters; `merge_weights` makes its weights."""
    cdef Subkernel kernel
    cdef Py_ssize_t taps = places.T * places.H * places.W
    kernel.empty = False
    kernel.phases_at = phases_at
    kernel.quarters = phases_at if g.sT * g.sH * g.sW == 4 else NULL
    kernel.layout.first = 0
    kernel.layout.group, kernel.layout.row, kernel.layout.channel = rows * filters * taps, filters * taps, taps
    kernel.layout.t, kernel.layout.h, kernel.layout.w = places.H * places.W, places.W, 1
    kernel.layout.dense = True
    kernel.g.T, kernel.g.H, kernel.g.W = g.oT, g.oH, g.oW
    kernel.g.kT, kernel.g.kH, kernel.g.kW = places.T, places.H, places.W
    kernel.g.sT = kernel.g.sH = kernel.g.sW = 1
    kernel.g.pT, kernel.g.pH, kernel.g.pW = -places.first_T, -places.first_H, -places.first_W
    kernel.g.dT = kernel.g.dH = kernel.g.dW = -1
    kernel.g.oT, kernel.g.oH, kernel.g.oW = ceil_div(g.T, g.sT), ceil_div(g.H, g.sH), ceil_div(g.W, g.sW)
    return kernel


cdef void merge_weights(const floating* w, const Geometry* g, const Places* places, Py_ssize_t groups,
                        Py_ssize_t filters, Py_ssize_t channels, floating* merged,
                        unsigned short* phases_at) noexcept nogil:
    """merged (groups, phases, channels, filters, places), zeros before, <- w (groups * filters, channels, taps).

    phases_at (places), zeros before, gets bit i where phase i has a tap.
    """
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, phases = g.sT * g.sH * g.sW, count = places.T * places.H * places.W
    cdef Py_ssize_t t, h, v, kt, kh, kw, phase, place, tap, group, c, k
    for t in range(g.sT):
        for h in range(g.sH):
            for v in range(g.sW):
                phase = (t * g.sH + h) * g.sW + v
                for tap in range(taps):
                    kt, kh, kw = t + g.pT - tap // (g.kH * g.kW), h + g.pH - tap // g.kW % g.kH, v + g.pW - tap % g.kW
                    if kt % g.sT or kh % g.sH or kw % g.sW:
                        continue
                    place = (((places.first_T - kt // g.sT) * places.H + places.first_H - kh // g.sH) * places.W
                             + places.first_W - kw // g.sW)
                    phases_at[place] |= <unsigned short> (1 << phase)
                    for group in range(groups):
                        for c in range(channels):
                            for k in range(filters):
                                merged[(((group * phases + phase) * channels + c) * filters + k) * count + place] = (
                                    w[((group * filters + k) * channels + c) * taps + tap])
