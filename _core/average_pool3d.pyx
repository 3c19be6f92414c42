"""Average pooling, one (sample, channel) plane at a time; padding is neither added nor counted.

A piece of a line of outputs takes one tap of the window after another, so that the inner loop runs along W; the
gradient's pieces of lines of inputs, one window after another. `Totals` in sums.pxd has their sums: chains are of the
dtype where windows have at most SHORT values, which makes one chain, and of float64 where they have more.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.string cimport memset

from refnet._core cimport environment, interrupt, micro_kernel, openmp
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.geometry cimport Geometry, geometry, in_long_lines
from refnet._core.pooling cimport TAP, Overlap, inside, line_of, overlap, pools, windows
from refnet._core.checks cimport require
from refnet._core.simd cimport Simd
from refnet._core.sums cimport LINE, SHORT, Pair, Planes, Totals, add_totals, begin, clear, count, finish, planes


ctypedef fused real:
    float
    double


cdef inline void collect(const floating* x, Py_ssize_t stride, real* sums, Py_ssize_t n) noexcept nogil:
    """sums += every stride-th x."""
    cdef Py_ssize_t i
    if stride == 1:
        for i in range(n):
            sums[i] += x[i]
    else:
        for i in range(n):
            sums[i] += x[i * stride]


cdef inline void scatter(const floating* y, real* sums, Py_ssize_t stride, Py_ssize_t n) noexcept nogil:
    """Every stride-th of the sums += y."""
    cdef Py_ssize_t i
    if stride == 1:
        for i in range(n):
            sums[i] += y[i]
    else:
        for i in range(n):
            sums[i * stride] += y[i]


cdef inline void put(const floating* x, real* sums, Py_ssize_t n) noexcept nogil:
    """sums = 0 + x, so that -0 is 0 as in all sums."""
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] = <real> 0 + x[i]


cdef inline bint takes_lines(const Geometry* g) noexcept nogil:
    """Whether each tap reads whole lines."""
    return g.kW == g.sW == 1 and g.pW == 0 and g.W == g.oW


cdef inline Py_ssize_t values(Py_ssize_t ow, Geometry* g, Py_ssize_t lines) noexcept nogil:
    """How many values the window of an output has inside; `lines` of them along T and H."""
    return lines * inside(ow, g.kW, g.sW, g.pW, g.W)


cdef inline Py_ssize_t lines_inside(Py_ssize_t ot, Py_ssize_t oh, Geometry* g) noexcept nogil:
    """How many taps along T and H lie inside."""
    return inside(ot, g.kT, g.sT, g.pT, g.T) * inside(oh, g.kH, g.sH, g.pH, g.H)


cdef void pool(const floating* x, real* chain, floating* y, Geometry g, Turn* turn) noexcept nogil:
    """One plane: y (oT, oH, oW) from x (T, H, W); chain is LINE values."""
    cdef Py_ssize_t ot, oh, ow, tap, start, kw, piece, end, first, last, lines
    cdef Overlap s
    cdef Totals totals
    cdef bint whole = takes_lines(&g), is_first
    for ot in range(g.oT):
        for oh in range(g.oH):
            lines = lines_inside(ot, oh, &g)
            piece = 0
            while piece < g.oW:
                end = min(piece + <Py_ssize_t> LINE, g.oW)
                begin(&totals, end - piece)
                is_first = whole
                if not whole:
                    clear(chain, &totals)
                for tap in range(g.kT * g.kH):
                    start = line_of(&g, ot, oh, tap)
                    if interrupt.asked(turn, end - piece if start < 0 else g.kW * (end - piece + TAP)):
                        return
                    if start < 0:
                        continue
                    if is_first:
                        put(x + start + piece, chain, end - piece)
                        count(chain, &totals)
                        is_first = False
                        continue
                    for kw in range(g.kW):
                        s = overlap(kw, g.sW, g.pW, g.W, g.oW)
                        first, last = max(s.first, piece), min(s.last, end)
                        if first < last:
                            collect(x + start + s.at + (first - s.first) * g.sW, g.sW,
                                    chain + first - piece, last - first)
                            count(chain, &totals)
                if is_first:
                    clear(chain, &totals)
                finish(chain, &totals)
                if g.kW == 1:
                    for ow in range(piece, end):
                        y[ow] = <floating> (chain[ow - piece] / <real> lines)
                else:
                    for ow in range(piece, end):
                        y[ow] = <floating> (chain[ow - piece] / <real> values(ow, &g, lines))
                piece = end
            y += g.oW


cdef void pool_plane(const floating* x, floating* y, Geometry g, Turn* turn) noexcept nogil:
    cdef floating few[LINE]
    cdef double many[LINE]
    if g.kT * g.kH * g.kW <= SHORT:
        pool(x, few, y, g, turn)
    else:
        pool(x, many, y, g, turn)


cdef void share_out(const floating* dy, floating* shares, Geometry g) noexcept nogil:
    """One plane: each dy (oT, oH, oW) over the number of its window's values."""
    cdef Py_ssize_t ot, oh, ow, lines
    for ot in range(g.oT):
        for oh in range(g.oH):
            lines = lines_inside(ot, oh, &g)
            if g.kW == 1:
                for ow in range(g.oW):
                    shares[ow] = dy[ow] / <floating> lines
            else:
                for ow in range(g.oW):
                    shares[ow] = dy[ow] / <floating> values(ow, &g, lines)
            dy += g.oW
            shares += g.oW


cdef void hand_back(const floating* shares, real* buffer, floating* dx, Geometry g, Turn* turn) noexcept nogil:
    """One plane: dx (T, H, W) = the sums of the shares (oT, oH, oW) of all windows that have a value.

    buffer is LINE values, not used where the types are one: chains are in place then.
    """
    cdef Py_ssize_t t, h, w, ot, oh, kw, piece, end, skip, at, n
    cdef Overlap s, along_t, along_h
    cdef Totals totals
    cdef bint whole = takes_lines(&g), is_first
    cdef real* chain
    for t in range(g.T):
        along_t = windows(t, g.kT, g.sT, g.pT, g.oT)
        for h in range(g.H):
            along_h = windows(h, g.kH, g.sH, g.pH, g.oH)
            piece = 0
            while piece < g.W:
                end = min(piece + <Py_ssize_t> LINE, g.W)
                chain = <real*> (dx + piece) if sizeof(real) == sizeof(floating) else buffer
                begin(&totals, end - piece)
                is_first = whole
                if not whole:
                    clear(chain, &totals)
                for ot in range(along_t.first, along_t.last):
                    for oh in range(along_h.first, along_h.last):
                        if interrupt.asked(turn, g.kW * (end - piece + TAP)):
                            return
                        if is_first:
                            put(shares + (ot * g.oH + oh) * g.oW + piece, chain, end - piece)
                            count(chain, &totals)
                            is_first = False
                            continue
                        for kw in range(g.kW):
                            s = overlap(kw, g.sW, g.pW, g.W, g.oW)
                            skip = max(0, (piece - s.at + g.sW - 1) // g.sW) if piece > s.at else 0
                            at = s.at + skip * g.sW
                            n = min(s.last - s.first - skip, (end - at + g.sW - 1) // g.sW)
                            if n > 0 and at < end:
                                scatter(shares + (ot * g.oH + oh) * g.oW + s.first + skip,
                                        chain + at - piece, g.sW, n)
                                count(chain, &totals)
                if is_first:
                    clear(chain, &totals)
                finish(chain, &totals)
                if sizeof(real) != sizeof(floating):
                    for w in range(end - piece):
                        dx[piece + w] = <floating> chain[w]
                piece = end
            dx += g.W


cdef void hand_back_plane(const floating* shares, floating* dx, Geometry g, Turn* turn) noexcept nogil:
    cdef double many[LINE]
    if g.kT * g.kH * g.kW <= SHORT:
        hand_back(shares, dx, dx, g, turn)
    else:
        hand_back(shares, many, dx, g, turn)


def forward(const floating[:, ::1] x, floating[:, ::1] y, volume, window):
    """y (planes, P) = the mean of each window of x (planes, T * H * W); return whether all are finite."""
    cdef Geometry g = geometry(volume, window)
    cdef const Simd* simd = micro_kernel.active(&x[0, 0])
    cdef Py_ssize_t plane, overflown = 0
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
                pool_plane(&x[plane, 0], &y[plane, 0], g, &turn)
                overflown += not simd.all_finite(&y[plane, 0], 1, y.shape[1])
        environment.restore(before)
    interrupt.finish(&watch)
    return overflown == 0


cdef enum:
    SHARE = 64


cdef void averages(const floating* x, Py_ssize_t P, floating* y, Py_ssize_t N) noexcept nogil:
    """y (N,) = the mean of each of at most SHARE planes of P values."""
    cdef Pair sums[SHARE]
    cdef Planes each = planes(N, P, P)
    cdef Py_ssize_t i
    each.step = 1
    memset(sums, 0, sizeof(sums))
    add_totals(x, each, sums)
    for i in range(N):
        y[i] = <floating> (sums[i].high / <double> P)


def whole(const floating[:, ::1] x, floating[::1] y):
    """y (planes,) = the mean of each plane of x (planes, P), over everything; return whether all are finite.

    `sums.h` has the order of the sum.
    """
    cdef Py_ssize_t share, first, N = x.shape[0], P = x.shape[1]
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(P > 0 and y.shape[0] == N)
    with nogil, parallel(use_threads_if=openmp.pays(N * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for share in prange((N + SHARE - 1) // SHARE, schedule="static"):
            if not interrupt.asked(&turn, SHARE * P):
                first = share * SHARE
                averages(&x[first, 0], P, &y[first], min(N - first, <Py_ssize_t> SHARE))
        environment.restore(before)
    interrupt.finish(&watch)
    return bool(micro_kernel.active(&y[0]).all_finite(&y[0], 1, N))


cdef inline bint overlaps(const Geometry* g) noexcept nogil:
    """Whether some value may be in several windows."""
    return g.sT < g.kT and g.oT > 1 or g.sH < g.kH and g.oH > 1 or g.sW < g.kW and g.oW > 1


def input_gradient(const floating[:, ::1] dy, floating[:, ::1] dx, floating[:, ::1] shares,
                   volume, window):
    """dx (planes, T * H * W) = dy (planes, P) shared out over the windows; shares is (threads, P).

    Return whether all are finite. Where each value is in one window at most, its gradient is a share, and the shares,
    which are fewer, are searched.
    """
    cdef Geometry g = geometry(volume, window)
    cdef const Simd* simd = micro_kernel.active(&dy[0, 0])
    cdef Py_ssize_t plane, overflown = 0
    cdef bint adds = overlaps(&g)
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(pools(&g, dx.shape[1], dy.shape[1]) and dx.shape[0] == dy.shape[0]
            and shares.shape[0] >= openmp.max_threads() and shares.shape[1] >= dy.shape[1])
    g = in_long_lines(g)
    with nogil, parallel(use_threads_if=openmp.pays(dx.shape[0] * dx.shape[1])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for plane in prange(dx.shape[0], schedule="static"):
            if not interrupt.asked(&turn, dy.shape[1]):
                share_out(&dy[plane, 0], &shares[openmp.thread_num(), 0], g)
                hand_back_plane(&shares[openmp.thread_num(), 0], &dx[plane, 0], g, &turn)
                overflown += not (simd.all_finite(&dx[plane, 0], 1, dx.shape[1]) if adds else
                                  simd.all_finite(&shares[openmp.thread_num(), 0], 1, dy.shape[1]))
        environment.restore(before)
    interrupt.finish(&watch)
    return overflown == 0
