from libc.stdint cimport int64_t


# Sums of doubles and of products of two doubles without any rounding; accumulator.h.
cdef extern from "accumulator.h" nogil:
    ctypedef struct Accumulator "struct accumulator":
        pass
    void clear "accumulator_clear"(Accumulator*)
    void add "accumulator_add"(Accumulator*, double)
    void add_product "accumulator_add_product"(Accumulator*, double, double)
    double to_double "accumulator_to_double"(const Accumulator*)
    float to_float "accumulator_to_float"(const Accumulator*)
    double divided_to_double "accumulator_divided_to_double"(const Accumulator*, int64_t)
    float divided_to_float "accumulator_divided_to_float"(const Accumulator*, int64_t)
