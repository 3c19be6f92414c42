# A queue of what the next blocks will read and write: the micro-kernel prefetches a line of it with every few terms.

from refnet._core.blocking cimport CACHE_LINE, PREFETCH_LINES, ceil_div
from refnet._core.simd cimport PrefetchRun

cdef enum:
    MAX_RUNS = 32       # in the queue
    MAX_RUN_LINES = 32  # cache lines of a row of one run
    MAX_THROTTLE = 2    # 2**2 prefetches of a line: those of KC terms are enough for a row of MAX_RUN_LINES


# Runs of cache lines, each repeated in `rows`; `head` and `row` are the first that has not been taken. Each
# line is prefetched 2**throttle times.
cdef struct PrefetchQueue:
    int count, head, throttle
    Py_ssize_t row
    PrefetchRun runs[MAX_RUNS]
    Py_ssize_t rows[MAX_RUNS]


cdef inline void clear(PrefetchQueue* queue) noexcept nogil:
    queue.count = queue.head = queue.throttle = 0
    queue.row = 0


# Queue `size` bytes of each of `rows` rows, `stride` bytes apart; what the queue has no room for is left out.
cdef inline void push(PrefetchQueue* queue, const void* at, Py_ssize_t size, Py_ssize_t stride,
                      Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t lines = ceil_div(size, CACHE_LINE) + 1, count
    cdef const char* start = <const char*> at
    while lines > 0 and queue.count < MAX_RUNS:
        count = min(lines, <Py_ssize_t> MAX_RUN_LINES)
        queue.runs[queue.count] = PrefetchRun(start, count, CACHE_LINE, stride)
        queue.rows[queue.count] = rows
        queue.count += 1
        start += count * CACHE_LINE
        lines -= count


# Rows of `count` lines that a call of the micro-kernel takes which prefetches `lines`: so many at once that a row may
# end before them.
cdef inline Py_ssize_t rows_a_call(Py_ssize_t count, Py_ssize_t lines) noexcept nogil:
    return max(1, lines // (ceil_div(count, PREFETCH_LINES) * PREFETCH_LINES))


# Throttle the queue so that it lasts for about two thirds of the next `calls` of the micro-kernel: memory then
# has time to answer, and the packed operands need not wait behind it.
cdef inline void throttle(PrefetchQueue* queue, Py_ssize_t calls, Py_ssize_t lines) noexcept nogil:
    cdef Py_ssize_t needed
    cdef int level, run
    for level in range(MAX_THROTTLE, 0, -1):
        needed = 0
        for run in range(queue.count):
            needed += ceil_div(queue.rows[run], rows_a_call(queue.runs[run].count << level, lines))
        if 3 * needed <= 2 * calls:
            queue.throttle = level
            return


# Take what a call of the micro-kernel prefetches; the queue must not be empty.
cdef inline PrefetchRun pop(PrefetchQueue* queue, Py_ssize_t lines) noexcept nogil:
    cdef PrefetchRun taken = queue.runs[queue.head]
    taken.at += queue.row * taken.stride
    taken.count <<= queue.throttle
    queue.row += rows_a_call(taken.count, lines)
    if queue.row >= queue.rows[queue.head]:
        queue.head += 1
        queue.row = 0
    taken.step >>= queue.throttle
    return taken


cdef inline bint is_empty(const PrefetchQueue* queue) noexcept nogil:
    return queue.head == queue.count
