"""Honest candidates: what implementations compute that have no bug, under claims that are true.

Each is somebody's forward and backward pass of a net, node by node, in float32, float64 or bfloat16. Nothing
that they dump may be judged worse than consistent (`test_certify_scoreboard.py`).
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bugs import (
    basics,
    bfloat16,
    bottlenecks,
    dilated,
    frozen_norms,
    grouped,
    images,
    learning,
    pyramid,
    repeated,
    training_norms,
)
from defects import averaged, tubes
from ports import Port, computed, given_of
from support import peer

import refnet
from refnet.bench.peers.torch import walk
from refnet.inputs.candidate import Candidate
from refnet.net import Net
from refnet.networks.resnet3d import body
from refnet.shapes import ONES, ZEROS, taps
from refnet.shapes import size as volume_of

CASES = Path(__file__).with_name("cases") / "gpu"


@dataclass(frozen=True)
class Honest:
    """An implementation without a bug.

    Attributes
    ----------
    name : str
    compute : ``(net, given, output_gradients) -> Candidate``
    claims : dict
        What `certify` is told of it.
    nets : tuple of callable
        What it is tried on.
    given : ``(net, seed) -> dict``
        What it computes with.
    seed : int, optional
        The only one that there is of it.
    """

    name: str
    compute: Callable[[Net, dict[str, Any], dict[str, Any]], Candidate]
    claims: Mapping[str, Any] = field(default_factory=dict)
    nets: tuple[Callable[[], Net], ...] = (basics, grouped)
    given: Callable[[Net, int], dict[str, Any]] = given_of
    seed: int | None = None

    def arguments(self, make, seed):
        """What is certified: the net, what it is given, and what was computed."""
        net = make()
        given = self.given(net, seed)
        store = self.claims.get("store", "float32")
        dy = refnet.fill.output_gradients(net, seed, "float64" if store == "float64" else "float32")
        if store == "bfloat16":
            dy = {name: bfloat16(np.atleast_1d(g)).reshape(g.shape) for name, g in dy.items()}
        return net, given, self.compute(net, given, dy)


# NumPy, with sums in several orders.


def patches(x, w, stride=ONES, pad=ZEROS, dilation=ONES, groups=1):
    """What each output position reads, (N, C, K taps, oT, oH, oW), zeros in the padding."""
    padded = np.pad(x, [(0, 0), (0, 0)] + [(p, p) for p in pad])
    source = [n + 2 * p for n, p in zip(x.shape[2:], pad, strict=True)]
    counts = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(source, dilation, w.shape[2:], stride, strict=True)
    ]
    read = [
        padded[
            (
                ...,
                *(
                    slice(i * d, i * d + s * (n - 1) + 1, s)
                    for i, d, s, n in zip(tap, dilation, stride, counts, strict=True)
                ),
            )
        ]
        for tap in np.ndindex(*w.shape[2:])
    ]
    return np.stack(read, axis=2)


def by_einsum(arrays, attrs):
    """y as one einsum of patches and weights."""
    x, w, *b = arrays
    groups = attrs.get("groups", 1)
    read = patches(x, w, **attrs)
    n, c, k, *places = read.shape
    y = np.einsum(
        "ngckthw,gfck->ngfthw",
        read.reshape(n, groups, c // groups, k, *places),
        w.reshape(groups, len(w) // groups, w.shape[1], k),
    ).reshape(n, len(w), *places)
    return y + b[0][:, None, None, None] if b else y


def gradients_by_einsum(dy, arrays, attrs, needs):
    """Dw as one einsum; dx as one for each tap, added where the tap reads."""
    x, w, *b = arrays
    groups = attrs.get("groups", 1)
    n, k = len(x), volume_of(w.shape[2:])
    grouped_dy = dy.reshape(n, groups, -1, *dy.shape[2:])
    dx = dw = None
    if needs[1]:
        read = patches(x, w, **attrs)
        read = read.reshape(n, groups, -1, k, *dy.shape[2:])
        dw = np.einsum("ngckthw,ngfthw->gfck", read, grouped_dy).reshape(w.shape)
    if needs[0]:
        dx = np.zeros_like(x)
        windows = {key: value for key, value in attrs.items() if key != "groups"}
        for tap, outputs, inputs in taps(x.shape, dy.shape, geometry(w, **windows)):
            weights = w[..., *tap].reshape(groups, -1, w.shape[1])
            part = np.einsum("gfc,ngfthw->ngcthw", weights, grouped_dy[..., *outputs])
            dx[..., *inputs] += part.reshape(n, -1, *part.shape[3:])
    db = dy.sum(axis=(0, 2, 3, 4)) if b and needs[2] else None
    return (dx, dw, db) if b else (dx, dw)


def geometry(w, **attrs):
    from refnet.ops.conv3d import window

    return window((), w.shape, **attrs)


def products(arrays, attrs):
    """The products of every sum, (K, N, filters, oT, oH, oW)."""
    x, w, *_ = arrays
    groups = attrs.get("groups", 1)
    read = patches(x, w, **attrs)
    n, c, k, *places = read.shape
    read = read.reshape(n, groups, 1, (c // groups) * k, *places)
    weights = w.reshape(1, groups, len(w) // groups, -1, 1, 1, 1)
    found = (read * weights).reshape(n, len(w), -1, *places)
    return np.moveaxis(found, 2, 0)


def one_by_one(terms):
    """The sum of terms, added one after the other."""
    total = terms[0].copy()
    for term in terms[1:]:
        total += term
    return total


def in_pairs(terms):
    """The sum of terms, as a tree: neighbours first."""
    while len(terms) > 1:
        odd = terms[-1:] if len(terms) % 2 else terms[:0]
        terms = np.concatenate([terms[:-1:2] + terms[1::2], odd])
    return terms[0]


def with_sums(add):
    """Convolutions whose products are added by `add`."""

    def y(arrays, attrs):
        total = add(products(arrays, attrs))
        return total + arrays[2][:, None, None, None] if len(arrays) == 3 else total

    return computed(y)


def numpy_port(make):
    """A port all of whose convolutions are computed so."""

    def compute(net, given, dy):
        kernels = {node.name: make("conv3d") for node in net.nodes if node.op == "conv3d"}
        return Port(kernels=kernels).candidate(net, given, dy)

    return compute


# PyTorch.


def by_torch(net, given, dy, *, onednn=True, channels_last=False, dtype="float32", compiled=False):
    """PyTorch's functions and autograd; every node's gradient is kept, unless nodes are compiled into one."""
    torch = peer("torch")
    real, learnt = getattr(torch, dtype), net.gradient_flow()

    def tensor(name, a):
        found = torch.from_numpy(a)
        if not found.is_floating_point():
            return found
        found = found.to(real)
        if channels_last and a.ndim == 5:
            found = found.to(memory_format=torch.channels_last_3d)
        return found.requires_grad_(name in learnt)

    tensors = {name: tensor(name, a) for name, a in given.items()}
    starts = {name: torch.from_numpy(g).to(real) for name, g in dy.items()}
    of_net = partial(walk, net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch says of its own parts
        with torch.backends.mkldnn.flags(enabled=onednn):
            values = (torch.compile(of_net) if compiled else of_net)(tensors)
            inside = {node.name for node in net.nodes} & (dy.keys() if compiled else learnt)
            asked = {name: v for name, v in values.items() if v.requires_grad and name in {*given, *inside}}
            gradients = torch.autograd.grad(
                [values[name] for name in starts],
                list(asked.values()),
                list(starts.values()),
                allow_unused=True,
            )
    arrived = {name: as_numpy(torch, g) for name, g in zip(asked, gradients, strict=True) if g is not None}
    return Candidate(
        blobs={node.name: as_numpy(torch, values[node.name]) for node in net.nodes},
        gradients={name: g for name, g in arrived.items() if name in given},
        blob_gradients={name: g for name, g in arrived.items() if name in inside},
        output_gradients=dict(dy),
    )


def as_numpy(torch, v):
    """A tensor's values; of bfloat16 in float32, which holds them."""
    v = v.detach()
    return (v.float() if v.dtype == torch.bfloat16 else v).contiguous().numpy().copy()


def in_bfloat16(net, seed):
    """What a net is given, rounded to bfloat16, as float32."""
    return {name: a if a.dtype == np.int64 else bfloat16(a) for name, a in given_of(net, seed).items()}


# JAX.


def by_jax(net, given, dy):
    """JAX, compiled by XLA; every node gets a zero added, whose gradient is the node's."""
    jax = peer("jax")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    learnt = net.gradient_flow()
    ops = jax_ops(jax)

    def values(learning, zeros):
        found = {**given, **learning}
        nodes = {}
        for node in net.nodes:
            y = ops[node.op](*(found[name] for name in node.inputs), **node.attrs)
            nodes[node.name] = y
            found[node.name] = y + zeros[node.name] if node.name in zeros else y
        return {name: found[name] for name in dy}, nodes

    learning = {name: a for name, a in given.items() if name in learnt}
    zeros = {node.name: np.zeros(node.shape, np.float32) for node in net.nodes if node.name in learnt}

    def step(learning, zeros, dy):
        _, backward, nodes = jax.vjp(values, learning, zeros, has_aux=True)
        return nodes, backward(dy)

    nodes, (gradients, blob_gradients) = jax.jit(step)(learning, zeros, dy)
    arrays = partial(jax.tree.map, lambda a: np.array(a))
    return Candidate(
        blobs=arrays(nodes),
        gradients=arrays(gradients),
        blob_gradients=arrays(blob_gradients),
        output_gradients=dict(dy),
    )


def jax_ops(jax):
    """The operators of bodies."""
    lax, jnp = jax.lax, jax.numpy

    def conv3d(x, w, b=None, *, stride=ONES, pad=ZEROS, dilation=ONES, groups=1):
        y = lax.conv_general_dilated(
            x,
            w,
            stride,
            [(p, p) for p in pad],
            rhs_dilation=dilation,
            feature_group_count=groups,
            precision=lax.Precision.HIGHEST,
        )
        return y if b is None else y + b[:, None, None, None]

    def max_pool3d(x, *, kernel, stride=ONES, pad=ZEROS):
        borders = [(0, 0), (0, 0), *((p, p) for p in pad)]
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, *kernel), (1, 1, *stride), borders)

    return {
        "conv3d": conv3d,
        "affine": lambda x, s, b: x * s[:, None, None, None] + b[:, None, None, None],
        "relu": jax.nn.relu,
        "max_pool3d": max_pool3d,
        "add": lambda x1, x2: x1 + x2,
        "stop_gradient": lax.stop_gradient,
        "upsample_nearest": lambda x, scale=2: jnp.repeat(jnp.repeat(x, scale, 3), scale, 4),
    }


# ONNX Runtime.


def by_onnxruntime(net, given, dy):
    """ONNX Runtime, every node an output; it has no gradients."""
    peer("onnx")
    runtime = peer("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(onnx_model(net, given), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in net.nodes]
    found = session.run(names, {name: given[name] for name in net.inputs})
    return Candidate(blobs=dict(zip(names, found, strict=True)))


def onnx_model(net, given):
    """A body in ONNX: an affine is Mul and Add."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], {}

    def add(kind, inputs, output, **attrs):
        nodes.append(helper.make_node(kind, inputs, [output], **attrs))

    def constant(name, value):
        constants[name] = np.ascontiguousarray(value)
        return name

    for node in net.nodes:
        x, *rest = node.inputs
        attrs = node.attrs
        pads = [*attrs.get("pad", ZEROS)] * 2
        if node.op == "conv3d":
            add(
                "Conv",
                [x, *(constant(name, given[name]) for name in rest)],
                node.name,
                strides=attrs.get("stride", ONES),
                pads=pads,
                dilations=attrs.get("dilation", ONES),
                group=attrs.get("groups", 1),
            )
        elif node.op == "affine":
            s, b = (constant(name, given[name][:, None, None, None]) for name in rest)
            add("Mul", [x, s], f"{node.name}_scaled")
            add("Add", [f"{node.name}_scaled", b], node.name)
        elif node.op == "max_pool3d":
            add(
                "MaxPool",
                [x],
                node.name,
                kernel_shape=attrs["kernel"],
                strides=attrs.get("stride", ONES),
                pads=pads,
            )
        else:
            add(
                {"relu": "Relu", "add": "Add", "stop_gradient": "Identity"}[node.op],
                [*node.inputs],
                node.name,
            )
    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "net",
        [value(name, shape=shape) for name, shape in net.inputs.items()],
        [value(node.name, shape=node.shape) for node in net.nodes],
        [numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    return model.SerializeToString()


# A GPU, once.


def gpu_body():
    return body(
        (1, 3, 4, 48, 48),
        (2, 2, 2),
        (32, 32, 64, 128),
        "bottleneck",
        2,
        time_kernel=3,
        width_per_group=24,
    )


def from_gpu(file, net, given, dy):
    """A dump of `cases/gpu`."""
    with np.load(CASES / file) as dump:
        parts = {"blob": {}, "dblob": {}, "grad": {}}
        for key in dump.files:
            kind, _, name = key.partition("/")
            parts[kind][name] = dump[key]
    return Candidate(
        blobs=parts["blob"],
        blob_gradients=parts["dblob"],
        gradients=parts["grad"],
        output_gradients=dy,
    )


def constant_clip(net, seed):
    """A clip of one colour: every frame, line and column alike, and no channel dark."""
    given = given_of(net, seed)
    colour = np.abs(given["data"][:, :, :1, :1, :1])
    return given | {"data": np.broadcast_to(colour, given["data"].shape).copy()}


def constant_kernels(net, seed):
    """And weights that are all alike: each sum adds up one number."""
    given = constant_clip(net, seed)
    return {name: np.full_like(a, abs(a.flat[0])) if name.endswith("_w") else a for name, a in given.items()}


FLOAT64 = {"accumulate": "float64", "store": "float64", "operands": "float64"}
BFLOAT16 = {"store": "bfloat16", "operands": "bfloat16"}
EVERY = (basics, bottlenecks, grouped, learning, frozen_norms, training_norms, images, pyramid)
OTHERS = (repeated, dilated, averaged, tubes)

HONEST = (
    Honest("NumPy, matrix products tap by tap", Port().candidate, nets=(*EVERY, *OTHERS)),
    Honest("NumPy einsum", numpy_port(computed(by_einsum, gradients_by_einsum))),
    Honest("NumPy, sums one by one", numpy_port(with_sums(one_by_one))),
    Honest("NumPy, sums in pairs", numpy_port(with_sums(in_pairs))),
    Honest("constant clip, sums one by one", numpy_port(with_sums(one_by_one)), given=constant_clip),
    Honest(
        "constant clip and kernels, one by one", numpy_port(with_sums(one_by_one)), given=constant_kernels
    ),
    Honest("constant clip, PyTorch", by_torch, given=constant_clip),
    Honest("PyTorch, oneDNN", by_torch, nets=EVERY),
    Honest("PyTorch, no oneDNN", partial(by_torch, onednn=False), nets=EVERY),
    Honest("PyTorch, channels last", partial(by_torch, channels_last=True), nets=EVERY),
    Honest(
        "PyTorch, float64",
        partial(by_torch, dtype="float64"),
        FLOAT64,
        nets=EVERY,
        given=partial(given_of, dtype="float64"),
    ),
    Honest("PyTorch, bfloat16", partial(by_torch, dtype="bfloat16"), BFLOAT16, given=in_bfloat16),
    Honest("PyTorch, compiled", partial(by_torch, compiled=True), nets=(grouped,)),
    Honest("ONNX Runtime", by_onnxruntime),
    Honest("JAX", by_jax, nets=(basics, grouped, learning, pyramid)),
    Honest("a GPU, float32", partial(from_gpu, "a_fp32.npz"), nets=(gpu_body,), seed=7),
    Honest("a GPU, TF32", partial(from_gpu, "a_tf32.npz"), {"operands": "tf32"}, nets=(gpu_body,), seed=7),
    Honest(
        "a GPU, bfloat16",
        partial(from_gpu, "a_bf16.npz"),
        BFLOAT16,
        nets=(gpu_body,),
        given=in_bfloat16,
        seed=7,
    ),
)
