cdef bint enabled() noexcept nogil
cdef int max_threads() noexcept nogil
cdef int thread_num() noexcept nogil
cdef bint pays(Py_ssize_t work) noexcept nogil
