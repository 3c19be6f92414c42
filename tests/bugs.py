"""Bugs planted into ports of small nets: what each dumps, where it sits, and what a report should call it.

A port (`ports.py`) computes everything in float32 as the operators are defined, with NumPy's sums and
products; a bug is one thing that it does otherwise, and all that follows is computed from the wrong value, as
it would be. The scoreboard (`test_certify_scoreboard.py`, docs/certify.md) is made of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from bundles import narrow
from defects import averaged, pool_to_every_tie, tubes, unstrided
from ports import Port, called, computed, given_of, handed, sum_of, with_attrs, with_w, yielded

import refnet
from refnet.arithmetic import reference
from refnet.inputs.candidate import Candidate
from refnet.net import Net
from refnet.networks.classifier import classifier
from refnet.networks.fpn3d import fpn
from refnet.networks.inflate import inflate
from refnet.shapes import ONES


@dataclass(frozen=True)
class Bug:
    """A mistake in a port, and what must be said of it.

    Attributes
    ----------
    name : str
    net : callable
        Makes the net.
    node : str
        Where the bug sits, which must be the first failure: a node, or an input that is given wrong.
    verdict : str
        The first verdict that must fail: of the node's value, or "d NAME", the gradient of a value.
    hypothesis : str, optional
        What the cause must be called; None where nobody can know.
    kernels : dict
        By node, what makes its kernel from the operator's name.
    port : Port
        What else is wrong with it.
    fed : ``(given) -> given``
        What it computes with in place of what it should.
    dumped : tuple of str
        Names of inputs that it dumps, too.
    given : ``(given) -> given``
        What it should compute with, in place of a fill.
    forward_alone : bool
        Whether it has no backward pass.
    seed : int
    """

    name: str
    net: Callable[[], Net]
    node: str
    verdict: str
    hypothesis: str | None = None
    kernels: Mapping[str, Any] = field(default_factory=dict)
    port: Port = field(default_factory=Port)
    fed: Callable[[dict[str, Any]], dict[str, Any]] = dict
    dumped: tuple[str, ...] = ()
    given: Callable[[dict[str, Any]], dict[str, Any]] = dict
    forward_alone: bool = False
    seed: int = 0

    def arguments(self) -> tuple[Net, dict[str, Any], Candidate]:
        """What is certified: the net, what it is given, and what the port with the bug dumps."""
        return self._arguments(planted=True)

    def without(self) -> tuple[Net, dict[str, Any], Candidate]:
        """The same of the port without the bug."""
        return self._arguments(planted=False)

    def _arguments(self, planted):
        net = self.net()
        given = self.given(given_of(net, self.seed))
        dy = None if self.forward_alone else refnet.fill.output_gradients(net, self.seed, "float32")
        if not planted:
            found = Port().candidate(net, given, dy)
            return net, given, self._dump(found, given)
        fed = self.fed(given)
        ops = {node.name: node.op for node in net.nodes}
        kernels = {name: make(ops[name]) for name, make in self.kernels.items()}
        return net, given, self._dump(replace(self.port, kernels=kernels).candidate(net, fed, dy), fed)

    def _dump(self, candidate, fed):
        return replace(candidate, blobs={name: fed[name] for name in self.dumped} | dict(candidate.blobs))


# Nets: narrow, but wide enough that every blob has some thousand elements.

CLIP = (1, 3, 4, 64, 64)


def bottlenecks():
    """One stage without gradients, two with."""
    return narrow((1, 1, 1), (8, 8, 16, 32), CLIP)


def basics():
    """Two convolutions 3x3x3 a block, from res3 on."""
    return narrow((1, 2), (8, 8, 16), CLIP, transformation="basic", width_per_group=8, freeze_at=2)


def learning():
    """No stop: gradients reach the clip."""
    return narrow((1, 1), (8, 8, 16), (2, 3, 4, 48, 48), transformation="basic", freeze_at=0)


def repeated():
    """A stage of three blocks, two of them alike."""
    return narrow((1, 3), (8, 8, 16), CLIP)


def grouped():
    return narrow((1, 1), (8, 8, 16), CLIP, groups=4, width_per_group=4)


def dilated():
    return narrow((1, 1, 1, 1), (8, 8, 8, 16, 16), (1, 3, 2, 96, 96), dilation=2, freeze_at=4)


def frozen_norms():
    return narrow((1, 1), (8, 8, 16), CLIP, batch_norm=True)


def training_norms():
    return narrow((1, 1), (8, 8, 16), (2, 3, 2, 48, 48), batch_norm=True, training=True, freeze_at=0)


def images():
    """A classifier with its loss."""
    return classifier((8, 3, 1, 32, 32), (1, 1, 1, 1), (8, 8, 8, 16, 16), classes=8, width_per_group=8)


def pyramid():
    return fpn(narrow((1, 1, 1, 1), (8, 8, 16, 24, 32), (1, 3, 2, 64, 64), freeze_at=4), dim=16)


# What is computed wrong.


def tf32(a, way):
    """Float32 rounded to 11 binary digits: to nearest, ties to even, or toward zero."""
    bits = a.view(np.uint32)
    if way == "nearest":
        bits = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def bfloat16(a):
    """Float32 rounded to 8 binary digits, to nearest, ties to even."""
    bits = a.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def rounded_operands(convert):
    """A product of rounded operands, forward and backward."""
    right = reference.kernels["conv3d"]

    def y(arrays, attrs):
        return right.forward(*map(convert, arrays), **attrs)[0]

    def gradients(dy, arrays, attrs, needs):
        _, context = right.forward(*map(convert, arrays), **attrs)
        return right.backward(convert(dy), context, needs)

    return computed(y, gradients)


def dw_of(change):
    """Dw of other operands: `change(x, dy)`."""
    right = reference.kernels["conv3d"]

    def gradient(g, dy, arrays, attrs):
        x, dy = (np.ascontiguousarray(a) for a in change(arrays[0], dy))
        _, context = right.forward(x, arrays[1], **attrs)
        return right.backward(dy, context, (False, True))[1]

    return handed(1, gradient)


def dx_of(change):
    """Dx of other weights."""
    right = reference.kernels["conv3d"]

    def gradient(g, dy, arrays, attrs):
        w = np.ascontiguousarray(change(arrays[1]))
        _, context = right.forward(arrays[0], w, **attrs)
        return right.backward(dy, context, (True, False))[0]

    return handed(0, gradient)


def half_sums(arrays, attrs):
    """A convolution whose every partial sum is rounded to float16."""
    x, w = arrays
    right = reference.kernels["conv3d"]
    total = np.zeros(right.forward(x, w, **attrs)[0].shape, np.float16)
    for channel in range(w.shape[1]):
        for tap in np.ndindex(*w.shape[2:]):
            one = np.zeros_like(w)
            one[:, channel, *tap] = w[:, channel, *tap]
            total = (total + right.forward(x, one, **attrs)[0]).astype(np.float16)
    return total


def border_repeated(arrays, attrs):
    """A convolution of x padded by its own border."""
    x, w = arrays
    widths = [(0, 0), (0, 0)] + [(p, p) for p in attrs["pad"]]
    padded = np.ascontiguousarray(np.pad(x, widths, mode="edge"))
    return reference.kernels["conv3d"].forward(padded, w, **attrs | {"pad": (0, 0, 0)})[0]


def unstrided_corner(arrays, attrs):
    """A convolution at stride 1, of which as much is kept as is wanted."""
    right = reference.kernels["conv3d"]
    y, _ = right.forward(*arrays, **attrs)
    dense, _ = right.forward(*arrays, **attrs | {"stride": ONES})
    return dense[..., : y.shape[3], : y.shape[4]]


def without_tap(w):
    """One tap of every filter lost."""
    w = w.copy()
    w[:, :, 1, 0, 2] = 0
    return w


def without_last_channel(arrays, attrs):
    x = arrays[0].copy()
    x[:, -1] = 0
    return [x, *arrays[1:]], attrs


def later(a):
    """One frame later, zeros coming in."""
    return np.concatenate([np.zeros_like(a[:, :, :1]), a[:, :, :-1]], axis=2)


def causal():
    """A convolution padded by two frames before, none behind."""

    def change(arrays, attrs):
        x, w = arrays
        padded = np.concatenate([np.zeros_like(x[:, :, :2]), x], axis=2)
        return [padded, w], attrs | {"pad": (0, *attrs["pad"][1:])}

    def back(gradients):
        dx, dw = gradients
        return [None if dx is None else np.ascontiguousarray(dx[:, :, 2:]), dw]

    return called(change, back)


def stale(y, arrays, attrs):
    """A tile that still holds what the frame before had there."""
    y = y.copy()
    y[:, :8, 2, :4, 4:] = y[:, :8, 1, :4, 4:]
    return y


def with_nan(y, arrays, attrs):
    y = y.copy()
    y[0, 3, 1, 2, 2] = np.nan
    return y


def with_offset(y, arrays, attrs):
    """One channel larger by a millionth of what values are."""
    y = y.copy()
    y[:, 5] += np.float32(1e-6 * np.sqrt(np.mean(y**2)))
    return y


def swapped_channels(y, arrays, attrs):
    order = np.arange(y.shape[1])
    order[[2, 5]] = order[[5, 2]]
    return y[:, order]


def interleaved(y, arrays, attrs):
    """Channels shuffled between two groups."""
    return y[:, np.arange(y.shape[1]).reshape(2, -1).T.reshape(-1)]


def rolled_groups(w):
    """Groups of filters in reverse order."""
    return w.reshape(4, -1, *w.shape[1:])[::-1].reshape(w.shape)


def ceiled(arrays, attrs):
    """Max pooling that keeps a last window which only begins inside."""
    (x,) = arrays
    more = np.full((*x.shape[:3], x.shape[3] + 1, x.shape[4] + 1), -np.inf, x.dtype)
    more[..., :-1, :-1] = x
    return [more], attrs


def cut(gradients):
    return [g if g is None else np.ascontiguousarray(g[..., :-1, :-1]) for g in gradients]


def average(y, arrays, attrs):
    """Average for maximum, the places inside counted."""
    return reference.kernels["average_pool3d"].forward(*arrays, **attrs)[0]


def padding_counted(y, arrays, attrs):
    (x,) = arrays
    t, h, w = attrs["pad"]
    padded = np.pad(x, [(0, 0), (0, 0), (t, t), (h, h), (w, w)])
    return reference.kernels["average_pool3d"].forward(padded, **attrs | {"pad": (0, 0, 0)})[0]


def bilinear(y, arrays, attrs):
    """Upsampling that interpolates along W."""
    return (y + np.concatenate([y[..., 1:], y[..., -1:]], axis=-1)) / 2


def over_samples(y, arrays, attrs):
    """Softmax along the wrong axis."""
    (x,) = arrays
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def population(y, arrays, attrs):
    """The running variance of a batch's own variance, not the unbiased one."""
    x, old = arrays
    momentum = attrs.get("momentum", 0.9)
    return momentum * old + (1 - momentum) * x.var(axis=(0, 2, 3, 4), dtype=np.float64)


def unbiased(y, arrays, attrs):
    """A norm in training by the unbiased variance."""
    x, s, b = (a.astype(np.float64) for a in arrays)
    mean = x.mean(axis=(0, 2, 3, 4), keepdims=True)
    variance = x.var(axis=(0, 2, 3, 4), keepdims=True, ddof=1)
    return (x - mean) / np.sqrt(variance + 1e-5) * s[:, None, None, None] + b[:, None, None, None]


def channels_last(g, dy, arrays, attrs):
    """Db summed as if channels came last."""
    return dy.reshape(-1, len(g)).sum(axis=0)


def without_mean_term(g, dy, arrays, attrs):
    """Dx of a norm in training that takes the mean for a constant."""
    x, s, _ = (a.astype(np.float64) for a in arrays)
    axes = (0, 2, 3, 4)
    deviation = np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
    z = (x - x.mean(axis=axes, keepdims=True)) / deviation
    dx = dy - z * (dy * z).mean(axis=axes, keepdims=True)
    return dx * s[:, None, None, None] / deviation


def first_sample(x, dy):
    dy = dy.copy()
    dy[1:] = 0
    return x, dy


def every_tie(g, dy, arrays, attrs):
    return pool_to_every_tie([g], dy, arrays, attrs)[0]


remembered: dict[str, Any] = {}


def remembering(op):
    """An operator that keeps what it read, for another node to use by mistake."""

    def keep(y, arrays, attrs):
        remembered["x"] = arrays[0]
        return y

    return yielded(keep)(op)


# What a port is fed.

MEANS = np.array([102.9801, 115.9465, 122.7717], np.float32)


def other_order(given):
    """R, G, B where B, G, R is expected."""
    return given | {"data": np.ascontiguousarray(given["data"][:, ::-1])}


def with_means(given):
    """Pixels whose means are not subtracted."""
    return given | {"data": given["data"] + MEANS[:, None, None, None]}


def blocks_swapped(given):
    """The weights of two blocks, one in place of the other."""
    swapped = {
        name.replace("res3_1_", "res3_?_"): value for name, value in given.items() if "res3_1_" in name
    }
    other = {name.replace("res3_2_", "res3_1_"): value for name, value in given.items() if "res3_2_" in name}
    return given | other | {name.replace("?", "2"): value for name, value in swapped.items()}


INFLATED = "res3_0_branch2a_w"


def inflated(mode):
    """A convolution's weights, inflated from its middle frame."""

    def change(given):
        middle = np.ascontiguousarray(given[INFLATED][:, :, 1:2])
        return given | {INFLATED: inflate(middle, 3, mode)}

    return change


def of(name, net, node, hypothesis, make, **options):
    """A bug of a node's value."""
    return Bug(name, net, node, node, hypothesis, {node: make}, **options)


def of_gradient(name, net, node, tensor, hypothesis, make, **options):
    """A bug of a gradient that a node's call makes."""
    return Bug(name, net, node, f"d {tensor}", hypothesis, {node: make}, **options)


def scaled(by):
    return lambda a, *rest: a * np.float32(1 + by)


# The convolutions 3x3x3 of bottlenecks() and basics().
MIDDLE, X = "res3_0_branch2b", "res3_0_branch2a_relu"
FIRST = "res3_0_branch2a"
SECOND = "res3_1_branch2b"

BUGS = (
    # Where strides, windows and padding are.
    Bug(
        "stride on the wrong convolution of the bottleneck",
        bottlenecks,
        FIRST,
        FIRST,
        "stride dropped",
        {FIRST: with_attrs(stride=ONES), MIDDLE: with_attrs(stride=(1, 2, 2))},
    ),
    Bug(
        "shortcut without stride",
        bottlenecks,
        "res3_0_branch1",
        "res3_0_branch1",
        "stride dropped",
        {"res3_0_branch1": computed(unstrided_corner)},
    ),
    of(
        "dilation forgotten",
        dilated,
        "res5_0_branch2b",
        "dilation dropped",
        with_attrs(dilation=ONES, pad=ONES),
    ),
    of(
        "padding in time missing",
        basics,
        FIRST,
        "pad missing T",
        with_attrs(pad=(0, 1, 1)),
        port=Port(ends_before="res3_0_sum"),
    ),
    of("padding in time on one side", basics, FIRST, "pad before only T", causal()),
    of("replicated for zero padding", basics, FIRST, "pad replicated", computed(border_repeated)),
    of("ceil pooling", bottlenecks, "pool1", "ceil", called(ceiled, cut), forward_alone=True),
    # Kernels.
    of("kernel flipped in time", basics, FIRST, "kernel flipped T", with_w(lambda w: w[:, :, ::-1])),
    of(
        "kernel with H and W swapped", basics, SECOND, "kernel swapped HW", with_w(lambda w: w.swapaxes(3, 4))
    ),
    of("kernel transposed", bottlenecks, MIDDLE, "kernel transposed", with_w(lambda w: w.swapaxes(0, 1))),
    of(
        "one dropped tap",
        basics,
        FIRST,
        "tap lost",
        called(lambda a, attrs: ([a[0], without_tap(a[1])], attrs)),
    ),
    of("last channel not read", basics, FIRST, "x last channel lost", called(without_last_channel)),
    of("groups permuted", grouped, MIDDLE, "groups reversed", with_w(rolled_groups)),
    of(
        "bias missing",
        pyramid,
        "fpn_inner_res4_0_sum_lateral",
        "bias missing",
        called(lambda a, attrs: ([a[0], a[1], np.zeros_like(a[2])], attrs)),
    ),
    # What comes out at the wrong place.
    of("channels interleaved", basics, FIRST, "channels interleaved", yielded(interleaved)),
    of("two channels swapped", basics, FIRST, "channels permuted", yielded(swapped_channels)),
    of("frames reversed", basics, SECOND, "time flipped", yielded(lambda y, *rest: y[:, :, ::-1])),
    of("one frame late", basics, SECOND, "frames shifted +1", yielded(lambda y, *rest: later(y))),
    of("one stale tile", basics, FIRST, None, yielded(stale)),
    of("one NaN", basics, FIRST, "not finite", yielded(with_nan), forward_alone=True),
    # Formats.
    of(
        "silent TF32, to nearest",
        basics,
        FIRST,
        "operands tf32 nearest",
        rounded_operands(lambda a: tf32(a, "nearest")),
    ),
    of(
        "silent TF32, truncated",
        basics,
        FIRST,
        "operands tf32 zero",
        rounded_operands(lambda a: tf32(a, "zero")),
    ),
    of("silent bfloat16 operands", basics, FIRST, "operands bfloat16 nearest", rounded_operands(bfloat16)),
    of("silent float16 accumulation", basics, SECOND, "sums float16", computed(half_sums)),
    of("float16 storage", basics, SECOND, "result float16", yielded(lambda y, *rest: y.astype(np.float16))),
    of_gradient(
        "dw of operands truncated to TF32",
        basics,
        SECOND,
        f"{SECOND}_w",
        "operands tf32 zero",
        dw_of(lambda x, dy: (tf32(x, "zero"), tf32(dy, "zero"))),
    ),
    # Small factors and offsets.
    of("scale off by 4e-6", basics, FIRST, "scaled", yielded(scaled(4e-6))),
    of("offset of one channel", basics, FIRST, "channel offset", yielded(with_offset)),
    of_gradient(
        "dx larger by 4e-6", basics, SECOND, "res3_1_branch2a_relu", "scaled", handed(0, scaled(4e-6))
    ),
    # Affines, rectifiers, sums.
    of(
        "affine with the wrong sign",
        basics,
        f"{FIRST}_bn",
        "bias negated",
        called(lambda a, attrs: ([a[0], a[1], -a[2]], attrs)),
    ),
    of(
        "affine without its scale",
        basics,
        f"{FIRST}_bn",
        "scale missing",
        called(lambda a, attrs: ([a[0], np.ones_like(a[1]), a[2]], attrs)),
    ),
    of(
        "leaky ReLU of 1e-7",
        basics,
        X,
        "leaky ReLU",
        yielded(lambda y, a, attrs: np.where(a[0] > 0, a[0], np.float32(1e-7) * a[0])),
    ),
    of("ReLU missing", basics, "res3_0_relu", "no ReLU", yielded(lambda y, arrays, attrs: arrays[0])),
    of(
        "ReLU before the sum",
        basics,
        "res3_1_sum",
        "ReLU before",
        called(lambda a, attrs: ([np.maximum(a[0], 0), a[1]], attrs)),
    ),
    of("shortcut missing", basics, "res3_1_sum", "term missing", yielded(lambda y, arrays, attrs: arrays[0])),
    # Pools, and what resizes.
    of("average for maximum", bottlenecks, "pool1", "average for maximum", yielded(average)),
    of("average counts its padding", averaged, "pool", "padding counted", yielded(padding_counted)),
    of(
        "upsampling interpolates",
        pyramid,
        "fpn_inner_res4_0_sum_topdown",
        None,
        yielded(bilinear),
    ),
    of("regions half a pixel away", tubes, "pool", "aligned not False", with_attrs(aligned=True)),
    # Norms, softmax, loss.
    of("epsilon dropped", frozen_norms, "res3_0_branch2a_bn", "epsilon missing", with_attrs(epsilon=1e-30)),
    of(
        "epsilon 1e-3 for 1e-5", frozen_norms, "res3_0_branch2b_bn", "epsilon 0.001", with_attrs(epsilon=1e-3)
    ),
    of(
        "norm by the unbiased variance",
        training_norms,
        "res3_0_branch2a_bn",
        "unbiased variance",
        yielded(unbiased),
    ),
    of(
        "running variance biased",
        training_norms,
        "res3_0_branch2a_bn_running_variance",
        "population variance",
        yielded(population),
    ),
    of(
        "momentum swapped",
        training_norms,
        "res3_0_branch2b_bn_running_mean",
        "momentum swapped",
        with_attrs(momentum=0.1),
    ),
    of("softmax along the samples", images, "prob", None, yielded(over_samples)),
    of(
        "loss not divided by the samples",
        images,
        "loss",
        "sum for mean",
        yielded(lambda y, a, _: y * len(a[0])),
    ),
    # What it was fed with.
    Bug(
        "BGR and RGB swapped",
        bottlenecks,
        "conv1",
        "conv1",
        "x channels reversed",
        fed=other_order,
    ),
    Bug(
        "BGR and RGB swapped, input dumped",
        bottlenecks,
        "data",
        "data",
        "channels reversed",
        fed=other_order,
        dumped=("data",),
    ),
    Bug("mean not subtracted", bottlenecks, "conv1", "conv1", "x offset", fed=with_means),
    Bug(
        "mean not subtracted, input dumped",
        bottlenecks,
        "data",
        "data",
        "channel offset",
        fed=with_means,
        dumped=("data",),
    ),
    Bug(
        "two blocks' weights swapped",
        repeated,
        "res3_1_branch2a",
        "res3_1_branch2a",
        "w of res3_2_branch2a",
        fed=blocks_swapped,
    ),
    Bug(
        "inflation mean-repeat for center-only",
        basics,
        FIRST,
        FIRST,
        "inflation mean-repeat",
        fed=inflated("mean-repeat"),
        given=inflated("center-only"),
    ),
    # Gradients.
    Bug(
        "gradient leaking into stage 2",
        basics,
        "res2_0_stop",
        "d res2_0_stop",
        "stop missing",
        port=Port(opened=("res2_0_stop",)),
    ),
    Bug(
        "fan-out added once",
        bottlenecks,
        "res3_0_relu",
        "d res3_0_relu",
        "fan-out added once",
        port=Port(total=lambda contributions: contributions[0]),
    ),
    Bug(
        "one reader's gradient added twice",
        bottlenecks,
        "res3_0_relu",
        "d res3_0_relu",
        "fan-out added twice",
        port=Port(total=lambda c: sum_of([*c, c[-1]] if len(c) > 1 else c)),
    ),
    of_gradient(
        "dx without flipping the kernel",
        basics,
        SECOND,
        "res3_1_branch2a_relu",
        "kernel flipped THW",
        dx_of(lambda w: w[:, :, ::-1, ::-1, ::-1]),
    ),
    of_gradient(
        "stride dropped in dx",
        learning,
        "res3_0_branch1",
        "res2_0_relu",
        "stride dropped",
        handed(0, lambda g, *rest: unstrided(g)),
    ),
    of_gradient(
        "dw missing a batch item", learning, FIRST, f"{FIRST}_w", "one sample alone", dw_of(first_sample)
    ),
    Bug(
        "dw of x before its ReLU",
        basics,
        SECOND,
        f"d {SECOND}_w",
        None,
        {"res3_1_branch2a_relu": remembering, SECOND: dw_of(lambda x, dy: (remembered["x"], dy))},
    ),
    of_gradient(
        "db summed over the wrong axes",
        basics,
        f"{FIRST}_bn",
        f"{FIRST}_bn_b",
        "wrong axes",
        handed(2, channels_last),
    ),
    of_gradient(
        "mask of dy",
        basics,
        X,
        f"{FIRST}_bn",
        "mask of dy",
        handed(0, lambda g, dy, arrays, attrs: dy * (dy > 0)),
    ),
    of_gradient(
        "pool gradient to every tie", learning, "pool1", "conv1_relu", "every tie", handed(0, every_tie)
    ),
    of_gradient(
        "norm's dx without the mean's term",
        training_norms,
        "res3_0_branch2b_bn",
        "res3_0_branch2b",
        "mean term missing",
        handed(0, without_mean_term),
    ),
    of_gradient(
        "upsampling's gradient averaged",
        pyramid,
        "fpn_inner_res4_0_sum_topdown",
        "fpn_inner_res5_0_sum",
        "mean for sum",
        handed(0, lambda g, *rest: g / 4),
    ),
    of_gradient(
        "dropout's gradient without its scale",
        averaged,
        "dropped",
        "pool",
        "dropout scale missing",
        handed(0, lambda g, *rest: g * np.float32(0.75)),
    ),
    of_gradient(
        "loss's gradient not divided by the samples",
        images,
        "loss",
        "fc",
        "sum for mean",
        handed(0, lambda g, dy, arrays, attrs: g * len(arrays[0])),
    ),
)
