"""A tap in the padding is no term, whatever it would be multiplied by.

Packed operands have zeros there, and merged weights where a phase has no tap. A zero adds nothing to a sum of finite
values, but times infinity or NaN it is NaN. So where such a factor may have met one, what has become NaN is summed
again, term by term in the order of the definition (conv3d.pyx), of the taps inside alone.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport fma, isnan

from refnet._core cimport environment, interrupt, openmp
from refnet._core.blocking cimport KC, SPAN_CHAINS
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.tiles cimport Subkernel, results_of
from refnet._core.write_back cimport OutputMap, offset

cdef extern from "<math.h>" nogil:
    float fmaf(float, float, float)

cdef enum:
    PIECE = 1 << 14  # values that a thread looks at before the next look for work
    AT_ONCE = 16     # channels or filters that are summed again between two looks for Ctrl-C
    MOST_NAN = 16    # NaNs whose places are remembered


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


cdef int sum_again(const floating* x, const floating* w, floating* y, const Convolution* conv, Py_ssize_t samples,
                   Py_ssize_t groups) except -1:
    """Sum again what is NaN of y (samples, groups * results, maps); see `conv3d.convolve`."""
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t results = results_of(conv, conv.rows), volume = conv.channels * g.T * g.H * g.W, task, n, begin, end
    cdef Py_ssize_t tasks = samples * groups * results
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    for begin in range(0, tasks, AT_ONCE):
        end = min(begin + AT_ONCE, tasks)
        with nogil, parallel(use_threads_if=openmp.max_threads() > 1):
            before = environment.enter_default()
            turn = interrupt.turn(&watch)
            for task in prange(begin, end, schedule="dynamic"):
                n = task // results  # of all groups of all samples
                sum_channel_again(x + n * volume, w + n % groups * conv.subkernels.layout.group,
                                  y + task * conv.maps.volume, conv, task % results, results, &turn)
            environment.restore(before)
        interrupt.finish(&watch)
    return 0


# Taps of a row of weights, one after the other, at which some weight is NaN: as many as are looked for.
cdef struct NanTaps:
    int count
    Py_ssize_t taps[MOST_NAN]


cdef NanTaps nan_taps(const floating* w, const Subkernel* kernel, Py_ssize_t channels) noexcept nogil:
    """Find the first taps at which a row of weights is NaN."""
    cdef const Geometry* g = &kernel.g
    cdef NanTaps found
    cdef Py_ssize_t tap, c
    cdef const floating* of_tap
    found.count = 0
    for tap in range(g.kT * g.kH * g.kW):
        of_tap = (w + tap // (g.kW * g.kH) * kernel.layout.t + tap // g.kW % g.kH * kernel.layout.h
                  + tap % g.kW * kernel.layout.w)
        for c in range(channels):
            if isnan(of_tap[c * kernel.layout.channel]) and found.count < MOST_NAN:
                found.taps[found.count] = tap
                found.count += 1
                break
    return found


cdef inline bint is_inside(const Geometry* g, Py_ssize_t position, Py_ssize_t tap) noexcept nogil:
    """Whether a tap of the window at a position lies inside."""
    return (0 <= position // (g.oW * g.oH) * g.sT - g.pT + tap // (g.kW * g.kH) * g.dT < g.T
            and 0 <= position // g.oW % g.oH * g.sH - g.pH + tap // g.kW % g.kH * g.dH < g.H
            and 0 <= position % g.oW * g.sW - g.pW + tap % g.kW * g.dW < g.W)


cdef inline bint has_nan(const NanTaps* found, const Geometry* g, Py_ssize_t position) noexcept nogil:
    """Whether the window at a position has one of those taps inside: its sum is NaN then, and rightly so."""
    cdef int i
    for i in range(found.count):
        if is_inside(g, position, found.taps[i]):
            return True
    return False


cdef void sum_channel_again(const floating* x, const floating* w, floating* y, const Convolution* conv,
                            Py_ssize_t channel, Py_ssize_t results, Turn* turn) noexcept nogil:
    """Sum again what is NaN of one channel of y (maps), from x (channels, T, H, W) and the weights of its group."""
    cdef const OutputMap* map
    cdef const Subkernel* kernel
    cdef bint merged = conv.subkernels.phases_at != NULL
    cdef const floating* weights
    cdef Py_ssize_t row, position, line, column, at
    cdef int i, beside, phase
    cdef NanTaps found
    for i in range(conv.count_maps):
        map = &conv.maps[i]
        for beside in range(map.beside):
            phase = i * <int> map.beside + beside
            kernel = &conv.subkernels[0 if merged else beside]
            row = phase * results + channel if merged else channel
            weights = w + row * kernel.layout.row + kernel.layout.first
            found = nan_taps(weights, kernel, 0 if kernel.empty else conv.channels)
            for position in range(map.positions_of_line * map.lines_of_frame * map.frames):
                column = position % map.positions_of_line
                line = position // map.positions_of_line % map.lines_of_frame
                at = offset(map, position) + beside
                if (not kernel.empty and line < map.lines and column * map.w + beside < map.width
                        and isnan(y[at]) and not has_nan(&found, &kernel.g, position)):
                    if interrupt.asked(turn, 8 * conv.channels * kernel.g.kT * kernel.g.kH * kernel.g.kW):
                        return
                    y[at] = sum_of_window(x, weights, conv.channels, kernel, position, phase)


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


cdef int sum_weights_again(const floating* dy, const floating* x, floating* dw, const Geometry* g, Py_ssize_t samples,
                           Py_ssize_t filters, Py_ssize_t channels, Py_ssize_t groups) except -1:
    """Sum again what is NaN of dw (groups * filters, channels, taps), from dy (samples, ...) and x (samples, ...)."""
    cdef Py_ssize_t K = channels * g.kT * g.kH * g.kW, P = g.oT * g.oH * g.oW, V = g.T * g.H * g.W, k, begin, end
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    for begin in range(0, groups * filters, AT_ONCE):
        end = min(begin + AT_ONCE, groups * filters)
        with nogil, parallel(use_threads_if=openmp.max_threads() > 1):
            before = environment.enter_default()
            turn = interrupt.turn(&watch)
            for k in prange(begin, end, schedule="dynamic"):
                sum_filter_again(dy + k * P, x + k // filters * channels * V, dw + k * K, g, samples,
                                 groups * filters * P, groups * channels * V, channels, &turn)
            environment.restore(before)
        interrupt.finish(&watch)
    return 0


cdef void sum_filter_again(const floating* dy, const floating* x, floating* dw, const Geometry* g, Py_ssize_t samples,
                           Py_ssize_t sample_dy, Py_ssize_t sample_x, Py_ssize_t channels, Turn* turn) noexcept nogil:
    """Sum again what is NaN of the weights of one filter (channels, taps)."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, V = g.T * g.H * g.W, count = 0, n, o, tap, c, i
    cdef Py_ssize_t positions[MOST_NAN]
    cdef bint found
    for n in range(samples):
        for o in range(g.oT * g.oH * g.oW):
            if count < MOST_NAN and isnan(dy[n * sample_dy + o]):
                positions[count] = o
                count += 1
    for tap in range(taps):
        found = False  # a NaN that the tap reads: the sum is NaN then, and rightly so
        for i in range(count):
            found = found or is_inside(g, positions[i], tap)
        for c in range(0 if found else channels):
            if isnan(dw[c * taps + tap]):
                if interrupt.asked(turn, 8 * samples * g.oT * g.oH * g.oW):
                    return
                dw[c * taps + tap] = sum_of_positions(dy, x + c * V, g, samples, sample_dy, sample_x, tap)


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
