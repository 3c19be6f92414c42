from cython cimport floating


cdef void gemm(bint transpose_a, bint transpose_b, int m, int n, int k,
               const floating* a, int lda, const floating* b, int ldb,
               floating beta, floating* c, int ldc) noexcept nogil
