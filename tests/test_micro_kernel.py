"""Every version of the micro-kernel that this processor runs, and the order of sums of conv3d.pyx."""

import os
import platform
import subprocess
import sys
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from support import every_dtype, shifted_sums
from threadpoolctl import threadpool_limits

from refnet._core import conv3d, micro_kernel
from refnet.arithmetic import core
from refnet.arithmetic.core.linear import FEW
from refnet.ops import OPS

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


def test_all_versions_give_the_same_bits():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((1, 40, 3, 9, 10)), rng.standard_normal((21, 40, 3, 3, 3))
    bits = set()
    for version in micro_kernel.versions():
        micro_kernel.use(version)
        y, context = core.conv3d.forward(x, w, stride=(1, 2, 1), pad=(1, 1, 1))
        gradients = core.conv3d.backward(np.cos(y), context)
        bits.add(b"".join(a.tobytes() for a in (y, *gradients)))
    assert len(bits) == 1


def two_sum(a, b):
    """(s, e) with s = RN(a + b) and s + e = a + b (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a, b):
    """(p, e) with p = RN(a b) and p + e = a b, barring underflow (Veltkamp and Dekker)."""
    bits = np.finfo(a.dtype).nmant + 1

    def halves(v):
        c = v * v.dtype.type(2 ** ((bits + 1) // 2) + 1)
        high = c - (c - v)
        return high, v - high

    p, (a1, a2), (b1, b2) = a * b, halves(a), halves(b)
    return p, a2 * b2 - (((p - a1 * b1) - a2 * b1) - a1 * b2)


def fused(a, b, c):
    """RN(a b + c), barring underflow: Boldo and Melquiond, IEEE Trans. Comput. 57 (2008), figure 5.

    The three parts of a b + c are added exactly but for the last addition, whose operand is rounded to odd.
    """
    product, error = two_product(a, b)
    low, rest = two_sum(c, error)
    high, left = two_sum(product, low)
    s, e = two_sum(rest, left)
    is_even = s.view(f"u{s.itemsize}") % 2 == 0
    odd = np.where(is_even & (e != 0), np.nextafter(s, np.copysign(s.dtype.type(np.inf), e)), s)
    return high + odd


def rounded(exact, dtype):
    """The nearest number of the dtype, ties to even; infinity where that is beyond the largest finite one."""
    info = np.finfo(dtype)
    numerator, denominator = abs(exact).as_integer_ratio()
    exponent = numerator.bit_length() - denominator.bit_length()
    exponent -= abs(exact) < Fraction(2) ** exponent
    unit = Fraction(2) ** int(max(exponent - info.nmant, info.minexp - info.nmant))
    nearest = round(abs(exact) / unit) * unit
    return dtype(np.inf if nearest > Fraction(float(info.max)) else float(nearest)) * dtype(
        1 - 2 * (exact < 0)
    )


def multiply_add(a, b, c):
    """RN(a b + c) of three numbers, by rational arithmetic; by IEEE's rules where one is infinite or NaN."""
    if not np.isfinite([a, b]).all():
        with np.errstate(invalid="ignore"):
            return a * b + c
    if not np.isfinite(c):
        return c
    return rounded(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)), type(a))


def hard_terms(dtype, n):
    """Factors a, b and summands c of n multiply-adds each: whatever may be hard to round."""
    rng = np.random.default_rng(5)
    info = np.finfo(dtype)
    bits = info.nmant + 1

    def random(low, high):
        powers = rng.integers(low, high, n)
        return np.ldexp(rng.uniform(1, 2, n) * rng.choice([-1, 1], n), powers).astype(dtype)

    def near(values, ulps):
        integers = values.view(f"i{values.itemsize}")
        return (integers + rng.integers(-ulps, ulps + 1, n, integers.dtype)).view(dtype)

    def few_bits(last, exponent):
        """1 + i 2^-last for an odd i, times 2^exponent."""
        return np.ldexp(1 + np.ldexp(2.0 * rng.integers(0, 8, n) + 1, -last), exponent).astype(dtype)

    low, high = int(info.minexp), int(info.maxexp)
    half = low // 2
    edges = [0, 1, info.max, info.max / 2, info.tiny, info.tiny * (1 - info.eps), info.smallest_subnormal]
    edges = np.array([*edges, np.inf, np.nan], dtype)
    edges = np.concatenate([edges, -edges])
    with np.errstate(over="ignore", under="ignore"):
        a, b = random(-3, 3), random(-3, 3)
        yield "any", a, b, random(-3 - bits, 3 + bits)
        yield "cancellation", a, b, near(-(a * b), 3)
        # The last bit of a b is half a unit of the result; c is nothing beside it, and decides.
        a, b = few_bits(bits // 2, 0), few_bits(bits - bits // 2, 0)
        yield "ties", a, b, np.zeros(n, dtype)
        yield "next to ties", a, b, random(-4 * bits, -bits - 8)
        yield (
            "ties of subnormals",
            few_bits(6, half),
            few_bits(6, low - half - bits + 12),
            random(low - bits, low),
        )
        a, b = random(half - 8, half), random(half - bits, half)
        yield "products below", a, b, random(low - bits, low + 4)
        yield "cancellation below", a, b, near(-(a * b), 1)
        yield "subnormal factor and summand", random(-3, 3), random(low - bits, low), random(low - bits, low)
        yield "subnormal times huge", random(low - bits, low), random(high - 4, high), random(half, -half)
        yield "overflow", random(-half - 1, -half + 2), random(-half - 1, -half + 2), random(high - 3, high)
        a, b = random(high - 1, high), random(-1, 2)
        yield "product beyond", a, b, -np.sign(a * b) * random(high - 2, high)
        yield "edges", *(rng.choice(edges, n) for _ in range(3))


@every_dtype
@every_version
def test_a_multiply_add_rounds_once(version, dtype):
    """Chains of two terms: 1 c, and a b. Ties, cancellation, underflow, overflow, infinity, NaN."""
    dtype = np.dtype(dtype).type
    micro_kernel.use(version)
    for kind, a, b, c in hard_terms(dtype, 256):
        w = np.stack([np.ones_like(a), a], 1)[..., None, None, None]
        x = np.stack([c, b])[None, :, None, None]
        y, _ = core.conv3d.forward(x, w)
        found = y[0, :, 0, 0].diagonal()
        expected = np.array([multiply_add(*abc) for abc in zip(a, b, c, strict=True)], dtype)
        wrong = np.flatnonzero(~((found == expected) | (np.isnan(found) & np.isnan(expected))))
        assert not len(wrong), (kind, [float(v[wrong[0]]).hex() for v in (a, b, c, found, expected)])


@pytest.mark.skipif(
    (platform.machine(), platform.libc_ver()[0]) != ("x86_64", "glibc"),
    reason="glibc of x86-64 can be told to leave instructions alone",
)
def test_a_multiply_add_rounds_once_where_the_c_library_has_no_instruction_for_it():
    """What may over- or underflow is left to C's `fma`, which chooses an instruction at run time."""
    one_test = "test_a_multiply_add_rounds_once('baseline', dtype)"
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"import test_micro_kernel as tests\nfor dtype in ('float32', 'float64'): tests.{one_test}",
        ],
        cwd=Path(__file__).parent,
        env={**os.environ, "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4"},
        check=True,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fused_rounds_once(dtype):
    """Equal to rational arithmetic on normal numbers, on cancellation, on ties and next to them."""
    rng = np.random.default_rng(4)
    bits = np.finfo(dtype).nmant + 1
    a, b, c = rng.standard_normal((3, 600)).astype(dtype)
    c[:200] = (-a * b)[:200]
    a[400:] = 2.0**bits + 2 * rng.integers(0, 9, 200)
    b[400:] = 1 + rng.integers(-1, 2, 200) * 2.0 ** (1 - bits)
    c[400:] = rng.integers(-3, 4, 200) * 2.0 ** rng.integers(-2, 3, 200)
    expected = [multiply_add(*abc) for abc in zip(a, b, c, strict=True)]
    assert fused(a, b, c).tolist() == expected
    assert (a * b + c).tolist() != expected, "two roundings differ from one"


def chains(a, b):
    """The sums of a b over the first axis, in order from 0, of DEPTH terms each; one after the other."""
    depth = min(DEPTH, len(a))
    shape = np.broadcast_shapes(a.shape[1:], b.shape[1:])
    beyond = -len(a) % depth  # terms of 0 change no sum
    a, b = (np.concatenate([v, np.zeros((beyond, *v.shape[1:]), v.dtype)]) for v in (a, b))
    a, b = (v.reshape(-1, depth, *v.shape[1:]) for v in (a, b))
    total = np.zeros((len(a), *shape), a.dtype)
    for i in range(depth):
        total = fused(a[:, i], b[:, i], total)
    return total


def in_order(parts):
    total = np.zeros_like(parts[0])
    for part in parts:
        total = total + part
    return total


def read(volume, first, step, shape):
    """The values at first + step i for i below the shape, along the last three axes; zeros beyond."""
    for axis, (start, apart, count) in enumerate(zip(first, step, shape, strict=True), volume.ndim - 3):
        at = start + apart * np.arange(count)
        is_inside = (at >= 0) & (at < volume.shape[axis])
        found = volume.take(at.clip(0, volume.shape[axis] - 1), axis)
        volume = np.where(is_inside.reshape(-1, *[1] * (volume.ndim - 1 - axis)), found, volume.dtype.type(0))
    return volume


def patches(x, kernel, output, stride, pad, dilation):
    """What each tap reads: (N, C taps, oT, oH, oW)."""
    taps = [
        read(x, [k * d - p for k, d, p in zip(tap, dilation, pad, strict=True)], stride, output)
        for tap in np.ndindex(*kernel)
    ]
    return np.stack(taps, 2).reshape(len(x), -1, *output)


def defined(x, w, dy, groups=1, **attrs):
    """(y, dx, dw) in the order that conv3d.pyx states, group by group."""
    groups_of = [np.split(x, groups, 1), np.split(w, groups), np.split(dy, groups, 1)]
    found = [defined_of_group(*operands, **attrs) for operands in zip(*groups_of, strict=True)]
    y, dx, dw = zip(*found, strict=True)
    return np.concatenate(y, 1), np.concatenate(dx, 1), np.concatenate(dw)


def defined_of_group(x, w, dy, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1)):
    """Likewise, of one group."""
    K, C, *kernel = w.shape
    every = patches(x, kernel, dy.shape[2:], stride, pad, dilation)
    terms = w.reshape(K, -1).T[:, None, :, None, None, None]
    y = in_order(chains(terms, every.swapaxes(0, 1)[:, :, None]))

    dx = np.zeros_like(x)
    reach = {phase: gathered(phase, kernel, stride, pad, dilation) for phase in np.ndindex(*stride)}
    # For strided images, every place of dy counts from which some phase gathers, with a weight of 0.
    image = (
        C <= 4 and np.prod(stride) > 1 and np.greater_equal(kernel, stride).all() and dilation == (1, 1, 1)
    )
    places_of_all = sorted({place for found in reach.values() for place in found}, reverse=True)
    for phase, found in reach.items():
        at = dx[..., *(slice(v, None, s) for v, s in zip(phase, stride, strict=True))]
        places = places_of_all if image else list(found)
        if places:
            none = np.zeros((K, C), w.dtype)
            a = np.stack([w[:, :, *found[q]] if q in found else none for q in places], 1)
            b = np.stack([read(dy, q, (1, 1, 1), at.shape[2:]) for q in places], 2)
            a = a.reshape(-1, 1, C, 1, 1, 1)
            b = b.reshape(len(dy), -1, *at.shape[2:]).swapaxes(0, 1)[:, :, None]
            at[...] = in_order(chains(a, b))

    spans = []
    for n in range(len(x)):
        left, right = dy[n].reshape(K, -1).T, every[n].reshape(len(terms), -1).T
        found = chains(left[:, :, None], right[:, None])
        spans += [in_order(found[i : i + conv3d.SPAN]) for i in range(0, len(found), conv3d.SPAN)]
    return y, dx, in_order(spans).reshape(w.shape)


def gathered(phase, kernel, stride, pad, dilation):
    """From where in dy, less m, the input positions phase + stride m gather, and through which tap."""
    found = {}
    for tap in np.ndindex(*kernel):
        steps = [v + p - k * d for v, p, k, d in zip(phase, pad, tap, dilation, strict=True)]
        if not np.any(np.mod(steps, stride)):
            found[tuple(np.floor_divide(steps, stride).tolist())] = tap
    return found


def defined_linear(x, w, dy):
    """(y, dx, dw) of a fully connected layer, each summed as the convolution that it is."""
    found = chains(x.T[:, :, None], w.T[:, None])
    y = in_order([in_order(found[i : i + conv3d.SPAN]) for i in range(0, len(found), conv3d.SPAN)])
    return y, in_order(chains(dy.T[:, :, None], w[:, None])), in_order(chains(dy[:, :, None], x[:, None]))


# Two chains commute, and two spans: three or more show in which order they are added.
PROBLEMS = {
    "channels in one chain": ((1, 100, 1, 1, 6), (2, 100, 1, 1, 3), {"pad": (0, 0, 1)}),
    "two samples": ((2, 1, 1, 1, 9), (130, 1, 1, 1, 5), {"stride": (1, 1, 2), "pad": (0, 0, 2)}),
    "two spans": ((2, 1, 1, 1, 2100), (1, 1, 1, 1, 2), {}),
    "pointwise": ((1, 3, 1, 1, 300), (5, 3, 1, 1, 1), {}),
    "pointwise strided": ((1, 2, 1, 1, 11), (3, 2, 1, 1, 1), {"stride": (1, 1, 3)}),
    "frames of the padding": ((1, 2, 4, 1, 70), (2, 2, 3, 1, 2), {"pad": (1, 0, 0)}),
    "padding along T and W": ((1, 50, 3, 1, 33), (2, 50, 3, 1, 2), {"pad": (1, 0, 1)}),
    "strided along T": ((1, 1, 6, 1, 70), (3, 1, 5, 1, 1), {"stride": (2, 1, 1), "pad": (2, 0, 0)}),
    "image": ((1, 3, 5, 1, 11), (40, 3, 3, 1, 4), {"stride": (2, 1, 2), "pad": (1, 0, 1)}),
    "image of many phases": ((1, 2, 5, 1, 13), (100, 2, 2, 1, 5), {"stride": (1, 1, 3), "pad": (0, 0, 2)}),
    "y, three chains": ((1, 190, 1, 1, 4), (25, 190, 1, 1, 3), {"pad": (0, 0, 1)}),
    "y, three chains, pointwise": ((1, 700, 1, 2, 70), (6, 700, 1, 1, 1), {}),
    "y, three chains, tiles of columns": ((1, 190, 1, 1, 300), (4, 190, 1, 1, 3), {}),
    "y, three chains, all at once, tiles of columns": ((1, 190, 1, 1, 262), (25, 190, 1, 1, 3), {}),
    "dx, three chains, all at once": ((1, 30, 1, 1, 9), (190, 30, 1, 1, 3), {"pad": (0, 0, 1)}),
    "y, five chains, strided": (
        (2, 130, 2, 7, 6),
        (3, 130, 1, 3, 3),
        {"stride": (1, 2, 2), "pad": (0, 1, 1), "dilation": (1, 1, 2)},
    ),
    "y, six chains, frames of the padding": ((1, 170, 3, 3, 4), (2, 170, 3, 3, 1), {"pad": (2, 1, 0)}),
    "y and dx, three chains, tiles of rows": ((1, 200, 1, 2, 6), (200, 200, 1, 1, 3), {"pad": (0, 0, 1)}),
    "dx, three chains, tiles of columns": ((1, 5, 1, 1, 300), (180, 5, 1, 1, 3), {"pad": (0, 0, 1)}),
    "dx, three chains, phases": (
        (1, 5, 4, 3, 17),
        (200, 5, 3, 2, 3),
        {"stride": (2, 1, 2), "pad": (1, 1, 1)},
    ),
    "dx, three chains, phases far apart": (
        (1, 5, 2, 9, 40),
        (300, 5, 1, 2, 4),
        {"stride": (1, 3, 2), "dilation": (1, 2, 1)},
    ),
    "dx, three chains, phases, tiles of columns": (
        (1, 5, 1, 1, 700),
        (300, 5, 1, 1, 4),
        {"stride": (1, 1, 2)},
    ),
    "dx, three chains, image": ((1, 3, 2, 9, 14), (40, 3, 1, 7, 7), {"stride": (1, 2, 2), "pad": (0, 3, 3)}),
    "dx, three chains, image, tiles of columns": (
        (1, 3, 1, 24, 61),
        (160, 3, 1, 3, 3),
        {"stride": (1, 2, 2), "pad": (0, 1, 1)},
    ),
    **{
        f"y of {rows} rows": ((1, 3, 2, 5, width), (rows, 3, 2, 3, 3), {"pad": (0, 1, 1)})
        for rows, width in (
            (1, 14),
            (3, 7),
            (5, 5),
            (8, 14),
            (9, 14),
            (13, 28),
            (16, 7),
            (17, 9),
            (23, 14),
            (25, 7),
        )
    },
    "in groups of 2": ((1, 6, 2, 5, 14), (9, 2, 3, 3, 3), {"pad": (1, 1, 1), "groups": 3}),
    "in groups of 8": ((2, 24, 3, 7, 14), (24, 8, 3, 3, 3), {"pad": (1, 1, 1), "groups": 3}),
    "in groups, strided": (
        (1, 8, 3, 9, 14),
        (12, 4, 1, 3, 3),
        {"stride": (1, 2, 2), "pad": (0, 1, 1), "groups": 2},
    ),
    "in groups, three chains": ((1, 180, 2, 3, 14), (15, 60, 1, 3, 3), {"pad": (0, 1, 1), "groups": 3}),
    "in groups, 13 rows, frames": ((2, 9, 5, 4, 9), (39, 3, 3, 1, 1), {"pad": (1, 0, 0), "groups": 3}),
    "in groups, dilated": (
        (1, 12, 4, 9, 20),
        (12, 4, 2, 3, 3),
        {"dilation": (2, 1, 3), "pad": (1, 1, 4), "groups": 3},
    ),
    "in groups, more padding than kernel": (
        (1, 6, 2, 3, 4),
        (9, 2, 2, 2, 3),
        {"pad": (2, 3, 5), "groups": 3},
    ),
    "in groups, lines of 19 and of 37": ((1, 6, 2, 3, 37), (12, 2, 1, 2, 19), {"groups": 3}),
    "in many groups": ((1, 45, 3, 5, 14), (45, 1, 3, 3, 3), {"pad": (1, 1, 1), "groups": 45}),
    "in many groups, lines of 9": ((1, 45, 3, 5, 9), (45, 1, 3, 3, 3), {"pad": (1, 1, 1), "groups": 45}),
    "plane by plane, two bands, three vectors": (
        (1, 6, 4, 17, 46),
        (6, 1, 3, 3, 3),
        {"pad": (1, 1, 1), "groups": 6},
    ),
    "plane by plane, groups of 2, more padding than kernel": (
        (2, 12, 2, 4, 22),
        (12, 2, 3, 3, 3),
        {"pad": (3, 4, 4), "groups": 6},
    ),
    "plane by plane, twice as many filters, strided and dilated frames": (
        (1, 7, 6, 15, 15),
        (14, 1, 3, 3, 3),
        {"stride": (2, 1, 1), "pad": (2, 0, 1), "dilation": (2, 1, 1), "groups": 7},
    ),
    "plane by plane, one frame, no padding": ((1, 6, 1, 9, 18), (6, 1, 1, 3, 3), {"groups": 6}),
    "in many groups of 2, lines of 5": (
        (2, 48, 2, 6, 4),
        (48, 2, 2, 3, 2),
        {"pad": (1, 0, 1), "dilation": (1, 2, 1), "groups": 24},
    ),
    "in many groups, strided": (
        (1, 47, 4, 7, 17),
        (94, 1, 3, 2, 3),
        {"stride": (2, 1, 2), "pad": (0, 1, 2), "groups": 47},
    ),
    "in many groups, dilated, more padding than kernel": (
        (1, 48, 3, 4, 9),
        (48, 1, 1, 3, 3),
        {"dilation": (1, 1, 3), "pad": (1, 3, 4), "groups": 48},
    ),
    "lines of 14": ((1, 12, 2, 3, 14), (32, 12, 3, 3, 3), {"pad": (1, 1, 1)}),
    "lines of 28, two samples, chains": ((2, 64, 2, 2, 28), (62, 64, 1, 3, 3), {"pad": (0, 1, 1)}),
    "lines of 7": ((1, 64, 3, 3, 7), (61, 64, 3, 3, 3), {"pad": (1, 1, 1)}),
    "lines of 14, a last chain of one term": ((1, 19, 2, 3, 14), (32, 19, 3, 3, 3), {"pad": (1, 1, 1)}),
    "lines of 28, strided": (
        (1, 19, 2, 5, 28),
        (32, 19, 3, 3, 3),
        {"stride": (1, 2, 2), "pad": (1, 1, 1)},
    ),
    "lines of 14, strided": (
        (1, 19, 2, 5, 14),
        (64, 19, 3, 3, 3),
        {"stride": (1, 2, 2), "pad": (1, 1, 1)},
    ),
    "lines of 14, in whole planes of padding": ((1, 4, 2, 3, 14), (32, 4, 3, 3, 3), {"pad": (4, 4, 1)}),
    "lines of 7, in whole planes of padding": ((2, 4, 1, 2, 7), (64, 4, 2, 3, 3), {"pad": (3, 5, 1)}),
    "dw, groups, two spans, two samples": (
        (2, 6, 2, 35, 37),
        (12, 2, 1, 3, 2),
        {"pad": (0, 1, 1), "groups": 3},
    ),
    "dw, groups, strided, dilated": (
        (1, 9, 5, 19, 27),
        (15, 3, 2, 3, 3),
        {"stride": (2, 1, 2), "pad": (1, 0, 2), "dilation": (2, 1, 2), "groups": 3},
    ),
    "dw, groups, more padding than kernel": (
        (1, 12, 3, 5, 6),
        (12, 3, 2, 2, 3),
        {"stride": (1, 3, 1), "pad": (3, 0, 4), "groups": 4},
    ),
    "dw, groups of 13 filters": ((1, 24, 3, 9, 9), (39, 8, 3, 1, 1), {"pad": (1, 0, 0), "groups": 3}),
    "dw, many groups, two spans, two samples": (
        (2, 45, 3, 27, 28),
        (45, 1, 1, 3, 3),
        {"pad": (0, 1, 1), "groups": 45},
    ),
    "dw, many groups of 2, twice as many filters, two spans": (
        (2, 30, 3, 20, 37),
        (60, 2, 1, 3, 3),
        {"pad": (0, 1, 1), "groups": 15},
    ),
    "dw, many groups of 4": ((1, 48, 3, 9, 11), (48, 4, 3, 3, 3), {"pad": (1, 1, 1), "groups": 12}),
    "dw, many groups of 4, strided": (
        (1, 44, 3, 9, 22),
        (44, 4, 3, 1, 5),
        {"stride": (1, 2, 2), "pad": (1, 0, 2), "groups": 11},
    ),
    "dw, many groups of 8, two samples": (
        (2, 56, 3, 9, 11),
        (56, 8, 2, 3, 3),
        {"pad": (1, 1, 1), "groups": 7},
    ),
    "dw, many groups of 8, dilated": (
        (1, 48, 2, 7, 15),
        (48, 8, 2, 2, 2),
        {"dilation": (1, 2, 3), "pad": (1, 1, 2), "groups": 6},
    ),
    "dw, many groups, strided, dilated": (
        (1, 48, 4, 19, 20),
        (96, 1, 2, 5, 4),
        {"stride": (1, 2, 1), "dilation": (1, 1, 2), "pad": (1, 2, 0), "groups": 48},
    ),
    "dw, many groups, one tap": ((1, 48, 2, 9, 15), (48, 1, 1, 1, 1), {"groups": 48}),
    "dw, three chains": ((1, 7, 1, 20, 33), (9, 7, 1, 1, 3), {}),
    "dw, three chains, tiles of filters": ((1, 3, 1, 3, 200), (280, 3, 1, 1, 3), {"pad": (0, 0, 1)}),
    "dw, three chains, tiles of channels": ((1, 70, 1, 3, 200), (5, 70, 1, 1, 3), {"pad": (0, 0, 1)}),
    "dw, three chains, pointwise, tiles": ((1, 200, 1, 20, 30), (5, 200, 1, 1, 1), {}),
    "dw, three chains, frames of the padding": ((1, 30, 5, 9, 15), (4, 30, 3, 1, 3), {"pad": (1, 0, 1)}),
    "dw, three spans, three samples": ((3, 2, 1, 1, 4600), (3, 2, 1, 1, 3), {"pad": (0, 0, 1)}),
    "dw, tap by tap, two spans, two samples": (
        (2, 16, 1, 46, 47),
        (31, 16, 1, 3, 3),
        {"pad": (0, 1, 1)},
    ),
    "dw, tap by tap, tiles": ((1, 80, 2, 5, 6), (160, 80, 3, 1, 2), {"pad": (1, 0, 1)}),
    "dw, tap by tap, chains, groups, strided, dilated": (
        (1, 32, 6, 20, 29),
        (64, 16, 2, 3, 3),
        {"stride": (1, 1, 2), "pad": (1, 3, 2), "dilation": (2, 3, 1), "groups": 2},
    ),
    "dw, tap by tap, more padding than kernel": ((1, 16, 2, 3, 4), (32, 16, 2, 2, 3), {"pad": (2, 3, 5)}),
    "dw, tap by tap, stride beyond the kernel": (
        (1, 16, 7, 19, 30),
        (128, 16, 2, 1, 3),
        {"stride": (3, 2, 4), "pad": (1, 0, 1)},
    ),
    "dw, four spans, strided": ((1, 3, 2, 70, 101), (4, 3, 1, 2, 1), {"stride": (1, 1, 2), "pad": (0, 1, 0)}),
}


def drawn(x, w, dtype, **attrs):
    rng = np.random.default_rng(2)
    dy = OPS["conv3d"].infer(x, w, **attrs)
    return [rng.standard_normal(shape).astype(dtype) for shape in (x, w, dy)]


@cache
def defined_bits(problem, dtype):
    x, w, attrs = PROBLEMS[problem]
    return [array.tobytes() for array in defined(*drawn(x, w, dtype, **attrs), **attrs)]


def assert_defined_bits(problem, dtype):
    x_shape, w_shape, attrs = PROBLEMS[problem]
    x, w, dy = drawn(x_shape, w_shape, dtype, **attrs)
    y, context = core.conv3d.forward(x, w, **attrs)
    dx, dw = core.conv3d.backward(dy, context)
    expected = defined_bits(problem, dtype)
    for name, ours, theirs in zip(("y", "dx", "dw"), (y, dx, dw), expected, strict=True):
        assert ours.tobytes() == theirs, name


@pytest.mark.parametrize("threads", [1, 3])
@every_dtype
@every_version
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_bit_is_that_of_the_definition(problem, version, dtype, threads):
    micro_kernel.use(version)
    with threadpool_limits(threads, user_api="openmp"):
        assert_defined_bits(problem, dtype)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("spans", [0, 1, 2, 4])
def test_spans_are_added_in_order_however_many_are_held_at_once(spans, threads, monkeypatch):
    """Where there is room for none, each is added to dw when it is computed."""
    problem = "dw, three spans, three samples"
    room = spans * int(np.prod(PROBLEMS[problem][1]))
    monkeypatch.setattr(import_module("refnet.arithmetic.core.conv3d"), "PARTIAL_SUMS", room)
    with threadpool_limits(threads, user_api="openmp"):
        assert_defined_bits(problem, "float64")


@every_dtype
@every_version
def test_a_tap_in_the_padding_is_no_term(version, dtype):
    """Frames of the padding are left out, and so is every other tap there, infinity or not."""
    micro_kernel.use(version)
    x, w = np.ones((1, 3, 4, 7, 9), dtype), np.ones((2, 3, 3, 1, 3), dtype)
    w[1, 2, 0, 0, 2] = np.inf
    y, context = core.conv3d.forward(x, w, pad=(1, 0, 1))
    met = np.zeros((4, 7, 9), bool)
    met[1:, :, :-1] = True
    assert np.array_equal(np.isinf(y[0, 1]), met) and not np.isnan(y).any()
    along_t, along_w = np.array([2, 3, 3, 2]), np.array([2, *[3] * 7, 2])
    taps = 3 * along_t[:, None, None] * along_w * np.ones((7, 1), int)
    assert np.array_equal(y[0, 0], taps) and np.array_equal(y[0, 1][~met], taps[~met])
    dy = np.ones_like(y)
    dx, _ = core.conv3d.backward(dy, context)
    met = np.zeros((4, 7, 9), bool)
    met[:3, :, 1:] = True
    assert np.array_equal(np.isinf(dx[0, 2]), met) and np.isfinite(dx[0, 2][~met]).all()
    assert np.isfinite(dx[0, :2]).all()
    dy[0, 0, 3, 0, 0], dy[0, 1, 0, 6, 8] = np.nan, np.inf
    _, dw = core.conv3d.backward(dy, context)
    is_nan, is_inf = np.zeros((2, 3, 3, 1, 3), bool), np.zeros((2, 3, 3, 1, 3), bool)
    is_nan[0, :, :2, :, 1:] = is_inf[1, :, 1:, :, :2] = True
    assert np.array_equal(np.isnan(dw), is_nan) and np.array_equal(np.isinf(dw), is_inf)


# Of every kind that conv3d.pyx chooses between: several chains, spans, groups, phases apart and merged.
NONFINITE = {
    "3x3x3": ((2, 3, 4, 6, 5), (5, 3, 3, 3, 3), {"pad": (1, 1, 1)}),
    "three chains": ((1, 30, 3, 4, 5), (4, 30, 3, 3, 3), {"pad": (1, 1, 1)}),
    "strided, dilated, grouped": (
        (2, 6, 5, 9, 8),
        (4, 3, 2, 3, 2),
        {"stride": (2, 1, 3), "pad": (1, 2, 0), "dilation": (2, 2, 3), "groups": 2},
    ),
    "in many groups": ((2, 48, 3, 6, 9), (48, 2, 3, 3, 3), {"pad": (1, 1, 1), "groups": 24}),
    "plane by plane": ((1, 8, 3, 16, 14), (8, 2, 3, 3, 3), {"pad": (1, 1, 1), "groups": 4}),
    "strided": ((1, 6, 4, 9, 9), (40, 6, 3, 3, 3), {"stride": (2, 2, 2), "pad": (1, 1, 1)}),
    "image": ((1, 3, 2, 9, 11), (6, 3, 1, 7, 7), {"stride": (1, 2, 2), "pad": (0, 3, 3)}),
    "image of other phases": ((2, 2, 5, 5, 9), (60, 2, 3, 2, 4), {"stride": (2, 1, 3), "pad": (1, 1, 2)}),
    "two spans": ((2, 2, 1, 50, 50), (3, 2, 1, 3, 3), {"pad": (0, 1, 1)}),
    "lines of 28": ((1, 32, 2, 3, 28), (32, 32, 3, 3, 3), {"pad": (1, 1, 1)}),
    "dw tap by tap, strided": (
        (2, 16, 3, 9, 10),
        (32, 16, 3, 3, 3),
        {"stride": (1, 2, 2), "pad": (1, 1, 1)},
    ),
    "pointwise padded": ((2, 4, 3, 5, 4), (6, 4, 1, 1, 1), {"pad": (1, 0, 2)}),
}


@every_dtype
@every_version
@pytest.mark.parametrize("problem", NONFINITE)
def test_what_meets_no_infinity_has_the_bits_that_it_has_without(problem, version, dtype):
    """An infinity or NaN in w or dy reaches what it is a term of; where a run with a single 1 is not 0."""
    micro_kernel.use(version)
    x_shape, w_shape, attrs = NONFINITE[problem]
    x, w, dy = drawn(x_shape, w_shape, dtype, **attrs)
    rng = np.random.default_rng(6)

    def results(x, w, dy):
        y, context = core.conv3d.forward(x, w, **attrs)
        return y, *core.conv3d.backward(dy, context)

    good = results(x, w, dy)
    for bad in (np.inf, -np.inf, np.nan):
        at_w, at_dy = (tuple(rng.integers(a.shape)) for a in (w, dy))
        bad_w, bad_dy, one_w, one_dy = w.copy(), dy.copy(), np.zeros_like(w), np.zeros_like(dy)
        bad_w[at_w] = bad_dy[at_dy] = bad
        one_w[at_w] = one_dy[at_dy] = 1
        y, dx_of_w, _ = results(x, bad_w, dy)
        _, dx_of_dy, dw = results(x, w, bad_dy)
        reached_y, reached_by_w, _ = results(np.ones_like(x), one_w, np.ones_like(dy))
        _, reached_by_dy, reached_dw = results(np.ones_like(x), np.ones_like(w), one_dy)
        assert reached_y.any() and reached_by_w.any()
        assert_only_there(y, good[0], reached_y != 0, bad)
        assert_only_there(dx_of_w, good[1], reached_by_w != 0, bad)
        assert_only_there(dx_of_dy, good[1], reached_by_dy != 0, bad)
        assert_only_there(dw, good[2], reached_dw != 0, bad)


def assert_only_there(ours, good, reached, bad):
    assert ours[~reached].tobytes() == good[~reached].tobytes()
    assert (np.isnan if np.isnan(bad) else np.isinf)(ours[reached]).all()


@every_dtype
@every_version
@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((1, 3, 4, 7, 9), (2, 3, 3, 1, 1), {"pad": (1, 0, 0)}),
        ((1, 16, 2, 7, 14), (64, 16, 3, 3, 3), {"pad": (1, 1, 1)}),
        ((1, 6, 2, 7, 14), (6, 1, 3, 3, 3), {"pad": (1, 1, 1), "groups": 6}),
    ],
    ids=["tiles", "lines", "planes"],
)
def test_sums_of_nothing_but_underflow_are_zero_and_not_minus_zero(x, w, attrs, version, dtype):
    micro_kernel.use(version)
    tiny = np.finfo(dtype).smallest_subnormal
    x, w = np.full(x, tiny, dtype), np.full(w, -tiny, dtype)
    y, context = core.conv3d.forward(x, w, **attrs)
    dx, dw = core.conv3d.backward(np.full_like(y, tiny), context)
    dw_of_negative = core.conv3d.backward(np.full_like(y, -tiny), context)[1]
    for array in (y, dx, dw, dw_of_negative):
        assert array.tobytes() == np.zeros_like(array).tobytes()


@every_dtype
@pytest.mark.parametrize(
    ("x", "w"),
    [((1, 1, 1, 100, 101), (2, 1, 1, 100, 100)), ((1, 40000, 1, 1, 2), (3, 40000, 1, 1, 1))],
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
        assert y[0, :, 0, 0, 0].tolist() == [(xs[0, :, :, :, :100] * k).sum() for k in ws]
        assert np.array_equal(
            dw[1, 0, 0],
            (dy[0, 1, 0, 0] * np.lib.stride_tricks.sliding_window_view(xs[0, 0, 0], 2, axis=1)).sum(axis=-1),
        )
        return
    for ours, theirs in zip((y, dx, dw), expected, strict=True):
        assert np.array_equal(ours, theirs)


def unaligned(values, shift):
    """A copy that begins `shift` values behind a boundary of cache lines."""
    memory = np.empty(values.size + 32, values.dtype)
    first = -(memory.ctypes.data // values.itemsize) % 16 + shift
    memory[first : first + values.size] = values.ravel()
    return memory[first : first + values.size].reshape(values.shape)


@every_dtype
@every_version
@pytest.mark.parametrize(
    ("n", "d", "k", "shift"),
    [
        (1, 4400, 19, 0),  # three spans, whole lines
        (1, 4400, 35, 3),
        (2, 1040, 16, 4),
        (3, 831, 5, 1),
        (5, 2560, 33, 15),
        (8, 530, 17, 0),
        (FEW, 75, 781, 2),  # four chains of dx
        (1, 1090, 523, 5),
        (1, 3, 2, 1),
        (1, 2048, 77, 4),  # chains are lanes: eight of a row, and rows that are left
        (2, 1024, 39, 0),
        (2, 512, 100, 3),
        (1, 256, 33, 1),
    ],
)
def test_a_layer_of_few_samples_is_summed_as_defined(version, dtype, n, d, k, shift):
    micro_kernel.use(version)
    rng = np.random.default_rng(n)
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (k, d), (n, k)))
    y, context = core.linear.forward(x, unaligned(w, shift))
    dx, dw = core.linear.backward(dy, context)
    for name, ours, theirs in zip(("y", "dx", "dw"), (y, dx, dw), defined_linear(x, w, dy), strict=True):
        assert ours.tobytes() == theirs.tobytes(), name


@every_dtype
@every_version
def test_a_row_of_a_layer_is_the_same_in_any_batch_and_for_any_number_of_threads(version, dtype):
    micro_kernel.use(version)
    rng = np.random.default_rng(1)
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((300, 528), (67, 528), (300, 67)))
    w = unaligned(w, 4)
    y, context = core.linear.forward(x, w)
    dx, _ = core.linear.backward(dy, context)
    for count in (*range(1, FEW + 3), 33):
        rows = slice(7, 7 + count)
        bits = set()
        for threads in (1, 2, 3):
            with threadpool_limits(threads):
                part, context = core.linear.forward(x[rows], w)
                part_dx, part_dw = core.linear.backward(dy[rows], context)
            assert part.tobytes() == y[rows].tobytes(), count
            assert part_dx.tobytes() == dx[rows].tobytes(), count
            bits.add(part_dw.tobytes())
        assert len(bits) == 1
        dw = in_order(chains(dy[rows][:, :, None], x[rows][:, None]))
        assert bits == {dw.tobytes()}, count


@every_dtype
@every_version
def test_an_infinity_in_a_layer_of_few_samples_stays_where_it_belongs(version, dtype):
    micro_kernel.use(version)
    rng = np.random.default_rng(2)
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 83), (37, 83), (3, 37)))
    x[1, 5], w[3, 80], w[36, 0], dy[0, 11], dy[2, 36] = np.inf, np.nan, -np.inf, np.inf, np.nan
    with np.errstate(invalid="ignore"):
        expected = defined_in_double(x, w, dy)
    y, context = core.linear.forward(x, unaligned(w, 3))
    for ours, theirs in zip((y, *core.linear.backward(dy, context)), expected, strict=True):
        for where in (np.isnan, np.isposinf, np.isneginf):
            assert np.array_equal(where(ours), where(theirs))


def defined_in_double(x, w, dy):
    """(y, dx, dw) by NumPy's products and sums."""
    x, w, dy = (v.astype("float64") for v in (x, w, dy))
    y, dx = (x[:, None] * w).sum(2), (dy[:, :, None] * w).sum(1)
    return y, dx, (dy[:, :, None] * x[:, None]).sum(0)
