"""Ctrl-C in the middle of a kernel: handlers of signals run every tenth of a second.

Python runs a signal's handler in its first thread alone, and not before a kernel that this thread has called returns.
So each kernel counts what it does, now and then the thread that called it looks at the clock, and every tenth of a
second it takes the GIL and lets handlers run:

    cdef Watch watch = Watch(False)
    with nogil, parallel(...):
        before = environment.enter_default()
        turn = interrupt.turn(&watch)
        for i in prange(...):
            if not interrupt.asked(&turn, work):
                ...
        environment.restore(before)
    interrupt.finish(&watch)

What a task does is asked for before it, and within it where one task may take long. If a handler raises an exception,
all threads leave out what is left, and `finish` hands the exception on; what has been computed is lost. No result
depends on when, or how often, somebody looks.
"""

from cpython.exc cimport PyErr_CheckSignals

from refnet._core cimport openmp

cdef extern from "Python.h":
    int run_handlers "PyErr_CheckSignals"() noexcept

cdef extern from *:
    """
    #include <time.h>
    static double refnet_now(void)
    {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
    }
    #ifdef _MSC_VER
    #include <intrin.h>
    #define refnet_add_one(count) ((void) _InterlockedIncrement64((volatile __int64 *) (count)))
    #else
    #define refnet_add_one(count) ((void) __atomic_fetch_add(count, 1, __ATOMIC_RELAXED))
    #endif
    """
    double now "refnet_now"() noexcept nogil
    void add_one "refnet_add_one"(Py_ssize_t* count) noexcept nogil

# Work between two looks at the clock, a millisecond or less; and seconds between two times that handlers run. The clock
# decides no bit.
EVERY = 1 << 20
INTERVAL = 0.1

cdef Py_ssize_t every = EVERY
cdef double interval = INTERVAL
cdef Py_ssize_t count = 0


cdef Turn turn(Watch* watch) noexcept nogil:
    """The turn of this thread."""
    return Turn(watch, every, 0, openmp.thread_num() == 0)


cdef bint look(Turn* turn) noexcept nogil:
    """Run the handlers of what signals there are, if it is time to; return whether to stop."""
    turn.left = every
    if turn.is_calling and not load(&turn.watch.stopped) and is_time(turn):
        with gil:
            add_one(&count)
            if run_handlers() != 0:
                store(&turn.watch.stopped, True)
    if load(&turn.watch.stopped):
        turn.left = -1  # nothing more is begun
        return True
    return False


cdef bint is_time(Turn* turn) noexcept nogil:
    """Whether the interval is over since this was so, or was first asked; or somebody has put the clock back."""
    cdef double time = now()
    if turn.last == 0 and interval > 0:
        turn.last = time
    if turn.last <= time < turn.last + interval:
        return False
    turn.last = time
    return True


cdef int finish(const Watch* watch) except -1:
    """Raise what a handler has raised."""
    return -1 if watch.stopped else 0


cdef int between() except -1:
    """Run the handlers between two parts of a call."""
    add_one(&count)
    PyErr_CheckSignals()
    return 0


def looks():
    """How often handlers have had their chance since the process began."""
    return count


def look_every(Py_ssize_t work, double seconds):
    """Look at the clock after so much work from now on, and run handlers after so much time; for tests."""
    global every, interval
    every, interval = work, seconds
