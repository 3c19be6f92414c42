"""3D convolution as implicit GEMM: forward, input gradient, weight gradient.

The order in which each element is summed is part of the definition. A *chain* is a sequence of fused
multiply-adds from 0 (or, in the version `baseline` of the micro-kernel, of rounded products and sums):

- y[n, k, o]: the terms w[k, c, tap] x[n, c, ...] in the order (c, tap), cut into chains of DEPTH; the chains
  are added to 0 in order. What a tap reads in the padding is a zero like any other.
- dx[n, c, i]: likewise, the terms w[k, c, tap] dy[n, k, ...] in the order (k, tap), of the taps for which
  (i + pad - tap * dilation) is a multiple of the stride on each axis. In `image_gradient`, for a stride of
  x of few channels, all places of dy count from which some i gathers, though each takes only its own terms;
  it is for finite results.
- dw[k, c, tap]: for each sample, its output positions o in order are cut into chains of DEPTH, and the
  chains into spans of SPAN; the chains of a span are added in order, and then all spans.

So the bits depend neither on tiles nor on the number of threads nor on the width of vectors, and no
BLAS takes part. Frames of the padding are left out where all other factors are finite: a term of 0 or -0
changes no chain but one of zeros, and such a chain is added to 0. Patches are never held beyond one tile,
which is packed for the micro-kernel.
"""

from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from refnet._core cimport micro_kernel, openmp
from refnet._core.im2col3d cimport Geometry, fits, geometry, in_long_lines
from refnet._core.micro_kernel cimport (DEPTH, PITCH, TALLEST, WIDEST, Ahead, Patches, Plan, Range, Terms,
                                        rows_of_tile)
from refnet._core.sizes cimport require

# Chains in a span of positions.
SPAN = 8

cdef enum:
    MOST_ROWS = 512      # of the largest tile of a result
    MOST_COLUMNS = 512   # of one of as many rows that is kept in the workspace; at most twice as many
    LEAST_ROWS = 96      # of the smallest tile: below, packing costs too much
    LEAST_COLUMNS = 128
    STRIP = 128          # columns that are packed at once
    TASKS = 2            # for each thread, if the problem is large enough
    MOST_EXTRA = 16      # tiles along an axis, to have all threads busy to the end
    MOST_PHASES = 4      # positions along W that are computed together where a gradient has a stride
    MOST_BESIDE = 16     # of an image; and as many along T and H
    LINE = 64            # bytes of a cache line
    MOST_RUNS = 32       # that come nearer while a strip is multiplied
    LONGEST_RUN = 32     # lines of one of them
    MOST_PATIENCE = 3    # LONGEST_RUN lines are asked for in one call
    SIXTEEN = 16         # filters whose gradients are transposed at once: a line, or two

# Multiply-adds of a thread between two looks for Ctrl-C: a few tenths of a second.
cdef Py_ssize_t UNINTERRUPTED = <Py_ssize_t> 4 << 30

# Bytes of a gradient that no cache is likely to keep until it is read: it is written past them.
cdef Py_ssize_t STREAMED = 16 << 20

# Values of workspace that a thread needs: packed left operand, packed strip, a tile of the result, and rows
# that are to be transposed, the plan of what is gathered.
WORKSPACE = (MOST_ROWS * PITCH + DEPTH * STRIP + MOST_ROWS * (MOST_COLUMNS + 8) + WIDEST * PITCH + 2 * LINE
             + sizeof(Plan) // 4)


# How far apart values of the weights are: from group to group, row to row of the left operand, channel to
# channel of its columns, and tap to tap along T, H, W, beginning at `first`; dense if rows lie as packed.
cdef struct Weights:
    Py_ssize_t first, group, row, channel, t, h, w
    bint dense


# A convolution, and the weights that it takes; nothing is reached if there is no tap. Unless NULL, `quarters`
# tells which quarters of the rows have weights at a tap: see `patches` in operands.h.
cdef struct Phase:
    Geometry g
    Weights at
    bint reached
    const unsigned short* quarters


# Where results lie: how far apart they are along T, H, W, beginning at `first`; how many frames and lines
# there are, and values in a line from there on, and in a channel; how many positions are computed for a line,
# and lines of them for a frame. At each position so many results lie `beside` each other; after each line so
# many values are 0, or fewer after the last of a frame; dense if positions in order are side by side;
# streamed if they are written past the caches.
cdef struct Lattice:
    Py_ssize_t first, t, h, w, frames, lines, width, volume, of_line, of_frame, beside, zeros, last_zeros
    bint dense, streamed


# What will be needed next, to come nearer while something else is multiplied: each run of cache lines in so
# many rows; `run` and `row` are the first that has not been asked for. Each line is asked for 2**patience
# times.
cdef struct Expected:
    int runs, run, patience
    Py_ssize_t row
    Ahead of[MOST_RUNS]
    Py_ssize_t rows[MOST_RUNS]


# Rows of a left operand that are made when their turn comes: copied, `pitch` values apart; or, with a plan,
# those of the patches at some taps, from row `first` on. They stay for another strip, or are replaced.
cdef struct Made:
    const void* of
    Py_ssize_t pitch, values
    Plan* plan
    Range taps
    Py_ssize_t first
    bint stay


# What a thread comes to next, and asks for meanwhile: operands, unless x is NULL, row of patches, position.
cdef struct Then:
    const void* x
    const void* dy
    Py_ssize_t row, start


# Which weights a thread has packed, from which term on.
cdef struct Packed:
    const void* weights
    Py_ssize_t first


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline floating* aligned(floating* p) noexcept nogil:
    return <floating*> ((<uintptr_t> p + LINE - 1) & ~(<uintptr_t> LINE - 1))


cdef int require_sizes(Geometry g, const floating[:, :, :, :, ::1] x, const floating[:, ::1] w,
                       const floating[:, :, ::1] y, const floating[:, ::1] workspace,
                       Py_ssize_t groups) except -1:
    """Raise unless x (N, C, T, H, W), w (C_out, K) and y (N, C_out, P) are of one convolution."""
    require(groups > 0 and x.shape[1] % groups == 0 and w.shape[0] % groups == 0)
    require(w.shape[1] == x.shape[1] // groups * g.kT * g.kH * g.kW)
    require(fits(&g, x.shape[2] * x.shape[3] * x.shape[4], y.shape[2]))
    require(y.shape[0] == x.shape[0] and y.shape[1] == w.shape[0])
    require(workspace.shape[0] >= openmp.max_threads() and workspace.shape[1] >= WORKSPACE)
    return 0


cdef (Py_ssize_t, Py_ssize_t) tile_of(Py_ssize_t rows, Py_ssize_t height, Py_ssize_t columns,
                                      Py_ssize_t most_columns, Py_ssize_t unit, Py_ssize_t repeats,
                                      int left, int right) noexcept nogil:
    """(rows, columns) of the equal tiles of each of so many `repeats` of a result; columns in whole units.

    A row is of so many rows of the workspace as its height says. If there are too few tiles, or an eighth of
    the time some thread would have none, rows or columns are split, for which less is packed again; a value
    of the left operand, and of the right one, costs so much. Tiles follow from the problem and the number of
    threads: no bit depends on them.
    """
    cdef Py_ssize_t threads = openmp.max_threads(), all_work = repeats * rows * ceil_div(columns, unit)
    cdef Py_ssize_t down = ceil_div(rows, MOST_ROWS // height), across = ceil_div(columns, most_columns)
    cdef Py_ssize_t d, a, work, least, best_down = 1, best_across = 1
    cdef bint tall, long
    while True:
        # Not many more, so that the thread with the most has the least.
        least = 0
        for d in range(down, down + min(down // 4, MOST_EXTRA) + 1):
            for a in range(across, across + min(across // 4, MOST_EXTRA) + 1):
                work = (ceil_div(repeats * d * a, threads) * ceil_div(rows, d)
                        * ceil_div(ceil_div(columns, a), unit))
                if least == 0 or work < least:
                    least, best_down, best_across = work, d, a
        if repeats * down * across >= TASKS * threads and 8 * (least * threads - all_work) <= all_work:
            break
        tall, long = rows * height >= 2 * down * LEAST_ROWS, columns >= 2 * across * LEAST_COLUMNS
        if tall and (not long or left * rows * height * across > right * columns * down):
            down *= 2
        elif long:
            across *= 2
        else:
            break
    return ceil_div(rows, best_down), min(ceil_div(ceil_div(columns, best_across), unit) * unit, columns)


cdef void pack_weights(int version, const floating* w, floating* a, const Geometry* g, const Weights* at,
                       Py_ssize_t rows, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """a <- columns [start, stop) of the rows of weights that begin at w; rows of a are PITCH apart."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, line = LINE // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t row, i, first, last
    cdef Py_ssize_t offsets[DEPTH]
    cdef Py_ssize_t kw = start % g.kW, kh = start // g.kW % g.kH, kt = start // (g.kW * g.kH) % g.kT
    cdef Py_ssize_t channel = start // taps
    cdef bint together = (taps >= 8 and at.w == 1 and (at.h == g.kW or g.kH == 1)
                          and (at.t == g.kH * g.kW or g.kT == 1))
    if at.dense:
        micro_kernel.copy(version, w + start, at.row, a, rows, stop - start)
    elif taps == 1 and at.row == 1:
        for first in range(start // line, ceil_div(stop, line)):
            i, last = max(start, first * line), min((first + 1) * line, stop)
            micro_kernel.transpose(version, w + at.first + i * at.channel, at.channel, a + i - start, PITCH,
                                   last - i, rows)
    elif together:
        for row in range(rows):
            i = start
            while i < stop:
                last = min(i + taps - i % taps, stop)
                memcpy(a + row * PITCH + i - start,
                       w + row * at.row + at.first + i // taps * at.channel + i % taps,
                       (last - i) * sizeof(floating))
                i = last
    else:
        for i in range(stop - start):
            offsets[i] = at.first + channel * at.channel + kt * at.t + kh * at.h + kw * at.w
            kw += 1
            if kw == g.kW:
                kw = 0
                kh += 1
                if kh == g.kH:
                    kh = 0
                    kt += 1
                    if kt == g.kT:
                        kt = 0
                        channel += 1
        # A channel at a time: its taps lie near each other.
        first = 0
        while first < stop - start:
            last = min(first + taps - (start + first) % taps, stop - start)
            for row in range(rows):
                for i in range(first, last):
                    a[row * PITCH + i] = w[row * at.row + offsets[i]]
            first = last


cdef inline Ahead lines_ahead(const floating* at, Py_ssize_t lines, Py_ssize_t stride) noexcept nogil:
    return Ahead(<const void*> at, lines, LINE // <Py_ssize_t> sizeof(floating), stride)


cdef void expect(Expected* expected, const floating* at, Py_ssize_t values, Py_ssize_t stride,
                 Py_ssize_t rows) noexcept nogil:
    """Have so many values from `at` on come nearer, in each of so many rows."""
    cdef Py_ssize_t lines = ceil_div(values * <Py_ssize_t> sizeof(floating), LINE) + 1, some
    while lines > 0 and expected.runs < MOST_RUNS:
        some = min(lines, <Py_ssize_t> LONGEST_RUN)
        expected.of[expected.runs] = lines_ahead(at, some, stride)
        expected.rows[expected.runs] = rows
        expected.runs += 1
        at = at + some * (<Py_ssize_t> LINE // <Py_ssize_t> sizeof(floating))
        lines -= some


cdef void ask_slowly(Expected* expected, Py_ssize_t calls, Py_ssize_t depth) noexcept nogil:
    """Ask for what is expected in two thirds of so many calls of the micro-kernel, if that is slower.

    Memory then has time to answer, and the multiplied operands need not wait behind it.
    """
    cdef Py_ssize_t needed, rows
    cdef int patience, i
    for patience in range(MOST_PATIENCE, 0, -1):
        needed = 0
        for i in range(expected.runs):
            rows = max(1, depth // (expected.of[i].asks << patience))
            needed += ceil_div(expected.rows[i], rows)
        if 3 * needed <= 2 * calls:
            expected.patience = patience
            return


cdef inline Py_ssize_t place(const Geometry* g, Py_ssize_t kt, Py_ssize_t line,
                             Py_ssize_t column) noexcept nogil:
    """Where in a volume the tap (kt, 0, 0) of the output position at a line and column reads, or would."""
    return (((line // g.oH * g.sT - g.pT + kt * g.dT) * g.H + line % g.oH * g.sH - g.pH) * g.W
            + column * g.sW - g.pW)


cdef void expect_patches(Expected* expected, const floating* x, const Geometry* g, Py_ssize_t first,
                         Py_ssize_t last, Py_ssize_t start, Py_ssize_t count) noexcept nogil:
    """Have what rows [first, last) of patches at positions [start, start + count) read come nearer."""
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, volume = g.T * g.H * g.W
    cdef Py_ssize_t channel = first // taps, channels = (last - 1) // taps + 1 - channel
    cdef Py_ssize_t end = start + count - 1, line = start // g.oW, stop = end // g.oW
    cdef Py_ssize_t kt, i, till, low, high
    # What a window reads lies between these, from what its tap 0 reads on; taps may go backwards.
    cdef Py_ssize_t none = 0, far_h = (g.kH - 1) * g.dH, far_w = (g.kW - 1) * g.dW
    cdef Py_ssize_t below = min(none, far_h) * g.W + min(none, far_w)
    cdef Py_ssize_t above = max(none, far_h) * g.W + max(none, far_w)
    x += channel * volume
    for kt in range(g.kT):
        i = line
        while i <= stop:
            till = stop if g.sH <= g.kH else i  # all lines at once, if windows of neighbouring ones overlap
            low = place(g, kt, i, start % g.oW if i == line else 0) + below
            high = place(g, kt, till, end % g.oW if till == stop else g.oW - 1) + above
            low, high = max(low, none), min(high, volume - 1)
            if low <= high:
                expect(expected, x + low, high - low + 1, volume, channels)
            i = till + 1


cdef inline bint reads(const Geometry* g, Py_ssize_t frame, Py_ssize_t kt) noexcept nogil:
    """Whether, for an output frame, the taps of a frame of the kernel read a frame of the input."""
    return 0 <= frame * g.sT - g.pT + kt * g.dT < g.T


cdef Range taps_of_frames(const Geometry* g, Py_ssize_t start, Py_ssize_t count) noexcept nogil:
    """The taps of which some output position of [start, start + count) reads a frame of the input."""
    cdef Py_ssize_t taps = g.kH * g.kW, kt, frame, low = g.kT, high = 0
    for frame in range(start // (g.oW * g.oH), (start + count - 1) // (g.oW * g.oH) + 1):
        for kt in range(g.kT):
            if reads(g, frame, kt):
                low, high = min(low, kt), max(high, kt + 1)
        if low == 0 and high == g.kT:
            break
    return Range(min(low, high) * taps, high * taps)


cdef Terms terms_of(Range some, Py_ssize_t taps, Py_ssize_t first, Py_ssize_t depth) noexcept nogil:
    """Of `depth` terms from `first` on, `taps` in a channel, those of some taps."""
    cdef Py_ssize_t tap = first % taps, run = some.high - some.low
    if run == taps:
        return Terms(0, depth, depth, 0, depth)
    if tap < some.low:
        return Terms(some.low - tap, run, run, taps - run, depth)
    if tap < some.high:
        return Terms(0, some.high - tap, run, taps - run, depth)
    return Terms(taps - tap + some.low, run, run, taps - run, depth)


cdef void multiply(int version, floating* a, floating* b, floating* y, Py_ssize_t pitch, Py_ssize_t rows,
                   Py_ssize_t columns, const Terms* terms, bint add, Expected* expected, Patches* patches,
                   const Made* made) noexcept nogil:
    """y (rows, columns) = or += a (rows, depth) times the panels b (depth, columns), some terms of each.

    Unless they are NULL, b is made of patches, and a is made. Meanwhile what is expected comes nearer.
    """
    cdef Py_ssize_t width = micro_kernel.columns(version, a), row = 0, height, panel, count, i, j
    cdef Py_ssize_t line = 0
    cdef floating tile[TALLEST * WIDEST]
    cdef floating* left
    cdef floating* to
    cdef const floating* source
    cdef Ahead ahead
    cdef bint whole
    if made and not made.plan:
        line = ceil_div(made.values * <Py_ssize_t> sizeof(floating), LINE) + 1
    while row < rows:
        height = rows_of_tile(version, rows - row)
        left = a if made and not made.stay else a + row * PITCH
        if made and made.plan:
            micro_kernel.gather(version, <const floating*> made.of, left, made.plan, made.taps,
                                made.first + row, made.first + row + height, 0,
                                ceil_div(made.values, width) * width, PITCH, width)
        elif made:
            source = <const floating*> made.of + row * made.pitch
            micro_kernel.copy(version, source, made.pitch, left, height, made.values)
        for panel in range(ceil_div(columns, width)):
            to = y + row * pitch + panel * width
            count = min(width, columns - panel * width)
            whole = count == width
            i = panel * (DEPTH // line) if line > 0 else height
            if i < height and row + height < rows:  # lines of the next rows
                ahead = lines_ahead(source + (height + i) * made.pitch, line, made.pitch)
            elif expected.run < expected.runs:
                ahead = expected.of[expected.run]
                ahead.at = <const floating*> ahead.at + expected.row * ahead.stride
                ahead.asks <<= expected.patience
                ahead.step >>= expected.patience
                expected.row += max(1, terms[panel].stop // ahead.asks)
                if expected.row >= expected.rows[expected.run]:
                    expected.run += 1
                    expected.row = 0
            else:  # the next rows
                ahead = lines_ahead(<const floating*> left + height * PITCH,
                                    PITCH * <Py_ssize_t> sizeof(floating) // LINE, PITCH)
            micro_kernel.multiply(version, height, &terms[panel], left, b + panel * DEPTH * width,
                                  to if whole else tile, pitch if whole else width, add and whole, &ahead,
                                  patches if row == 0 else NULL)
            if row == 0 and patches:
                patches.v += 2
            if not whole:
                for i in range(height):
                    for j in range(count):
                        to[i * pitch + j] = (to[i * pitch + j] if add else 0) + tile[i * width + j]
        row += height


cdef inline Py_ssize_t lies(const Lattice* to, Py_ssize_t position) noexcept nogil:
    """Where in a channel the first result of a position lies."""
    return (to.first + position // (to.of_line * to.of_frame) * to.t
            + position // to.of_line % to.of_frame * to.h + position % to.of_line * to.w)


cdef void spread(int version, const floating* tile, floating* y, const Lattice* to, Py_ssize_t rows,
                 Py_ssize_t start, Py_ssize_t count, Py_ssize_t apart,
                 const Py_ssize_t* pitch) noexcept nogil:
    """y, on its lattice, <- tile (beside, rows, count), the positions from start on.

    From one to what lies beside it it is `apart` values in the tile, and from row to row its own `pitch`.
    """
    cdef Py_ssize_t row, i = 0, j, k, length, frame, height, column, inside, zeros, first
    cdef const floating* source
    cdef floating line[STRIP * MOST_BESIDE]
    cdef floating* values
    cdef floating* at
    while i < count:
        column = (start + i) % to.of_line
        length = min(count - i, to.of_line - column)
        height, frame = (start + i) // to.of_line % to.of_frame, (start + i) // (to.of_line * to.of_frame)
        inside = min(length * to.w, to.width - column * to.w)
        zeros = 0
        if column + length == to.of_line:
            zeros = to.zeros if height < to.lines - 1 else to.last_zeros
        first = lies(to, start + i)
        for row in range(rows if frame < to.frames and height < to.lines else 0):
            at = y + row * to.volume + first
            values = &line[0] if to.streamed else at
            if to.beside == to.w == 2:
                micro_kernel.alternate(version, tile + i + row * pitch[0], tile + i + apart + row * pitch[1],
                                       values, inside // 2)
                if inside % 2:
                    values[inside - 1] = tile[i + row * pitch[0] + inside // 2]
            else:
                for k in range(to.beside):
                    source = tile + i + k * apart + row * pitch[k]
                    for j in range(ceil_div(inside - k, to.w)):
                        values[j * to.w + k] = source[j]
            if to.streamed:
                micro_kernel.stream(version, values, inside, zeros, at)
            else:
                memset(at + inside, 0, zeros * sizeof(floating))
        i += length
    if to.streamed:
        micro_kernel.settle()


cdef void convolve_tile(int version, const floating* x, const floating* w, floating* y, floating* workspace,
                        const Phase* phases, Py_ssize_t count_phases, const Lattice* to, Py_ssize_t lattices,
                        bint at_once, Py_ssize_t channels, Py_ssize_t group, Py_ssize_t row, Py_ssize_t rows,
                        Py_ssize_t start, Py_ssize_t stop, Then then) noexcept nogil:
    """y (rows, [start, stop)) = weights times patches of x (channels, T, H, W), for each phase.

    What lies beside each other is computed by one phase after the other; or, as all lattices, by one, whose
    rows are those of one lattice after another, and in each of what lies beside each other. At once if all
    weights are packed before the first strip: then no more than a strip of results is kept.
    """
    cdef Packed* packed = <Packed*> aligned(workspace)
    cdef floating* a = aligned(workspace) + LINE // <Py_ssize_t> sizeof(floating)
    cdef floating* b = a + MOST_ROWS * PITCH
    cdef Py_ssize_t width = micro_kernel.columns(version, x), terms, phase, block, first, last, strip
    cdef Py_ssize_t position, count, i, panel, taps, low, high, final = 0, together, turn, begin, end, shift
    cdef floating* left
    cdef floating* sums
    cdef Range reached[2 * MOST_COLUMNS]
    cdef Terms terms_of_panel[STRIP]
    cdef Patches patches
    cdef bint some_taps, passes, written, fresh
    cdef Then coming
    cdef bint all_taps[MOST_ROWS]
    cdef Expected expected
    cdef floating* c = y + start if to.dense else b + DEPTH * STRIP
    cdef Py_ssize_t kept = STRIP if at_once else ceil_div(stop - start, width) * width
    cdef Py_ssize_t pitch = to.volume if to.dense else kept * count_phases + 8
    cdef Py_ssize_t results = rows * count_phases // (lattices * to.beside)
    cdef Py_ssize_t apart = kept if count_phases > 1 else results * pitch
    cdef Py_ssize_t pitches[MOST_BESIDE]
    cdef Plan* plan = <Plan*> (b + DEPTH * STRIP + MOST_ROWS * (MOST_COLUMNS + 8))
    cdef const Phase* at
    cdef const floating* weights
    cdef const unsigned short* quarters
    for i in range(to.beside):
        pitches[i] = pitch
    for phase in range(count_phases):
        if phases[phase].reached:
            final = phase
        else:  # one row of zeros for all
            memset(c + phase * apart, 0, kept * sizeof(floating))
            pitches[phase] = 0
    for phase in range(count_phases):
        at = &phases[phase]
        if not at.reached:
            continue
        weights = w + group * at.at.group + row * at.at.row
        quarters = NULL
        if rows_of_tile(version, rows) == rows:
            quarters = at.quarters
        taps = at.g.kT * at.g.kH * at.g.kW
        terms = channels * taps
        micro_kernel.plan(version, x, plan, &at.g, start, stop - start, ceil_div(stop - start, width) * width)
        passes = micro_kernel.passes(version, rows, plan)
        some_taps = False
        for panel in range(ceil_div(stop - start, width)):
            reached[panel] = taps_of_frames(&at.g, start + panel * width,
                                            min(width, stop - start - panel * width))
            some_taps = some_taps or reached[panel].high - reached[panel].low < taps
        together = ceil_div(terms, DEPTH) if at_once else 1
        for turn in range(ceil_div(terms, together * DEPTH)):
            begin = turn * together * DEPTH
            end = min(begin + together * DEPTH, terms)
            fresh = packed.weights != <const void*> (weights + at.at.first) or packed.first != begin
            packed[0] = Packed(<const void*> (weights + at.at.first), begin)
            for block in range(ceil_div(end - begin, DEPTH)):
                first = begin + block * DEPTH
                left = a + block * rows * PITCH
                if fresh:
                    pack_weights(version, weights, left, &at.g, &at.at, rows, first, min(first + DEPTH, end))
                # A zero of the padding times infinity or NaN is NaN, times anything else nothing.
                all_taps[block] = not some_taps or not micro_kernel.finite(version, left, rows,
                                                                           min(first + DEPTH, end) - first)
            for strip in range(ceil_div(stop - start, STRIP)):
                position = start + strip * STRIP
                count = min(STRIP, stop - position)
                shift = strip * STRIP if to.dense or not at_once else 0
                sums = c + phase * apart + shift
                for block in range(ceil_div(end - begin, DEPTH)):
                    first = begin + block * DEPTH
                    last = min(first + DEPTH, end)
                    patches = Patches(<const void*> x, plan, first, strip * STRIP // width * 2, quarters)
                    if not passes:
                        micro_kernel.gather(version, x, b, plan, Range(0, taps), first, last, strip * STRIP,
                                            ceil_div(count, width) * width, width, DEPTH * width)
                    for panel in range(ceil_div(count, width)):
                        terms_of_panel[panel] = terms_of(
                            Range(0, taps) if all_taps[block] else reached[strip * STRIP // width + panel],
                            taps, first, last - first)
                    expected.runs = expected.run = expected.row = expected.patience = 0
                    if position + STRIP >= stop and at.at.dense and last == end < terms:  # the next weights
                        expect(&expected, weights + end, min(terms - end, <Py_ssize_t> DEPTH), at.at.row,
                               rows)
                    # Of the next block, strip, blocks, or tile.
                    if last < end:
                        coming = Then(<const void*> x, NULL, last, position)
                    elif position + STRIP < stop:
                        coming = Then(<const void*> x, NULL, begin, position + STRIP)
                    elif end < terms:
                        coming = Then(<const void*> x, NULL, end, start)
                    else:
                        coming = then
                    if coming.x:
                        expect_patches(&expected, <const floating*> coming.x, &at.g, coming.row,
                                       min(coming.row + DEPTH, terms), coming.start,
                                       min(at.g.oT * at.g.oH * at.g.oW - coming.start, <Py_ssize_t> STRIP))
                    written = not to.dense and phase == final and last == terms
                    if written and lattices == 1 and not to.streamed:
                        low, high = lies(to, position), lies(to, position + count - 1) + to.w + to.zeros
                        expect(&expected, y + low, high - low, to.volume, results)
                    if taps == 1:
                        ask_slowly(&expected, ceil_div(rows, micro_kernel.rows_of_tile(version, rows))
                                   * ceil_div(count, width), last - first)
                    multiply(version, a + block * rows * PITCH, b, sums, pitch, rows, count, terms_of_panel,
                             first > 0, &expected, &patches if passes else NULL, NULL)
                for i in range(lattices if written else 0):
                    spread(version, c + i * to.beside * apart + shift, y, &to[i], results, position, count,
                           apart, pitches)


cdef int convolve(const floating* x, const floating* w, floating* y, floating[:, ::1] workspace,
                  const Phase* phases, Py_ssize_t count_phases, const Lattice* to, Py_ssize_t lattices,
                  Py_ssize_t samples, Py_ssize_t groups, Py_ssize_t channels, Py_ssize_t rows) except -1:
    """y (samples, groups * results, lattice) = weights times patches of x (samples, groups * channels, ...).

    The rows of weights are the results of a position, unless all lattices are one phase's: see convolve_tile.
    """
    cdef int version = micro_kernel.active()
    cdef const Geometry* g = &phases[0].g
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, terms = 0, volume = g.T * g.H * g.W
    cdef Py_ssize_t tile_rows, tile_columns, down, across, tasks, batch, begin, end, task, row, start, n
    cdef Py_ssize_t results = rows * count_phases // (lattices * to.beside)
    cdef Py_ssize_t unit = micro_kernel.columns(version, x)
    cdef Py_ssize_t most_columns = 2 * MOST_COLUMNS, phases_reached = 0
    cdef bint at_once
    cdef Then then
    cdef Py_ssize_t later
    for n in range(count_phases):
        if phases[n].reached:
            phases_reached += 1
            terms += channels * phases[n].g.kT * phases[n].g.kH * phases[n].g.kW
    # Of few rows one block of weights stays in the first cache for all strips of a tile; all blocks do not.
    at_once = (phases_reached == 1 and rows * ceil_div(terms, DEPTH) <= MOST_ROWS
               and (terms == channels or rows > 2 * TALLEST))
    for n in range(openmp.max_threads()):
        (<Packed*> aligned(&workspace[n, 0])).weights = NULL
    if not to.dense and not at_once:  # of each phase, so many as the workspace holds
        most_columns = min(most_columns, MOST_ROWS * MOST_COLUMNS // (min(rows, <Py_ssize_t> MOST_ROWS)
                                                                      * count_phases) // unit * unit)
    tile_rows, tile_columns = tile_of(rows, 1, P, most_columns, unit, samples * groups, 1,
                                      0 if terms > channels else 1)
    down, across = ceil_div(rows, tile_rows), ceil_div(P, tile_columns)
    tasks = samples * groups * down * across
    batch = openmp.max_threads() * max(1, UNINTERRUPTED // (tile_rows * tile_columns * max(1, terms)))
    begin = 0
    while begin < tasks:
        end = min(begin + batch, tasks)
        with nogil:
            for task in prange(begin, end, schedule="dynamic",
                               use_threads_if=openmp.pays(samples * groups * rows * P * (terms + 8) // 8)):
                n = task // (down * across)
                row = task % down * tile_rows
                start = task // down % across * tile_columns
                then = Then(NULL, NULL, 0, 0)
                later = task + openmp.max_threads()  # as a rule
                if later < tasks:
                    then = Then(<const void*> (x + later // (down * across) * channels * volume), NULL, 0,
                                later // down % across * tile_columns)
                convolve_tile(version, x + n * channels * volume, w,
                              y + (n * results + row) * to.volume, &workspace[openmp.thread_num(), 0],
                              phases, count_phases, to, lattices, at_once, channels, n % groups, row,
                              min(tile_rows, rows - row), start, min(start + tile_columns, P), then)
        PyErr_CheckSignals()
        begin = end
    return 0


def forward(const floating[:, :, :, :, ::1] x, const floating[:, ::1] w,
            floating[:, :, ::1] y, floating[:, ::1] workspace,
            kernel, stride, pad, dilation, output, Py_ssize_t groups):
    """y (N, C_out, P) = w (C_out, K) times the patches of x (N, C, T, H, W).

    workspace is (threads, WORKSPACE).
    """
    cdef Geometry g = geometry((x.shape[2], x.shape[3], x.shape[4]), kernel, stride, pad, dilation, output)
    cdef Py_ssize_t rows = w.shape[0] // groups, taps = g.kT * g.kH * g.kW
    cdef Phase phase
    cdef Lattice to = Lattice(0, g.oH * g.oW, g.oW, 1, g.oT, g.oH, g.oW, y.shape[2], g.oW, g.oH, 1, 0, 0,
                              True, False)
    require_sizes(g, x, w, y, workspace, groups)
    phase.g = in_long_lines(g)
    phase.at = Weights(0, rows * w.shape[1], w.shape[1], taps, g.kH * g.kW, g.kW, 1, True)
    phase.reached = True
    phase.quarters = NULL
    convolve(&x[0, 0, 0, 0, 0], &w[0, 0], &y[0, 0, 0], workspace, &phase, 1, &to, 1,
             x.shape[0], groups, x.shape[1] // groups, rows)


cdef (Py_ssize_t, Py_ssize_t) taps_of(Py_ssize_t phase, Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad,
                                      Py_ssize_t dilation) noexcept nogil:
    """(the first tap that reaches the input positions phase, phase + stride, ..., from tap to tap).

    Both are `kernel` where there is none.
    """
    cdef Py_ssize_t tap = 0, step = 1
    while tap < kernel and (phase + pad - tap * dilation) % stride != 0:
        tap += 1
    while step < kernel and step * dilation % stride != 0:
        step += 1
    return tap, step


cdef Lattice lattice(const Geometry* g, Py_ssize_t t, Py_ssize_t h, Py_ssize_t v,
                     Py_ssize_t beside) noexcept nogil:
    """The input positions a stride apart, from (t, h, v) on, and so many from each on."""
    cdef Py_ssize_t lines = ceil_div(g.H - h, g.sH)
    return Lattice((t * g.H + h) * g.W + v, g.sT * g.H * g.W, g.sH * g.W, g.sW, ceil_div(g.T - t, g.sT),
                   lines, g.W - v, g.T * g.H * g.W, ceil_div(g.W - v, g.sW), lines, beside, 0, 0,
                   g.sT == g.sH == g.sW == 1, False)


cdef int clear(floating* y, Lattice to, Py_ssize_t channels) except -1:
    """y (channels, lattice) <- 0, in whole lines."""
    cdef Py_ssize_t channel, frame, line
    with nogil:
        for channel in prange(channels, schedule="static",
                              use_threads_if=openmp.pays(channels * to.frames * to.lines * to.width)):
            for frame in range(to.frames):
                for line in range(to.lines):
                    memset(y + channel * to.volume + to.first + frame * to.t + line * to.h, 0,
                           to.width * sizeof(floating))
    return 0


def input_gradient(const floating[:, :, ::1] dy, const floating[:, ::1] w,
                   floating[:, :, :, :, ::1] dx, floating[:, ::1] workspace,
                   kernel, stride, pad, dilation, output, Py_ssize_t groups):
    """dx (N, C, T, H, W) = what each position's taps gather from dy (N, C_out, P).

    The input positions that are equal modulo the stride are reached by the same taps, and gather from
    neighbouring output positions: their gradient is a convolution of dy of stride 1, a *phase*. Phases that
    are neighbours along W are computed together, so that whole lines are written. workspace is (threads,
    WORKSPACE).
    """
    cdef Geometry g = geometry((dx.shape[2], dx.shape[3], dx.shape[4]), kernel, stride, pad, dilation, output)
    cdef Phase phases[MOST_PHASES]
    cdef Py_ssize_t rows = dx.shape[1] // groups, channels = w.shape[0] // groups, K = w.shape[1]
    cdef Py_ssize_t t, h, next_h, v, i, count, tap_t, tap_h, tap_w, step_t, step_h, step_w
    # Whether lines are written whole. Or no tap might reach a phase, nor those that are computed with it.
    cdef bint whole = g.sW <= min(MOST_PHASES, g.W), some
    cdef Lattice to
    require_sizes(g, dx, w, dy, workspace, groups)
    for t in range(min(g.sT, g.T)):
        tap_t, step_t = taps_of(t, g.kT, g.sT, g.pT, g.dT)
        next_h = 0
        while next_h < min(g.sH, g.H):
            h = next_h
            tap_h, step_h = taps_of(h, g.kH, g.sH, g.pH, g.dH)
            next_h += 1
            if tap_t == g.kT or tap_h == g.kH or not whole:
                clear(&dx[0, 0, 0, 0, 0], lattice(&g, t, h, 0, 1), dx.shape[0] * dx.shape[1])
            if tap_t == g.kT or tap_h == g.kH:
                continue
            while whole and next_h < min(g.sH, g.H) and taps_of(next_h, g.kH, g.sH, g.pH, g.dH)[0] == g.kH:
                next_h += 1  # lines that no tap reaches: written with this one
            for v in range(0, min(g.sW, g.W), MOST_PHASES):
                count = min(min(g.sW, g.W) - v, <Py_ssize_t> MOST_PHASES)
                to = lattice(&g, t, h, v, count)
                to.zeros = (next_h - h - 1) * g.W
                to.streamed = to.beside == to.w and dx.size * <Py_ssize_t> sizeof(floating) >= STREAMED
                to.last_zeros = min(next_h - h - 1, g.H - 1 - h - (to.lines - 1) * g.sH) * g.W
                some = False
                for i in range(count):
                    tap_w, step_w = taps_of(v + i, g.kW, g.sW, g.pW, g.dW)
                    phases[i].reached = tap_w < g.kW
                    phases[i].quarters = NULL
                    some = some or phases[i].reached
                    phases[i].at = Weights((tap_t * g.kH + tap_h) * g.kW + tap_w, channels * K,
                                           g.kT * g.kH * g.kW, K, step_t * g.kH * g.kW, step_h * g.kW, step_w,
                                           False)
                    phases[i].g = in_long_lines(Geometry(
                        g.oT, g.oH, g.oW,
                        ceil_div(g.kT - tap_t, step_t), ceil_div(g.kH - tap_h, step_h),
                        ceil_div(g.kW - tap_w, step_w),
                        1, 1, 1,
                        -(t + g.pT - tap_t * g.dT) // g.sT, -(h + g.pH - tap_h * g.dH) // g.sH,
                        -(v + i + g.pW - tap_w * g.dW) // g.sW,
                        -(step_t * g.dT // g.sT), -(step_h * g.dH // g.sH), -(step_w * g.dW // g.sW),
                        ceil_div(g.T - t, g.sT), to.of_frame, to.of_line,
                    ))
                if some:
                    convolve(&dy[0, 0, 0], &w[0, 0], &dx[0, 0, 0, 0, 0], workspace, &phases[0], count, &to, 1,
                             dx.shape[0], groups, channels, rows)


def image_gradient(const floating[:, :, ::1] dy, const floating[:, ::1] w, const floating[:, ::1] merged,
                   const unsigned short[::1] phases_at, floating[:, :, :, :, ::1] dx,
                   floating[:, ::1] workspace,
                   kernel, stride, pad, dilation, output, Py_ssize_t groups, places, first_place):
    """Compute dx as `input_gradient` does, all phases at once: for channels so few that they are one tile.

    merged (groups * phases * channels, filters * places) has the weights of each phase at the places of dy
    from which some phase gathers, one after the other from `first_place` downwards on each axis, and zeros;
    phases_at (places) has bit i where phase i has a tap.
    """
    cdef Geometry g = geometry((dx.shape[2], dx.shape[3], dx.shape[4]), kernel, stride, pad, dilation, output)
    cdef Lattice to[MOST_BESIDE]
    cdef Phase phase
    cdef Py_ssize_t rows = merged.shape[0] // groups, K = merged.shape[1], kT, kH, kW, qT, qH, qW, t, h
    kT, kH, kW = places
    qT, qH, qW = first_place
    require_sizes(g, dx, w, dy, workspace, groups)
    # Rows so few are not split into tiles.
    require(g.sT * g.sH <= MOST_BESIDE and g.sW <= MOST_BESIDE)
    require(rows * groups == dx.shape[1] * g.sT * g.sH * g.sW)
    require(rows < 2 * LEAST_ROWS and K == w.shape[0] // groups * kT * kH * kW)
    require(phases_at.shape[0] == kT * kH * kW)
    phase.g = Geometry(g.oT, g.oH, g.oW, kT, kH, kW, 1, 1, 1, -qT, -qH, -qW, -1, -1, -1,
                       ceil_div(g.T, g.sT), ceil_div(g.H, g.sH), ceil_div(g.W, g.sW))
    phase.at = Weights(0, rows * K, K, kT * kH * kW, kH * kW, kW, 1, True)
    phase.reached = True
    phase.quarters = NULL
    if g.sT * g.sH * g.sW == 4:
        phase.quarters = &phases_at[0]
    for t in range(g.sT):
        for h in range(g.sH):
            to[t * g.sH + h] = lattice(&g, t, h, 0, g.sW)
            to[t * g.sH + h].of_frame = phase.g.oH
    convolve(&dy[0, 0, 0], &merged[0, 0], &dx[0, 0, 0, 0, 0], workspace, &phase, 1, &to[0], g.sT * g.sH,
             dx.shape[0], groups, w.shape[0] // groups, rows)


def finite(const floating[:, :, ::1] values):
    """Whether all values are."""
    return bool(all_finite(micro_kernel.active(), values, 0, values.shape[2]))


cdef void interleave(int version, const floating* lines, floating* b, Py_ssize_t rows, Py_ssize_t width,
                     Py_ssize_t count, Py_ssize_t pitch) noexcept nogil:
    """b (count, width) <- lines (rows, count), `pitch` values apart, transposed, and zeros."""
    cdef Py_ssize_t row, i
    micro_kernel.transpose(version, lines, pitch, b, width, rows, count)
    if rows < width:
        for i in range(count):
            for row in range(rows, width):
                b[i * width + row] = 0


cdef void correlate_tile(int version, const floating* dy, const floating* x, floating* dw,
                         floating* workspace, const Geometry* g, Py_ssize_t sections, bint leave_out,
                         Py_ssize_t pitch, Py_ssize_t filters, Py_ssize_t row, Py_ssize_t rows,
                         Py_ssize_t start, Py_ssize_t stop, bint upright, bint add,
                         Then then) noexcept nogil:
    """dw (filters, rows from `row` on), `pitch` apart, = or += dy times patches of x, over [start, stop).

    Computed as it stands if upright, else transposed: the left operand is copied, the right one, of which
    each value should be used more often, interleaved. A section of the left operand has the rows of one frame
    of the kernel; frames of the padding may be left out.
    """
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, width = micro_kernel.columns(version, x)
    cdef Py_ssize_t high = filters if upright else rows, wide = rows if upright else filters
    cdef Py_ssize_t taps = g.kT * g.kH * g.kW, some_taps = taps // sections, some_rows = high // sections
    # From row to row of the tile, not a power of two.
    cdef Py_ssize_t across = ceil_div(wide, width) * width + 8
    cdef floating* a = aligned(workspace)
    cdef floating* b = a + MOST_ROWS * PITCH
    cdef floating* lines = b + DEPTH * STRIP
    cdef floating* tile = lines + WIDEST * PITCH
    cdef Plan* plan = <Plan*> (tile + MOST_ROWS * (MOST_COLUMNS + 8))
    cdef Range reached
    cdef Terms terms[STRIP]
    cdef Expected expected
    cdef Made made
    cdef Py_ssize_t block, first, count, padded, strip, panel, panels, section, at, some, run, k, i
    cdef Then coming
    # Whether patches are x itself, row by row; then the left operand is copied, whichever it is.
    cdef bint as_it_lies = (taps == 1 and g.sT == g.sH == g.sW == 1 and g.pT == g.pH == g.pW == 0)
    cdef bint copied = upright or as_it_lies
    for block in range(ceil_div(stop - start, DEPTH)):
        first = start + block * DEPTH
        count = min(DEPTH, stop - first)
        padded = ceil_div(count, width) * width
        if not as_it_lies:
            micro_kernel.plan(version, x, plan, g, first, count, padded)
        if copied:
            made = Made(<const void*> ((dy if upright else x + row * P) + first), P, count, NULL, Range(0, 0),
                        0, wide > STRIP)
        for strip in range(ceil_div(wide, STRIP)):
            panels = ceil_div(min(STRIP, wide - strip * STRIP), width)
            for panel in range(panels):
                at = strip * STRIP + panel * width
                some = min(width, wide - at)
                if upright and not as_it_lies:
                    micro_kernel.gather(version, x, lines, plan, Range(0, taps), row + at, row + at + some, 0,
                                        padded, PITCH, width)
                    interleave(version, lines, b + panel * DEPTH * width, some, width, count, PITCH)
                else:
                    interleave(version, (x + row * P if upright else dy) + at * P + first,
                               b + panel * DEPTH * width, some, width, count, P)
            expected.runs = expected.run = expected.row = expected.patience = 0
            coming = then
            if first + DEPTH < stop:
                coming = Then(<const void*> x, <const void*> dy, row, first + DEPTH)
            if strip == 0 and coming.x:
                some = min(P - coming.start, <Py_ssize_t> DEPTH)
                expect(&expected, <const floating*> coming.dy + coming.start, some, P,
                       min(filters, TALLEST) if upright else filters)
                expect_patches(&expected, <const floating*> coming.x, g, coming.row,
                               min(coming.row + rows, pitch), coming.start, some)
                if taps == 1:  # some calls ask for the next rows that are copied
                    ask_slowly(&expected, ceil_div(high, micro_kernel.rows_of_tile(version, high))
                               * (panels - copied), count)
            for section in range(sections):
                reached = Range(0, count)
                if leave_out:
                    reached = frames_of_tap(g, section)
                    reached.low = min(max(reached.low * g.oH * g.oW - first, <Py_ssize_t> 0), count)
                    reached.high = min(max(reached.high * g.oH * g.oW - first, reached.low), count)
                some = reached.high - reached.low
                for panel in range(panels):
                    terms[panel] = Terms(reached.low, some, some, 0, reached.high)
                if not copied:
                    made = Made(<const void*> x, 0, count, plan,
                                Range(section * some_taps, (section + 1) * some_taps), row // sections,
                                wide > STRIP)
                multiply(version, a + section * some_rows * PITCH, b,
                         tile + section * some_rows * across + strip * STRIP, across, some_rows,
                         panels * width, terms, first > start, &expected, NULL,
                         &made if strip == 0 else NULL)
    if upright:
        for k in range(filters):
            micro_kernel.regroup(version, tile + k * across, dw + k * pitch + row, 1, 1, rows, add, pitch)
        return
    # (section, channel, tap) in the tile, (channel, section, tap) in dw.
    run = some_taps if sections > 1 else rows
    for i in range(ceil_div(filters, SIXTEEN)):
        some = min(SIXTEEN, filters - i * SIXTEEN)
        micro_kernel.transpose(version, tile + i * SIXTEEN, across, lines, rows, rows, some)
        for k in range(some):
            micro_kernel.regroup(version, lines + k * rows, dw + (i * SIXTEEN + k) * pitch + row,
                                 some_rows // run, sections, run, add, SIXTEEN * pitch)


cdef bint all_finite(int version, const floating[:, :, ::1] values, Py_ssize_t start,
                     Py_ssize_t stop) noexcept nogil:
    """Whether all are finite at positions [start, stop)."""
    cdef Py_ssize_t n, k
    if start < stop:
        for n in range(values.shape[0]):
            for k in range(values.shape[1]):
                if not micro_kernel.finite(version, &values[n, k, start], 1, stop - start):
                    return False
    return True


cdef Range frames_of_tap(const Geometry* g, Py_ssize_t kt) noexcept nogil:
    """The output frames [low, high) for which the taps of a frame of the kernel read a frame of the input."""
    cdef Py_ssize_t low = 0, high = g.oT
    while low < high and not reads(g, low, kt):
        low += 1
    while low < high and not reads(g, high - 1, kt):
        high -= 1
    return Range(low, high)


def weight_gradient(const floating[:, :, ::1] dy, const floating[:, :, :, :, ::1] x,
                    floating[:, ::1] dw, floating[:, ::1] workspace, floating[:, :, ::1] partial,
                    kernel, stride, pad, dilation, output, Py_ssize_t groups):
    """dw (C_out, K) = dy (N, C_out, P) times the transposed patches of x (N, C, T, H, W), over all samples.

    As many spans are computed at once as partial (any number, C_out, K) holds, or one, straight in dw.
    workspace is (threads, WORKSPACE).
    """
    cdef Geometry g = in_long_lines(
        geometry((x.shape[2], x.shape[3], x.shape[4]), kernel, stride, pad, dilation, output))
    cdef int version = micro_kernel.active()
    cdef Py_ssize_t filters = dw.shape[0] // groups, P = dy.shape[2], area = g.oH * g.oW
    cdef Py_ssize_t channels = x.shape[1] // groups, rows = dw.shape[1], height = 1, sections = 1
    cdef Py_ssize_t span = SPAN * DEPTH, spans = ceil_div(P, span), total = x.shape[0] * spans
    cdef Py_ssize_t at_once = min(max(1, partial.shape[0]), total)
    cdef Py_ssize_t tile_rows, tile_filters, down, across, tasks, batch, first, begin, stop, end, task
    cdef Py_ssize_t s, n, group, row, k, i, count, unit
    # Spans that take as long as any; the last of a sample may be short.
    cdef Py_ssize_t whole = max(1, min(at_once, x.shape[0] * (P // span)))
    cdef Range reached
    cdef bint apart = partial.shape[0] > 0, upright = filters > rows, leave_out
    cdef floating* to
    cdef Py_ssize_t later
    cdef Then then
    require_sizes(g, x, dw, dy, workspace, groups)
    require(not apart or (partial.shape[1] == dw.shape[0] and partial.shape[2] == dw.shape[1]))
    unit = micro_kernel.columns(version, &x[0, 0, 0, 0, 0])
    if upright:
        tile_filters, tile_rows = tile_of(filters, 1, rows, MOST_COLUMNS, unit, groups * whole, 1, 4)
    else:
        if 1 < g.kT and g.kT * g.kH * g.kW <= DEPTH:  # tiles of whole channels
            height, sections = g.kT * g.kH * g.kW, g.kT
        tile_rows, tile_filters = tile_of(rows // height, height, filters, MOST_COLUMNS, unit,
                                          groups * whole, 1, 1)
        tile_rows *= height
    leave_out = sections > 1
    for i in range(sections if leave_out else 0):
        reached = frames_of_tap(&g, i)
        leave_out = (leave_out and all_finite(version, dy, 0, reached.low * area)
                     and all_finite(version, dy, reached.high * area, P))
    down, across = ceil_div(rows, tile_rows), ceil_div(filters, tile_filters)
    tasks = groups * down * across
    batch = openmp.max_threads() * max(1, UNINTERRUPTED // (tile_rows * tile_filters * span))
    for first in range(0, total, at_once):
        begin, stop = first * tasks, min(first + at_once, total) * tasks
        while begin < stop:
            end = min(begin + batch, stop)
            with nogil:
                for task in prange(begin, end, schedule="dynamic",
                                   use_threads_if=openmp.pays(at_once * span * dw.shape[0] * rows // 8)):
                    then = Then(NULL, NULL, 0, 0)
                    later = task + openmp.max_threads()  # as a rule
                    if later < stop:
                        n = later // tasks // spans
                        group = later // (down * across) % groups
                        k = group * filters + later // down % across * tile_filters
                        then = Then(<const void*> &x[n, group * channels, 0, 0, 0],
                                    <const void*> &dy[n, k, 0], later % down * tile_rows,
                                    later // tasks % spans * span)
                    s = task // tasks
                    n = s // spans
                    group = task // (down * across) % groups
                    row = task % down * tile_rows
                    k = group * filters + task // down % across * tile_filters
                    to = &partial[s - first, k, 0] if apart else &dw[k, 0]
                    correlate_tile(version, &dy[n, k, 0], &x[n, group * channels, 0, 0, 0], to,
                                   &workspace[openmp.thread_num(), 0], &g, sections, leave_out, rows,
                                   min(tile_filters, (group + 1) * filters - k),
                                   row, min(tile_rows, rows - row),
                                   s % spans * span, min((s % spans + 1) * span, P),
                                   upright, s > 0 and not apart, then)
            PyErr_CheckSignals()
            begin = end
        if apart:
            count = min(at_once, total - first)
            with nogil:
                for k in prange(dw.shape[0], use_threads_if=openmp.pays(count * dw.shape[0] * rows)):
                    for s in range(count):
                        for i in range(rows):
                            dw[k, i] = (dw[k, i] if first + s > 0 else 0) + partial[s, k, i]
