"""Batch norm: the statistics of a channel, and what is done with them, one (sample, channel) plane at a time.

Blobs are (N, C, P) with P = T * H * W; everything else has one entry for each channel, in float64. A mean is the sum of
two numbers, high + low, so that x - mean has the digits of x where both are far from 0; all is computed in float64 and
rounded once. `sums.h` has the order of the sums and their error.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.float cimport DBL_MIN
from libc.math cimport fabs, isfinite, sqrt

from refnet._core cimport environment, interrupt, openmp
from refnet._core.blocking cimport ceil_div
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.pieces cimport planes_together
from refnet._core.sums cimport (KEPT, Pair, Planes, Products, add_moments, added, offset, pair, planes, products_of,
                                total)

cdef extern from "batch_norm.h" nogil:
    void normalise_float32 "refnet_normalise_float32"(const float*, Pair, double, double, float*, Py_ssize_t)
    void normalise_float64 "refnet_normalise_float64"(const double*, Pair, double, double, double*, Py_ssize_t)
    void normalise_kept "refnet_normalise_kept"(const double*, Pair, double, double, float*, Py_ssize_t)
    void project_kept "refnet_project_kept"(const float*, const double*, Pair, double, double, double, float*,
                                            Py_ssize_t)
    void project_float32 "refnet_project_float32"(const float*, const float*, Pair, double, double, double, float*,
                                                  Py_ssize_t)
    void project_float64 "refnet_project_float64"(const double*, const double*, Pair, double, double, double, double*,
                                                  Py_ssize_t)


cdef enum:
    SAMPLE = 64
    TOGETHER = 4    # short channels: sums of one and quotients of another overlap in time


cdef double LIFT = 2.0**512


cdef inline double* on_a_line(double* room) noexcept nogil:
    """The first place in `room` where a cache line begins."""
    return <double*> ((<size_t> room + 63) & ~<size_t> 63)


cdef inline bint is_short(Planes channel) noexcept nogil:
    """Whether what is kept of a channel may be so long."""
    return channel.planes * channel.n <= KEPT


# Of a channel. Its mean is `about`, too: the number that x was taken from, and the rest.
cdef struct Moments:
    Pair mean, about
    double variance


cdef inline double nearby(const floating* x, Planes channel) noexcept nogil:
    """A number near the mean: the first value or, of a longer channel, the mean of more than 32 values."""
    cdef Py_ssize_t few = min(channel.n, <Py_ssize_t> SAMPLE)
    cdef Planes some = planes(min(channel.planes, SAMPLE // few), channel.apart, few)
    cdef double found = x[0] if is_short(channel) else total(x, some) / <double> (some.planes * some.n)
    return found if isfinite(found) else 0


cdef inline void moments(const floating* x, Py_ssize_t C, Planes channel, double* kept, Moments* found) noexcept nogil:
    """The moments of C channels of n values, one plane behind the other; the mean with the digits of the deviation.

    Both are taken about a number that is at most sqrt(n) deviations off the mean or, if n > KEPT, sqrt(n / 32). By the
    error of sums.h, that leaves the variance of n floats an error of at most 113 2**-53 (1 + max(n / 32, KEPT)) of it.
    For doubles, both are taken about the mean found so. Of floats, x - about is put where `kept` says, if anywhere.
    """
    cdef double n = <double> (channel.planes * channel.n), off
    cdef Pair sums[TOGETHER][2]
    cdef Py_ssize_t c
    for c in range(C):
        found[c].about = pair(nearby(x + c * channel.n, channel), 0)
    if floating is double:
        for c in range(C):
            off = offset(x + c * channel.n, found[c].about, channel) / n
            if isfinite(off):
                found[c].about = added(found[c].about, off)
    for c in range(C):
        sums[c][0] = sums[c][1] = pair(0, 0)
        add_moments(x + c * channel.n, found[c].about, channel, sums[c], kept + c * KEPT if kept != NULL else NULL)
    for c in range(C):
        off = sums[c][0].high / n
        found[c].variance = sums[c][1].high / n - off * off
        found[c].mean = added(found[c].about, off)
        if floating is float:
            found[c].about.low = off
        else:
            found[c].about = found[c].mean


cdef inline void centre_and_scale(const floating* x, Pair mean, double scale, double b, floating* y,
                                  Py_ssize_t P) noexcept nogil:
    """y = (x - mean) scale + b."""
    if floating is float:
        normalise_float32(x, mean, scale, b, y, P)
    else:
        normalise_float64(x, mean, scale, b, y, P)


cdef Moments moments_of(const floating* x, Planes channel) noexcept nogil:
    cdef Moments found
    moments(x, 1, channel, NULL, &found)
    return found


def statistics(const floating[:, :, ::1] x, double[::1] high, double[::1] low, double[::1] variance):
    """The mean of each channel, high + low, and its variance, that of the population."""
    cdef Py_ssize_t c, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Planes channel = planes(N, C * P, P)
    cdef Moments found
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(N > 0 and P > 0 and high.shape[0] == C and low.shape[0] == C and variance.shape[0] == C)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for c in prange(C, schedule="static"):
            if not interrupt.asked(&turn, 2 * N * P):
                found = moments_of(&x[0, c, 0], channel)
                high[c], low[c], variance[c] = found.mean.high, found.mean.low, found.variance
        environment.restore(before)
    interrupt.finish(&watch)


# What batch norm is given for each channel; x, and so all statistics, are in units of `unit`.
cdef struct Given:
    const double* s
    const double* b
    const double* unit


# What it finds.
cdef struct Found:
    double* high
    double* low
    double* variance
    double* deviation


cdef void train_channels(const floating* x, floating* y, Given* given, Found* of, Py_ssize_t first, Py_ssize_t C,
                         Planes channel, double epsilon) noexcept nogil:
    """The statistics and y of C channels, at most TOGETHER, from the first one on."""
    cdef double room[TOGETHER * KEPT + 8]
    cdef double* kept = on_a_line(room) if floating is float and is_short(channel) else NULL
    cdef double scale[TOGETHER]
    cdef double root = sqrt(epsilon), square
    cdef Moments found[TOGETHER]
    cdef Py_ssize_t n, c, at
    moments(x + first * channel.n, C, channel, kept, found)
    for c in range(C):
        at = first + c
        of.high[at], of.low[at], of.variance[at] = found[c].mean.high, found[c].mean.low, found[c].variance
        # At least sqrt(epsilon), should its square be lost.
        square = found[c].variance + epsilon * given.unit[at] * given.unit[at]
        of.deviation[at] = max(sqrt(square), root * given.unit[at])
        scale[c] = given.s[at] / of.deviation[at]
        if not isfinite(scale[c]):  # the sign of x - mean decides, and whether it is 0
            found[c].about = found[c].mean
    for c in range(C):
        for n in range(channel.planes):
            at = n * channel.apart + (first + c) * channel.n
            if floating is float and kept != NULL and isfinite(scale[c]):
                normalise_kept(kept + c * KEPT + n * channel.n, found[c].about, scale[c], given.b[first + c], y + at,
                               channel.n)
            else:
                centre_and_scale(x + at, found[c].about, scale[c], given.b[first + c], y + at, channel.n)


def train(const floating[:, :, ::1] x, const double[::1] s, const double[::1] b, const double[::1] unit,
          double[::1] high, double[::1] low, double[::1] variance, double[::1] deviation,
          floating[:, :, ::1] y, double epsilon):
    """The statistics, deviation = sqrt(variance + epsilon), and y = (x - mean) s / deviation + b.

    x, and so all statistics, are in units of `unit`, in which epsilon is epsilon unit**2. A channel is read from memory
    once, if a cache holds it.
    """
    cdef Py_ssize_t share, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Planes channel = planes(N, C * P, P)
    cdef Py_ssize_t together = TOGETHER if is_short(channel) else 1
    cdef Given given
    cdef Found of
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(N > 0 and P > 0 and s.shape[0] == C and b.shape[0] == C and unit.shape[0] == C
            and high.shape[0] == C and low.shape[0] == C and variance.shape[0] == C and deviation.shape[0] == C
            and y.shape[0] == N and y.shape[1] == C and y.shape[2] == P)
    given.s, given.b, given.unit = &s[0], &b[0], &unit[0]
    of.high, of.low, of.variance, of.deviation = &high[0], &low[0], &variance[0], &deviation[0]
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for share in prange((C + together - 1) // together, schedule="static"):
            if not interrupt.asked(&turn, 3 * together * N * P):
                train_channels(&x[0, 0, 0], &y[0, 0, 0], &given, &of, share * together,
                               min(C - share * together, together), channel, epsilon)
        environment.restore(before)
    interrupt.finish(&watch)


def products(const floating[:, :, ::1] dy, const floating[:, :, ::1] x, const double[::1] high,
             const double[::1] low, double[::1] sums, double[::1] totals):
    """sums[c] = sum of dy (x - mean), and totals[c] = sum of dy, over samples and positions."""
    cdef Py_ssize_t c, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Products found
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(high.shape[0] == C and low.shape[0] == C and sums.shape[0] == C and totals.shape[0] == C
            and dy.shape[0] == N and dy.shape[1] == C and dy.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for c in prange(C, schedule="static"):
            if not interrupt.asked(&turn, 2 * N * P):
                found = products_of(&dy[0, c, 0], &x[0, c, 0], pair(high[c], low[c]), planes(N, C * P, P), NULL)
                sums[c], totals[c] = found.product, found.total
        environment.restore(before)
    interrupt.finish(&watch)


cdef void normalise_planes(const floating* x, const double* mean, const double* scale, const double* b, floating* y,
                           Py_ssize_t C, Py_ssize_t P, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Planes [first, last) of all samples' channels, of which plane i has channel i % C."""
    cdef Py_ssize_t plane, c
    for plane in range(first, last):
        c = plane % C
        centre_and_scale(x + plane * P, pair(mean[c], 0), scale[c], b[c], y + plane * P, P)


def normalise(const floating[:, :, ::1] x, const double[::1] mean, const double[::1] scale,
              const double[::1] b, floating[:, :, ::1] y):
    """y = (x - mean) scale + b."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], together = planes_together(P), share
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(mean.shape[0] == C and scale.shape[0] == C and b.shape[0] == C
            and y.shape[0] == x.shape[0] and y.shape[1] == C and y.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for share in prange(ceil_div(x.shape[0] * C, together), schedule="static"):
            if not interrupt.asked(&turn, together * P):
                normalise_planes(&x[0, 0, 0], &mean[0], &scale[0], &b[0], &y[0, 0, 0], C, P, share * together,
                                 min((share + 1) * together, x.shape[0] * C))
        environment.restore(before)
    interrupt.finish(&watch)


# What the gradients are made of, and those of s and b, for each channel.
cdef struct Normalised:
    const double* s
    const double* unit
    const double* high
    const double* low
    const double* deviation
    double* ds
    double* db


cdef void project_lifted(const double* dy, const double* x, Pair mean, double scale, double of_mean, double of_variance,
                         double* dx, Py_ssize_t n) noexcept nogil:
    """dx = scale ((dy - of_mean) - (x - mean) of_variance), of_variance given times LIFT, without which it underflows.

    x - mean is below 2**540 then (see `refnet.ops.batch_norm_training.units`), so that beside what is above 2**-400 the
    product is nothing.
    """
    cdef Py_ssize_t p
    cdef double rest
    for p in range(n):
        rest = dy[p] - of_mean
        if fabs(rest) < 2.0**-400:
            dx[p] = scale / LIFT * (rest * LIFT - ((x[p] - mean.high) - mean.low) * of_variance)
        else:
            dx[p] = scale * rest


cdef void project_channels(const floating* dy, const floating* x, floating* dx, Normalised* of, Py_ssize_t first,
                           Py_ssize_t C, Planes channel) noexcept nogil:
    """ds, db and dx of C channels, at most TOGETHER, from the first one on."""
    cdef double room[TOGETHER * KEPT + 8]
    cdef double* kept = on_a_line(room) if floating is float and is_short(channel) else NULL
    cdef Products found[TOGETHER]
    cdef double[TOGETHER] scale, of_mean, of_variance
    cdef double count = <double> (channel.planes * channel.n)
    cdef Py_ssize_t n, c, at, P = channel.n
    cdef Pair mean
    for c in range(C):
        at = first + c
        found[c] = products_of(dy + at * P, x + at * P, pair(of.high[at], of.low[at]), channel,
                               kept + c * KEPT if kept != NULL else NULL)
    for c in range(C):
        at = first + c
        of.ds[at], of.db[at] = found[c].product / of.deviation[at], found[c].total
        scale[c] = of.s[at] / of.deviation[at] * of.unit[at]
        of_mean[c] = of.db[at] / count
        of_variance[c] = of.ds[at] / (count * of.deviation[at])
    for c in range(C):
        mean = pair(of.high[first + c], of.low[first + c])
        for n in range(channel.planes):
            at = n * channel.apart + (first + c) * P
            if floating is double:
                if of.ds[first + c] != 0 and fabs(of_variance[c]) < DBL_MIN:
                    project_lifted(dy + at, x + at, mean, scale[c], of_mean[c],
                                   of.ds[first + c] * LIFT / (count * of.deviation[first + c]), dx + at, P)
                else:
                    project_float64(dy + at, x + at, mean, scale[c], of_mean[c], of_variance[c], dx + at, P)
            elif kept != NULL:
                project_kept(dy + at, kept + c * KEPT + n * P, mean, scale[c], of_mean[c], of_variance[c], dx + at, P)
            else:
                project_float32(dy + at, x + at, mean, scale[c], of_mean[c], of_variance[c], dx + at, P)


def train_gradients(const floating[:, :, ::1] dy, const floating[:, :, ::1] x, const double[::1] s,
                    const double[::1] unit, const double[::1] high, const double[::1] low,
                    const double[::1] deviation, double[::1] ds, double[::1] db, floating[:, :, ::1] dx):
    """ds = sum of dy z, db = sum of dy, and dx = s / deviation (dy - db / n - z ds / n), in training.

    With z = (x - mean) / deviation; x and its statistics are in units of `unit`.
    """
    cdef Py_ssize_t share, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Planes channel = planes(N, C * P, P)
    cdef Py_ssize_t together = TOGETHER if is_short(channel) else 1
    cdef Normalised of
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(N > 0 and P > 0 and s.shape[0] == C and unit.shape[0] == C
            and high.shape[0] == C and low.shape[0] == C and deviation.shape[0] == C
            and ds.shape[0] == C and db.shape[0] == C
            and dy.shape[0] == N and dy.shape[1] == C and dy.shape[2] == P
            and dx.shape[0] == N and dx.shape[1] == C and dx.shape[2] == P)
    of.s, of.unit, of.ds, of.db = &s[0], &unit[0], &ds[0], &db[0]
    of.high, of.low, of.deviation = &high[0], &low[0], &deviation[0]
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for share in prange((C + together - 1) // together, schedule="static"):
            if not interrupt.asked(&turn, 3 * together * N * P):
                project_channels(&dy[0, 0, 0], &x[0, 0, 0], &dx[0, 0, 0], &of, share * together,
                                 min(C - share * together, together), channel)
        environment.restore(before)
    interrupt.finish(&watch)
