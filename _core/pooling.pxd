from refnet._core.geometry cimport Geometry, fits


# What a tap costs beside the values that it reads, in values.
cdef enum:
    TAP = 8


# Which part of a line an undilated window's tap reaches: the outputs [first, last), of which the first
# reads the input `at`.
cdef struct Overlap:
    Py_ssize_t first, last, at


cdef inline Overlap overlap(Py_ssize_t tap, Py_ssize_t stride, Py_ssize_t pad, Py_ssize_t inputs,
                            Py_ssize_t outputs) noexcept nogil:
    cdef Overlap s
    cdef Py_ssize_t offset = tap - pad
    s.first = 0 if offset >= 0 else (stride - 1 - offset) // stride
    s.last = min(outputs, (inputs - 1 - offset) // stride + 1) if offset < inputs else 0
    s.last = max(s.first, s.last)
    s.at = s.first * stride + offset
    return s


# Where in the plane the line begins that a tap along T and H (in C order) reads; below 0 in the padding.
cdef inline Py_ssize_t line_of(const Geometry* g, Py_ssize_t ot, Py_ssize_t oh,
                               Py_ssize_t tap) noexcept nogil:
    cdef Py_ssize_t t = ot * g.sT + tap // g.kH - g.pT, h = oh * g.sH + tap % g.kH - g.pH
    return (t * g.H + h) * g.W if 0 <= t < g.T and 0 <= h < g.H else -1


# How many taps of a window lie inside, for the output o.
cdef inline Py_ssize_t inside(Py_ssize_t o, Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad,
                              Py_ssize_t inputs) noexcept nogil:
    return min(o * stride - pad + kernel, inputs) - max(o * stride - pad, 0)


# Whether every window holds a value: the first and the last do. What is not in one has no largest value or mean.
cdef inline bint all_hold(Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad, Py_ssize_t inputs,
                          Py_ssize_t outputs) noexcept nogil:
    return 0 <= pad < kernel and outputs - 1 <= (inputs - 1 + pad) // stride


# Whether the windows are those of a pool over that many values: undilated, and each holds a value.
cdef inline bint pools(const Geometry* g, Py_ssize_t volume, Py_ssize_t positions) noexcept nogil:
    return (fits(g, volume, positions) and g.dT == g.dH == g.dW == 1
            and all_hold(g.kT, g.sT, g.pT, g.T, g.oT)
            and all_hold(g.kH, g.sH, g.pH, g.H, g.oH)
            and all_hold(g.kW, g.sW, g.pW, g.W, g.oW))


# The outputs [first, last) whose windows have the input i.
cdef inline Overlap windows(Py_ssize_t i, Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad,
                            Py_ssize_t outputs) noexcept nogil:
    cdef Overlap s
    cdef Py_ssize_t before = i + pad - kernel + 1
    s.first = (before + stride - 1) // stride if before > 0 else 0
    s.last = min(outputs, (i + pad) // stride + 1)
    s.at = i
    return s
