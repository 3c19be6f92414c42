"""Memory of large arrays, kept for the next ones: fresh pages cost more than the arithmetic that fills them.

A block is the base of an array; when the last view of it is gone, its memory waits for an array of
about its size. At most `MOST_KEPT` bytes wait, and only as long as all blocks together take no more
than those in use once did; what has waited longest goes back to the system first.

Python's GIL lets one thread at a time at this; where there is none, a mutex does. A child that was forked has a new
one: if another thread held it then, what waited is left alone there.
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
    #ifdef Py_GIL_DISABLED
    static PyMutex refnet_mutex;
    #define refnet_lock() PyMutex_Lock(&refnet_mutex)
    #define refnet_unlock() PyMutex_Unlock(&refnet_mutex)
    #else
    #define refnet_lock()
    #define refnet_unlock()
    #endif
    /* Whether this is a child that was forked while another thread was in the middle of something. */
    static int refnet_is_torn = 0;
    #if defined(Py_GIL_DISABLED) && !defined(_WIN32)
    #include <pthread.h>
    static void refnet_in_child(void)
    {
        const PyMutex open = {0};
        refnet_is_torn |= memcmp(&refnet_mutex, &open, sizeof open) != 0;
        refnet_mutex = open;
    }
    /* The C library's, for whatever Python runs in a child may free an array. */
    #define refnet_watch_forks() pthread_atfork(NULL, NULL, refnet_in_child)
    #else
    #define refnet_watch_forks() 0
    #endif
    """
    void* allocate "refnet_allocate"(size_t) noexcept nogil
    void release "refnet_release"(void*, size_t) noexcept nogil
    void lock "refnet_lock"() noexcept
    void unlock "refnet_unlock"() noexcept
    bint is_torn "refnet_is_torn"
    int watch_forks "refnet_watch_forks"() noexcept

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


cdef void enter() noexcept:
    """Keep other threads out, until `unlock`; no object of Python's is touched meanwhile."""
    global count, total, is_torn
    lock()
    if is_torn:
        count = total = is_torn = 0


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


cdef void* take(Py_ssize_t* held) noexcept:
    """At least `held` bytes, which becomes what there are; NULL if the system has none."""
    global used, most_used
    cdef Py_ssize_t i, best = -1
    cdef void* found
    for i in range(count):
        if held[0] <= sizes[i] <= held[0] + held[0] // 4 and (best < 0 or sizes[i] < sizes[best]):
            best = i
    if best >= 0:
        held[0] = sizes[best]
        found = leave(best)
    else:
        while count > 0 and used + held[0] + total > most_used:
            drop(0)
        found = allocate(held[0])
        if found == NULL:
            drop_all()
            found = allocate(held[0])
        if found == NULL:
            return NULL
    used += held[0]
    most_used = max(most_used, used)
    return found


cdef void put(void* memory, Py_ssize_t held) noexcept:
    """Have memory wait for the next array, or return it to the system."""
    global count, total, used
    used -= held
    if held > most_kept:
        release(memory, held)
        return
    while count == MOST_BLOCKS or total + held > most_kept:
        drop(0)
    waiting[count] = memory
    sizes[count] = held
    count += 1
    total += held


cdef void drop_all() noexcept:
    """Return to the system what waits."""
    while count > 0:
        drop(count - 1)


cdef class Block:
    """`size` bytes of memory, aligned, with anything in it."""

    cdef void* memory
    cdef Py_ssize_t held, size

    def __cinit__(self, Py_ssize_t size):
        if not 0 <= size <= most_size:
            raise MemoryError(f"{size} bytes")
        self.size = size
        self.held = max(1, (size + grain - 1) // grain) * grain
        enter()
        self.memory = take(&self.held)
        unlock()
        if self.memory == NULL:
            raise MemoryError(f"{size} bytes")

    def __dealloc__(self):
        if self.memory == NULL:
            return
        enter()
        put(self.memory, self.held)
        unlock()

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory, self.size, 0, flags)


def kept():
    """Bytes that wait."""
    enter()
    cdef Py_ssize_t found = total
    unlock()
    return found


def in_use():
    """Bytes of blocks that an array still needs."""
    enter()
    cdef Py_ssize_t found = used
    unlock()
    return found


def give_back():
    """Return to the system what waits."""
    enter()
    drop_all()
    unlock()


watch_forks()
