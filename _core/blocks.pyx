"""Memory of large arrays, kept for the next ones: fresh pages cost more than the arithmetic that fills them.

A block is the base of an array; when the last view of it is gone, its memory waits for an array of
about its size. At most `MOST_KEPT` bytes wait, and only as long as all blocks together take no more
than those in use once did; what has waited longest goes back to the system first.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __linux__
    #include <sys/mman.h>
    #endif
    #define HUGE_PAGE ((size_t) 2 << 20)
    /* Large pages where the system has them, as NumPy asks for its own arrays. */
    static void *refnet_allocate(size_t size)
    {
    #ifdef __linux__
        void *found = NULL;
        if (posix_memalign(&found, HUGE_PAGE, size))
            return NULL;
        madvise(found, size, MADV_HUGEPAGE);
        return found;
    #else
        return malloc(size);
    #endif
    }
    """
    void* allocate "refnet_allocate"(size_t) noexcept nogil

cdef enum:
    MOST_BLOCKS = 64

# Sizes are rounded up to a multiple of this.
GRAIN = 1 << 20
MOST_KEPT = 256 << 20

cdef Py_ssize_t most_kept = MOST_KEPT
cdef Py_ssize_t grain = GRAIN

# What waits, the longest waiting first.
cdef void* waiting[MOST_BLOCKS]
cdef Py_ssize_t sizes[MOST_BLOCKS]
cdef Py_ssize_t count = 0
cdef Py_ssize_t total = 0

# Bytes in use, and the most there ever were.
cdef Py_ssize_t used = 0
cdef Py_ssize_t most_used = 0


cdef void* leave(Py_ssize_t index) noexcept:
    """Take a block out of those that wait."""
    global count, total
    cdef void* found = waiting[index]
    cdef Py_ssize_t i
    total -= sizes[index]
    count -= 1
    for i in range(index, count):
        waiting[i] = waiting[i + 1]
        sizes[i] = sizes[i + 1]
    return found


cdef class Block:
    """So many bytes of memory, aligned, with anything in it."""

    cdef void* memory
    cdef Py_ssize_t held, size

    def __cinit__(self, Py_ssize_t size):
        global used, most_used
        cdef Py_ssize_t i, best = -1
        self.size = size
        self.held = max(1, (size + grain - 1) // grain) * grain
        for i in range(count):
            if self.held <= sizes[i] <= self.held + self.held // 4 and (best < 0 or sizes[i] < sizes[best]):
                best = i
        if best >= 0:
            self.held = sizes[best]
            self.memory = leave(best)
        else:
            while count > 0 and used + self.held + total > most_used:
                free(leave(0))
            self.memory = allocate(self.held)
        if self.memory == NULL:
            give_back()
            self.memory = allocate(self.held)
        if self.memory == NULL:
            raise MemoryError(f"{size} bytes")
        used += self.held
        most_used = max(most_used, used)

    def __dealloc__(self):
        global count, total, used
        if self.memory == NULL:
            return
        used -= self.held
        if self.held > most_kept:
            free(self.memory)
            return
        while count == MOST_BLOCKS or total + self.held > most_kept:
            free(leave(0))
        waiting[count] = self.memory
        sizes[count] = self.held
        count += 1
        total += self.held

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory, self.size, 0, flags)


def kept():
    """Bytes that wait."""
    return total


def give_back():
    """Return to the system what waits."""
    while count > 0:
        free(leave(count - 1))
