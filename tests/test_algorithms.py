"""What is no direct sum of products: declared, or named as the cause; a bug under it is found too."""

import numpy as np
import pytest
from scipy import fft

from refnet import certify
from refnet.ops import OPS

F32 = np.float32
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)


def transforms(m, r):
    """A', G and B' of Winograd's F(m, r) (Toom and Cook, transposed), in float64."""
    n = m + r - 1

    def powers(count):
        rows = [[float(p) ** j for j in range(count)] for p in POINTS[: n - 1]]
        return np.array([*rows, [0.0] * (count - 1) + [1.0]])  # the last point is infinity

    return powers(m).T, powers(r), np.linalg.inv(powers(n)).T


def winograd(x, w, m):
    """y of a 1x3x3 convolution padded by 1, in float32: tile by tile, channels added one by one."""
    at, g, bt = (a.astype(F32) for a in transforms(m, 3))
    n, c, t, height, width = x.shape
    tiles_h, tiles_w = -(-height // m), -(-width // m)
    padded = np.zeros((n, c, t, tiles_h * m + 2, tiles_w * m + 2), F32)
    padded[..., 1 : height + 1, 1 : width + 1] = x
    u = np.einsum("ia,kcab,jb->kcij", g, w[:, :, 0], g).astype(F32)
    y = np.zeros((n, len(w), t, tiles_h * m, tiles_w * m), F32)
    for i in range(tiles_h):
        for j in range(tiles_w):
            tile = padded[..., i * m : i * m + m + 2, j * m : j * m + m + 2]
            v = np.einsum("ia,nctab,jb->nctij", bt, tile, bt).astype(F32)
            total = np.zeros((n, len(w), t, m + 2, m + 2), F32)
            for channel in range(c):
                total += u[:, channel][None, :, None] * v[:, None, channel]
            y[..., i * m : i * m + m, j * m : j * m + m] = np.einsum("ia,nktab,jb->nktij", at, total, at)
    return np.ascontiguousarray(y[..., :height, :width])


def by_fft(x, w):
    """The same in the frequency domain, in complex64."""
    sizes = (x.shape[3] + 2, x.shape[4] + 2)
    f = fft.rfft2(np.pad(x, [(0, 0)] * 3 + [(1, 1)] * 2), sizes)
    g = fft.rfft2(w[:, :, 0], sizes)
    assert f.dtype == g.dtype == np.complex64
    products = np.einsum("ncthw,kchw->nkthw", f, g.conj()).astype(np.complex64)
    return np.ascontiguousarray(fft.irfft2(products, sizes)[..., : x.shape[3], : x.shape[4]])


def problem(seed, c=24, k=8, plane=14):
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((1, c, 2, plane, plane)), 0).astype(F32)
    return x, (rng.standard_normal((k, c, 1, 3, 3)) / np.sqrt(9 * c)).astype(F32)


WAYS = {
    "F(2, 3)": ("winograd", lambda x, w: winograd(x, w, 2)),
    "F(4, 3)": ("winograd", lambda x, w: winograd(x, w, 4)),
    "F(6, 3)": ("winograd", lambda x, w: winograd(x, w, 6)),
    "FFT": ("fft", by_fft),
}
PAD = {"pad": (0, 1, 1)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_an_algorithm_that_is_declared_is_consistent(way, seed):
    algorithm, compute = WAYS[way]
    x, w = problem(seed)
    y = compute(x, w)
    exact, _ = OPS["conv3d"].forward(x.astype(float), w.astype(float), **PAD)
    assert 1e-8 < np.abs(y - exact).max() / np.abs(exact).max() < 1e-3  # it is that convolution
    report = certify.check("conv3d", (x, w), y, algorithm=algorithm, **PAD)
    assert report.ok, report
    assert report.verdicts["y"].margin < 1 / 2


@pytest.mark.parametrize("way", ["F(4, 3)", "F(6, 3)"])
def test_an_algorithm_that_is_not_declared_is_named(way):
    algorithm, compute = WAYS[way]
    x, w = problem(0)
    verdict = certify.check("conv3d", (x, w), compute(x, w), **PAD).verdicts["y"]
    assert verdict.verdict in ("implausible", "impossible", "systematic")
    assert verdict.hypothesis == f"algorithm {algorithm}"


@pytest.mark.parametrize("way", WAYS)
def test_a_bug_under_an_algorithm_is_found(way):
    algorithm, compute = WAYS[way]
    x, w = problem(0)
    lost = w.copy()
    lost[:, 3, 0, 1, 2] = 0
    report = certify.check("conv3d", (x, w), compute(x, lost), algorithm=algorithm, **PAD)
    assert report.verdicts["y"].verdict == "impossible"


def one_pass(x, s, b, epsilon):
    """Batch norm by the mean of squares less the square of the mean, in float32."""
    by_channel = np.ascontiguousarray(np.swapaxes(x, 0, 1)).reshape(x.shape[1], -1)
    mean, squares = by_channel.mean(axis=1), np.square(by_channel).mean(axis=1)
    scale = s / np.sqrt(squares - mean * mean + F32(epsilon))
    return (x - mean[:, None, None, None]) * scale[:, None, None, None] + b[:, None, None, None]


def test_a_variance_in_one_pass_is_declared_or_named():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 4, 2, 9, 9)) + 200).astype(F32)
    s, b = np.ones(4, F32), np.zeros(4, F32)
    y = one_pass(x, s, b, 1e-5)
    assert y.dtype == F32
    verdict = certify.check("batch_norm_training", (x, s, b), y, epsilon=1e-5).verdicts["y"]
    assert not verdict.passes and verdict.hypothesis == "algorithm one-pass variance"
    declared = certify.check("batch_norm_training", (x, s, b), y, algorithm="one-pass variance", epsilon=1e-5)
    assert declared.ok, declared
