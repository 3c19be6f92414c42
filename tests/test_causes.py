"""The likely cause of a wrong result: planted mistakes are named, right results and garbage are not."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import every_case, every_dtype, legal

from refnet.arithmetic import core
from refnet.check.bounds import plain
from refnet.check.causes import explain
from refnet.check.judge import Judge
from refnet.op import Case
from refnet.ops import OPS

BLOB = (2, 4, 5, 6, 7)
CONV = ((2, 4, 5, 6, 7), (4, 4, 3, 3, 3), (4,))
PADDED = {"pad": (1, 1, 1)}
STRIDED = {"pad": (1, 1, 1), "stride": (1, 2, 3)}
DILATED = {"pad": (2, 1, 2), "dilation": (2, 1, 2)}
GROUPED = ((2, 8, 3, 4, 5), (8, 2, 1, 3, 3), (8,))
NORM = ((2, 4, 3, 5, 6), (4,), (4,))
FROZEN = (*NORM, (4,), (4,))


@dataclass
class Problem:
    """A call, its inputs as attributes, and what is right."""

    op: Any
    attrs: dict
    arrays: list
    dy: Any
    y: Any
    right: list

    def __getattr__(self, name):
        if name.startswith("d") and name[1:] in self.names:
            return self.right[self.names.index(name[1:])]
        return self.arrays[self.names.index(name)]

    @property
    def names(self):
        code = self.op.infer.__code__
        return code.co_varnames[: code.co_argcount]

    def forward(self, attrs=None, **changed):
        arrays = [changed.get(n, a) for n, a in zip(self.names, self.arrays, strict=False)]
        return self.op.forward(*arrays, **(self.attrs | (attrs or {})))[0]

    def gradients(self, attrs=None, dy=None, **changed):
        arrays = [changed.get(n, a) for n, a in zip(self.names, self.arrays, strict=False)]
        _, context = self.op.forward(*arrays, **(self.attrs | (attrs or {})))
        dy = self.dy if dy is None else dy
        return self.op.backward(dy, context, tuple(self.op.domain(i).gradient for i in range(len(arrays))))


def problem(name, shapes, attrs, dtype="float64", seed=0, coarse=False):
    op, rng = OPS[name], np.random.default_rng(seed)
    arrays = []
    for i, shape in enumerate(shapes):
        free = rng.standard_normal(shape).astype(dtype)
        if coarse and i == 0:
            free = np.maximum(np.rint(free), 0).astype(dtype)  # as after a rectifier: ties, zeros
        arrays.append(legal(op, Case("", shapes, attrs), i, free, rng))
    y, context = op.forward(*arrays, **attrs)
    dy = np.asarray(rng.standard_normal(y.shape)).astype(dtype)
    gradients = op.backward(dy, context, tuple(op.domain(i).gradient for i in range(len(arrays))))
    return Problem(op, attrs, arrays, dy, y, list(gradients))


def cause_of(p, kind, found, dtype="float64"):
    judge = Judge(p.op, core, plain(dtype), tuple(p.arrays), p.attrs)
    index = "output" if kind == "y" else p.names.index(kind[1:])
    return explain(judge, index, np.asarray(found).astype(dtype), None if kind == "y" else p.dy)


def padded(p, before, after, mode="constant"):
    """y of a convolution whose padding is what it says on each side."""
    x = np.pad(p.x, [(0, 0), (0, 0), *zip(before, after, strict=True)], mode=mode)
    return p.op.forward(x, *p.arrays[1:], **(p.attrs | {"pad": (0, 0, 0)}))[0]


def padded_dx(p, before, after, fold=False):
    """dx of a convolution whose padding is what it says on each side."""
    pads = [(0, 0), (0, 0), *zip(before, after, strict=True)]
    x = np.pad(p.x, pads)
    dx = shifted(p, x, p.w, p.dy, {"pad": (0, 0, 0)})[1]
    if fold:
        for axis, (a, b) in enumerate(pads):
            dx = np.moveaxis(dx, axis, 0)
            if a:
                dx[a] += dx[:a].sum(axis=0)
            if b:
                dx[-b - 1] += dx[-b:].sum(axis=0)
            dx = np.moveaxis(dx[a : len(dx) - b], 0, axis)
        return dx
    return dx[tuple(slice(a, n - b) for (a, b), n in zip(pads, dx.shape, strict=True))]


def shifted(p, x, w, dy, attrs=None):
    """y, dx, dw by slices of a padded x, in float64."""
    y, dx, dw = np.zeros(dy.shape), None, None
    given = p.attrs | (attrs or {})
    stride, pad = given.get("stride", (1, 1, 1)), given.get("pad", (0, 0, 0))
    dilation = given.get("dilation", (1, 1, 1))
    room = np.pad(x, [(0, 0), (0, 0)] + [(q, q + 40) for q in pad])
    dx, dw = np.zeros(room.shape), np.zeros(w.shape)
    for tap in np.ndindex(*w.shape[2:]):
        box = tuple(
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip(tap, dilation, stride, dy.shape[2:], strict=True)
        )
        patch, weights = room[:, :, *box], w[:, :, *tap]
        y += np.einsum("kc,ncthw->nkthw", weights, patch)
        dx[:, :, *box] += np.einsum("kc,nkthw->ncthw", weights, dy)
        dw[:, :, *tap] = np.einsum("nkthw,ncthw->kc", dy, patch)
    inner = tuple(slice(q, q + n) for q, n in zip(pad, x.shape[2:], strict=True))
    return y, dx[:, :, *inner], dw


def at(index, value):
    def change(a):
        a = a.copy()
        a[index] *= value
        return a

    return change


def bump(a, index, value):
    a = a.copy()
    a[index] += value
    return a


def to(a, bits):
    """Nearest number of so many bits, ties to even, away from underflow."""
    m, e = np.frexp(a)
    return np.ldexp(np.rint(np.ldexp(m, bits)), e - bits)


def toward_zero(a, bits):
    m, e = np.frexp(a)
    return np.ldexp(np.trunc(np.ldexp(m, bits)), e - bits)


def z(p):
    axes = (0, 2, 3, 4)
    c = p.x - p.x.mean(axis=axes, keepdims=True)
    return c / np.sqrt((c**2).mean(axis=axes, keepdims=True) + 1e-5)


def channels(v):
    return v[:, None, None, None]


def every(name, shapes, attrs, rows, **options):
    return [(name, shapes, attrs, *row, options) for row in rows]


SUM = (0, 2, 3, 4)
FLIPS = [("T", (2,)), ("H", (3,)), ("W", (4,)), ("HW", (3, 4)), ("TH", (2, 3)), ("THW", (2, 3, 4))]
DEFECTS = [
    # Any operator.
    *every(
        "conv3d",
        CONV,
        PADDED,
        [
            (kind, expected, change)
            for kind in ("y", "dx", "dw", "db")
            for expected, change in (
                ("missing", lambda a: 0 * a),
                ("doubled", lambda a: 2 * a),
                ("halved", lambda a: a / 2),
                ("negated", lambda a: -a),
                ("scaled", lambda a: a * (1 + 1e-9)),
                ("scaled", lambda a: a * 3.7),
            )
        ],
        of_result=True,
    ),
    *every(
        "conv3d",
        CONV,
        PADDED,
        [
            (kind, expected, change)
            for kind in ("y", "dx")
            for expected, change in (
                ("time flipped", lambda a: a[:, :, ::-1]),
                ("columns reversed", lambda a: a[..., ::-1]),
                ("frames shifted +1", lambda a: np.pad(a, [(0, 0)] * 2 + [(1, 0)] + [(0, 0)] * 2)[:, :, :-1]),
                ("frames shifted -1", lambda a: np.pad(a, [(0, 0)] * 2 + [(0, 1)] + [(0, 0)] * 2)[:, :, 1:]),
                ("frames rolled", lambda a: np.roll(a, 2, 2)),
                ("channels rolled", lambda a: np.roll(a, 1, 1)),
                ("channels rolled", lambda a: np.roll(a, -1, 1)),
                ("channels reversed", lambda a: a[:, ::-1]),
                ("channels interleaved", lambda a: a[:, [0, 2, 1, 3]]),
                ("last column lost", at((..., -1), 0)),
                ("last line lost", at((..., -1, slice(None)), 0)),
                ("last frame lost", at((slice(None), slice(None), -1), 0)),
                ("last channel lost", at((slice(None), -1), 0)),
                ("first frame doubled", at((slice(None), slice(None), 0), 2)),
                ("last sample lost", at(-1, 0)),
            )
        ],
        of_result=True,
    ),
    # Kernels.
    *every(
        "conv3d",
        CONV,
        PADDED,
        [
            *((("y"), f"kernel flipped {n}", lambda p, a=a: p.forward(w=np.flip(p.w, a))) for n, a in FLIPS),
            *(
                (("dx"), f"kernel flipped {n}", lambda p, a=a: p.gradients(w=np.flip(p.w, a))[0])
                for n, a in FLIPS
            ),
            *((("dw"), f"kernel flipped {n}", lambda p, a=a: np.flip(p.dw, a)) for n, a in FLIPS),
            ("y", "kernel transposed", lambda p: p.forward(w=p.w.swapaxes(0, 1))),
            ("dx", "kernel transposed", lambda p: p.gradients(w=p.w.swapaxes(0, 1))[0]),
            ("dw", "kernel transposed", lambda p: p.dw.swapaxes(0, 1)),
            ("y", "kernel swapped HW", lambda p: p.forward(w=p.w.swapaxes(3, 4))),
            ("dx", "kernel swapped TW", lambda p: p.gradients(w=p.w.swapaxes(2, 4))[0]),
            ("dw", "kernel swapped TH", lambda p: p.dw.swapaxes(2, 3)),
            ("dw", "filters reversed", lambda p: p.dw[::-1]),
            ("dw", "last tap W lost", lambda p: at((..., -1), 0)(p.dw)),
            ("dx", "first tap T lost", lambda p: p.gradients(w=at((slice(None), slice(None), 0), 0)(p.w))[0]),
            # Windows, computed from slices of a padded x.
            ("y", "pad missing", lambda p: padded(p, (0, 0, 0), (2, 2, 2))),
            ("y", "pad before only", lambda p: padded(p, (2, 2, 2), (0, 0, 0))),
            ("y", "pad missing W", lambda p: padded(p, (1, 1, 0), (1, 1, 2))),
            ("y", "pad before only T", lambda p: padded(p, (2, 1, 1), (0, 1, 1))),
            ("dx", "pad missing", lambda p: padded_dx(p, (0, 0, 0), (2, 2, 2))),
            ("dx", "pad before only", lambda p: padded_dx(p, (2, 2, 2), (0, 0, 0))),
            ("dx", "pad missing H", lambda p: padded_dx(p, (1, 0, 1), (1, 2, 1))),
            ("dw", "pad missing T", lambda p: shifted(p, p.x, p.w, p.dy, {"pad": (0, 1, 1)})[2]),
            ("dw", "pad before only W", lambda p: shifted(p, p.x, p.w, p.dy, {"pad": (1, 1, 2)})[2]),
            ("y", "pad replicated", lambda p: padded(p, (1, 1, 1), (1, 1, 1), "edge")),
            ("dx", "pad replicated", lambda p: padded_dx(p, (1, 1, 1), (1, 1, 1), fold=True)),
            (
                "dw",
                "pad replicated",
                lambda p: shifted(
                    p, np.pad(p.x, [(0, 0)] * 2 + [(1, 1)] * 3, "edge"), p.w, p.dy, {"pad": (0, 0, 0)}
                )[2],
            ),
            (
                "dx",
                "padded windows left out",
                lambda p: p.gradients(dy=np.pad(p.dy[:, :, 1:-1, 1:-1, 1:-1], [(0, 0)] * 2 + [(1, 1)] * 3))[
                    0
                ],
            ),
            (
                "y",
                "padded windows left out",
                lambda p: np.pad(p.y[:, :, 1:-1, 1:-1, 1:-1], [(0, 0)] * 2 + [(1, 1)] * 3),
            ),
            # What a call reads.
            ("y", "x channels rolled", lambda p: p.forward(x=np.roll(p.x, 1, 1))),
            ("dx", "dy channels rolled", lambda p: p.gradients(dy=np.roll(p.dy, -1, 1))[0]),
            ("dx", "dy channels reversed", lambda p: p.gradients(dy=p.dy[:, ::-1])[0]),
            ("dw", "dy frames reversed", lambda p: p.gradients(dy=p.dy[:, :, ::-1])[1]),
            ("dw", "x frames reversed", lambda p: p.gradients(x=p.x[:, :, ::-1])[1]),
            ("dw", "dy last column lost", lambda p: p.gradients(dy=at((..., -1), 0)(p.dy))[1]),
            ("db", "dy last line lost", lambda p: p.gradients(dy=at((..., -1, slice(None)), 0)(p.dy))[2]),
            # Sums.
            ("db", "one sample alone", lambda p: p.dy[0].sum(axis=(1, 2, 3))),
            ("db", "one frame alone", lambda p: p.dy[:, :, 0].sum(axis=(0, 2, 3))),
            ("db", "mean for sum", lambda p: p.dy.mean(axis=SUM)),
            ("db", "wrong axes", lambda p: p.dy.reshape(-1, 4).sum(axis=0)),
            ("dw", "one sample alone", lambda p: p.gradients(dy=at(slice(1, None), 0)(p.dy))[1]),
            ("dw", "mean for sum", lambda p: p.dw / (5 * 6 * 7)),
            # Roles.
            ("y", "bias missing", lambda p: p.forward(b=None)),
            ("y", "bias doubled", lambda p: p.forward(b=2 * p.b)),
            ("y", "ReLU after", lambda p: np.maximum(p.y, 0)),
            ("y", "ReLU before", lambda p: p.forward(x=np.maximum(p.x, 0))),
        ],
    ),
    *every(
        "conv3d",
        ((4, 3, 5, 3, 2), (4, 3, 1, 1, 1), (4,)),
        {},
        [("db", "wrong axes", lambda p: p.dy.sum(axis=(1, 2, 3, 4)))],
    ),
    *every(
        "conv3d",
        CONV,
        STRIDED,
        [
            (
                "y",
                "stride dropped",
                lambda p: shifted(p, p.x, p.w, p.dy, {"stride": (1, 1, 1)})[0] + channels(p.b),
            ),
            ("dx", "stride dropped", lambda p: shifted(p, p.x, p.w, p.dy, {"stride": (1, 1, 1)})[1]),
            ("dw", "stride dropped", lambda p: shifted(p, p.x, p.w, p.dy, {"stride": (1, 1, 1)})[2]),
            ("dx", "stride dropped W", lambda p: shifted(p, p.x, p.w, p.dy, {"stride": (1, 2, 1)})[1]),
            ("dx", "stride swapped", lambda p: shifted(p, p.x, p.w, p.dy, {"stride": (1, 3, 2)})[1]),
        ],
    ),
    *every(
        "conv3d",
        CONV,
        DILATED,
        [
            ("dx", "dilation dropped", lambda p: shifted(p, p.x, p.w, p.dy, {"dilation": (1, 1, 1)})[1]),
            ("dw", "dilation dropped T", lambda p: shifted(p, p.x, p.w, p.dy, {"dilation": (1, 1, 2)})[2]),
            ("dx", "dilation swapped", lambda p: shifted(p, p.x, p.w, p.dy, {"dilation": (1, 2, 2)})[1]),
        ],
    ),
    *every(
        "conv3d",
        GROUPED,
        {"pad": (0, 1, 1), "groups": 4},
        [
            ("y", "groups reversed", lambda p: p.y.reshape(2, 4, 2, 3, 4, 5)[:, ::-1].reshape(p.y.shape)),
            ("dx", "groups reversed", lambda p: p.dx.reshape(2, 4, 2, 3, 4, 5)[:, ::-1].reshape(p.x.shape)),
            ("dw", "groups reversed", lambda p: p.dw.reshape(4, 2, 2, 1, 3, 3)[::-1].reshape(p.w.shape)),
            (
                "dx",
                "groups reversed",
                lambda p: p.gradients(dy=p.dy.reshape(2, 4, 2, 3, 4, 5)[:, ::-1].reshape(p.y.shape))[0],
            ),
            (
                "y",
                "channels interleaved",
                lambda p: p.y.reshape(2, 4, 2, 3, 4, 5).swapaxes(1, 2).reshape(p.y.shape),
            ),
        ],
    ),
    *every(
        "linear",
        ((3, 4, 1, 2, 2), (16, 16), (16,)),
        {},
        [
            ("y", "kernel transposed", lambda p: p.forward(w=p.w.T)),
            ("dx", "kernel transposed", lambda p: p.gradients(w=p.w.T)[0]),
            ("dw", "kernel transposed", lambda p: p.dw.T),
            ("y", "bias missing", lambda p: p.forward(b=None)),
            ("db", "mean for sum", lambda p: p.db / 3),
            ("db", "one sample alone", lambda p: p.dy[0]),
            ("dw", "one sample alone", lambda p: p.gradients(dy=at(slice(1, None), 0)(p.dy))[1]),
        ],
    ),
    # Rectifiers.
    *every(
        "relu",
        (BLOB,),
        {},
        [
            ("dx", "mask missing", lambda p: p.dy),
            ("dx", "mask of dy", lambda p: p.dy * (p.dy > 0)),
            ("dx", "mask of dy and x", lambda p: p.dy * (p.dy > 0) * (p.x > 0)),
            ("dx", "mask inverted", lambda p: p.dy * (p.x <= 0)),
            ("y", "no ReLU", lambda p: p.x),
            ("y", "magnitude for ReLU", lambda p: abs(p.x)),
            ("dx", "last column lost", lambda p: at((..., -1), 0)(p.dx)),
            ("dx", "scaled", lambda p: p.dx * (1 + 1e-9)),
        ],
    ),
    *every("relu", (BLOB,), {}, [("dx", "mask x >= 0", lambda p: p.dy * (p.x >= 0))], coarse=True),
    # Pools.
    *every(
        "max_pool3d",
        (BLOB,),
        {"kernel": (2, 3, 3), "stride": (1, 2, 2), "pad": (1, 1, 0)},
        [
            ("dx", "every tie", lambda p: pool_gradient(p, "every")),
            ("dx", "last tie", lambda p: pool_gradient(p, "last")),
            ("dx", "split ties", lambda p: pool_gradient(p, "split")),
            ("dx", "overlaps overwritten", lambda p: pool_gradient(p, "overwritten")),
            ("dx", "average for maximum", lambda p: averages(p, p.gradients)[0]),
            ("y", "average for maximum", lambda p: averages(p, p.forward)),
            ("y", "minimum for maximum", lambda p: -p.forward(x=-p.x)),
        ],
        coarse=True,
    ),
    *every(
        "max_pool3d",
        (BLOB,),
        {"kernel": (1, 3, 3), "stride": (1, 2, 2), "pad": (0, 1, 1)},
        [
            (
                "y",
                "pad missing",
                lambda p: p.forward(
                    x=np.pad(p.x, [(0, 0)] * 3 + [(0, 2)] * 2, constant_values=-99), attrs={"pad": (0, 0, 0)}
                )[..., :3, :4],
            ),
            (
                "dx",
                "pad missing W",
                lambda p: p.gradients(
                    x=np.pad(p.x, [(0, 0)] * 4 + [(0, 2)], constant_values=-99), attrs={"pad": (0, 1, 0)}
                )[0][..., :7],
            ),
        ],
    ),
    *every(
        "average_pool3d",
        (BLOB,),
        {"kernel": (2, 3, 3), "stride": (1, 2, 2), "pad": (1, 1, 0)},
        [
            ("y", "not divided", lambda p: p.y * window_counts(p)),
            ("dx", "not divided", lambda p: p.gradients(dy=p.dy * window_counts(p))[0]),
            ("y", "padding counted", lambda p: p.y * window_counts(p) / 18),
            ("dx", "padding counted", lambda p: p.gradients(dy=p.dy * window_counts(p) / 18)[0]),
            ("y", "maximum for average", lambda p: OPS["max_pool3d"].forward(p.x, **p.attrs)[0]),
            ("dx", "last frame lost", lambda p: at((slice(None), slice(None), -1), 0)(p.dx)),
        ],
    ),
    *every(
        "global_average_pool",
        (BLOB,),
        {"over_time": True},
        [
            ("dx", "sum for mean", lambda p: p.dx * 210),
            ("y", "sum for mean", lambda p: p.y * 210),
        ],
    ),
    *every(
        "roi_align",
        ((2, 3, 2, 7, 6), (4, 9)),
        {"output": (3, 2), "spatial_scale": 0.25, "sampling_ratio": 2, "aligned": True},
        [
            ("y", "aligned not True", lambda p: p.forward(attrs={"aligned": False})),
            ("dx", "aligned not True", lambda p: p.gradients(attrs={"aligned": False})[0]),
            ("dx", "sampling_ratio not 2", lambda p: p.gradients(attrs={"sampling_ratio": 0})[0]),
        ],
    ),
    # Scales and biases.
    *every(
        "affine",
        NORM,
        {},
        [
            ("y", "bias missing", lambda p: channels(p.s) * p.x),
            ("y", "scale missing", lambda p: p.x + channels(p.b)),
            ("dx", "scale missing", lambda p: p.dy),
            ("ds", "ds and db swapped", lambda p: p.db),
            ("db", "ds and db swapped", lambda p: p.ds),
            ("ds", "one sample alone", lambda p: (p.dy * p.x)[0].sum(axis=(1, 2, 3))),
            ("db", "mean for sum", lambda p: p.db / 2 / 90),
            ("db", "missing", lambda p: 0 * p.db),
            ("ds", "channels rolled", lambda p: np.roll(p.ds, 1)),
        ],
    ),
    *every(
        "batch_norm",
        FROZEN,
        {"epsilon": 0.01},
        [
            ("y", "epsilon missing", lambda p: p.forward(attrs={"epsilon": 1e-300})),
            ("dx", "epsilon missing", lambda p: p.dy * channels(p.s / np.sqrt(p.variance))),
            ("dx", "epsilon misplaced", lambda p: p.dy * channels(p.s / (np.sqrt(p.variance) + 0.01))),
            ("y", "epsilon not 0.01", lambda p: p.forward(attrs={"epsilon": 1e-5})),
            ("dx", "scale missing", lambda p: p.dy / channels(np.sqrt(p.variance + 0.01))),
            ("dx", "deviation missing", lambda p: p.dy * channels(p.s)),
            ("dx", "variance for deviation", lambda p: p.dy * channels(p.s / (p.variance + 0.01))),
            ("ds", "deviation missing", lambda p: (p.dy * (p.x - channels(p.mean))).sum(axis=SUM)),
            ("ds", "mean missing", lambda p: (p.dy * p.x).sum(axis=SUM) / np.sqrt(p.variance + 0.01)),
            ("y", "mean missing", lambda p: p.forward(mean=0 * p.mean)),
            ("db", "ds and db swapped", lambda p: p.ds),
        ],
    ),
    *every(
        "batch_norm_training",
        NORM,
        {},
        [
            ("dx", "statistics constant", lambda p: p.dy * channels(p.s) * z(p) / centred(p)),
            (
                "dx",
                "mean term missing",
                lambda p: (
                    channels(p.s)
                    * z(p)
                    / centred(p)
                    * (p.dy - z(p) * (p.dy * z(p)).mean(axis=SUM, keepdims=True))
                ),
            ),
            (
                "dx",
                "variance term missing",
                lambda p: channels(p.s) * z(p) / centred(p) * (p.dy - p.dy.mean(axis=SUM, keepdims=True)),
            ),
            ("y", "unbiased variance", lambda p: unbiased(p)),
            (
                "y",
                "epsilon misplaced",
                lambda p: (
                    centred(p) / (centred(p).std(axis=SUM, keepdims=True) + 1e-5) * channels(p.s)
                    + channels(p.b)
                ),
            ),
            ("ds", "ds and db swapped", lambda p: p.db),
            ("dx", "scale missing", lambda p: p.dx / channels(p.s)),
            ("y", "scale missing", lambda p: z(p) + channels(p.b)),
            (
                "y",
                "epsilon missing",
                lambda p: (
                    centred(p) / centred(p).std(axis=SUM, keepdims=True) * channels(p.s) + channels(p.b)
                ),
            ),
        ],
    ),
    *every(
        "running_variance",
        ((2, 3, 2, 4, 5), (3,)),
        {"momentum": 0.75},
        [
            ("y", "population variance", lambda p: 0.75 * p.variance + 0.25 * p.x.var(axis=SUM)),
            ("y", "momentum swapped", lambda p: p.forward(attrs={"momentum": 0.25})),
            ("y", "batch ignored", lambda p: p.variance),
        ],
    ),
    *every(
        "running_mean",
        ((2, 3, 2, 4, 5), (3,)),
        {"momentum": 0.75},
        [("y", "momentum swapped", lambda p: 0.25 * p.mean + 0.75 * p.x.mean(axis=SUM))],
    ),
    # Scores, losses, masks.
    *every(
        "softmax",
        ((4, 6),),
        {},
        [
            ("dx", "sum term missing", lambda p: p.y * p.dy),
            ("dx", "softmax not applied", lambda p: p.dy - (p.dy * p.y).sum(axis=1, keepdims=True)),
        ],
    ),
    *every(
        "cross_entropy",
        ((5, 7), (5,)),
        {},
        [
            ("dx", "one-hot missing", lambda p: OPS["softmax"].forward(p.x)[0] * p.dy / 5),
            ("dx", "sum for mean", lambda p: 5 * p.dx),
            ("y", "sum for mean", lambda p: 5 * p.y),
            ("dx", "labels off by one", lambda p: p.gradients(labels=(p.labels + 1) % 7)[0]),
            ("dx", "labels rolled", lambda p: p.gradients(labels=np.roll(p.labels, 1))[0]),
            ("dx", "softmax missing", lambda p: p.dx - OPS["softmax"].forward(p.x)[0] * p.dy / 5),
            (
                "dx",
                "label smoothing",
                lambda p: p.dx + 0.1 * ((np.arange(7) == p.labels[:, None]) - 1 / 7) * p.dy / 5,
            ),
            ("dx", "negated", lambda p: -p.dx),
        ],
    ),
    *every(
        "dropout",
        ((2, 3, 2, 3, 4), (2, 3, 2, 3, 4)),
        {"ratio": 0.3},
        [
            ("dx", "dropout scale missing", lambda p: p.dy * p.mask),
            ("y", "dropout scale missing", lambda p: p.x * p.mask),
            ("dx", "mask missing", lambda p: p.dy / 0.7),
            ("dx", "dropout missing", lambda p: p.dy),
            ("dx", "mask inverted", lambda p: p.dy * (1 - p.mask) / 0.7),
        ],
    ),
    # Moves and sums.
    *every(
        "upsample_nearest",
        ((2, 3, 2, 4, 3),),
        {"scale": 3},
        [
            ("dx", "mean for sum", lambda p: p.dx / 9),
            ("dx", "one of each square", lambda p: p.dy[..., ::3, ::3]),
            ("y", "tiled", lambda p: np.tile(p.x, (1, 1, 1, 3, 3))),
        ],
    ),
    *every(
        "time_to_channels",
        ((2, 3, 4, 2, 5),),
        {},
        [
            ("y", "axes not swapped", lambda p: p.x.reshape(p.y.shape)),
            ("dx", "axes not swapped", lambda p: p.dy.reshape(p.x.shape)),
            ("dx", "time flipped", lambda p: p.dx[:, :, ::-1]),
        ],
    ),
    *every(
        "time_to_batch",
        ((2, 3, 4, 2, 5),),
        {},
        [("dx", "axes not swapped", lambda p: p.dy.reshape(p.x.shape))],
    ),
    *every(
        "slice_keyframe",
        ((2, 3, 5, 2, 5),),
        {},
        [
            ("y", "another frame", lambda p: p.x[:, :, :1]),
            ("dx", "frames shifted -1", lambda p: np.roll(p.dx, -1, 2)),
        ],
    ),
    *every(
        "add",
        (BLOB, BLOB),
        {},
        [
            ("y", "term missing", lambda p: p.x1),
            ("y", "term subtracted", lambda p: p.x1 - p.x2),
            ("dx2", "missing", lambda p: 0 * p.dy),
            ("dx1", "doubled", lambda p: 2 * p.dy),
        ],
    ),
]


def centred(p):
    return p.x - p.x.mean(axis=SUM, keepdims=True)


def unbiased(p):
    c = centred(p)
    n = c.size // c.shape[1]
    deviation = np.sqrt((c**2).sum(axis=SUM, keepdims=True) / (n - 1) + 1e-5)
    return c / deviation * channels(p.s) + channels(p.b)


def averages(p, what):
    other = Problem(OPS["average_pool3d"], p.attrs, p.arrays, p.dy, p.y, p.right)
    return getattr(other, what.__name__)()


def window_counts(p):
    ones = np.ones(p.x.shape)
    room = np.pad(ones, [(0, 0)] * 2 + [(q, q) for q in p.attrs["pad"]])
    counts = np.zeros(p.dy.shape)
    for o in np.ndindex(*p.dy.shape[2:]):
        box = tuple(
            slice(i * s, i * s + k) for i, s, k in zip(o, p.attrs["stride"], p.attrs["kernel"], strict=True)
        )
        counts[:, :, *o] = room[:, :, *box].sum(axis=(2, 3, 4))
    return counts


def pool_gradient(p, who):
    """A maximum's gradient, window by window."""
    pads = p.attrs["pad"]
    room = np.pad(p.x, [(0, 0)] * 2 + [(q, q) for q in pads], constant_values=-np.inf)
    dx = np.zeros(room.shape)
    for n, c, *o in np.ndindex(*p.dy.shape):
        box = tuple(
            slice(i * s, i * s + k) for i, s, k in zip(o, p.attrs["stride"], p.attrs["kernel"], strict=True)
        )
        window, dy = room[n, c, *box], p.dy[n, c, *o]
        ties = np.argwhere(window == window.max())
        chosen = {"every": ties, "split": ties, "last": ties[-1:], "overwritten": ties[:1]}[who]
        for place in chosen:
            if who == "overwritten":
                dx[n, c, *box][tuple(place)] = dy
            else:
                dx[n, c, *box][tuple(place)] += dy / (len(ties) if who == "split" else 1)
    return dx[:, :, *(slice(q, q + m) for q, m in zip(pads, p.x.shape[2:], strict=True))]


def ids(defect):
    name, _, _, kind, expected, *_ = defect
    return f"{name} {kind}: {expected}"


@pytest.mark.parametrize("defect", DEFECTS, ids=ids)
def test_a_planted_mistake_is_named(defect):
    name, shapes, attrs, kind, expected, make, options = defect
    p = problem(name, shapes, attrs, coarse=options.get("coarse", False))
    found = make(p.y if kind == "y" else getattr(p, kind)) if options.get("of_result") else make(p)
    cause = cause_of(p, kind, found)
    assert cause is not None
    assert expected in (cause.hypothesis, *cause.others), cause
    assert cause.sentence.startswith(f"{kind} ")


SIGNIFICAND = {"tf32": 11, "bfloat16": 8, "float16": 11}


@pytest.mark.parametrize("form", SIGNIFICAND)
@pytest.mark.parametrize("way", ["nearest", "zero"])
@pytest.mark.parametrize("kind", ["y", "dx", "dw"])
def test_operands_of_lower_precision_are_named(form, way, kind):
    p = problem("conv3d", CONV, PADDED, "float32")
    narrow = {"nearest": to, "zero": toward_zero}[way]
    x, w, dy = (narrow(a.astype(float), SIGNIFICAND[form]) for a in (p.x, p.w, p.dy))
    values = {
        "y": lambda: p.forward(x=x, w=w),
        "dx": lambda: p.gradients(w=w, dy=dy)[0],
        "dw": lambda: p.gradients(x=x, dy=dy)[1],
    }
    cause = cause_of(p, kind, values[kind](), "float32")
    named = {cause.hypothesis, *cause.others}
    # In the range of the data the two formats of 11 digits differ in nothing.
    alike = ("tf32", "float16") if SIGNIFICAND[form] == 11 else (form,)
    assert named & {f"operands {one} {way}" for one in alike}, cause


def test_one_operand_of_lower_precision_is_named():
    p = problem("conv3d", CONV, PADDED, "float32")
    cause = cause_of(p, "y", p.forward(w=to(p.w.astype(float), 8)), "float32")
    assert cause.hypothesis == "w bfloat16 nearest"
    cause = cause_of(p, "dx", p.gradients(dy=to(p.dy.astype(float), 8))[0], "float32")
    assert cause.hypothesis == "dy bfloat16 nearest"


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_a_result_of_lower_precision_is_named(name):
    p = problem("conv3d", CONV, PADDED)
    cause = cause_of(p, "dx", p.dx.astype(name))
    assert f"result {name}" in (cause.hypothesis, *cause.others)
    x, w = p.x.astype(name).astype(float), p.w.astype(name).astype(float)
    cause = cause_of(p, "y", p.forward(x=x, w=w).astype(name))
    assert cause.hypothesis == f"all {name}"


def test_sums_of_lower_precision_are_named():
    p = problem("conv3d", CONV, PADDED)
    y = np.zeros(p.y.shape, np.float32)
    for c in range(4):
        part = OPS["conv3d"].forward(p.x[:, c : c + 1], p.w[:, c : c + 1], **PADDED)[0]
        y = y + part.astype(np.float32)
    assert cause_of(p, "y", y + channels(p.b).astype(np.float32)).hypothesis == "sums float32"


def test_an_offset_is_no_rounding():
    p = problem("conv3d", CONV, PADDED)
    for off in (1e-6, 1e-3):
        cause = cause_of(p, "y", p.y + off)
        assert cause is None or not cause.hypothesis.startswith("sums ")


def test_what_almost_explains_is_named_with_what_it_leaves():
    p = problem("conv3d", CONV, PADDED)
    cause = cause_of(p, "dx", bump(p.gradients(w=p.w[:, :, ::-1])[0], (0, 1, 2, 3, 4), 1e-3))
    assert cause.hypothesis == "kernel flipped T"
    assert (
        cause.sentence == f"dx is that of a kernel flipped along T (all but 1 of {p.dx.size} wrong elements)"
    )


def test_two_that_explain_are_both_named():
    p = problem("relu", ((1, 2, 1, 1, 2),), {})
    p.arrays[0] = np.array([1.0, 2, -1, -2]).reshape(1, 2, 1, 1, 2)
    p.y, p.dy = np.maximum(p.x, 0), np.ones(p.x.shape)
    cause = cause_of(p, "dx", 1 - (p.x > 0))
    assert {"mask inverted", "channels reversed"} <= {cause.hypothesis, *cause.others}
    assert " or " in cause.sentence


@every_dtype
@every_case
def test_nothing_is_said_of_right_results(op, case, dtype):
    """Off by as much rounding as the bound allows, in one direction or at random."""
    for seed in range(2):
        p = problem(op.name, case.shapes, case.attrs, dtype, seed)
        rng = np.random.default_rng(seed)
        for kind in ["y", *(f"d{n}" for n, g in zip(p.names, p.right, strict=False) if g is not None)]:
            right = p.y if kind == "y" else getattr(p, kind)
            u = np.finfo(dtype).eps / 2
            noise = rng.choice([-1, 1], right.shape) * u * right if op.family == "product" else 0
            assert cause_of(p, kind, right + noise, dtype) is None, (kind, seed)


@every_case
def test_garbage_has_no_cause(op, case):
    p = problem(op.name, case.shapes, case.attrs)
    rng = np.random.default_rng(9)
    for kind in ["y", *(f"d{n}" for n, g in zip(p.names, p.right, strict=False) if g is not None)]:
        right = p.y if kind == "y" else getattr(p, kind)
        if right.size > 4:
            garbage = np.asarray(rng.standard_normal(right.shape)) * (np.abs(right).max() + 1)
            assert cause_of(p, kind, garbage) is None
            if kind != "y":
                some = right + (rng.random(right.shape) < 0.2) * garbage
                assert cause_of(p, kind, some) is None
            one = right.copy()
            one.reshape(-1)[right.size // 2] += 1e-3 * (1 + abs(one.reshape(-1)[right.size // 2]))
            assert cause_of(p, kind, one) is None, kind
            one.reshape(-1)[0] = np.nan
            assert cause_of(p, kind, one) is None


@pytest.mark.parametrize("kind", ["y", "dx", "dw", "db"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_large_convolution_is_replayed_in_part(kind, groups, monkeypatch):
    monkeypatch.setattr("refnet.check.replay.LARGE", 1000)
    monkeypatch.setattr("refnet.check.replay.PART", 30_000)
    shapes = ((1, 8, 4, 5, 6), (8, 8 // groups, 3, 3, 3), (8,))
    p = problem("conv3d", shapes, PADDED | {"groups": groups})
    flipped = np.flip(p.w, 2)
    wrong = {
        "y": lambda: p.forward(w=flipped),
        "dx": lambda: p.gradients(w=flipped)[0],
        "dw": lambda: np.flip(p.dw, 2),
        "db": lambda: p.db / 120,
    }[kind]()
    cause = cause_of(p, kind, wrong)
    assert cause.hypothesis == ("mean for sum" if kind == "db" else "kernel flipped T")
    said = "replayed on" in cause.sentence
    assert said == (kind in ("y", "dx")), cause
    if kind == "dw":
        cause = cause_of(p, kind, p.gradients(dy=p.dy[:, :, ::-1])[1])
        assert cause.hypothesis == "dy frames reversed" and " of 8 filters" in cause.sentence


@pytest.mark.parametrize("seed", range(5))
def test_float32_kernels_that_are_wrong(seed):
    """Found among real roundings: a candidate in float32, judged in float64."""
    p = problem("conv3d", CONV, PADDED, "float32", seed)
    flip = np.ascontiguousarray(p.w[..., ::-1])
    assert cause_of(p, "dx", p.gradients(w=flip)[0], "float32").hypothesis == "kernel flipped W"
    assert cause_of(p, "dw", p.dw[:, :, ::-1], "float32").hypothesis == "kernel flipped T"
    assert cause_of(p, "db", p.dy[0].sum(axis=(1, 2, 3)), "float32").hypothesis == "one sample alone"
    assert cause_of(p, "y", p.y * np.float32(1 + 1e-3), "float32").hypothesis == "scaled"
