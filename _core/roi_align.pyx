"""RoIAlign of tubes, one (channel, sample) volume at a time, each box along H and then along W.

A line is a row or a column of bins: the oH rows of a box come before its oW columns. A line's taps are the
cells that its bins read, each cell once, ascending, with its weight.

All sums are made in float64 and rounded once. A bin's are a chain along H and one along W, of at most 2 * 1024 terms
each, since a bin has at most 1024 samples along an axis. A gradient's are chains too: along W of at most oW terms, and
of these products at most CHAIN along H and over the tubes; the chains' totals are added to a sum of two numbers,
as in sums.h.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.string cimport memset

from refnet._core cimport environment, interrupt, openmp
from refnet._core.checks cimport require
from refnet._core.environment cimport Environment
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.sums cimport Pair, added

cdef enum:
    CHAIN = 64


cdef inline Py_ssize_t add(Py_ssize_t* cells, double* weights, Py_ssize_t count,
                           Py_ssize_t cell, double weight) noexcept nogil:
    """Add to the weight of a cell; only the last two can be met again. Returns how many there are."""
    cdef Py_ssize_t k
    for k in range(max(count - 2, 0), count):
        if cells[k] == cell:
            weights[k] += weight
            return count
    cells[count] = cell
    weights[count] = weight
    return count + 1


cdef Py_ssize_t read(double start, double width, Py_ssize_t samples, Py_ssize_t p, Py_ssize_t size,
                     Py_ssize_t* cells, double* weights) noexcept nogil:
    """The taps of bin p, at most min(2 * samples, size) of them. Returns how many."""
    cdef Py_ssize_t i, k, below, count = 0
    cdef double position, f
    for k in range(samples):
        i = k if width >= 0 else samples - 1 - k
        position = start + p * width + (i + 0.5) * width / samples
        if position >= -1 and position <= size:
            position = min(max(position, 0), size - 1)
            below = <Py_ssize_t> position
            f = position - below
            count = add(cells, weights, count, below, (1 - f) / samples)
            if f > 0:
                count = add(cells, weights, count, below + 1, f / samples)
    return count


def taps(const double[:, :, ::1] start, const double[:, :, ::1] width,
         const Py_ssize_t[:, :, ::1] samples, Py_ssize_t[:, :, :, ::1] cells,
         double[:, :, :, ::1] weights, Py_ssize_t[:, :, ::1] counts, Py_ssize_t[:, :, ::1] extents,
         Py_ssize_t H, Py_ssize_t W, Py_ssize_t oH):
    """The taps (R, T, oH + oW, most) of every line, counts (R, T, oH + oW), for boxes (R, T, 2).

    Of each box also the columns of x that its columns of bins read: extents (R, T, 2), first and end.
    """
    cdef Py_ssize_t r, t, line, axis, most = 0
    cdef Environment before
    cdef Turn turn
    cdef Watch watch = Watch(False)
    require(start.shape[2] == 2 and width.shape[2] == 2 and samples.shape[2] == 2 and extents.shape[2] == 2
            and extents.shape[0] == cells.shape[0] and extents.shape[1] == cells.shape[1])
    for axis in range(2):
        require(start.shape[axis] == cells.shape[axis] and width.shape[axis] == cells.shape[axis]
                and samples.shape[axis] == cells.shape[axis])
    for axis in range(4):
        require(weights.shape[axis] == cells.shape[axis]
                and (axis == 3 or counts.shape[axis] == cells.shape[axis]))
    for r in range(samples.shape[0]):
        for t in range(samples.shape[1]):
            most = max(most, samples[r, t, 0], samples[r, t, 1])
    require(0 <= oH <= cells.shape[2] and min(2 * most, max(H, W)) <= cells.shape[3])
    with nogil, parallel(use_threads_if=openmp.pays(cells.shape[0] * cells.shape[1] * cells.shape[2] * cells.shape[3])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for r in prange(start.shape[0], schedule="static"):
            for t in range(start.shape[1]):
                for line in range(cells.shape[2]):
                    axis = line >= oH
                    counts[r, t, line] = 0
                    if not interrupt.asked(&turn, 8 * samples[r, t, axis]):
                        counts[r, t, line] = read(
                            start[r, t, axis], width[r, t, axis], samples[r, t, axis],
                            line - oH if axis else line, W if axis else H,
                            &cells[r, t, line, 0], &weights[r, t, line, 0])
                extents[r, t, 0], extents[r, t, 1] = W, 0
                for line in range(oH, cells.shape[2]):
                    if counts[r, t, line] > 0:
                        extents[r, t, 0] = min(extents[r, t, 0], cells[r, t, line, 0])
                        extents[r, t, 1] = max(extents[r, t, 1], cells[r, t, line, counts[r, t, line] - 1] + 1)
        environment.restore(before)
    interrupt.finish(&watch)


# The sizes of a box, and the columns of x that its columns of bins read.
cdef struct Box:
    Py_ssize_t W, oH, oW, most, first, end


cdef inline Box box_of(const Py_ssize_t* extent, Py_ssize_t W, Py_ssize_t oH, Py_ssize_t oW,
                       Py_ssize_t most) noexcept nogil:
    cdef Box box
    box.W, box.oH, box.oW, box.most, box.first, box.end = W, oH, oW, most, extent[0], extent[1]
    return box


cdef void average(const floating* x, const Py_ssize_t* cells, const double* weights,
                  const Py_ssize_t* counts, floating* y, double* row, Box box) noexcept nogil:
    """One frame: y (oH, oW) from x (H, W), through the columns of x that are read, row by row."""
    cdef Py_ssize_t p, q, k, w, line, stop
    cdef const floating* source
    cdef const floating* next_source
    cdef double weight, next_weight, total
    for p in range(box.oH):
        k, stop = p * box.most, p * box.most + counts[p]
        if k == stop:
            for q in range(box.oW):
                y[p * box.oW + q] = 0
            continue
        weight, source = weights[k], x + cells[k] * box.W
        if counts[p] % 2 == 1:
            for w in range(box.first, box.end):
                row[w] = weight * source[w]
            k += 1
        else:
            next_weight, next_source = weights[k + 1], x + cells[k + 1] * box.W
            for w in range(box.first, box.end):
                row[w] = weight * source[w] + next_weight * next_source[w]
            k += 2
        while k < stop:
            weight, source = weights[k], x + cells[k] * box.W
            next_weight, next_source = weights[k + 1], x + cells[k + 1] * box.W
            for w in range(box.first, box.end):
                row[w] = row[w] + weight * source[w] + next_weight * next_source[w]
            k += 2
        for q in range(box.oW):
            line = box.oH + q
            total = 0
            for k in range(line * box.most, line * box.most + counts[line]):
                total = total + weights[k] * row[cells[k]]
            y[p * box.oW + q] = <floating> total


# Rows start to stop of a frame that are added up: for each the chains, their totals, and how many terms there are.
cdef struct Band:
    double* chains
    Pair* totals
    Py_ssize_t* terms
    Py_ssize_t start, stop


cdef void spill(double* chains, Pair* totals, Py_ssize_t terms, Py_ssize_t W) noexcept nogil:
    """Add a row's chains to its totals, of which the first chains are the first, and begin new ones."""
    cdef Py_ssize_t w
    for w in range(W):
        if terms == CHAIN:
            totals[w].high, totals[w].low = chains[w], 0
        else:
            totals[w] = added(totals[w], chains[w])
    memset(chains, 0, W * sizeof(double))


cdef inline bint meets(Band band, const Py_ssize_t* cells, Py_ssize_t count) noexcept nogil:
    """Whether a bin's taps, ascending, may lie in the rows of the band."""
    return count > 0 and cells[0] < band.stop and cells[count - 1] >= band.start


cdef void scatter(const floating* dy, const Py_ssize_t* cells, const double* weights,
                  const Py_ssize_t* counts, Band band, double* row, Box box) noexcept nogil:
    """One frame: band += dy (oH, oW), through the columns of x that are read, row by row."""
    cdef Py_ssize_t p, q, k, w, line, first, i, both
    cdef double* target
    cdef double* source
    cdef double weight
    for p in range(box.oH):
        # Two rows of bins at a time: what is stored in one need not be waited for in the other.
        source = row + (p % 2) * box.W
        both = min(p + 1, box.oH - 1)
        if p % 2 == 0 and (meets(band, cells + p * box.most, counts[p])
                           or meets(band, cells + both * box.most, counts[both])):
            for w in range(box.first, box.end):
                row[w] = 0
                row[box.W + w] = 0
            for q in range(box.oW):
                line = box.oH + q
                for k in range(line * box.most, line * box.most + counts[line]):
                    row[cells[k]] += weights[k] * dy[p * box.oW + q]
                    row[box.W + cells[k]] += weights[k] * dy[both * box.oW + q]
        first = p * box.most
        for k in range(first, first + counts[p]):
            if band.start <= cells[k] < band.stop:
                i = cells[k] - band.start
                weight, target = weights[k], band.chains + i * box.W
                if band.terms[i] > 0 and band.terms[i] % CHAIN == 0:
                    spill(target, band.totals + i * box.W, band.terms[i], box.W)
                band.terms[i] += 1
                for w in range(box.first, box.end):
                    target[w] += weight * source[w]


cdef bint fits(const Py_ssize_t[::1] batch, const Py_ssize_t[:, :, :, ::1] cells,
               const double[:, :, :, ::1] weights, const Py_ssize_t[:, :, ::1] counts,
               const Py_ssize_t[:, :, ::1] extents, const floating[:, :, :, :, ::1] y,
               const floating[:, :, :, :, ::1] x,
               const double[:, ::1] rows, Turn* turn) noexcept nogil:
    """Whether the taps are those of y's lines, x has its channels and frames, and a row holds x's.

    If a handler stops it, no more is looked at.
    """
    cdef Py_ssize_t axis
    for axis in range(4):
        if weights.shape[axis] != cells.shape[axis] or axis < 3 and counts.shape[axis] != cells.shape[axis]:
            return False
    return (extents.shape[0] == cells.shape[0] and extents.shape[1] == cells.shape[1] and extents.shape[2] == 2
            and batch.shape[0] == y.shape[0] and cells.shape[0] == y.shape[0]
            and cells.shape[1] == y.shape[2] and cells.shape[2] == y.shape[3] + y.shape[4]
            and x.shape[1] == y.shape[1] and x.shape[2] == y.shape[2]
            and rows.shape[0] >= openmp.max_threads() and rows.shape[1] >= x.shape[4]
            and are_inside(cells, counts, extents, y.shape[3], x.shape[3], x.shape[4], turn))


cdef bint are_inside(const Py_ssize_t[:, :, :, ::1] cells, const Py_ssize_t[:, :, ::1] counts,
                     const Py_ssize_t[:, :, ::1] extents, Py_ssize_t oH, Py_ssize_t H, Py_ssize_t W,
                     Turn* turn) noexcept nogil:
    """Whether every tap is a cell of x, and every box's columns are columns of it."""
    cdef Py_ssize_t r, t, line, k, size
    cdef bint found = True
    for r in range(cells.shape[0]):
        for t in range(cells.shape[1]):
            found &= 0 <= extents[r, t, 0] <= W and 0 <= extents[r, t, 1] <= W
            for line in range(cells.shape[2]):
                if not 0 <= counts[r, t, line] <= cells.shape[3]:
                    return False
                if interrupt.asked(turn, counts[r, t, line]):
                    return True
                size = H if line < oH else W
                for k in range(counts[r, t, line]):
                    found &= 0 <= cells[r, t, line, k] < size
    return found


def forward(const floating[:, :, :, :, ::1] x, const Py_ssize_t[::1] batch,
            const Py_ssize_t[:, :, :, ::1] cells, const double[:, :, :, ::1] weights,
            const Py_ssize_t[:, :, ::1] counts, const Py_ssize_t[:, :, ::1] extents,
            floating[:, :, :, :, ::1] y, double[:, ::1] rows):
    """y (R, C, T, oH, oW) = the means of the bins; batch (R,), taps (R, T, oH + oW, most); a row a thread."""
    cdef Py_ssize_t plane, n, c, r, t, work = y.shape[3] * (x.shape[4] + y.shape[4]) * cells.shape[3]  # of a frame
    cdef Environment before
    cdef Turn turn, turn_of_checks
    cdef Watch watch = Watch(False)
    turn_of_checks = interrupt.turn(&watch)
    require(fits(batch, cells, weights, counts, extents, y, x, rows, &turn_of_checks))
    interrupt.finish(&watch)
    with nogil, parallel(use_threads_if=openmp.pays(y.shape[0] * y.shape[1] * y.shape[2] * y.shape[3] * y.shape[4])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for plane in prange(x.shape[1] * x.shape[0], schedule="static"):
            c = plane // x.shape[0]
            n = plane % x.shape[0]
            for r in range(y.shape[0]):
                if batch[r] == n and not interrupt.asked(&turn, y.shape[2] * work):
                    for t in range(y.shape[2]):
                        average(&x[n, c, t, 0, 0], &cells[r, t, 0, 0], &weights[r, t, 0, 0],
                                &counts[r, t, 0], &y[r, c, t, 0, 0], &rows[openmp.thread_num(), 0],
                                box_of(&extents[r, t, 0], x.shape[4], y.shape[3], y.shape[4], cells.shape[3]))
        environment.restore(before)
    interrupt.finish(&watch)


cdef Band band_of(double* chains, Py_ssize_t* terms, Py_ssize_t height, Py_ssize_t W) noexcept nogil:
    """A band of so many rows, without terms."""
    cdef Band band
    band.chains, band.totals, band.terms = chains, <Pair*> (chains + height * W), terms
    band.start, band.stop = 0, height
    memset(chains, 0, height * W * sizeof(double))
    memset(terms, 0, height * sizeof(Py_ssize_t))
    return band


cdef void write(Band band, floating* dx, Py_ssize_t height, Py_ssize_t W) noexcept nogil:
    """The sums of a band, rounded."""
    cdef Py_ssize_t i, w
    cdef double* chains
    cdef Pair* totals
    for i in range(height):
        chains, totals = band.chains + i * W, band.totals + i * W
        for w in range(W):
            if band.terms[i] <= CHAIN:
                dx[i * W + w] = <floating> chains[w]
            else:
                dx[i * W + w] = <floating> added(totals[w], chains[w]).high


def input_gradient(const floating[:, :, :, :, ::1] dy, const Py_ssize_t[::1] batch,
                   const Py_ssize_t[:, :, :, ::1] cells, const double[:, :, :, ::1] weights,
                   const Py_ssize_t[:, :, ::1] counts, const Py_ssize_t[:, :, ::1] extents,
                   floating[:, :, :, :, ::1] dx, double[:, ::1] rows, double[:, ::1] bands,
                   Py_ssize_t[:, ::1] terms):
    """dx (N, C, T, H, W) = dy (R, C, T, oH, oW) added up at the taps, in the order of the tubes.

    For each thread two rows of W values; three bands, of as many rows of all frames as are added up at a time; and a
    number for each row of a band.
    """
    cdef Py_ssize_t plane, n, c, r, t, start, stop
    cdef Py_ssize_t work = dy.shape[3] * (dx.shape[4] + dy.shape[4]) * cells.shape[3]  # of a frame
    cdef Py_ssize_t T = dx.shape[2], H = dx.shape[3], W = dx.shape[4]
    cdef Py_ssize_t height = min(T * H, bands.shape[1] // (3 * W)) if W > 0 else 0
    cdef Band band
    cdef Environment before
    cdef Turn turn, turn_of_checks
    cdef Watch watch = Watch(False)
    turn_of_checks = interrupt.turn(&watch)
    require(fits(batch, cells, weights, counts, extents, dy, dx, rows, &turn_of_checks)
            and rows.shape[1] >= 2 * W and bands.shape[0] >= openmp.max_threads() and height > 0
            and terms.shape[0] >= openmp.max_threads() and terms.shape[1] >= height)
    interrupt.finish(&watch)
    with nogil, parallel(
            use_threads_if=openmp.pays(dy.shape[0] * dy.shape[1] * dy.shape[2] * dy.shape[3] * dy.shape[4])):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for plane in prange(dx.shape[1] * dx.shape[0], schedule="static"):
            c = plane // dx.shape[0]
            n = plane % dx.shape[0]
            start = 0
            while start < T * H:
                stop = min(start + height, T * H)
                band = band_of(&bands[openmp.thread_num(), 0], &terms[openmp.thread_num(), 0], stop - start, W)
                for r in range(dy.shape[0]):
                    if batch[r] == n and not interrupt.asked(&turn, T * work):
                        for t in range(start // H, (stop - 1) // H + 1):
                            band.start, band.stop = start - t * H, stop - t * H
                            scatter(&dy[r, c, t, 0, 0], &cells[r, t, 0, 0], &weights[r, t, 0, 0],
                                    &counts[r, t, 0], band, &rows[openmp.thread_num(), 0],
                                    box_of(&extents[r, t, 0], W, dy.shape[3], dy.shape[4], cells.shape[3]))
                write(band, &dx[n, c, 0, 0, 0] + start * W, stop - start, W)
                start = stop
        environment.restore(before)
    interrupt.finish(&watch)
