"""A scale and a bias for each channel, and their gradients, one (sample, channel) plane at a time.

Blobs are (N, C, P) with P = T * H * W.
"""

from cython cimport floating
from cython.parallel cimport prange

from refnet._core cimport openmp
from refnet._core.sizes cimport require


def forward(const floating[:, :, ::1] x, const floating[::1] s, const floating[::1] b,
            floating[:, :, ::1] y):
    """y = s x + b."""
    cdef Py_ssize_t C = x.shape[1], P = x.shape[2], plane, n, c, p
    require(s.shape[0] == C and b.shape[0] == C and y.shape[0] == x.shape[0]
            and y.shape[1] == C and y.shape[2] == P)
    with nogil:
        for plane in prange(x.shape[0] * C, schedule="static",
                            use_threads_if=openmp.pays(x.shape[0] * C * P)):
            n = plane // C
            c = plane % C
            for p in range(P):
                y[n, c, p] = s[c] * x[n, c, p] + b[c]


def input_gradient(const floating[:, :, ::1] dy, const floating[::1] s, floating[:, :, ::1] dx):
    """dx = s dy."""
    cdef Py_ssize_t C = dy.shape[1], P = dy.shape[2], plane, n, c, p
    require(s.shape[0] == C and dx.shape[0] == dy.shape[0] and dx.shape[1] == C and dx.shape[2] == P)
    with nogil:
        for plane in prange(dy.shape[0] * C, schedule="static",
                            use_threads_if=openmp.pays(dy.shape[0] * C * P)):
            n = plane // C
            c = plane % C
            for p in range(P):
                dx[n, c, p] = s[c] * dy[n, c, p]


def scale_gradient(const floating[:, :, ::1] dy, const floating[:, :, ::1] x, floating[::1] ds):
    """ds[c] = sum of dy x over samples and positions, in eight interleaved partial sums."""
    cdef Py_ssize_t c, n, p, P = dy.shape[2], whole = P - P % 8
    cdef floating s0, s1, s2, s3, s4, s5, s6, s7
    require(ds.shape[0] == dy.shape[1] and x.shape[0] == dy.shape[0] and x.shape[1] == dy.shape[1]
            and x.shape[2] == P)
    with nogil:
        for c in prange(ds.shape[0], schedule="static",
                        use_threads_if=openmp.pays(dy.shape[0] * ds.shape[0] * P)):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0
            for n in range(dy.shape[0]):
                for p in range(0, whole, 8):
                    s0 = s0 + dy[n, c, p] * x[n, c, p]
                    s1 = s1 + dy[n, c, p + 1] * x[n, c, p + 1]
                    s2 = s2 + dy[n, c, p + 2] * x[n, c, p + 2]
                    s3 = s3 + dy[n, c, p + 3] * x[n, c, p + 3]
                    s4 = s4 + dy[n, c, p + 4] * x[n, c, p + 4]
                    s5 = s5 + dy[n, c, p + 5] * x[n, c, p + 5]
                    s6 = s6 + dy[n, c, p + 6] * x[n, c, p + 6]
                    s7 = s7 + dy[n, c, p + 7] * x[n, c, p + 7]
                for p in range(whole, P):
                    s0 = s0 + dy[n, c, p] * x[n, c, p]
            ds[c] = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


def bias_gradient(const floating[:, :, ::1] dy, floating[::1] db):
    """db[c] = sum of dy over samples and positions, in eight interleaved partial sums."""
    cdef Py_ssize_t c, n, p, P = dy.shape[2], whole = P - P % 8
    cdef floating s0, s1, s2, s3, s4, s5, s6, s7
    require(db.shape[0] == dy.shape[1])
    with nogil:
        for c in prange(db.shape[0], schedule="static",
                        use_threads_if=openmp.pays(dy.shape[0] * db.shape[0] * P)):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0
            for n in range(dy.shape[0]):
                for p in range(0, whole, 8):
                    s0 = s0 + dy[n, c, p]
                    s1 = s1 + dy[n, c, p + 1]
                    s2 = s2 + dy[n, c, p + 2]
                    s3 = s3 + dy[n, c, p + 3]
                    s4 = s4 + dy[n, c, p + 4]
                    s5 = s5 + dy[n, c, p + 5]
                    s6 = s6 + dy[n, c, p + 6]
                    s7 = s7 + dy[n, c, p + 7]
                for p in range(whole, P):
                    s0 = s0 + dy[n, c, p]
            db[c] = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
