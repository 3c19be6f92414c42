"""Differences from expected values in one pass: against hard bounds, against expected errors, region by region."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport INFINITY, fabs, isfinite, sqrt

from refnet._core cimport environment, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment

cdef enum:
    BINS = 41
    # Of a region: elements, sums of d d / v, d r / v, r r / v, d / v, 1 / v, r / v.
    SUMS = 7

cdef struct Rule:
    # B = relative |r| + scale per absolute + least; variances, in units of scale**2, r too:
    # plain r r + spread_per spread / 6 + floor for the typical error, with spread / 2 for a result near 0.
    double relative, scale, per, least, spread_per, plain, floor

cdef struct Region:
    Py_ssize_t rows, columns


cdef inline int bin_of(double ratio) noexcept nogil:
    """The bin of a ratio to the bound: 41 equal ones from -1.025 to 1.025, the ends hold what is beyond."""
    cdef double place = (ratio + 1.025) * 20
    return 0 if place < 0 else (BINS - 1 if not place < BINS else <int> place)


cdef void judge(
    const floating* found, const double* expected, const float* absolute, Py_ssize_t absolute_step,
    const float* spread, Py_ssize_t spread_step, bint statistics, Py_ssize_t height, Py_ssize_t width,
    Rule rule, Region grid, double* tops, Py_ssize_t* counts, double* sums,
) noexcept nogil:
    """One plane: the largest ratios and their places, how many are beyond, the histogram, sums of regions."""
    cdef Py_ssize_t h, w, i, region
    cdef double r, d, bound, ratio, near, v, tail
    cdef double* at
    for h in range(height):
        for w in range(width):
            i = h * width + w
            r = expected[i]
            d = found[i] - r
            if not isfinite(r):
                counts[1] += 1
                continue
            bound = rule.relative * fabs(r) + rule.scale * rule.per * absolute[i * absolute_step] + rule.least
            counts[0] += not fabs(d) <= bound
            ratio = 0 if d == 0 else d / bound
            ratio = ratio if ratio == ratio else INFINITY
            counts[2 + bin_of(ratio)] += 1
            if fabs(ratio) > tops[0]:
                tops[0], tops[1] = fabs(ratio), i
            if not statistics or not isfinite(d):
                continue
            r = r / rule.scale
            d = d / rule.scale
            near = rule.spread_per * spread[i * spread_step]
            v = rule.plain * r * r + near / 6 + rule.floor
            tail = rule.plain * r * r + near / 2 + rule.floor
            if not (v > 0 and isfinite(v)):
                continue
            ratio = fabs(d) / sqrt(tail)
            if ratio > tops[2]:
                tops[2], tops[3] = ratio, i
            region = h * grid.rows // height * grid.columns + w * grid.columns // width
            region = 2 * region + (h == 0 or w == 0 or h == height - 1 or w == width - 1)
            at = sums + region * SUMS
            v = 1 / v
            at[0] += 1
            at[1] += d * d * v
            at[2] += d * r * v
            at[3] += r * r * v
            at[4] += d * v
            at[5] += v
            at[6] += r * v


def residual(
    const floating[:, :, ::1] found, const double[:, :, ::1] expected, const float[::1] absolute,
    const float[::1] spread, double relative, double scale, double per, double least, double spread_per,
    double plain, double floor, Py_ssize_t rows, Py_ssize_t columns, double[:, ::1] tops, Py_ssize_t[:, ::1] counts, double[:, :, ::1] sums,
):
    """Of each plane of (P, H, W): ratios to bounds and to expected errors, counts, a histogram, sums of regions.

    Parameters
    ----------
    found, expected : (P, H, W)
        d is their difference. Where nothing finite is expected, nothing is judged.
    absolute : one number, or P H W
        B = relative |expected| + scale per absolute + least.
    spread : none, one number, or P H W
        Variances in units of scale**2: v = plain (expected / scale)**2 + spread_per spread / 6 + floor, and with
        spread / 2 that of a result near 0. None: no expected error.
    rows, columns : int
        Regions of a plane; each is told apart in its interior and what lies on the border of the plane.
    tops : (P, 4)
        The largest abs(d) / B and its place in the plane; the largest abs(d) in units of the error of a result
        near 0, and its place.
    counts : (P, 43)
        How many are beyond B, how many are not judged, and in each of 41 bins of d / B.
    sums : (P, 2 rows columns, 7)
        Elements, and sums of d d / v, d r / v, r r / v, d / v, 1 / v, r / v, r and d in units of scale.
    """
    cdef Py_ssize_t count = found.shape[0], height = found.shape[1], width = found.shape[2], size, p
    cdef Py_ssize_t absolute_step = absolute.shape[0] > 1, spread_step = spread.shape[0] > 1
    cdef bint statistics = spread.shape[0] > 0
    cdef Rule rule = Rule(relative, scale, per, least, spread_per, plain, floor)
    cdef Region grid = Region(rows, columns)
    cdef Environment before
    cdef const float* of_spread = &spread[0] if statistics else &absolute[0]
    size = height * width
    require(expected.shape[0] == count and expected.shape[1] == height and expected.shape[2] == width)
    require(absolute.shape[0] == 1 or absolute.shape[0] == count * size)
    require(spread.shape[0] <= 1 or spread.shape[0] == count * size)
    require(tops.shape[0] == count and tops.shape[1] == 4)
    require(counts.shape[0] == count and counts.shape[1] == 2 + BINS)
    require(sums.shape[0] == count and sums.shape[1] == 2 * rows * columns and sums.shape[2] == SUMS)
    require(count * size > 0 and rows > 0 and columns > 0)
    with nogil, parallel(use_threads_if=openmp.pays(count * size)):
        before = environment.enter_default()
        for p in prange(count, schedule="static"):
            judge(
                &found[p, 0, 0], &expected[p, 0, 0], &absolute[p * size * absolute_step], absolute_step,
                of_spread + p * size * spread_step, spread_step, statistics, height, width,
                rule, grid, &tops[p, 0], &counts[p, 0], &sums[p, 0, 0],
            )
        environment.restore(before)
