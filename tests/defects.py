"""Planted defects: kernels and walks that are wrong in one respect, and where a check must find it.

The scoreboard (`test_scoreboard.py`, docs/gradcheck.md) is made of them. A defect is planted into `core`, in
float64 unless it says otherwise, on a net in which it matters; it names the tensors that must be called
wrong and the node that must be named.
"""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bundles import CONV4, CONV5, images, narrow

from refnet import remat, run
from refnet.arithmetic import Arithmetic, Kernel, core
from refnet.net import Net
from refnet.networks.fpn3d import fpn
from refnet.shapes import pooling, taps


@dataclass(frozen=True)
class Defect:
    """A mistake, and where it must be found.

    Attributes
    ----------
    name : str
    net : callable
        Makes the net that shows it.
    tensors : tuple of str
        At least these verdicts must be wrong; no gradient of another tensor may be.
    node : str
        The node that one of them must name.
    arithmetic : Arithmetic
    walk : callable
        A context in which `refnet.run.backward` walks wrong.
    dtype : str
    alone : bool
        Whether no other tensor may be wrong.
    """

    name: str
    net: Callable[[], Net]
    tensors: tuple[str, ...]
    node: str
    arithmetic: Any = field(default_factory=lambda: core)
    walk: Callable[[], Any] = nullcontext
    dtype: str = "float64"
    alone: bool = True


def planted(op, *, backward=None, forward=None, on=lambda arrays, attrs: True):
    """`core` with one operator wrong where `on` says.

    `forward(y, arrays, attrs)` and `backward(gradients, dy, arrays, attrs)` make the wrong result; the
    gradients that are not needed are None.
    """
    right = core.kernels[op]

    def wrong_forward(*arrays, **attrs):
        y, context = right.forward(*arrays, **attrs)
        if forward is not None and on(arrays, attrs):
            y = np.ascontiguousarray(forward(y, arrays, attrs))
        return y, (context, arrays, attrs)

    def wrong_backward(dy, context, needs):
        inner, arrays, attrs = context
        gradients = list(right.backward(dy, inner, needs))
        if backward is not None and on(arrays, attrs):
            changed = backward(gradients, dy, arrays, attrs)
            gradients = [
                None if g is None else np.ascontiguousarray(c, g.dtype)
                for g, c in zip(gradients, changed, strict=True)
            ]
        return tuple(gradients)

    return core.replace(**{op: Kernel(wrong_forward, wrong_backward)})


def on_weights(*shape):
    """A convolution whose weights have this shape."""
    return lambda arrays, attrs: arrays[1].shape == shape


def changed(index, change):
    """A backward that changes the gradient of one input."""

    def backward(gradients, dy, arrays, attrs):
        return [change(g) if i == index and g is not None else g for i, g in enumerate(gradients)]

    return backward


def at(array, index, factor):
    """A copy with one element multiplied."""
    array = array.copy()
    array[index] *= factor
    return array


def without(array, *index):
    """A copy with zeros at an index."""
    array = array.copy()
    array[index] = 0
    return array


def conv_dx(change):
    """A backward whose dx is computed with other weights, or another dy."""

    def backward(gradients, dy, arrays, attrs):
        if gradients[0] is None:
            return gradients
        x, w, *_ = arrays
        dy, w = change(dy, w)
        _, context = core.kernels["conv3d"].forward(x, np.ascontiguousarray(w), **attrs)
        return [
            core.kernels["conv3d"].backward(np.ascontiguousarray(dy), context, (True, False))[0],
            *gradients[1:],
        ]

    return backward


def conv_y(change):
    """A forward with other weights or another x."""

    def forward(y, arrays, attrs):
        x, w = change(arrays[0], arrays[1])
        return core.kernels["conv3d"].forward(np.ascontiguousarray(x), np.ascontiguousarray(w), **attrs)[0]

    return forward


def flipped_in_time(a, w):
    return a, w[:, :, ::-1]


def transposed(a, w):
    return a, w.swapaxes(0, 1)


def both(change):
    """Forward, dx and dw by a kernel that is flipped."""

    def backward(gradients, dy, arrays, attrs):
        dx, dw = conv_dx(change)(gradients, dy, arrays, attrs)
        return [dx, None if dw is None else change(None, dw)[1]]

    return {"forward": conv_y(change), "backward": backward}


# Nets.


def stopped():
    """Bottlenecks, one stage without gradients and two with."""
    return narrow((1, 1, 1), CONV4, (1, 3, 3, 32, 32))


def grouped():
    return narrow((1, 1), (4, 8, 16), (1, 3, 2, 24, 24), groups=2, width_per_group=4, freeze_at=0)


def dilated():
    return narrow((1, 1, 1, 1), CONV5, (1, 3, 2, 32, 32), dilation=2, freeze_at=0)


def batch_norms(training=True):
    return narrow((1, 1, 1), CONV4, (2, 3, 2, 16, 16), batch_norm=True, training=training, freeze_at=0)


def pyramid():
    return fpn(narrow((1, 1, 1, 1), CONV5, (1, 3, 2, 32, 64), freeze_at=0), dim=8)


def tubes():
    """A convolution, and boxes of its planes averaged."""
    net = Net()
    x = net.input("data", (1, 4, 2, 9, 10))
    x = net.add("conv3d", "conv", (x, net.param("conv_w", (8, 4, 1, 3, 3))), pad=(0, 1, 1))
    rois = net.input("rois", (3, 9))
    net.output(net.add("roi_align", "pool", (x, rois), output=(3, 3), sampling_ratio=2))
    return net


def classes():
    return images((1, 1, 1, 1))


def million():
    """One convolution whose dx has more than 10**6 elements."""
    net = Net()
    x = net.input("data", (1, 16, 8, 96, 96))
    net.output(net.add("conv3d", "conv", (x, net.param("conv_w", (4, 16, 1, 3, 3))), pad=(0, 1, 1)))
    return net


def odd():
    """Two convolutions: one of planes of even sizes, one of odd sizes."""
    net = Net()
    x = net.input("data", (1, 4, 4, 12, 12))
    x = net.add("conv3d", "even", (x, net.param("even_w", (4, 4, 1, 3, 3))), pad=(0, 1, 1))
    x = net.add("conv3d", "smaller", (x, net.param("smaller_w", (4, 4, 2, 2, 2))))
    net.output(net.add("conv3d", "odd", (x, net.param("odd_w", (4, 4, 1, 3, 3))), pad=(0, 1, 1)))
    return net


def ties():
    """A pool of a rectifier's zeros."""
    net = Net()
    x = net.input("data", (1, 4, 4, 12, 12))
    x = net.add("conv3d", "conv", (x, net.param("conv_w", (8, 4, 1, 3, 3))), pad=(0, 1, 1))
    x = net.add("relu", "relu", (x,))
    net.output(net.add("max_pool3d", "pool", (x,), kernel=(1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 1)))
    return net


def averaged():
    net = Net()
    x = net.input("data", (1, 4, 4, 12, 12))
    x = net.add("conv3d", "conv", (x, net.param("conv_w", (8, 4, 1, 3, 3))), pad=(0, 1, 1))
    x = net.add("average_pool3d", "pool", (x,), kernel=(3, 2, 2), stride=(1, 2, 2), pad=(1, 0, 0))
    x = net.add("dropout", "dropped", (x, net.input("mask", net.shape(x))), ratio=0.25)
    net.output(net.add("global_average_pool", "mean", (x,)))
    return net


# Wrong walks.


@contextmanager
def patched(owner, name, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def first_contribution_alone():
    return patched(Arithmetic, "total", lambda arithmetic, contributions: contributions[0])


def last_contribution_twice():
    right = Arithmetic.total
    return patched(
        Arithmetic, "total", lambda arithmetic, c: right(arithmetic, [*c, c[-1]] if len(c) > 1 else c)
    )


STOP = "res2_0_stop"


def leak(reaches):
    """The stop hands its gradient on, to the parameters whose names begin so and what lies between."""

    @contextmanager
    def walk():
        right, learns_from = remat.planned, run.learns_from

        def planned(net):
            plan = right(net)
            more = {
                name for name in (*net.params, *(node.name for node in net.nodes)) if name.startswith(reaches)
            }
            return remat.Plan(**{**plan.__dict__, "trainable": plan.trainable | more | {STOP}})

        def learns(node):
            return list(node.inputs) if node.name == STOP else learns_from(node)

        with patched(run, "planned", planned), patched(run, "learns_from", learns):
            yield

    return walk


def too_early(begins):
    """What begins so is taken for blocked."""

    def walk():
        right = remat.planned

        def planned(net):
            plan = right(net)
            left = frozenset(name for name in plan.trainable if not name.startswith(begins))
            return remat.Plan(**{**plan.__dict__, "trainable": left})

        return patched(run, "planned", planned)

    return walk


OPEN_STOP = core.replace(
    stop_gradient=Kernel(core.kernels["stop_gradient"].forward, lambda dy, context, needs: (dy,))
)


def relu_mask_of_dy(gradients, dy, arrays, attrs):
    return [np.where(dy > 0, gradients[0], 0)]


def pool_to_every_tie(gradients, dy, arrays, attrs):
    (x,) = arrays
    y, _ = core.max_pool3d.forward(x, **attrs)
    dx = np.zeros_like(x)
    for _, outputs, inputs in taps(x.shape, y.shape, pooling(x.shape, **attrs)):
        dx[..., *inputs] += np.where(x[..., *inputs] == y[..., *outputs], dy[..., *outputs], 0)
    return [dx]


def normalised(x):
    mean = x.mean(axis=(0, 2, 3, 4), keepdims=True)
    deviation = np.sqrt(x.var(axis=(0, 2, 3, 4), keepdims=True) + 1e-5)
    return (x - mean) / deviation, deviation


def batch_norm_dx(mean_term, variance_term):
    """Dx of batch norm in training, with or without the terms through its statistics."""

    def backward(gradients, dy, arrays, attrs):
        x, s, _ = arrays
        z, deviation = normalised(x)
        axes = (0, 2, 3, 4)
        dx = dy.copy()
        if mean_term:
            dx -= dy.mean(axis=axes, keepdims=True)
        if variance_term:
            dx -= z * (dy * z).mean(axis=axes, keepdims=True)
        return [dx * s[:, None, None, None] / deviation, *gradients[1:]]

    return backward


def rounded_to_half(gradients, dy, arrays, attrs):
    """Dx of operands in float16."""

    def halves(*operands):
        with np.errstate(over="ignore"):
            return tuple(operand.astype("float16").astype(operand.dtype) for operand in operands)

    return conv_dx(halves)(gradients, dy, arrays, attrs)


def unstrided(g):
    """What stood at multiples of the stride, side by side."""
    dense = np.zeros_like(g)
    some = g[..., ::2, ::2]
    dense[..., : some.shape[3], : some.shape[4]] = some
    return dense


def conv_dx_undilated(gradients, dy, arrays, attrs):
    """Dx of neighbouring taps, with the padding that keeps the size."""
    if gradients[0] is None:
        return gradients
    near = attrs | {"dilation": (1, 1, 1), "pad": tuple(k // 2 for k in arrays[1].shape[2:])}
    _, context = core.conv3d.forward(arrays[0], arrays[1], **near)
    return [core.conv3d.backward(dy, context, (True, False))[0], *gradients[1:]]


def first_sample(gradients, dy, arrays, attrs):
    """Dw of the first sample."""
    x, w = (np.ascontiguousarray(a) for a in (arrays[0][:1], arrays[1]))
    _, context = core.conv3d.forward(x, w, **attrs)
    return [gradients[0], core.conv3d.backward(np.ascontiguousarray(dy[:1]), context, (False, True))[1]]


def aligned(gradients, dy, arrays, attrs):
    """The gradient of the other convention of RoIAlign."""
    _, context = core.roi_align.forward(*arrays, **(attrs | {"aligned": not attrs.get("aligned", False)}))
    return [core.roi_align.backward(dy, context)[0], None]


def without_label(gradients, dy, arrays, attrs):
    """Softmax alone."""
    y, _ = core.softmax.forward(arrays[0])
    return [y * (dy / len(y)), None]


def strided(arrays, attrs):
    return attrs.get("stride", (1, 1, 1)) != (1, 1, 1)


def odd_planes(arrays, attrs):
    return arrays[0].shape[3] % 2 == 1


# The 3x3x3 convolutions of res3 and res4, whose channels are square, and what strides to res4.
RES3, RES4 = on_weights(8, 8, 3, 3, 3), on_weights(16, 16, 3, 3, 3)
TO_RES4 = on_weights(16, 8, 1, 1, 1)
X4, W4, NODE4 = "res4_0_branch2a_relu", "res4_0_branch2b_w", "res4_0_branch2b"


def of_dx(name, change, **options):
    """A defect of the dx of res4's 3x3x3 convolution."""
    return Defect(
        name, stopped, (X4,), NODE4, planted("conv3d", backward=changed(0, change), on=RES4), **options
    )


def of_dw(name, change, **options):
    """A defect of its dw."""
    return Defect(
        name, stopped, (W4,), NODE4, planted("conv3d", backward=changed(1, change), on=RES4), **options
    )


def of_norm(name, backward, index, node="res4_0_branch2b_bn"):
    """A defect of an affine's gradients, of those with 16 channels."""
    tensor = f"{node}_{'xsb'[index]}"
    on = lambda arrays, attrs: arrays[1].shape == (16,)  # noqa: E731
    return Defect(name, stopped, (tensor,), node, planted("affine", backward=backward, on=on), alone=False)


def shifted_padding(x, w):
    """One more before and one less after, along W."""
    return np.concatenate([np.zeros_like(x[..., :1]), x[..., :-1]], axis=-1), w


def rolled_frames(g):
    return np.concatenate([g[:, :, :1], g[:, :, :-1]], axis=2)


DEFECTS = (
    # Kernels: small errors.
    of_dw("dw larger by 1e-9", lambda g: g * (1 + 1e-9)),
    of_dx("dx larger by 1e-9", lambda g: g * (1 + 1e-9)),
    of_dw("one element of dw wrong by 1e-6", lambda g: at(g, (3, 5, 1, 1, 1), 1 + 1e-6)),
    Defect(
        "one element of 1.2 million wrong by 1e-6",
        million,
        ("data",),
        "conv",
        planted("conv3d", backward=changed(0, lambda g: at(g, (0, 7, 3, 50, 60), 1 + 1e-6))),
    ),
    of_norm("ds larger by 1e-9", changed(1, lambda g: g * (1 + 1e-9)), 1),
    # Kernels: taps, axes, borders.
    Defect(
        "kernel transposed in dx",
        stopped,
        (X4,),
        NODE4,
        planted("conv3d", backward=conv_dx(transposed), on=RES4),
    ),
    Defect(
        "kernel transposed in forward",
        stopped,
        (f"value of {NODE4}",),
        NODE4,
        planted("conv3d", forward=conv_y(transposed), on=RES4),
        alone=False,
    ),
    Defect(
        "time axis flipped in dx",
        stopped,
        (X4,),
        NODE4,
        planted("conv3d", backward=conv_dx(flipped_in_time), on=RES4),
    ),
    Defect(
        "time axis flipped in forward",
        stopped,
        (f"value of {NODE4}",),
        NODE4,
        planted("conv3d", forward=conv_y(flipped_in_time), on=RES4),
        alone=False,
    ),
    Defect(
        "the same flip in forward and backward",
        stopped,
        (X4, W4),
        NODE4,
        planted("conv3d", **both(flipped_in_time), on=RES4),
    ),
    of_dw("dw flipped in time", lambda g: g[:, :, ::-1]),
    of_dw("dw transposed", lambda g: g.swapaxes(0, 1)),
    of_dx("channels of dx rolled", lambda g: np.roll(g, 1, axis=1)),
    of_dx("last column of dx lost", lambda g: without(g, ..., -1)),
    of_dx("first frame of dx doubled", lambda g: at(g, (slice(None), slice(None), 0), 2)),
    of_dx("frames of dx shifted", rolled_frames),
    of_dw("one filter of dw negated", lambda g: at(g, 9, -1)),
    Defect(
        "padding of dx on one side",
        stopped,
        (X4,),
        NODE4,
        planted("conv3d", backward=conv_dx(shifted_padding), on=RES4),
    ),
    Defect(
        "padding on one side in forward",
        stopped,
        (f"value of {NODE4}",),
        NODE4,
        planted("conv3d", forward=conv_y(shifted_padding), on=RES4),
        alone=False,
    ),
    Defect(
        "stride dropped in dx",
        stopped,
        ("res3_0_relu",),
        "res4_0_branch2a",
        planted("conv3d", backward=changed(0, unstrided), on=TO_RES4),
    ),
    Defect(
        "right for stride 1, wrong for 2",
        stopped,
        ("res4_0_branch1_w", "res3_0_branch1_w"),
        "res4_0_branch1",
        planted("conv3d", backward=changed(1, lambda g: g * 1.5), on=strided),
        alone=False,
    ),
    Defect(
        "wrong at odd sizes only",
        odd,
        ("odd_w",),
        "odd",
        planted("conv3d", backward=changed(1, lambda g: without(g, ..., 0)), on=odd_planes),
    ),
    Defect(
        "dilation dropped in dx",
        dilated,
        ("res5_0_branch2a_relu",),
        "res5_0_branch2b",
        planted(
            "conv3d",
            backward=conv_dx_undilated,
            on=lambda arrays, attrs: attrs.get("dilation", (1, 1, 1))[2] == 2,
        ),
    ),
    Defect(
        "order of groups reversed in dw",
        grouped,
        ("res3_0_branch2b_w",),
        "res3_0_branch2b",
        planted(
            "conv3d",
            backward=changed(1, lambda g: np.roll(g, len(g) // 2, axis=0)),
            on=lambda arrays, attrs: attrs.get("groups", 1) == 2 and arrays[0].shape[1] == 16,
        ),
    ),
    Defect(
        "operands of dx in float16",
        stopped,
        (X4,),
        NODE4,
        planted("conv3d", backward=rounded_to_half, on=RES4),
        alone=False,
    ),
    Defect(
        "operands of dx in float16, of float32",
        stopped,
        (X4,),
        NODE4,
        planted("conv3d", backward=rounded_to_half, on=RES4),
        dtype="float32",
        alone=False,
    ),
    Defect(
        "dw of the first sample alone",
        batch_norms,
        ("res3_0_branch1_w", "res3_0_branch2a_w"),
        "res3_0_branch1",
        planted("conv3d", backward=first_sample, on=on_weights(8, 4, 1, 1, 1)),
    ),
    # Norms, rectifiers, pools, losses.
    of_norm("ds missing", changed(1, np.zeros_like), 1),
    of_norm("db missing", changed(2, np.zeros_like), 2),
    of_norm("db over the wrong axes", changed(2, lambda g: np.full_like(g, g.mean())), 2),
    of_norm("ds and db swapped", lambda g, dy, arrays, attrs: [g[0], g[2], g[1]], 1),
    Defect(
        "rectifier's mask from dy",
        stopped,
        ("res4_0_sum",),
        "res4_0_relu",
        planted("relu", backward=relu_mask_of_dy),
        alone=False,
    ),
    Defect(
        "rectifier without a mask",
        stopped,
        ("res4_0_sum",),
        "res4_0_relu",
        planted("relu", backward=lambda g, dy, arrays, attrs: [dy]),
        alone=False,
    ),
    Defect(
        "second branch of a sum without a gradient",
        stopped,
        ("res4_0_branch1_bn",),
        "res4_0_sum",
        planted("add", backward=changed(1, np.zeros_like)),
        alone=False,
    ),
    Defect(
        "pool's gradient to every tie",
        ties,
        ("relu",),
        "pool",
        planted("max_pool3d", backward=pool_to_every_tie),
    ),
    Defect(
        "average's gradient not divided",
        averaged,
        ("conv",),
        "pool",
        planted("average_pool3d", backward=changed(0, lambda g: g * 12)),
    ),
    Defect(
        "dropout's gradient without its scale",
        averaged,
        ("pool",),
        "dropped",
        planted("dropout", backward=changed(0, lambda g: g * 0.75)),
    ),
    Defect(
        "global average's gradient by one less",
        averaged,
        ("dropped",),
        "mean",
        planted("global_average_pool", backward=changed(0, lambda g: g * (1 + 1e-4))),
    ),
    Defect(
        "batch norm in training without the mean's term",
        batch_norms,
        ("res4_0_branch2b",),
        "res4_0_branch2b_bn",
        planted("batch_norm_training", backward=batch_norm_dx(False, True)),
        alone=False,
    ),
    Defect(
        "batch norm in training without the variance's term",
        batch_norms,
        ("res4_0_branch2b",),
        "res4_0_branch2b_bn",
        planted("batch_norm_training", backward=batch_norm_dx(True, False)),
        alone=False,
    ),
    Defect(
        "upsampling's gradient averaged",
        pyramid,
        ("fpn_inner_res5_0_sum",),
        "fpn_inner_res4_0_sum_topdown",
        planted("upsample_nearest", backward=changed(0, lambda g: g / 4)),
        alone=False,
    ),
    Defect(
        "regions' gradient of one half pixel away",
        tubes,
        ("conv",),
        "pool",
        planted("roi_align", backward=aligned),
    ),
    Defect(
        "loss not divided by the samples",
        classes,
        ("fc",),
        "loss",
        planted("cross_entropy", backward=lambda g, dy, arrays, attrs: [g[0] * len(arrays[0]), None]),
    ),
    Defect(
        "loss without the label's term",
        classes,
        ("fc",),
        "loss",
        planted("cross_entropy", backward=without_label),
    ),
    Defect(
        "linear's dw of rolled columns",
        classes,
        ("fc_w",),
        "fc",
        planted("linear", backward=changed(1, lambda g: np.roll(g, 1, axis=1))),
    ),
    # Walks.
    Defect(
        "fan-out added once",
        stopped,
        ("res3_0_relu",),
        "res3_0_relu",
        walk=first_contribution_alone,
        alone=False,
    ),
    Defect(
        "one branch of a fan-out twice",
        stopped,
        ("res3_0_relu",),
        "res3_0_relu",
        walk=last_contribution_twice,
        alone=False,
    ),
    Defect(
        "gradient leaks through the stop",
        stopped,
        ("res2_0_branch2c_w", "conv1_w"),
        "conv1",
        OPEN_STOP,
        walk=leak(("res2", "conv1", "res_conv1", "pool1")),
        alone=False,
    ),
    Defect(
        "blocked one node too late",
        stopped,
        ("res2_0_relu",),
        "res2_0_relu",
        OPEN_STOP,
        walk=leak(("res2_0_relu", "res2_0_sum", "res2_0_branch2c_bn")),
        alone=False,
    ),
    Defect(
        "blocked one block too early",
        stopped,
        ("res3_0_branch2a_w",),
        "res3_0_branch2a",
        walk=too_early("res3_0"),
        alone=False,
    ),
    Defect(
        "one parameter taken for blocked",
        stopped,
        ("res3_0_branch2a_w",),
        "res3_0_branch2a",
        walk=too_early("res3_0_branch2a_w"),
        alone=False,
    ),
)
