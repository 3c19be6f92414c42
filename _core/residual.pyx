"""Differences from expected values in one pass: against hard bounds, against expected errors, region by region."""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport INFINITY, fabs, isfinite, sqrt

from refnet._core cimport environment, interrupt, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch

cdef enum:
    BINS = 41
    # Of a region: elements, sums of d d / v, d r / v, r r / v, d / v, 1 / v, r / v.
    SUMS = 7

cdef struct Rule:
    # B = relative |r| + scale per absolute + least; variances, in units of scale**2, r too:
    # plain r r + spread_per spread / 6 + floor for the typical error, with spread / 2 for a result near 0.
    double relative, scale, per, least, spread_per, plain, floor

cdef struct Regions:
    # Of a plane: for each line its first tile; for each stretch of columns where it ends, its tile,
    # and whether it is the first or last column.
    Py_ssize_t height, width, stretches
    const Py_ssize_t* of_line
    const Py_ssize_t* end
    const Py_ssize_t* tile
    const Py_ssize_t* border


cdef struct Sums:
    double count, dd, dr, rr, d1, one, r1


cdef inline int bin_of(double ratio) noexcept nogil:
    """The bin of a ratio to the bound: 41 equal ones from -1.025 to 1.025, the ends hold what is beyond."""
    cdef double place = (ratio + 1.025) * 20
    return 0 if place < 0 else (BINS - 1 if not place < BINS else <int> place)


cdef inline void hold(double* at, Sums s) noexcept nogil:
    """Add the sums of a stretch to those of its region."""
    at[0] += s.count
    at[1] += s.dd
    at[2] += s.dr
    at[3] += s.rr
    at[4] += s.d1
    at[5] += s.one
    at[6] += s.r1


cdef void judge(
    const floating* found, const double* expected, const float* absolute, Py_ssize_t absolute_step,
    const float* spread, Py_ssize_t spread_step, bint statistics, Regions grid, Rule rule,
    double* tops, Py_ssize_t* counts, double* sums,
) noexcept nogil:
    """One plane: the largest ratios and their places, how many are beyond, the histogram, sums of regions."""
    cdef Py_ssize_t h, i, k, region, stop, equal = 0
    cdef double r, d, own, bound, ratio, near, v, tail, largest = 0, least_plausible = 0, values = 0, bounds = 0
    cdef double unit = 1 / rule.scale
    cdef Sums total
    i = 0
    for h in range(grid.height):
        for k in range(grid.stretches):
            stop = h * grid.width + grid.end[k]
            total = Sums(0, 0, 0, 0, 0, 0, 0)
            while i < stop:
                r = expected[i]
                d = found[i] - r
                if not isfinite(r):
                    counts[1] += 1
                    i += 1
                    continue
                own = rule.scale * rule.per * absolute[i * absolute_step] + rule.least
                bound = rule.relative * fabs(r) + own
                values += r * r
                bounds += own * own
                if d == 0:
                    equal += 1
                else:
                    counts[0] += not fabs(d) <= bound
                    ratio = d / bound
                    ratio = ratio if ratio == ratio else INFINITY
                    counts[2 + bin_of(ratio)] += 1
                    if fabs(ratio) > largest:
                        largest = fabs(ratio)
                        tops[0], tops[1] = largest, i
                if statistics and isfinite(d):
                    r = r * unit
                    d = d * unit
                    near = rule.spread_per * spread[i * spread_step]
                    v = 1 / (rule.plain * r * r + near / 6 + rule.floor)
                    tail = rule.plain * r * r + near / 2 + rule.floor
                    if v > 0 and isfinite(v):  # of what underflows, nothing can be said beside the others
                        ratio = d * d / tail
                        if ratio > least_plausible:
                            least_plausible = ratio
                            tops[2], tops[3] = sqrt(ratio), i
                        total.count += 1
                        total.dd += d * d * v
                        total.dr += d * r * v
                        total.rr += r * r * v
                        total.d1 += d * v
                        total.one += v
                        total.r1 += r * v
                i += 1
            if statistics:
                region = 2 * (grid.of_line[h] + grid.tile[k])
                region += h == 0 or h == grid.height - 1 or grid.border[k] != 0
                hold(sums + region * SUMS, total)
    counts[2 + BINS // 2] += equal
    tops[4], tops[5] = values, bounds


def residual(
    const floating[:, :, ::1] found, const double[:, :, ::1] expected, const float[::1] absolute,
    const float[::1] spread, double relative, double scale, double per, double least, double spread_per,
    double plain, double floor, const Py_ssize_t[::1] of_line, const Py_ssize_t[:, ::1] stretches,
    double[:, ::1] tops, Py_ssize_t[:, ::1] counts, double[:, :, ::1] sums,
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
    of_line : (H,)
        The first tile of each line.
    stretches : (3, S)
        Of each stretch of columns where it ends, its tile in the line, and whether it is on the border.
    tops : (P, 6)
        The largest abs(d) / B and its place in the plane; the largest abs(d) in units of the error of a result
        near 0, and its place; the sums of the squares of what is expected, and of B without its relative part.
    counts : (P, 43)
        How many are beyond B, how many are not judged, and in each of 41 bins of d / B.
    sums : (P, 2 tiles, 7)
        Of the interior of each tile, and of its part of the border: elements, and sums of d d / v, d r / v, r r / v,
        d / v, 1 / v, r / v, with r and d in units of scale.
    """
    cdef Py_ssize_t count = found.shape[0], height = found.shape[1], width = found.shape[2], size, p
    cdef Py_ssize_t absolute_step = absolute.shape[0] > 1, spread_step = spread.shape[0] > 1, tile, tiles
    cdef bint statistics = spread.shape[0] > 0
    cdef Rule rule = Rule(relative, scale, per, least, spread_per, plain, floor)
    cdef Regions grid
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef const float* of_spread = &spread[0] if statistics else &absolute[0]
    size, tiles = height * width, sums.shape[1] // 2
    require(count * size > 0 and stretches.shape[0] == 3 and stretches.shape[1] > 0)
    require(expected.shape[0] == count and expected.shape[1] == height and expected.shape[2] == width)
    require(absolute.shape[0] == 1 or absolute.shape[0] == count * size)
    require(spread.shape[0] <= 1 or spread.shape[0] == count * size)
    require(tops.shape[0] == count and tops.shape[1] == 6)
    require(counts.shape[0] == count and counts.shape[1] == 2 + BINS)
    require(sums.shape[0] == count and sums.shape[1] == 2 * tiles and sums.shape[2] == SUMS)
    require(of_line.shape[0] == height and stretches[0, stretches.shape[1] - 1] == width)
    for p in range(height):
        for tile in range(stretches.shape[1]):
            require(0 <= of_line[p] + stretches[1, tile] < tiles and 0 <= stretches[2, tile] <= 1)
            require((stretches[0, tile - 1] if tile else 0) <= stretches[0, tile])
    grid = Regions(
        height, width, stretches.shape[1], &of_line[0], &stretches[0, 0], &stretches[1, 0], &stretches[2, 0]
    )
    with nogil, parallel(use_threads_if=openmp.pays(count * size)):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for p in prange(count, schedule="static"):
            if not interrupt.asked(&turn, 4 * size):
                judge(
                    &found[p, 0, 0], &expected[p, 0, 0], &absolute[p * size * absolute_step], absolute_step,
                    of_spread + p * size * spread_step, spread_step, statistics, grid, rule,
                    &tops[p, 0], &counts[p, 0], &sums[p, 0, 0],
                )
        environment.restore(before)
    interrupt.finish(&watch)
