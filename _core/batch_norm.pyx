"""Batch norm: the statistics of a channel, and what is done with them, one (sample, channel) plane at a time.

Blobs are (N, C, P) with P = T * H * W; everything else has one entry for each channel, in float64. A mean is the sum of
two numbers, high + low, so that x - mean has the digits of x where both are far from 0; all is computed in float64 and
rounded once. `sums.h` has the order of the sums and their error.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport isfinite, sqrt

from refnet._core cimport environment, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.sums cimport Pair, Planes, Products, add_moments, added, pair, planes, products_of

cdef extern from "batch_norm.h" nogil:
    void normalise_float32 "refnet_normalise_float32"(const float*, Pair, double, double, float*, Py_ssize_t)
    void normalise_float64 "refnet_normalise_float64"(const double*, Pair, double, double, double*, Py_ssize_t)
    void project_float32 "refnet_project_float32"(const float*, const float*, Pair, double, double, double, float*,
                                                  Py_ssize_t)
    void project_float64 "refnet_project_float64"(const double*, const double*, Pair, double, double, double, double*,
                                                  Py_ssize_t)


cdef inline double root(double variance, double epsilon, double unit) noexcept nogil:
    """sqrt(variance + epsilon), in units of `unit`; at least sqrt(epsilon), should its square be lost."""
    return max(sqrt(variance + epsilon * unit * unit), sqrt(epsilon) * unit)


cdef enum:
    SAMPLE = 64


# Of a channel.
cdef struct Moments:
    Pair mean
    double variance


cdef inline Moments moments_about(Pair mean, const floating* x, Planes all_) noexcept nogil:
    """The moments of the values of some planes, from a mean nearby."""
    cdef double n = <double> (all_.planes * all_.n), off
    cdef Pair sums[2]
    sums[0] = sums[1] = pair(0, 0)
    add_moments(x, mean, all_, sums)
    off = sums[0].high / n
    return Moments(added(mean, off), sums[1].high / n - off * off)


cdef inline Moments moments(const floating* x, Py_ssize_t N, Py_ssize_t apart, Py_ssize_t P) noexcept nogil:
    """The moments of N planes of P values; the mean with as many digits as the deviation has.

    Both are taken about the mean of a sample of more than 32 values, which is at most sqrt(n / 32) deviations off. By
    the error of sums.h, that leaves the variance of n floats an error of at most 113 2**-53 (1 + n / 32) of it. For
    doubles, both are taken once more about the mean just found.
    """
    cdef Py_ssize_t few = min(P, <Py_ssize_t> SAMPLE)
    cdef Moments found = moments_about(pair(x[0], 0), x, planes(min(N, SAMPLE // few), apart, few))
    if floating is float:
        found.mean.low = 0
    if not isfinite(found.mean.high):
        found.mean = pair(0, 0)
    found = moments_about(found.mean, x, planes(N, apart, P))
    if floating is double:
        if isfinite(found.mean.high):
            found = moments_about(found.mean, x, planes(N, apart, P))
    return found


cdef inline void centre_and_scale(const floating* x, Pair mean, double scale, double b, floating* y,
                                  Py_ssize_t P) noexcept nogil:
    """y = (x - mean) scale + b."""
    if floating is float:
        normalise_float32(x, mean, scale, b, y, P)
    else:
        normalise_float64(x, mean, scale, b, y, P)


def statistics(const floating[:, :, ::1] x, double[::1] high, double[::1] low, double[::1] variance):
    """The mean of each channel, high + low, and its variance, that of the population."""
    cdef Py_ssize_t c, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Moments found
    cdef Environment before
    require(N > 0 and P > 0 and high.shape[0] == C and low.shape[0] == C and variance.shape[0] == C)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        for c in prange(C, schedule="static"):
            found = moments(&x[0, c, 0], N, C * P, P)
            high[c], low[c], variance[c] = found.mean.high, found.mean.low, found.variance
        environment.restore(before)


def train(const floating[:, :, ::1] x, const double[::1] s, const double[::1] b, const double[::1] unit,
          double[::1] high, double[::1] low, double[::1] variance, double[::1] deviation,
          floating[:, :, ::1] y, double epsilon):
    """The statistics, deviation = sqrt(variance + epsilon), and y = (x - mean) s / deviation + b.

    x, and so all statistics, are in units of `unit`, in which epsilon is epsilon unit**2. A channel is read from memory
    once, if a cache holds it.
    """
    cdef Py_ssize_t c, n, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Moments found
    cdef Environment before
    require(N > 0 and P > 0 and s.shape[0] == C and b.shape[0] == C and unit.shape[0] == C
            and high.shape[0] == C and low.shape[0] == C and variance.shape[0] == C and deviation.shape[0] == C
            and y.shape[0] == N and y.shape[1] == C and y.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        for c in prange(C, schedule="static"):
            found = moments(&x[0, c, 0], N, C * P, P)
            high[c], low[c], variance[c] = found.mean.high, found.mean.low, found.variance
            deviation[c] = root(variance[c], epsilon, unit[c])
            for n in range(N):
                centre_and_scale(&x[n, c, 0], found.mean, s[c] / deviation[c], b[c], &y[n, c, 0], P)
        environment.restore(before)


def products(const floating[:, :, ::1] dy, const floating[:, :, ::1] x, const double[::1] high,
             const double[::1] low, double[::1] sums, double[::1] totals):
    """sums[c] = sum of dy (x - mean), and totals[c] = sum of dy, over samples and positions."""
    cdef Py_ssize_t c, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Products found
    cdef Environment before
    require(high.shape[0] == C and low.shape[0] == C and sums.shape[0] == C and totals.shape[0] == C
            and dy.shape[0] == N and dy.shape[1] == C and dy.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        for c in prange(C, schedule="static"):
            found = products_of(&dy[0, c, 0], &x[0, c, 0], pair(high[c], low[c]), planes(N, C * P, P))
            sums[c], totals[c] = found.product, found.total
        environment.restore(before)


def normalise(const floating[:, :, ::1] x, const double[::1] mean, const double[::1] scale,
              const double[::1] b, floating[:, :, ::1] y):
    """y = (x - mean) scale + b."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], plane, n, c
    cdef Environment before
    require(mean.shape[0] == C and scale.shape[0] == C and b.shape[0] == C
            and y.shape[0] == x.shape[0] and y.shape[1] == C and y.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(x.shape[0] * C * P)):
        before = environment.enter_default()
        for plane in prange(x.shape[0] * C, schedule="static"):
            n = plane // C
            c = plane % C
            centre_and_scale(&x[n, c, 0], pair(mean[c], 0), scale[c], b[c], &y[n, c, 0], P)
        environment.restore(before)


def train_gradients(const floating[:, :, ::1] dy, const floating[:, :, ::1] x, const double[::1] s,
                    const double[::1] unit, const double[::1] high, const double[::1] low,
                    const double[::1] deviation, double[::1] ds, double[::1] db, floating[:, :, ::1] dx):
    """ds = sum of dy z, db = sum of dy, and dx = s / deviation (dy - db / n - z ds / n), in training.

    With z = (x - mean) / deviation; x and its statistics are in units of `unit`.
    """
    cdef Py_ssize_t c, n, N = x.shape[0], C = x.shape[1], P = x.shape[2]
    cdef Pair mean
    cdef Products found
    cdef double count = <double> (N * P), scale, of_variance
    cdef Environment before
    require(N > 0 and P > 0 and s.shape[0] == C and unit.shape[0] == C
            and high.shape[0] == C and low.shape[0] == C and deviation.shape[0] == C
            and ds.shape[0] == C and db.shape[0] == C
            and dy.shape[0] == N and dy.shape[1] == C and dy.shape[2] == P
            and dx.shape[0] == N and dx.shape[1] == C and dx.shape[2] == P)
    with nogil, parallel(use_threads_if=openmp.pays(N * C * P)):
        before = environment.enter_default()
        for c in prange(C, schedule="static"):
            mean = pair(high[c], low[c])
            found = products_of(&dy[0, c, 0], &x[0, c, 0], mean, planes(N, C * P, P))
            ds[c] = found.product / deviation[c]
            db[c] = found.total
            scale = s[c] / deviation[c] * unit[c]
            of_variance = ds[c] / (count * deviation[c])
            for n in range(N):
                if floating is float:
                    project_float32(&dy[n, c, 0], &x[n, c, 0], mean, scale, db[c] / count, of_variance,
                                    &dx[n, c, 0], P)
                else:
                    project_float64(&dy[n, c, 0], &x[n, c, 0], mean, scale, db[c] / count, of_variance,
                                    &dx[n, c, 0], P)
        environment.restore(before)
