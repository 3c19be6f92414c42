from cython cimport floating

from refnet._core.pack cimport LhsSource
from refnet._core.prefetch cimport PrefetchQueue
from refnet._core.simd cimport FusedPack, Simd, Terms


# One block of a product: c (rows, columns), `pitch` apart, = or += some terms of the packed lhs (rows, KC)
# times the packed rhs (KC, columns), of each panel its own terms. Unless NULL, `fused` packs rhs with the
# first rows of lhs, and `source` packs lhs when the rows' turn comes.
cdef struct MacroBlock:
    Py_ssize_t rows, columns, pitch
    const Terms* terms
    bint accumulate
    FusedPack* fused
    const LhsSource* source


cdef void macro_kernel(const Simd* simd, floating* lhs, floating* rhs, floating* c, const MacroBlock* block,
                       PrefetchQueue* queue) noexcept nogil
cdef void add_spans(const floating* spans, Py_ssize_t apart, Py_ssize_t count, floating* dw, Py_ssize_t size,
                    bint accumulate) noexcept nogil
