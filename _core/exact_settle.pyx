"""Elements of y, dx and dw of a convolution that are NaN, computed term by term in integers and rounded once.

Where exact_conv3d.pyx or exact_round.pyx cannot decide how a sum is rounded (a tie, heavy cancellation, underflow,
overflow), it leaves NaN; finite operands have no other. Each function returns how many there were.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.stdlib cimport free, malloc

from refnet._core cimport environment, interrupt, openmp
from refnet._core.accumulator cimport Accumulator, add, add_product, clear, to_double, to_float
from refnet._core.checks cimport require
from refnet._core.convolution cimport require_convolution
from refnet._core.environment cimport Environment
from refnet._core.geometry cimport Geometry, geometry
from refnet._core.interrupt cimport Turn, Watch


cdef enum:
    BLOCK = 64  # values that are looked at together


# One convolution, of samples, groups, and of each group channels of x and filters.
cdef struct Problem:
    Geometry g
    Py_ssize_t samples, groups, channels, filters


cdef Problem problem_of(const floating[:, :, :, :, ::1] x, const floating[:, ::1] w, const floating[:, :, ::1] y,
                        window, Py_ssize_t groups) except *:
    """The convolution of x (N, C, T, H, W), w (C_out, K) and y (N, C_out, P), if it is one."""
    cdef Problem problem
    problem.g = geometry((x.shape[2], x.shape[3], x.shape[4]), window)
    require_convolution(&problem.g, x, w, y, groups)
    problem.samples, problem.groups = x.shape[0], groups
    problem.channels, problem.filters = x.shape[1] // groups, w.shape[0] // groups
    return problem


cdef inline Py_ssize_t next_nan(const floating* values, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """Where the first NaN is, from i on; n if there is none. Values that are none are passed in blocks."""
    cdef Py_ssize_t j
    cdef bint found
    while i < n:
        if i % BLOCK == 0 and n - i >= BLOCK:
            found = False
            for j in range(BLOCK):
                found |= values[i + j] != values[i + j]
            if not found:
                i += BLOCK
                continue
        if values[i] != values[i]:
            return i
        i += 1
    return n


cdef inline void add_term(Accumulator* sum, floating a, floating b) noexcept nogil:
    """Add a product; those of float32 are exact in float64."""
    if floating is double:
        add_product(sum, a, b)
    else:
        add(sum, <double> a * <double> b)


cdef inline floating rounded(const Accumulator* sum, floating like) noexcept nogil:
    """The sum, rounded to the format of `like`."""
    return to_double(sum) if floating is double else to_float(sum)


def forward(const floating[:, :, :, :, ::1] x, const floating[:, ::1] w, const floating[::1] b,
            floating[:, :, ::1] y, window, Py_ssize_t groups):
    """y (N, C_out, P), where it is NaN, = w (C_out, K) times patches of x (N, C, T, H, W), plus b (C_out) or none."""
    cdef Problem problem = problem_of(x, w, y, window, groups)
    cdef Py_ssize_t rows = y.shape[0] * y.shape[1], row, k, found = 0
    cdef Py_ssize_t volume = problem.channels * x.shape[2] * x.shape[3] * x.shape[4]
    cdef const floating* images = &x[0, 0, 0, 0, 0]
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    require(b.shape[0] == 0 or b.shape[0] == y.shape[1])
    with nogil, parallel(use_threads_if=openmp.pays(rows * y.shape[2])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for row in prange(rows, schedule="dynamic"):
            k = row % y.shape[1]
            found += settle_channel(images + row // problem.filters * volume, &w[k, 0],
                                    &b[k] if b.shape[0] else NULL, &y[row // y.shape[1], k, 0], &problem, &turn)
        environment.restore(before)
    interrupt.finish(&watch)
    return found


cdef Py_ssize_t settle_channel(const floating* x, const floating* w, const floating* b, floating* y,
                               const Problem* problem, Turn* turn) noexcept nogil:
    """Settle a channel y (P) of a sample; return how many values were NaN."""
    cdef const Geometry* g = &problem.g
    cdef Py_ssize_t terms = problem.channels * g.kT * g.kH * g.kW, P = g.oT * g.oH * g.oW, found = 0
    cdef Py_ssize_t o = next_nan(y, 0, P)
    cdef Accumulator sum
    while o < P and not interrupt.asked(turn, terms):
        clear(&sum)
        add_patch(&sum, x, w, problem, o)
        if b != NULL:
            add(&sum, b[0])
        y[o] = rounded(&sum, y[o])
        found += 1
        o = next_nan(y, o + 1, P)
    return found


cdef void add_patch(Accumulator* sum, const floating* x, const floating* w, const Problem* problem,
                    Py_ssize_t position) noexcept nogil:
    """Add what a filter makes of the patch of x (channels, T, H, W) at an output position."""
    cdef const Geometry* g = &problem.g
    cdef Py_ssize_t t0 = position // (g.oH * g.oW) * g.sT - g.pT, h0 = position // g.oW % g.oH * g.sH - g.pH
    cdef Py_ssize_t v0 = position % g.oW * g.sW - g.pW, c, kt, kh, kw, t, h, v
    for c in range(problem.channels):
        for kt in range(g.kT):
            t = t0 + kt * g.dT
            if not 0 <= t < g.T:
                continue
            for kh in range(g.kH):
                h = h0 + kh * g.dH
                if not 0 <= h < g.H:
                    continue
                for kw in range(g.kW):
                    v = v0 + kw * g.dW
                    if 0 <= v < g.W:
                        add_term(sum, x[((c * g.T + t) * g.H + h) * g.W + v],
                                 w[((c * g.kT + kt) * g.kH + kh) * g.kW + kw])


def backward_data(const floating[:, :, ::1] dy, const floating[:, ::1] w, floating[:, :, :, :, ::1] dx, window,
                  Py_ssize_t groups):
    """dx (N, C, T, H, W), where it is NaN, = what each position's taps gather from dy (N, C_out, P)."""
    cdef Problem problem = problem_of(dx, w, dy, window, groups)
    cdef Py_ssize_t rows = dx.shape[0] * dx.shape[1], volume = dx.shape[2] * dx.shape[3] * dx.shape[4], row
    cdef Py_ssize_t group, found = 0
    cdef const floating* gradients = &dy[0, 0, 0]
    cdef const floating* weights = &w[0, 0]
    cdef floating* result = &dx[0, 0, 0, 0, 0]
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    with nogil, parallel(use_threads_if=openmp.pays(rows * volume)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for row in prange(rows, schedule="dynamic"):
            group = row // problem.channels
            found += settle_input_channel(gradients + group * problem.filters * dy.shape[2],
                                          weights + group % problem.groups * problem.filters * w.shape[1],
                                          result + row * volume, &problem, row % problem.channels, &turn)
        environment.restore(before)
    interrupt.finish(&watch)
    return found


cdef Py_ssize_t settle_input_channel(const floating* dy, const floating* w, floating* dx, const Problem* problem,
                                     Py_ssize_t c, Turn* turn) noexcept nogil:
    """Settle channel c of a group of a sample, dx (T, H, W); return how many values were NaN."""
    cdef const Geometry* g = &problem.g
    cdef Py_ssize_t terms = problem.filters * g.kT * g.kH * g.kW, volume = g.T * g.H * g.W, found = 0
    cdef Py_ssize_t i = next_nan(dx, 0, volume)
    cdef Accumulator sum
    while i < volume and not interrupt.asked(turn, terms):
        clear(&sum)
        add_gathered(&sum, dy, w, problem, c, i)
        dx[i] = rounded(&sum, dx[i])
        found += 1
        i = next_nan(dx, i + 1, volume)
    return found


cdef void add_gathered(Accumulator* sum, const floating* dy, const floating* w, const Problem* problem, Py_ssize_t c,
                       Py_ssize_t position) noexcept nogil:
    """Add what the taps of channel c that reach a position gather from dy (filters, P), through w (filters, K)."""
    cdef const Geometry* g = &problem.g
    cdef Py_ssize_t t0 = position // (g.H * g.W) + g.pT, h0 = position // g.W % g.H + g.pH, v0 = position % g.W + g.pW
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, k, kt, kh, kw, t, h, v
    for kt in range(g.kT):
        t = t0 - kt * g.dT
        if t < 0 or t % g.sT or t // g.sT >= g.oT:
            continue
        for kh in range(g.kH):
            h = h0 - kh * g.dH
            if h < 0 or h % g.sH or h // g.sH >= g.oH:
                continue
            for kw in range(g.kW):
                v = v0 - kw * g.dW
                if v < 0 or v % g.sW or v // g.sW >= g.oW:
                    continue
                for k in range(problem.filters):
                    add_term(sum, dy[((k * g.oT + t // g.sT) * g.oH + h // g.sH) * g.oW + v // g.sW],
                             w[(k * problem.channels + c) * taps + (kt * g.kH + kh) * g.kW + kw])


def backward_weights(const floating[:, :, ::1] dy, const floating[:, :, :, :, ::1] x, const floating[::1] b,
                     floating[:, ::1] dw, window, Py_ssize_t groups):
    """dw (C_out, K), where it is NaN, = dy (N, C_out, P) times the transposed patches of x, plus b (K) or none."""
    cdef Problem problem = problem_of(x, dw, dy, window, groups)
    cdef Py_ssize_t filter, settled, found = 0, failed = 0
    cdef const floating* gradients = &dy[0, 0, 0]
    cdef const floating* images = &x[0, 0, 0, 0, 0]
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    require(b.shape[0] == 0 or b.shape[0] == dw.shape[1])
    with nogil, parallel(use_threads_if=openmp.pays(dw.shape[0] * dw.shape[1])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for filter in prange(dw.shape[0], schedule="dynamic"):
            settled = settle_filter(gradients, images, &b[0] if b.shape[0] else NULL, &dw[filter, 0], &problem, filter,
                                    &turn)
            found += max(0, settled)
            failed += settled < 0
        environment.restore(before)
    interrupt.finish(&watch)
    if failed:
        raise MemoryError("the gradients of a filter")
    return found


# A value of dy that is not zero, and where tap 0 reads for it: the image of its sample and group, and T, H, W.
cdef struct Gradient:
    double value
    const void* image
    Py_ssize_t t, h, v


cdef Py_ssize_t settle_filter(const floating* dy, const floating* x, const floating* b, floating* dw,
                              const Problem* problem, Py_ssize_t filter, Turn* turn) noexcept nogil:
    """Settle the gradients dw (K) of a filter; return how many were NaN, or -1 where memory is lacking."""
    cdef const Geometry* g = &problem.g
    cdef Py_ssize_t K = problem.channels * g.kT * g.kH * g.kW, found = 0, count
    cdef Py_ssize_t i = next_nan(dw, 0, K)
    cdef Gradient* gradients
    cdef Accumulator sum
    if i == K:
        return 0
    # Behind a rectifier few are left of most filters, and most of what is undecided is a sum of zeros.
    gradients = <Gradient*> malloc(problem.samples * g.oT * g.oH * g.oW * sizeof(Gradient))
    if gradients == NULL:
        return -1
    count = list_gradients(dy, x, problem, filter, gradients)
    while i < K and not interrupt.asked(turn, count + 1):
        clear(&sum)
        add_pairs(&sum, gradients, count, x, problem, i)
        if b != NULL:
            add(&sum, b[i])
        dw[i] = rounded(&sum, dw[i])
        found += 1
        i = next_nan(dw, i + 1, K)
    free(gradients)
    return found


cdef Py_ssize_t list_gradients(const floating* dy, const floating* x, const Problem* problem, Py_ssize_t filter,
                               Gradient* gradients) noexcept nogil:
    """List what is not zero of a filter's dy (N, C_out, P); return how many there are."""
    cdef const Geometry* g = &problem.g
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, volume = problem.channels * g.T * g.H * g.W, group, n, o, count = 0
    cdef const floating* values
    cdef Gradient one
    for n in range(problem.samples):
        group = n * problem.groups + filter // problem.filters
        values = dy + (n * problem.groups * problem.filters + filter) * P
        one.image = x + group * volume
        for o in range(P):
            if values[o] != 0:
                one.value = values[o]
                one.t = o // (g.oH * g.oW) * g.sT - g.pT
                one.h = o // g.oW % g.oH * g.sH - g.pH
                one.v = o % g.oW * g.sW - g.pW
                gradients[count] = one
                count += 1
    return count


cdef void add_pairs(Accumulator* sum, const Gradient* gradients, Py_ssize_t count, const floating* like,
                    const Problem* problem, Py_ssize_t row) noexcept nogil:
    """Add what a filter's gradients make of what one of its weights has read of x (N, C, T, H, W)."""
    cdef const Geometry* g = &problem.g
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, i, t, h, v, channel = row // taps * g.T
    cdef Py_ssize_t kt = row % taps // (g.kH * g.kW) * g.dT, kh = row // g.kW % g.kH * g.dH, kw = row % g.kW * g.dW
    cdef floating value
    for i in range(count):
        t, h, v = gradients[i].t + kt, gradients[i].h + kh, gradients[i].v + kw
        if 0 <= t < g.T and 0 <= h < g.H and 0 <= v < g.W:
            value = (<const floating*> gradients[i].image)[((channel + t) * g.H + h) * g.W + v]
            if value != 0:
                add_term(sum, <floating> gradients[i].value, value)
