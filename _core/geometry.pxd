cdef extern from "geometry.h":
    ctypedef struct Geometry "struct geometry":
        Py_ssize_t T, H, W
        Py_ssize_t kT, kH, kW
        Py_ssize_t sT, sH, sW
        Py_ssize_t pT, pH, pW
        Py_ssize_t dT, dH, dW
        Py_ssize_t oT, oH, oW


cdef enum:
    LARGEST = 0x7fffffff


# The geometry of a window over a volume (T, H, W); the window is (kernel, stride, pad, dilation, output).
cdef inline Geometry geometry(volume, window):
    cdef Geometry g
    kernel, stride, pad, dilation, output = window
    g.T, g.H, g.W = volume
    g.kT, g.kH, g.kW = kernel
    g.sT, g.sH, g.sW = stride
    g.pT, g.pH, g.pW = pad
    g.dT, g.dH, g.dW = dilation
    g.oT, g.oH, g.oW = output
    return g


# Whether count = a b c, of positive sizes, whose product might overflow.
cdef inline bint is_product(Py_ssize_t count, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c) noexcept nogil:
    return (a > 0 and b > 0 and c > 0
            and count % a == 0 and count // a % b == 0 and count // a // b == c)


# a b c d, of sizes that are not negative, or 2**52 if it is larger: what no workspace holds.
cdef inline Py_ssize_t bounded_product(Py_ssize_t a, Py_ssize_t b, Py_ssize_t c, Py_ssize_t d) noexcept nogil:
    return <Py_ssize_t> min(<double> a * <double> b * <double> c * <double> d, <double> (<Py_ssize_t> 1 << 52))


# The first position that an axis of a window reads; dilation may be negative.
cdef inline Py_ssize_t first_read(Py_ssize_t kernel, Py_ssize_t pad, Py_ssize_t dilation) noexcept nogil:
    return min((kernel - 1) * dilation, <Py_ssize_t> 0) - pad


# How many positions it reads from there on, those between counted.
cdef inline Py_ssize_t extent(Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t dilation,
                              Py_ssize_t positions) noexcept nogil:
    return (positions - 1) * stride + (kernel - 1) * max(dilation, -dilation) + 1


# Whether a kernel, a stride and a dilation are positive, and none, nor the padding, is larger than what refnet takes.
cdef inline bint is_window(Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t pad, Py_ssize_t dilation) noexcept nogil:
    return (1 <= kernel <= LARGEST and 1 <= stride <= LARGEST and 1 <= dilation <= LARGEST
            and -LARGEST <= pad <= LARGEST)


# Whether a volume of that many values, and that many output positions, are those of the geometry, and it is one.
cdef inline bint fits(const Geometry* g, Py_ssize_t volume, Py_ssize_t positions) noexcept nogil:
    return (is_product(volume, g.T, g.H, g.W) and is_product(positions, g.oT, g.oH, g.oW)
            and is_window(g.kT, g.sT, g.pT, g.dT) and is_window(g.kH, g.sH, g.pH, g.dH)
            and is_window(g.kW, g.sW, g.pW, g.dW))


# The same windows over longer lines: where each value of an image is a window, images are lines.
cdef inline Geometry in_long_lines(Geometry g) noexcept nogil:
    if g.kH == g.kW == g.sH == g.sW == 1 and g.pH == g.pW == 0 and g.W == g.oW:
        g.W *= g.H
        g.oW *= g.oH
        g.H = g.oH = 1
    return g
