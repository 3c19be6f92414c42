"""Memory of large arrays, kept for the next ones: fresh pages cost more than the arithmetic that fills them.

A block is the base of an array; when the last view of it is gone, its memory waits for an array of
about its size. At most `MOST_KEPT` bytes wait, and only as long as all blocks together take no more
than those in use once did; what has waited longest goes back to the system first.
"""

from cpython.buffer cimport PyBuffer_FillInfo
cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #ifdef __linux__
    #include <sys/mman.h>
    #endif
    #define HUGE_PAGE ((size_t) 2 << 20)
    /* Mapped, in large pages where the system has them: the C library would keep what is freed, once it has
       seen arrays of that size. */
    static void *refnet_allocate(size_t size)
    {
    #ifdef __linux__
        const int access = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
        char *found = mmap(NULL, size + HUGE_PAGE, access, flags, -1, 0);
        if (found == MAP_FAILED)
            return NULL;
        const size_t before = -(uintptr_t) found % HUGE_PAGE;
        if (before)
            munmap(found, before);
        munmap(found + before + size, HUGE_PAGE - before);
        madvise(found + before, size, MADV_HUGEPAGE);
        return found + before;
    #else
        return malloc(size);
    #endif
    }
    static void refnet_release(void *memory, size_t size)
    {
    #ifdef __linux__
        munmap(memory, size);
    #else
        (void) size;
        free(memory);
    #endif
    }
    """
    void* allocate "refnet_allocate"(size_t) noexcept nogil
    void release "refnet_release"(void*, size_t) noexcept nogil

cdef enum:
    MOST_BLOCKS = 256

# Sizes are rounded up to a multiple of this.
GRAIN = 1 << 20
MOST_KEPT = 512 << 20

cdef Py_ssize_t most_kept = MOST_KEPT
cdef Py_ssize_t grain = GRAIN
# No processor can address more: sums of sizes do not overflow.
cdef Py_ssize_t most_size = <Py_ssize_t> 1 << 56

# What waits, the longest waiting first.
cdef void* waiting[MOST_BLOCKS]
cdef Py_ssize_t sizes[MOST_BLOCKS]
cdef Py_ssize_t count = 0
cdef Py_ssize_t total = 0

# Bytes in use, and the most there ever were.
cdef Py_ssize_t used = 0
cdef Py_ssize_t most_used = 0


cdef void drop(Py_ssize_t index) noexcept:
    """Return to the system one of those that wait."""
    cdef Py_ssize_t size = sizes[index]
    release(leave(index), size)


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
    """`size` bytes of memory, aligned, with anything in it."""

    cdef void* memory
    cdef Py_ssize_t held, size

    def __cinit__(self, Py_ssize_t size):
        global used, most_used
        cdef Py_ssize_t i, best = -1
        if not 0 <= size <= most_size:
            raise MemoryError(f"{size} bytes")
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
                drop(0)
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
            release(self.memory, self.held)
            return
        while count == MOST_BLOCKS or total + self.held > most_kept:
            drop(0)
        waiting[count] = self.memory
        sizes[count] = self.held
        count += 1
        total += self.held

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory, self.size, 0, flags)


def kept():
    """Bytes that wait."""
    return total


def in_use():
    """Bytes of blocks that an array still needs."""
    return used


def give_back():
    """Return to the system what waits."""
    while count > 0:
        drop(count - 1)
