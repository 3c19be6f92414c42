# The check that every `def` of the kernels begins with; what is below it cannot fail.
cdef inline int require(bint fits) except -1:
    if not fits:
        raise ValueError("the sizes of the arrays do not fit together")
    return 0
