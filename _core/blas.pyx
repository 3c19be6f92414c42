"""The only door to SciPy's BLAS: row-major matrix multiplication in float32 and float64."""

from cython cimport floating
from scipy.linalg.cython_blas cimport dgemm, sgemm


cdef void gemm(bint transpose_a, bint transpose_b, int m, int n, int k,
               const floating* a, int lda, const floating* b, int ldb,
               floating beta, floating* c, int ldc) noexcept nogil:
    """C = op(A) op(B) + beta C, row-major.

    op(A) is (m, k), op(B) is (k, n), C is (m, n); lda, ldb, ldc are the lengths of the rows
    as stored. BLAS is column-major, where the same memory reads as the transposes:
    C' = op(B)' op(A)' + beta C'. With beta = 0, C is not read.
    """
    cdef char op_a = b"T" if transpose_a else b"N"
    cdef char op_b = b"T" if transpose_b else b"N"
    cdef floating alpha = 1
    if floating is double:
        dgemm(&op_b, &op_a, &n, &m, &k, &alpha, <double*> b, &ldb, <double*> a, &lda,
              &beta, c, &ldc)
    else:
        sgemm(&op_b, &op_a, &n, &m, &k, &alpha, <float*> b, &ldb, <float*> a, &lda,
              &beta, c, &ldc)
