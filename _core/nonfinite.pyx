"""A tap in the padding is no term, whatever it would be multiplied by.

Packed operands have zeros there, and merged weights where a phase has no tap. A zero adds nothing to a sum of finite
values, but times infinity or NaN it is NaN. So where such a factor may have met one, what has become NaN is summed
again, term by term in the order of the definition (conv3d.pyx), of the taps inside alone.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport fma, isnan

from refnet._core cimport environment, openmp
from refnet._core.blocking cimport KC, SPAN_CHAINS
from refnet._core.environment cimport Environment
from refnet._core.tiles cimport Subkernel, results_of
from refnet._core.write_back cimport OutputMap, offset

cdef extern from "<math.h>" nogil:
    float fmaf(float, float, float)

cdef enum:
    PIECE = 1 << 14  # values that a thread looks at before the next look for work


cdef inline floating multiply_add(floating a, floating b, floating c) noexcept nogil:
    return fmaf(a, b, c) if floating is float else fma(a, b, c)


cdef inline bint is_outside(Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad, Py_ssize_t dilation,
                            Py_ssize_t inputs, Py_ssize_t outputs) noexcept nogil:
    """Whether some tap of some window along one axis reads no input."""
    cdef Py_ssize_t zero = 0, reach = (kernel - 1) * dilation
    return min(zero, reach) < pad or (outputs - 1) * stride - pad + max(zero, reach) >= inputs


cdef bint reads_padding(const Geometry* g) noexcept nogil:
    """Whether some tap of some window lies in the padding."""
    return (is_outside(g.kT, g.sT, g.pT, g.dT, g.T, g.oT) or is_outside(g.kH, g.sH, g.pH, g.dH, g.H, g.oH)
            or is_outside(g.kW, g.sW, g.pW, g.dW, g.W, g.oW))


cdef bint all_finite(const Simd* simd, const floating* values, Py_ssize_t n) noexcept nogil:
    """Whether n values are all finite."""
    cdef Py_ssize_t piece, found = 0
    cdef Environment before
    with parallel(use_threads_if=openmp.pays(n)):
        before = environment.enter_default()
        for piece in prange((n + PIECE - 1) // PIECE, schedule="static"):
            found += not simd.all_finite(values + piece * PIECE, 1, min(<Py_ssize_t> PIECE, n - piece * PIECE))
        environment.restore(before)
    return found == 0


# ---- y and dx


cdef bint met_padding(const Simd* simd, const floating* w, const floating* y, const Convolution* conv,
                      Py_ssize_t samples, Py_ssize_t groups) noexcept nogil:
    """Whether some sum of y (samples, groups * results, maps) may have met a zero that is no term of it.

    That sum is NaN, and unless phases are merged, some weight is not finite: what is less is looked at.
    """
    cdef Py_ssize_t channels = samples * groups * results_of(conv, conv.rows)
    cdef Py_ssize_t weights = groups * conv.subkernels.layout.group, channel, found = 0
    cdef bint padded = False
    cdef int i
    cdef Environment before
    for i in range(conv.count_subkernels):
        padded = padded or not conv.subkernels[i].empty and reads_padding(&conv.subkernels[i].g)
    if conv.subkernels.phases_at == NULL:
        if not padded:
            return False
        if weights < channels * conv.maps.volume:
            return not all_finite(simd, w, weights)
    with parallel(use_threads_if=openmp.pays(channels * conv.maps.volume)):
        before = environment.enter_default()
        for channel in prange(channels, schedule="static"):
            found += not channel_finite(simd, y + channel * conv.maps.volume, conv)
        environment.restore(before)
    return found > 0


cdef bint channel_finite(const Simd* simd, const floating* y, const Convolution* conv) noexcept nogil:
    """Whether the lines of one channel of y (maps) are all finite."""
    cdef const OutputMap* map
    cdef Py_ssize_t frame, line
    cdef int i
    for i in range(conv.count_maps):
        map = &conv.maps[i]
        for frame in range(map.frames):
            for line in range(map.lines):
                if not simd.all_finite(y + map.first + frame * map.t + line * map.h, 1, map.width):
                    return False
    return True


cdef void sum_again(const floating* x, const floating* w, floating* y, const Convolution* conv, Py_ssize_t samples,
                    Py_ssize_t groups) noexcept nogil:
    """Sum again what is NaN of y (samples, groups * results, maps); see `conv3d.convolve`."""
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t results = results_of(conv, conv.rows), volume = conv.channels * g.T * g.H * g.W, task, n
    cdef Environment before
    with parallel():
        before = environment.enter_default()
        for task in prange(samples * groups * results, schedule="dynamic"):
            n = task // results  # of all groups of all samples
            sum_channel_again(x + n * volume, w + n % groups * conv.subkernels.layout.group,
                              y + task * conv.maps.volume, conv, task % results, results)
        environment.restore(before)


cdef void sum_channel_again(const floating* x, const floating* w, floating* y, const Convolution* conv,
                            Py_ssize_t channel, Py_ssize_t results) noexcept nogil:
    """Sum again what is NaN of one channel of y (maps), from x (channels, T, H, W) and the weights of its group."""
    cdef const OutputMap* map
    cdef const Subkernel* kernel
    cdef bint merged = conv.subkernels.phases_at != NULL
    cdef Py_ssize_t row, position, line, column, at
    cdef int i, beside, phase
    for i in range(conv.count_maps):
        map = &conv.maps[i]
        for beside in range(map.beside):
            phase = i * <int> map.beside + beside
            kernel = &conv.subkernels[0 if merged else beside]
            row = phase * results + channel if merged else channel
            for position in range(map.positions_of_line * map.lines_of_frame * map.frames):
                column = position % map.positions_of_line
                line = position // map.positions_of_line % map.lines_of_frame
                at = offset(map, position) + beside
                if (not kernel.empty and line < map.lines and column * map.w + beside < map.width
                        and isnan(y[at])):
                    y[at] = sum_of_window(x, w + row * kernel.layout.row + kernel.layout.first, conv.channels, kernel,
                                          position, phase)


cdef floating sum_of_window(const floating* x, const floating* w, Py_ssize_t channels, const Subkernel* kernel,
                            Py_ssize_t position, int phase) noexcept nogil:
    """The sum of one window: chains of KC terms, added in order, of the taps inside that the phase has."""
    cdef const Geometry* g = &kernel.g
    cdef Py_ssize_t t = position // (g.oW * g.oH) * g.sT - g.pT, h = position // g.oW % g.oH * g.sH - g.pH
    cdef Py_ssize_t v = position % g.oW * g.sW - g.pW, term = 0, c, kt, kh, kw, it, ih, iw
    cdef floating total = 0, chain = 0
    for c in range(channels):
        for kt in range(g.kT):
            for kh in range(g.kH):
                for kw in range(g.kW):
                    if term > 0 and term % KC == 0:
                        total += chain
                        chain = 0
                    term += 1
                    it, ih, iw = t + kt * g.dT, h + kh * g.dH, v + kw * g.dW
                    if not (0 <= it < g.T and 0 <= ih < g.H and 0 <= iw < g.W):
                        continue
                    if kernel.phases_at and not kernel.phases_at[(kt * g.kH + kh) * g.kW + kw] >> phase & 1:
                        continue
                    chain = multiply_add(w[c * kernel.layout.channel + kt * kernel.layout.t + kh * kernel.layout.h
                                           + kw * kernel.layout.w],
                                         x[((c * g.T + it) * g.H + ih) * g.W + iw], chain)
                    if isnan(chain):
                        return chain
    return total + chain


# ---- dw


cdef void sum_weights_again(const floating* dy, const floating* x, floating* dw, const Geometry* g,
                            Py_ssize_t samples, Py_ssize_t filters, Py_ssize_t channels,
                            Py_ssize_t groups) noexcept nogil:
    """Sum again what is NaN of dw (groups * filters, channels, taps), from dy (samples, ...) and x (samples, ...)."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, P = g.oT * g.oH * g.oW, V = g.T * g.H * g.W, i, k, c
    cdef Environment before
    with parallel():
        before = environment.enter_default()
        for i in prange(groups * filters * channels * taps, schedule="dynamic", chunksize=64):
            if isnan(dw[i]):
                k = i // (channels * taps)
                c = k // filters * channels + i // taps % channels
                dw[i] = sum_of_positions(dy + k * P, x + c * V, g, samples, groups * filters * P,
                                         groups * channels * V, i % taps)
        environment.restore(before)


cdef floating sum_of_positions(const floating* dy, const floating* x, const Geometry* g, Py_ssize_t samples,
                               Py_ssize_t sample_dy, Py_ssize_t sample_x, Py_ssize_t tap) noexcept nogil:
    """The sum of one weight's terms over all positions: chains of KC, spans of SPAN_CHAINS chains, in order."""
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, n, o, t, h, v
    cdef floating total = 0, span, chain
    for n in range(samples):
        span = chain = 0
        for o in range(P):
            if o > 0 and o % KC == 0:
                span += chain
                chain = 0
            if o > 0 and o % (SPAN_CHAINS * KC) == 0:
                total += span
                span = 0
            t = o // (g.oW * g.oH) * g.sT - g.pT + tap // (g.kW * g.kH) * g.dT
            h = o // g.oW % g.oH * g.sH - g.pH + tap // g.kW % g.kH * g.dH
            v = o % g.oW * g.sW - g.pW + tap % g.kW * g.dW
            if 0 <= t < g.T and 0 <= h < g.H and 0 <= v < g.W:
                chain = multiply_add(dy[n * sample_dy + o], x[n * sample_x + (t * g.H + h) * g.W + v], chain)
                if isnan(chain):
                    return chain
        total += span + chain
    return total
