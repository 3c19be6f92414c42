"""Resizing compared with its definition, pixel by pixel, with exact fractions, and with OpenCV."""

import platform
from fractions import Fraction

import numpy as np
import pytest
from support import assert_within, peer, unit

from refnet.errors import RefnetError
from refnet.inputs.clip import PIXEL_MEANS
from refnet.inputs.resize import area, linear

# (H, W) before and after: shrunk, grown, one each way, a line, a column, a pixel, halved, by thirds, kept.
SIZES = [
    ((8, 8), (2, 2)),
    ((7, 5), (3, 4)),
    ((5, 7), (11, 13)),
    ((9, 4), (4, 9)),
    ((1, 9), (3, 5)),
    ((9, 1), (5, 3)),
    ((1, 1), (2, 3)),
    ((6, 10), (3, 5)),
    ((6, 10), (3, 10)),
    ((9, 6), (3, 2)),
    ((6, 7), (6, 7)),
    ((31, 17), (10, 16)),
]
every_size = pytest.mark.parametrize(("before", "after"), SIZES)


def pixels(size, seed=0):
    """A frame as it is resized: whole numbers less the means, in float32."""
    whole = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return (whole - np.array(PIXEL_MEANS)).astype(np.float32)


def taps(n, m, at, one):
    """Where output `at` of m reads its n inputs, and the share of the second, in the arithmetic of `one`."""
    position = (at + one / 2) * n / m - one / 2
    first = int(np.floor(float(position)))
    return first, position - first


def exact(x, size, o):
    """One output of two taps, in exact arithmetic."""
    (i, f), (j, g) = (taps(n, m, at, Fraction(1)) for n, m, at in zip(x.shape, size, o[:2], strict=False))

    def read(line, column):
        inside = (min(max(k, 0), n - 1) for k, n in zip((line, column), x.shape, strict=False))
        return Fraction(float(x[(*inside, o[2])]))

    return (1 - f) * ((1 - g) * read(i, j) + g * read(i, j + 1)) + f * (
        (1 - g) * read(i + 1, j) + g * read(i + 1, j + 1)
    )


@every_size
def test_two_taps_are_those_of_the_formula(before, after):
    """Within rounding: of positions, at most (H + W) u, times the steepest slope; of two sums of products."""
    x = pixels(before)
    expected = np.array([exact(x, after, o) for o in np.ndindex(*after, 3)], float).reshape(*after, 3)
    largest, u = float(np.abs(x).max()), unit("float32")
    # A pass: 1 - f, two products and a sum, each of values up to the largest.
    bound = largest * (2 * u * sum(before) + 2 * 4 * u) * (1 + 2.0**-20)
    assert_within(linear(x, after), expected, bound)


def loop(x, size):
    """Two taps, one float32 operation after the other; OpenCV's rules at the edges."""
    one = np.float32(1)
    y = np.empty((*size, 3), np.float32)

    def tap(n, m, at):
        position = np.float32((at + 0.5) * (1 / (m / n)) - 0.5)
        first = int(np.floor(position))
        return first, position - np.float32(first)

    for o in np.ndindex(*size, 3):
        i, f = tap(x.shape[0], size[0], o[0])
        j, g = tap(x.shape[1], size[1], o[1])
        if j < 0 or j >= x.shape[1] - 1:
            j, g = min(max(j, 0), x.shape[1] - 1), np.float32(0)
        lines = []
        for line in (i, i + 1):
            left, right = (
                x[min(max(line, 0), x.shape[0] - 1), min(k, x.shape[1] - 1), o[2]] for k in (j, j + 1)
            )
            lines.append(left * (one - g) + right * g)
        y[o] = lines[0] * (one - f) + lines[1] * f
        if x.shape[:2] == (2 * size[0], 2 * size[1]):
            (a, b), (c, d) = x[2 * o[0] : 2 * o[0] + 2, 2 * o[1] : 2 * o[1] + 2, o[2]]
            y[o] = (((a + b) + c) + d) * np.float32(0.25)
    return y


@every_size
def test_two_taps_have_the_bits_of_a_loop(before, after):
    x = pixels(before)
    assert np.array_equal(linear(x, after), loop(x, after))


def test_two_taps_do_not_widen_when_they_shrink():
    """A line of light that lies between the taps is not seen; an average over the area sees it."""
    x = np.zeros((8, 8, 3), np.float32)
    x[:, 4] = 255
    assert np.array_equal(linear(x, (2, 2)), np.zeros((2, 2, 3)))
    assert np.array_equal(area(x, (2, 2))[..., 0], [[0, 255 / 4]] * 2)


@every_size
def test_an_area_is_the_mean_of_what_an_output_covers(before, after):
    x = pixels(before)
    if before[0] < after[0] or before[1] < after[1]:
        with pytest.raises(
            RefnetError, match="cannot grow to .* by area: expected a smaller size, or linear"
        ):
            area(x, after)
        return
    shares = []
    for n, m in zip(before, after, strict=True):
        share = np.zeros((m, n))
        for output, tap in np.ndindex(m, n):
            ends = Fraction(output * n, m), Fraction((output + 1) * n, m)
            share[output, tap] = max(Fraction(0), min(ends[1], tap + 1) - max(ends[0], tap)) / Fraction(n, m)
        shares.append(share)
    expected = np.einsum("hi,wj,ijc->hwc", *shares, x.astype(float))
    # An axis: up to 1e-3 pixel at each end may be left out; weights and products are rounded, terms added.
    terms = sum(-(-n // m) + 1 for n, m in zip(before, after, strict=True))
    bound = np.abs(x).max() * ((1 + 2e-3) ** 2 - 1 + (2 * 2 + terms) * unit("float32"))
    assert_within(area(x, after), expected, bound)


@pytest.fixture
def cv2():
    """OpenCV, its own code: without Intel's IPP, whose bits it does not define."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("compilers fuse products and sums of OpenCV here")
    module = peer("cv2")
    before = module.ipp.useIPP()
    module.ipp.setUseIPP(False)
    yield module
    module.ipp.setUseIPP(before)


@pytest.mark.parametrize("vectors", [True, False])
def test_the_bits_are_those_of_opencv(cv2, vectors):
    before = cv2.useOptimized()
    cv2.setUseOptimized(vectors)
    cv2.ipp.setUseIPP(False)  # the line above switches it too
    rng = np.random.default_rng(0)
    sizes = [
        (tuple(map(int, rng.integers(1, 90, 2))), tuple(map(int, rng.integers(1, 90, 2)))) for _ in range(200)
    ]
    times = [(m, tuple(k * n for k, n in zip(rng.integers(1, 9, 2), m, strict=True))) for _, m in sizes[:100]]
    sizes += SIZES + [(big, m) for m, big in times]
    sizes += [((2 * h, 2 * w), (h, w)) for (h, w), _ in sizes[:20]]
    sizes += [((720, 1280), (224, 224)), ((720, 1280), (360, 640)), ((240, 320), (187, 333))]
    try:
        for before_size, after in sizes:
            x = pixels(before_size)
            theirs = cv2.resize(x, after[::-1], interpolation=cv2.INTER_LINEAR)
            assert np.array_equal(linear(x, after), theirs.reshape(*after, 3)), (before_size, after)
            if all(n >= m for n, m in zip(before_size, after, strict=True)):
                theirs = cv2.resize(x, after[::-1], interpolation=cv2.INTER_AREA)
                assert np.array_equal(area(x, after), theirs.reshape(*after, 3)), (before_size, after)
    finally:
        cv2.setUseOptimized(before)
