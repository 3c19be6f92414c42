"""Sums that are rounded once: every result is the number nearest to the exact sum, ties to even.

So no order is stated here, and none changes a bit. A sum is first made in three doubles, whose error is known
(exact_sums.h); where both ends of what it may be round to the same number, that is it. The others are made again in
integers (accumulator.h). Each function returns how many these were. An exact zero is +0, what is not zero and rounds to
it keeps its sign, and what rounds to more than the largest number is infinite. All inputs are finite.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from refnet._core cimport accumulator, environment, interrupt, micro_kernel, openmp
from refnet._core.accumulator cimport Accumulator
from refnet._core.blocking cimport ceil_div
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.geometry cimport Geometry, geometry, in_long_lines
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.pieces cimport PIECE, length, pieces, planes_together
from refnet._core.pooling cimport TAP, Overlap, inside, line_of, overlap, pools, windows
from refnet._core.simd cimport Simd

cdef extern from "exact_sums.h" nogil:
    enum:
        LANES "EXACT_LANES"
    ctypedef struct Sums "struct exact_sums":
        double high[LANES]
        double low[LANES]
        double rest[LANES]
        int64_t undecided[LANES]
    ctypedef struct Weight "struct exact_weight":
        double high, low, error
    void begin "exact_begin"(Sums*, Py_ssize_t)
    void fold "exact_fold"(Sums*, Py_ssize_t)
    double two_sum "exact_two_sum"(double*, double)
    void add_float32 "exact_add_float32"(Sums*, Py_ssize_t, const float*, Py_ssize_t, Py_ssize_t)
    void add_float64 "exact_add_float64"(Sums*, Py_ssize_t, const double*, Py_ssize_t, Py_ssize_t)
    void add_products_float32 "exact_add_products_float32"(Sums*, const float*, const float*, Py_ssize_t)
    void add_products_float64 "exact_add_products_float64"(Sums*, const double*, const double*, Py_ssize_t)
    void add_weighted_float32 "exact_add_weighted_float32"(Sums*, const float*, const Weight*, Py_ssize_t)
    void add_weighted_float64 "exact_add_weighted_float64"(Sums*, const double*, const Weight*, Py_ssize_t)
    void line_float32 "exact_line_float32"(const float*, float, float, float*, Py_ssize_t)
    void line_float64 "exact_line_float64"(const double*, double, double, double*, Py_ssize_t)
    void line_to_float32 "exact_line_to_float32"(const float*, float, const float*, float*, Py_ssize_t)
    void line_to_float64 "exact_line_to_float64"(const double*, double, const double*, double*, Py_ssize_t)
    Py_ssize_t round_float32 "exact_round_float32"(Sums*, Py_ssize_t, double, float*, Py_ssize_t)
    Py_ssize_t round_float64 "exact_round_float64"(Sums*, Py_ssize_t, double, double*, Py_ssize_t)

cdef enum:
    FEW_LANES = 32  # of short planes, whose lanes would take as long to be added up as their values

# The largest count that is taken: all up to it are doubles.
cdef Py_ssize_t most = 9007199254740992


cdef inline void add(Sums* sums, Py_ssize_t first, const floating* x, Py_ssize_t stride, Py_ssize_t n) noexcept nogil:
    """Add every stride-th x, each to a sum of its own, from the first on."""
    if floating is float:
        add_float32(sums, first, x, stride, n)
    else:
        add_float64(sums, first, x, stride, n)


cdef inline void add_products(Sums* sums, const floating* x, const floating* y, Py_ssize_t n) noexcept nogil:
    """Add x y, each to a sum of its own."""
    if floating is float:
        add_products_float32(sums, x, y, n)
    else:
        add_products_float64(sums, x, y, n)


cdef inline Py_ssize_t rounded(Sums* sums, Py_ssize_t first, Py_ssize_t count, floating* y,
                               Py_ssize_t n) noexcept nogil:
    """Round sums from the first on, over a count; return how many are not decided."""
    if floating is float:
        return round_float32(sums, first, <double> count, y, n)
    else:
        return round_float64(sums, first, <double> count, y, n)


cdef inline floating nearest(const Accumulator* sum_, Py_ssize_t count, floating kind) noexcept nogil:
    """An exact sum over a count, rounded to the type of `kind`."""
    if floating is float:
        return accumulator.to_float(sum_) if count == 1 else accumulator.divided_to_float(sum_, count)
    else:
        return accumulator.to_double(sum_) if count == 1 else accumulator.divided_to_double(sum_, count)


cdef class Sum:
    """One exact sum of finite doubles and of products of two; what tests reach `accumulator.h` by."""

    cdef Accumulator sum_

    def __cinit__(self):
        accumulator.clear(&self.sum_)

    def clear(self):
        """Begin again with 0."""
        accumulator.clear(&self.sum_)

    def add(self, const double[::1] x):
        """Add all x."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(x.shape[0]):
                accumulator.add(&self.sum_, x[i])

    def add_products(self, const double[::1] x, const double[::1] y):
        """Add all x y."""
        cdef Py_ssize_t i
        require(x.shape[0] == y.shape[0])
        with nogil:
            for i in range(x.shape[0]):
                accumulator.add_product(&self.sum_, x[i], y[i])

    def over(self, int64_t count):
        """The sum divided by a positive count, rounded to float64 and to float32."""
        cdef Environment before
        cdef double wide
        cdef float narrow
        require(count > 0)
        before = environment.enter_default()
        wide, narrow = nearest[double](&self.sum_, count, 0), nearest[float](&self.sum_, count, 0)
        environment.restore(before)
        return wide, narrow


def first_not_finite(const floating[::1] x):
    """The index of the first value that is infinite or NaN; -1 where all are finite."""
    cdef const Simd* simd = micro_kernel.active(&x[0])
    cdef Py_ssize_t piece, i, size = x.shape[0], found = 0
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    with nogil, parallel(use_threads_if=openmp.pays(size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for piece in prange(pieces(size), schedule="static"):
            if not interrupt.asked(&turn, PIECE):
                found += not simd.all_finite(&x[piece * PIECE], 1, length(piece, size))
        environment.restore(before)
    interrupt.finish(&watch)
    if found > 0:
        for i in range(size):
            if not simd.all_finite(&x[i], 1, 1):
                return i
    return -1


# ---- a scale and a shift for each channel


cdef void line_of_planes(const floating* x, const floating* s, const floating* b, floating* y, Py_ssize_t C,
                         Py_ssize_t P, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """y = s x + b of planes [first, last), of which plane i has channel i % C."""
    cdef Py_ssize_t plane
    for plane in range(first, last):
        # Added to +0, -0 is +0: then only what is not zero can be rounded to -0.
        if floating is float:
            line_float32(x + plane * P, s[plane % C], b[plane % C] + <float> 0, y + plane * P, P)
        else:
            line_float64(x + plane * P, s[plane % C], b[plane % C] + <double> 0, y + plane * P, P)


def line(const floating[:, :, ::1] x, const floating[::1] s, const floating[::1] b, floating[:, :, ::1] y):
    """y = s x + b, for x and y (N, C, P), s and b (C,)."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], together = planes_together(P), share
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(s.shape[0] == C and b.shape[0] == C and y.shape[0] == x.shape[0]
            and y.shape[1] == C and y.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for share in prange(ceil_div(x.shape[0] * C, together), schedule="static"):
            if not interrupt.asked(&turn, together * P):
                line_of_planes(&x[0, 0, 0], &s[0], &b[0], &y[0, 0, 0], C, P, share * together,
                               min((share + 1) * together, x.shape[0] * C))
        environment.restore(before)
    interrupt.finish(&watch)


def line_of_blobs(const floating[:, :, ::1] x, const floating[::1] s, const floating[:, :, ::1] g,
                  floating[:, :, ::1] y):
    """y = s x + g, for x, g and y (N, C, P), s (C,)."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], plane
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(s.shape[0] == C and g.shape[0] == x.shape[0] and g.shape[1] == C and g.shape[2] == P
            and y.shape[0] == x.shape[0] and y.shape[1] == C and y.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for plane in prange(x.shape[0] * C, schedule="static"):
            if not interrupt.asked(&turn, P):
                if floating is float:
                    line_to_float32(&x[0, 0, 0] + plane * P, s[plane % C], &g[0, 0, 0] + plane * P,
                                    &y[0, 0, 0] + plane * P, P)
                else:
                    line_to_float64(&x[0, 0, 0] + plane * P, s[plane % C], &g[0, 0, 0] + plane * P,
                                    &y[0, 0, 0] + plane * P, P)
        environment.restore(before)
    interrupt.finish(&watch)


# ---- sums over channels


# What is added up: N planes of P values, `apart` from one to the next; x, or x y where y is not NULL.
cdef struct Channel:
    Py_ssize_t N, P, apart, count


cdef inline Channel channel(Py_ssize_t N, Py_ssize_t P, Py_ssize_t apart, Py_ssize_t count) noexcept nogil:
    cdef Channel of
    of.N, of.P, of.apart, of.count = N, P, apart, count
    return of


cdef bint sum_channel(const floating* x, const floating* y, Channel of, floating* result) noexcept nogil:
    """The sum over the count; return whether it needed integers."""
    cdef Sums sums
    cdef Accumulator exact
    cdef Py_ssize_t n, p, i, block, step, lanes = LANES if of.P >= 8 * LANES else FEW_LANES
    begin(&sums, lanes)
    for n in range(of.N):
        for block in range(ceil_div(of.P, lanes)):
            p = block * lanes
            step = min(lanes, of.P - p)
            if y == NULL:
                add(&sums, 0, x + n * of.apart + p, 1, step)
            else:
                add_products(&sums, x + n * of.apart + p, y + n * of.apart + p, step)
    fold(&sums, lanes)
    if rounded(&sums, 0, of.count, result, 1) == 0:
        return False
    accumulator.clear(&exact)
    for n in range(of.N):
        for p in range(of.P):
            i = n * of.apart + p
            if y == NULL:
                accumulator.add(&exact, x[i])
            else:
                accumulator.add_product(&exact, x[i], y[i])
    result[0] = nearest(&exact, of.count, <floating> 0)
    return True


cdef Py_ssize_t sum_channels(const floating* x, const floating* y, Channel of, Py_ssize_t C,
                             floating* results) except -1:
    """The sums of all channels."""
    cdef Py_ssize_t c, undecided = 0
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    with nogil, parallel(use_threads_if=openmp.pays(of.N * C * of.P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for c in prange(C, schedule="static"):
            if not interrupt.asked(&turn, of.N * of.P):
                undecided += sum_channel(x + c * of.P, y + c * of.P if y != NULL else NULL, of, results + c)
        environment.restore(before)
    interrupt.finish(&watch)
    return undecided


def channel_sums(const floating[:, :, ::1] x, floating[::1] sums, Py_ssize_t count):
    """sums (C,) = RN(sum of x (N, C, P) over N and P, over the count)."""
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1], P = x.shape[2]
    require(sums.shape[0] == C and 0 < count <= most)
    return sum_channels(&x[0, 0, 0], <const floating*> NULL, channel(N, P, C * P, count), C, &sums[0])


def channel_products(const floating[:, :, ::1] x, const floating[:, :, ::1] y, floating[::1] sums, Py_ssize_t count):
    """sums (C,) = RN(sum of x y, both (N, C, P), over N and P, over the count)."""
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1], P = x.shape[2]
    require(sums.shape[0] == C and 0 < count <= most
            and y.shape[0] == N and y.shape[1] == C and y.shape[2] == P)
    return sum_channels(&x[0, 0, 0], &y[0, 0, 0], channel(N, P, C * P, count), C, &sums[0])


# ---- sums of whole arrays


cdef void add_two(const floating* x1, const floating* x2, floating* y, Py_ssize_t n) noexcept nogil:
    """One addition, as IEEE 754 rounds it; -0 + -0, added to +0, is +0."""
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = (x1[i] + x2[i]) + <floating> 0


cdef Py_ssize_t add_all(const floating** x, Py_ssize_t count, Py_ssize_t first, floating* y,
                        Py_ssize_t n) noexcept nogil:
    """y = the sum of values [first, first + n) of each x; return how many needed integers."""
    cdef Sums sums
    cdef Accumulator exact
    cdef Py_ssize_t p, i, k, block, step, undecided = 0
    for block in range(ceil_div(n, LANES)):
        p = block * LANES
        step = min(<Py_ssize_t> LANES, n - p)
        begin(&sums, step)
        for k in range(count):
            add(&sums, 0, x[k] + first + p, 1, step)
        if rounded(&sums, 0, 1, y + p, step) > 0:
            for i in range(step):
                if sums.undecided[i]:
                    accumulator.clear(&exact)
                    for k in range(count):
                        accumulator.add(&exact, x[k][first + p + i])
                    y[p + i] = nearest(&exact, 1, <floating> 0)
                    undecided += 1
    return undecided


def array_sums(list arrays, floating[::1] y):
    """y = RN(the sum of all arrays), element by element."""
    cdef const floating[::1] x
    cdef const floating** addresses
    cdef Py_ssize_t size = y.shape[0], count = len(arrays), piece, k, undecided = 0
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(count > 0)
    for x in arrays:
        require(x.shape[0] == size)
    addresses = <const floating**> malloc(count * sizeof(floating*))
    if addresses == NULL:
        raise MemoryError
    for k in range(count):
        x = arrays[k]
        addresses[k] = &x[0]
    with nogil, parallel(use_threads_if=openmp.pays(size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for piece in prange(pieces(size), schedule="static"):
            if not interrupt.asked(&turn, count * PIECE):
                if count == 2:
                    add_two(addresses[0] + piece * PIECE, addresses[1] + piece * PIECE, &y[piece * PIECE],
                            length(piece, size))
                else:
                    undecided += add_all(addresses, count, piece * PIECE, &y[piece * PIECE], length(piece, size))
        environment.restore(before)
    free(addresses)
    interrupt.finish(&watch)
    return undecided


# ---- sums of windows


cdef floating sum_window(const floating* x, Py_ssize_t ot, Py_ssize_t oh, Py_ssize_t ow, const Geometry* g,
                         Py_ssize_t count) noexcept nogil:
    """The values of one window over a count, in integers."""
    cdef Accumulator exact
    cdef Py_ssize_t tap, kw, start, w
    accumulator.clear(&exact)
    for tap in range(g.kT * g.kH):
        start = line_of(g, ot, oh, tap)
        if start >= 0:
            for kw in range(g.kW):
                w = ow * g.sW - g.pW + kw
                if 0 <= w < g.W:
                    accumulator.add(&exact, x[start + w])
    return nearest(&exact, count, <floating> 0)


cdef inline Py_ssize_t values(Py_ssize_t ow, const Geometry* g, Py_ssize_t lines) noexcept nogil:
    """How many values the window of an output has inside; `lines` of them along T and H."""
    return lines * inside(ow, g.kW, g.sW, g.pW, g.W)


cdef Py_ssize_t sum_windows(const floating* x, floating* y, const Geometry* g, bint averages,
                            Turn* turn) noexcept nogil:
    """One plane: y (oT, oH, oW) from x (T, H, W); return how many needed integers."""
    cdef Py_ssize_t ot, oh, ow, tap, start, kw, block, piece, end, first, last, lines, count, undecided = 0
    cdef Overlap s
    cdef Sums sums
    for ot in range(g.oT):
        for oh in range(g.oH):
            lines = inside(ot, g.kT, g.sT, g.pT, g.T) * inside(oh, g.kH, g.sH, g.pH, g.H)
            for block in range(ceil_div(g.oW, LANES)):
                piece = block * LANES
                end = min(piece + <Py_ssize_t> LANES, g.oW)
                begin(&sums, end - piece)
                for tap in range(g.kT * g.kH):
                    start = line_of(g, ot, oh, tap)
                    if interrupt.asked(turn, end - piece if start < 0 else g.kW * (end - piece + TAP)):
                        return undecided
                    if start < 0:
                        continue
                    for kw in range(g.kW):
                        s = overlap(kw, g.sW, g.pW, g.W, g.oW)
                        first, last = max(s.first, piece), min(s.last, end)
                        if first < last:
                            add(&sums, first - piece, x + start + s.at + (first - s.first) * g.sW, g.sW, last - first)
                ow = piece
                while ow < end:  # as many as have the same count
                    count = values(ow, g, lines) if averages else 1
                    last = ow + 1
                    while last < end and (not averages or values(last, g, lines) == count):
                        last += 1
                    if rounded(&sums, ow - piece, count, y + ow, last - ow) > 0:
                        for first in range(ow, last):
                            if sums.undecided[first - piece]:
                                y[first] = sum_window(x, ot, oh, first, g, count)
                                undecided += 1
                    ow = last
            y += g.oW
    return undecided


def window_sums(const floating[:, ::1] x, floating[:, ::1] y, volume, window, bint averages):
    """y (planes, P) = RN(sum of each window's values of x (planes, T * H * W)), over their count if `averages`."""
    cdef Geometry g = geometry(volume, window)
    cdef Py_ssize_t plane, undecided = 0
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(pools(&g, x.shape[1], y.shape[1]) and y.shape[0] == x.shape[0])
    g = in_long_lines(g)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * x.shape[1])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for plane in prange(x.shape[0], schedule="static"):
            if not interrupt.asked(&turn, 1):
                undecided += sum_windows(&x[plane, 0], &y[plane, 0], &g, averages, &turn)
        environment.restore(before)
    interrupt.finish(&watch)
    return undecided


# ---- gradients that meet in max pooling


cdef Py_ssize_t winner(const floating* x, floating largest, Py_ssize_t ot, Py_ssize_t oh, Py_ssize_t ow,
                       const Geometry* g) noexcept nogil:
    """Where a window has its first value that equals the largest; its first one, should there be none."""
    cdef Py_ssize_t tap, w, start, found = -1
    cdef Py_ssize_t left = max(ow * g.sW - g.pW, 0), right = min(ow * g.sW - g.pW + g.kW, g.W)
    for tap in range(g.kT * g.kH):
        start = line_of(g, ot, oh, tap)
        if start < 0:
            continue
        if found < 0:
            found = start + left
        for w in range(left, right):
            if x[start + w] == largest:
                return start + w
    return found


# The sums of a plane's positions: three doubles each, as in exact_sums.h.
cdef struct Plane:
    double* high
    double* low
    double* rest


cdef inline Plane plane_of(double* memory, Py_ssize_t volume) noexcept nogil:
    cdef Plane sums
    sums.high, sums.low, sums.rest = memory, memory + volume, memory + 2 * volume
    return sums


cdef Py_ssize_t meet(const floating* dy, const floating* x, const floating* y, floating* dx, Plane sums,
                     const Geometry* g, Turn* turn) noexcept nogil:
    """One plane: dx (T, H, W) = the sums of dy (oT, oH, oW) at the winners; return how many needed integers."""
    cdef Py_ssize_t ot, oh, ow, o = 0, at, i, block, volume = g.T * g.H * g.W, step, undecided = 0
    cdef double lost
    cdef Sums some
    memset(sums.high, 0, 3 * volume * sizeof(double))
    for ot in range(g.oT):
        for oh in range(g.oH):
            if interrupt.asked(turn, g.oW * (g.kT * g.kH * g.kW + TAP)):
                return 0
            for ow in range(g.oW):
                at = winner(x, y[o], ot, oh, ow, g)
                lost = two_sum(&sums.high[at], dy[o])
                lost = two_sum(&sums.low[at], lost)
                sums.rest[at] += lost if lost >= 0 else -lost
                o += 1
    for block in range(ceil_div(volume, LANES)):
        at = block * LANES
        step = min(<Py_ssize_t> LANES, volume - at)
        for i in range(step):
            some.high[i], some.low[i], some.rest[i] = sums.high[at + i], sums.low[at + i], sums.rest[at + i]
        if rounded(&some, 0, 1, dx + at, step) > 0:
            for i in range(step):
                if some.undecided[i]:
                    dx[at + i] = sum_at(dy, x, y, at + i, g)
                    undecided += 1
    return undecided


cdef floating sum_at(const floating* dy, const floating* x, const floating* y, Py_ssize_t at,
                     const Geometry* g) noexcept nogil:
    """The sum of all dy whose windows have their winner there, in integers."""
    cdef Accumulator exact
    cdef Overlap t = windows(at // (g.W * g.H), g.kT, g.sT, g.pT, g.oT)
    cdef Overlap h = windows(at // g.W % g.H, g.kH, g.sH, g.pH, g.oH)
    cdef Overlap w = windows(at % g.W, g.kW, g.sW, g.pW, g.oW)
    cdef Py_ssize_t ot, oh, ow, o
    accumulator.clear(&exact)
    for ot in range(t.first, t.last):
        for oh in range(h.first, h.last):
            for ow in range(w.first, w.last):
                o = (ot * g.oH + oh) * g.oW + ow
                if winner(x, y[o], ot, oh, ow, g) == at:
                    accumulator.add(&exact, dy[o])
    return nearest(&exact, 1, <floating> 0)


def winner_sums(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[:, ::1] y,
                floating[:, ::1] dx, double[:, ::1] sums, volume, window):
    """dx (planes, T * H * W) = RN(sum of dy (planes, P) where x has its windows' largest values y).

    sums is (threads, 3 T * H * W).
    """
    cdef Geometry g = geometry(volume, window)
    cdef Py_ssize_t plane, undecided = 0
    cdef Plane own
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(pools(&g, x.shape[1], y.shape[1]) and y.shape[0] == x.shape[0]
            and dy.shape[0] == x.shape[0] and dy.shape[1] == y.shape[1]
            and dx.shape[0] == x.shape[0] and dx.shape[1] == x.shape[1]
            and sums.shape[0] >= openmp.max_threads() and sums.shape[1] >= 3 * x.shape[1])
    with nogil, parallel(use_threads_if=openmp.pays(dx.shape[0] * dx.shape[1])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        own = plane_of(&sums[openmp.thread_num(), 0], dx.shape[1])
        for plane in prange(dx.shape[0], schedule="static"):
            if not interrupt.asked(&turn, dx.shape[1]):
                undecided += meet(&dy[plane, 0], &x[plane, 0], &y[plane, 0], &dx[plane, 0], own, &g, &turn)
        environment.restore(before)
    interrupt.finish(&watch)
    return undecided


# ---- sums with weights of two doubles


# Row k of the results is the sum of rows `index` of x, for entries [starts[k], starts[k + 1]), with their weights.
cdef struct Rows:
    const Py_ssize_t* starts
    const Py_ssize_t* index
    const Weight* weights
    Py_ssize_t C, count


cdef Py_ssize_t sum_row(const floating* x, Py_ssize_t k, Rows rows, floating* y, uint8_t* undecided) noexcept nogil:
    """One row of results; return how many are not decided: of exact weights they are made in integers, else marked."""
    cdef Sums sums
    cdef Py_ssize_t c, i, j, block, step, left = 0
    cdef bint is_exact = True
    for j in range(rows.starts[k], rows.starts[k + 1]):
        is_exact = is_exact and rows.weights[j].error == 0
    for block in range(ceil_div(rows.C, LANES)):
        c = block * LANES
        step = min(<Py_ssize_t> LANES, rows.C - c)
        begin(&sums, step)
        for j in range(rows.starts[k], rows.starts[k + 1]):
            if floating is float:
                add_weighted_float32(&sums, x + rows.index[j] * rows.C + c, rows.weights + j, step)
            else:
                add_weighted_float64(&sums, x + rows.index[j] * rows.C + c, rows.weights + j, step)
        if rounded(&sums, 0, rows.count, y + c, step) > 0:
            for i in range(step):
                if sums.undecided[i]:
                    left += 1
                    if is_exact:
                        y[c + i] = sum_entries(x + c + i, k, rows)
                    else:
                        undecided[c + i] = True
    return left


cdef floating sum_entries(const floating* x, Py_ssize_t k, Rows rows) noexcept nogil:
    """One sum of row k over the count, of exact weights, in integers."""
    cdef Accumulator exact
    cdef Py_ssize_t j
    accumulator.clear(&exact)
    for j in range(rows.starts[k], rows.starts[k + 1]):
        accumulator.add_product(&exact, rows.weights[j].high, x[rows.index[j] * rows.C])
        accumulator.add_product(&exact, rows.weights[j].low, x[rows.index[j] * rows.C])
    return nearest(&exact, rows.count, <floating> 0)


def weighted_sums(const floating[:, ::1] x, const Py_ssize_t[::1] starts, const Py_ssize_t[::1] index,
                  const double[:, ::1] weights, Py_ssize_t count, floating[:, ::1] y, uint8_t[:, ::1] undecided):
    """y (K, C) = RN(sum of weights times rows of x (M, C), over a count); return how many were not decided.

    Row k has entries [starts[k], starts[k + 1]) of `index` and `weights`; a weight (high, low, error) is high + low,
    off by at most the error. What is not decided is marked, and left to the caller, who knows the weights, unless all
    of the row have no error.
    """
    cdef Py_ssize_t k, K = y.shape[0], left = 0
    cdef Rows rows
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(starts.shape[0] == K + 1 and index.shape[0] == weights.shape[0] and weights.shape[1] == 3
            and y.shape[1] == x.shape[1] and undecided.shape[0] == K and undecided.shape[1] == x.shape[1]
            and are_entries(starts, index, x.shape[0]) and 0 < count <= most)
    rows.starts, rows.C, rows.count = &starts[0], x.shape[1], count
    rows.index = &index[0] if index.shape[0] > 0 else NULL
    rows.weights = <const Weight*> &weights[0, 0] if index.shape[0] > 0 else NULL
    with nogil, parallel(use_threads_if=openmp.pays(index.shape[0] * x.shape[1])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for k in prange(K, schedule="static"):
            if not interrupt.asked(&turn, (starts[k + 1] - starts[k] + 1) * x.shape[1]):
                left += sum_row(&x[0, 0], k, rows, &y[k, 0], &undecided[k, 0])
        environment.restore(before)
    interrupt.finish(&watch)
    return left


cdef bint are_entries(const Py_ssize_t[::1] starts, const Py_ssize_t[::1] index, Py_ssize_t M) noexcept nogil:
    """Whether rows follow one another, and each entry names a row of x."""
    cdef Py_ssize_t k
    if starts[0] != 0 or starts[starts.shape[0] - 1] != index.shape[0]:
        return False
    for k in range(starts.shape[0] - 1):
        if starts[k] > starts[k + 1]:
            return False
    for k in range(index.shape[0]):
        if not 0 <= index[k] < M:
            return False
    return True
