"""Every version of the micro-kernel that this processor runs, and the order of sums of conv3d.pyx."""

from fractions import Fraction

import numpy as np
import pytest
from refnet._core import conv3d, micro_kernel
from support import every_dtype, shifted_sums

from refnet.arithmetic import core

DEPTH = 256
every_version = pytest.mark.parametrize("version", micro_kernel.versions())


@pytest.fixture(autouse=True)
def give_back():
    before = micro_kernel.name()
    yield
    micro_kernel.use(before)


def test_the_most_demanding_version_is_in_use():
    assert micro_kernel.name() == micro_kernel.versions()[-1]
    assert micro_kernel.versions()[0] == "baseline"


@every_dtype
@every_version
@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((1, 70, 3, 10, 11), (33, 70, 3, 3, 3), {"pad": (1, 1, 1)}),
        ((1, 30, 2, 12, 25), (1, 30, 1, 1, 1), {}),
        ((2, 16, 3, 9, 40), (46, 8, 3, 3, 3), {"stride": (1, 2, 2), "pad": (1, 1, 1), "groups": 2}),
        ((1, 3, 2, 40, 37), (13, 3, 1, 7, 7), {"stride": (1, 2, 2), "pad": (0, 3, 3)}),
        ((1, 5, 4, 9, 16), (7, 5, 2, 2, 3), {"stride": (3, 2, 3), "dilation": (1, 2, 2), "pad": (1, 0, 2)}),
        ((1, 2, 1, 40, 40), (3, 2, 1, 20, 20), {"pad": (0, 2, 1)}),
        ((1, 1, 1, 1, 700), (2, 1, 1, 1, 1), {"stride": (1, 1, 3)}),
        ((1, 3, 5, 21, 37), (13, 3, 3, 7, 5), {"stride": (2, 2, 2), "pad": (1, 3, 2)}),
        ((2, 6, 3, 17, 19), (8, 3, 1, 3, 4), {"stride": (1, 2, 3), "pad": (0, 1, 0), "groups": 2}),
    ],
)
def test_integers_are_exact(version, dtype, x, w, attrs):
    micro_kernel.use(version)
    rng = np.random.default_rng(0)
    xs, ws = rng.integers(-9, 10, x), rng.integers(-9, 10, w)
    y, context = core.conv3d.forward(xs.astype(dtype), ws.astype(dtype), **attrs)
    dy = rng.integers(-9, 10, y.shape)
    dx, dw = core.conv3d.backward(dy.astype(dtype), context)
    for ours, theirs in zip((y, dx, dw), shifted_sums(xs, ws, dy, **attrs), strict=True):
        assert np.array_equal(ours, theirs)


@every_dtype
@every_version
@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((1, 41, 2, 231, 233), (3, 41, 1, 1, 1), {"stride": (1, 2, 2)}),
        ((1, 40, 2, 230, 233), (2, 40, 1, 1, 1), {"stride": (1, 3, 3), "pad": (0, 1, 0)}),
        ((1, 40, 3, 230, 161), (2, 40, 2, 1, 1), {"stride": (2, 1, 1), "pad": (1, 0, 0)}),
        ((2, 20, 2, 160, 333), (9, 20, 1, 3, 3), {"stride": (1, 2, 2), "pad": (0, 1, 0)}),
    ],
)
def test_large_gradients_are_written_past_the_caches(version, dtype, x, w, attrs):
    """More than 16 MiB of dx, in runs that begin and end anywhere in a cache line; zeros belong to them."""
    micro_kernel.use(version)
    rng = np.random.default_rng(0)
    xs, ws = np.zeros(x, int), rng.integers(-9, 10, w)
    y, context = core.conv3d.forward(xs.astype(dtype), ws.astype(dtype), **attrs)
    dy = rng.integers(-9, 10, y.shape)
    dx, _ = core.conv3d.backward(dy.astype(dtype), context, (True, False))
    assert dx.nbytes >= 16 << 20
    assert np.array_equal(dx, shifted_sums(xs, ws, dy, **attrs)[1])


def test_fused_versions_give_the_same_bits():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((1, 40, 3, 9, 10)), rng.standard_normal((21, 40, 3, 3, 3))
    bits = {}
    for version in micro_kernel.versions():
        micro_kernel.use(version)
        y, context = core.conv3d.forward(x, w, stride=(1, 2, 1), pad=(1, 1, 1))
        gradients = core.conv3d.backward(np.cos(y), context)
        bits.setdefault(micro_kernel.is_fused(), set()).add(b"".join(a.tobytes() for a in (y, *gradients)))
    assert all(len(found) == 1 for found in bits.values())


def rounded(exact, dtype):
    """The nearest number of the dtype, ties to even."""
    near = np.dtype(dtype).type(float(exact))
    candidates = [near, np.nextafter(near, dtype(np.inf)), np.nextafter(near, dtype(-np.inf))]
    return min(candidates, key=lambda c: (abs(Fraction(float(c)) - exact), int(c.view(f"u{c.itemsize}")) & 1))


def chain(terms, dtype, fused):
    total = dtype(0)
    for a, b in terms:
        product = Fraction(float(a)) * Fraction(float(b))
        if not fused:
            product = Fraction(float(rounded(product, dtype)))
        total = rounded(product + Fraction(float(total)), dtype)
    return total


def cut(terms, length):
    return [terms[i : i + length] for i in range(0, len(terms), length)]


def in_order(values):
    total = type(values[0])(0)
    for value in values:
        total = total + value
    return total


def chains(terms, dtype, fused):
    return in_order([chain(part, dtype, fused) for part in cut(terms, DEPTH)])


def defined(x, w, dy, stride, pad, dtype, fused):
    """(y, dx, dw) term by term in the order that conv3d.pyx states, along the axes T and W alone."""
    (N, C), (K, _, *kernel) = x.shape[:2], w.shape
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)

    def read(array, at, t, v):
        inside = 0 <= t < array.shape[2] and 0 <= v < array.shape[3]
        return array[(*at, t, v)] if inside else dtype(0)

    def reads(o, tap):
        return [o[i] * stride[i] + tap[i] - pad[i] for i in (0, 1)]

    def reached_from(position, tap):
        places = [position[i] + pad[i] - tap[i] for i in (0, 1)]
        whole = all(places[i] % stride[i] == 0 for i in (0, 1))
        return [places[i] // stride[i] for i in (0, 1)] if whole else None

    # For strided images, every place of dy counts from which some i of the same i // stride gathers.
    image = C <= 4 and stride != (1, 1) and all(k >= s for k, s in zip(kernel, stride, strict=True))
    every_place = {
        tuple(reached_from(v, tap))
        for v in np.ndindex(*stride)
        for tap in np.ndindex(*kernel)
        if reached_from(v, tap)
    }

    for n, k, *o in np.ndindex(*dy.shape):
        terms = [
            (w[(k, c, *tap)], read(x, (n, c), *reads(o, tap)))
            for c in range(C)
            for tap in np.ndindex(*kernel)
        ]
        y[(n, k, *o)] = chains(terms, dtype, fused)
    for n, c, *i in np.ndindex(*x.shape):
        reach = [(tap, reached_from(i, tap)) for tap in np.ndindex(*kernel) if reached_from(i, tap)]
        terms = [(w[(k, c, *tap)], read(dy, (n, k), *o)) for k in range(K) for tap, o in reach]
        if image:
            here = {tuple(q - j // s for q, j, s in zip(o, i, stride, strict=True)): tap for tap, o in reach}
            places = [(k, place) for k in range(K) for place in sorted(every_place, reverse=True)]
            parts = [
                [
                    (w[(k, c, *here[q])], read(dy, (n, k), *np.add(q, np.floor_divide(i, stride))))
                    for k, q in part
                    if q in here
                ]
                for part in cut(places, DEPTH)
            ]
            dx[(n, c, *i)] = in_order([chain(part, dtype, fused) for part in parts])
        else:
            dx[(n, c, *i)] = chains(terms, dtype, fused) if terms else 0
    for k, c, *tap in np.ndindex(*w.shape):
        spans = []
        for n in range(N):
            terms = [(dy[(n, k, *o)], read(x, (n, c), *reads(o, tap))) for o in np.ndindex(*dy.shape[2:])]
            spans += [chains(part, dtype, fused) for part in cut(terms, DEPTH * conv3d.SPAN)]
        dw[(k, c, *tap)] = in_order(spans)
    return y, dx, dw


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_version
@pytest.mark.parametrize(
    ("x", "w", "stride", "pad"),
    [
        ((1, 100, 1, 6), (2, 100, 1, 3), (1, 1), (0, 1)),
        ((2, 1, 1, 9), (130, 1, 1, 5), (1, 2), (0, 2)),
        ((2, 1, 1, 2100), (1, 1, 1, 2), (1, 1), (0, 0)),
        ((1, 3, 1, 300), (5, 3, 1, 1), (1, 1), (0, 0)),
        ((1, 2, 1, 11), (3, 2, 1, 1), (1, 3), (0, 0)),
        ((1, 2, 4, 70), (2, 2, 3, 2), (1, 1), (1, 0)),
        ((1, 50, 3, 33), (2, 50, 3, 2), (1, 1), (1, 1)),
        ((1, 1, 6, 70), (3, 1, 5, 1), (2, 1), (2, 0)),
        ((1, 3, 5, 11), (40, 3, 3, 4), (2, 2), (1, 1)),
        ((1, 2, 5, 13), (100, 2, 2, 5), (1, 3), (0, 2)),
    ],
)
def test_every_bit_is_that_of_the_definition(version, dtype, x, w, stride, pad):
    micro_kernel.use(version)
    rng = np.random.default_rng(2)
    xs, ws = rng.standard_normal(x).astype(dtype), rng.standard_normal(w).astype(dtype)
    attrs = {"stride": (stride[0], 1, stride[1]), "pad": (pad[0], 0, pad[1])}
    y, context = core.conv3d.forward(xs[:, :, :, None], ws[:, :, :, None], **attrs)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, dw = core.conv3d.backward(dy, context)
    expected = defined(xs, ws, dy[:, :, :, 0], stride, pad, dtype, micro_kernel.is_fused())
    for ours, theirs in zip((y, dx, dw), expected, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@every_dtype
@every_version
def test_a_zero_of_the_padding_is_a_factor_like_any_other(version, dtype):
    """Frames of the padding are left out, but not where they meet infinity, which times 0 is NaN."""
    micro_kernel.use(version)
    x, w = np.ones((1, 3, 4, 7, 9), dtype), np.ones((2, 3, 3, 1, 1), dtype)
    w[1, 2, 0] = np.inf
    y, context = core.conv3d.forward(x, w, pad=(1, 0, 0))
    assert np.isnan(y[0, 1, 0]).all() and (y[0, 1, 1:] == np.inf).all()
    assert (y[0, 0, [0, 3]] == 6).all() and (y[0, 0, 1:3] == 9).all()
    dy = np.ones_like(y)
    dx, _ = core.conv3d.backward(dy, context)
    assert np.isnan(dx[0, 2, 3]).all() and (dx[0, 2, :3] == np.inf).all() and np.isfinite(dx[0, :2]).all()
    dy[0, 0, 3, 0, 0] = np.nan
    dy[0, 1, 0, 6, 8] = np.inf
    _, dw = core.conv3d.backward(dy, context)
    assert np.isnan(dw[0]).all() and np.isnan(dw[1, :, 0]).all() and (dw[1, :, 1:] == np.inf).all()


@every_dtype
@every_version
def test_infinities_reach_only_what_they_are_a_term_of(version, dtype):
    """The phases of a strided image are computed at once, with weights of 0 between; not if one meets inf."""
    micro_kernel.use(version)
    x, w = np.ones((1, 3, 1, 9, 21), dtype), np.ones((2, 3, 1, 3, 3), dtype)
    y, context = core.conv3d.forward(x, w, stride=(1, 2, 2), pad=(0, 1, 1))
    dy = np.ones_like(y)
    dy[0, 1, 0, 2, 4] = np.inf
    dx, _ = core.conv3d.backward(dy, context)
    expected = np.zeros((9, 21), bool)
    expected[3:6, 7:10] = True
    assert np.array_equal(np.isinf(dx[0, :, 0]), np.broadcast_to(expected, (3, 9, 21)))
    assert np.isfinite(dx[0, :, 0][:, ~expected]).all()


@every_dtype
@every_version
def test_sums_of_nothing_but_underflow_are_zero_and_not_minus_zero(version, dtype):
    micro_kernel.use(version)
    tiny = np.finfo(dtype).smallest_subnormal
    x, w = np.full((1, 3, 4, 7, 9), tiny, dtype), np.full((2, 3, 3, 1, 1), -tiny, dtype)
    y, context = core.conv3d.forward(x, w, pad=(1, 0, 0))
    dx, dw = core.conv3d.backward(np.full_like(y, tiny), context)
    dw_of_negative = core.conv3d.backward(np.full_like(y, -tiny), context)[1]
    for array in (y, dx, dw, dw_of_negative):
        assert array.tobytes() == np.zeros_like(array).tobytes()


@every_dtype
@pytest.mark.parametrize(
    ("x", "w"),
    [((1, 1, 1, 200, 201), (2, 1, 1, 200, 200)), ((1, 40000, 1, 1, 2), (3, 40000, 1, 1, 1))],
)
def test_the_workspace_does_not_grow_with_the_shape(x, w, dtype):
    assert conv3d.workspace_bytes(np.dtype(dtype).itemsize) <= 32 << 20
    rng = np.random.default_rng(3)
    xs, ws = rng.integers(-3, 4, x), rng.integers(-3, 4, w)
    y, context = core.conv3d.forward(xs.astype(dtype), ws.astype(dtype))
    dy = rng.integers(-3, 4, y.shape)
    expected = shifted_sums(xs, ws, dy) if np.prod(w[2:]) == 1 else None
    dx, dw = core.conv3d.backward(dy.astype(dtype), context)
    if expected is None:
        assert y[0, :, 0, 0, 0].tolist() == [(xs[0, :, :, :, :200] * k).sum() for k in ws]
        assert np.array_equal(
            dw[1, 0, 0],
            (dy[0, 1, 0, 0] * np.lib.stride_tricks.sliding_window_view(xs[0, 0, 0], 2, axis=1)).sum(axis=-1),
        )
        return
    for ours, theirs in zip((y, dx, dw), expected, strict=True):
        assert np.array_equal(ours, theirs)
