"""Rules by which others accept an array, applied to the same candidates as `certify`.

A rule compares a candidate's array with a golden one in float64. *End to end*, that of a float64 run on what
the net was given; *node by node*, what the operator makes, in float64, of the candidate's own dump.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Any

import numpy as np

import refnet
from refnet.arithmetic import core
from refnet.net import learns_from
from refnet.op import Magnitude
from refnet.ops import OPS

# Bits of the significand behind the point, and the smallest normal number.
FRACTION = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
NORMAL = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}


@dataclass
class Compared:
    """An array of a candidate beside the golden one.

    Attributes
    ----------
    name : str
        That of the verdict: a node, or "d NAME".
    node : str
        Whose call made it; of a gradient of a blob that several nodes read, the blob.
    found, right : ndarray
        `right` is None where nothing can be computed, or nothing should be there.
    calls : list of Call
        What was added up.
    """

    name: str
    node: str
    found: Any
    right: Any
    calls: list[Any] = field(default_factory=list)

    @property
    def comparable(self):
        """Whether both are there, of one shape, and all numbers."""
        if self.right is None or self.found.shape != self.right.shape:
            return False
        return bool(np.isfinite(self.found).all() and np.isfinite(self.right).all())


@dataclass
class Call:
    """A call that a golden array is a result of: its operator, inputs and dy, and which result it is."""

    op: Any
    arrays: list[Any]
    attrs: dict[str, Any]
    dy: Any = None
    index: int | None = None

    @property
    def magnitude(self) -> Magnitude:
        """What its sums add up."""
        if self.index is None:
            return self.op.magnitude(*self.arrays, **self.attrs)
        needs = tuple(i == self.index for i in range(len(self.arrays)))
        return self.op.gradient_magnitude(self.dy, *self.arrays, needs=needs, **self.attrs)[self.index]

    @property
    def operands(self):
        """What a product multiplies for this result."""
        x, w = self.arrays[:2]
        return {None: (x, w), 0: (self.dy, w), 1: (x, self.dy)}.get(self.index)


# What is compared.


def wide(a):
    a = np.asarray(a)
    return a if a.dtype == np.int64 else a.astype(np.float64)


def compared(net, given, candidate, *, end_to_end):
    """Everything that a candidate has dumped, values forward, then gradients backward."""
    given = {name: wide(a) for name, a in given.items()}
    blobs = {name: wide(a) for name, a in candidate.blobs.items()}
    rows = [Compared(name, name, blobs[name], given[name]) for name in net.inputs if name in blobs]
    values = given | ({} if end_to_end else blobs)
    calls = {}
    for node in net.nodes:
        call = Call(OPS[node.op], [values.get(name) for name in node.inputs], node.attrs)
        right = context = None
        if all(a is not None for a in call.arrays):
            right, context = forward(node, call.arrays)
        calls[node.name] = call, context
        if end_to_end:
            values[node.name] = right
        if node.name in blobs:
            rows.append(Compared(node.name, node.name, blobs[node.name], right, [call]))
    return rows + gradients_compared(net, candidate, calls, end_to_end)


def forward(node, arrays):
    """A node's value and context; None where it cannot be computed."""
    try:
        with np.errstate(all="ignore"):
            return core[node.op].forward(*arrays, **node.attrs)
    except refnet.RefnetError:  # wrong shapes, NaN among boxes
        return None, None


def gradients_compared(net, candidate, calls, end_to_end):
    """The gradients that were dumped; those that hang on what was not are left out."""
    dumped = {name: wide(a) for name, a in (candidate.blob_gradients | candidate.gradients).items()}
    flow, parts = net.gradient_flow(), {}
    starts = {name: wide(dy) for name, dy in candidate.output_gradients.items()}

    def total(name):
        """The golden gradient; None where a part of it is not known."""
        arrived = [starts[name]] if name in starts else []
        arrived += [gradient for _, gradient in parts.get(name, [])]
        return None if not arrived or any(part is None for part in arrived) else sum(arrived)

    for node in reversed(net.nodes):
        dy = total(node.name) if end_to_end else dumped.get(node.name)
        call, context = calls[node.name]
        learnt = flow.intersection(learns_from(node)) if node.name in flow else ()
        needs = tuple(name in learnt for name in node.inputs)
        found = [None] * len(needs)
        if any(needs) and context is not None and dy is not None and dy.shape == context.output:
            with np.errstate(all="ignore"):
                found = core[node.op].backward(dy, context, needs)
        for index, (name, gradient) in enumerate(zip(node.inputs, found, strict=True)):
            if needs[index]:
                part = Call(call.op, call.arrays, node.attrs, dy, index)
                parts.setdefault(name, []).append(((node.name, part), gradient))
    rows = []
    for name in backward_order(net):
        made = [call for call, _ in parts.get(name, [])]
        right = total(name) if name in flow else None
        if name in dumped and (right is not None or name not in flow):
            node = made[0][0] if len(made) == 1 else name
            rows.append(Compared(f"d {name}", node, dumped[name], right, [call for _, call in made]))
    return rows


def backward_order(net):
    """Nodes as a backward pass meets them, each with its parameters behind it; then inputs."""
    params = [(node.name, *(name for name in node.inputs if name in net.params)) for node in net.nodes]
    return [*dict.fromkeys(name for names in reversed(params) for name in names), *net.inputs]


# The rules. Each says whether it accepts an array; claims are those of `certify`.


def stored(claims):
    return claims.get("store", "float32")


def close(one, rtol, atol):
    return bool((np.abs(one.found - one.right) <= atol + rtol * np.abs(one.right)).all())


def assert_close(one, claims):
    """`torch.testing.assert_close`, its defaults for the dtype."""
    rtol, atol = {
        "float64": (1e-7, 1e-7),
        "float32": (1.3e-6, 1e-5),
        "float16": (1e-3, 1e-5),
        "bfloat16": (1.6e-2, 1e-5),
    }[stored(claims)]
    return close(one, rtol, atol)


def onnx(one, claims):
    """ONNX's backend tests: rtol 1e-3, atol 1e-7."""
    return close(one, 1e-3, 1e-7)


def cosine(one, claims):
    """A cosine of 0.99 between the two arrays."""
    a, b = one.found.ravel(), one.right.ravel()
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return bool(a @ b >= 0.99 * size) if size > 0 else bool(np.array_equal(a, b))


STATIC = {  # hipDNN's TestTolerances: forward and backward of float32, of bfloat16
    "conv3d": ((1e-5, 8.5e-6), (1e-2, 2e-2)),
    "linear": ((1e-5, 1e-5), (1e-2, 1e-2)),
    "affine": ((1e-5, 1e-5), (1e-2, 1e-2)),
    "relu": ((1e-5, 1e-5), (1e-2, 1e-2)),
    "add": ((1e-5, 1e-5), (1e-2, 1e-2)),
    "batch_norm": ((2e-4, 2e-3), (5e-3, 3e-3)),
    "batch_norm_training": ((4e-3, 2e-3), (8e-3, 3e-3)),
}


def hipdnn(one, claims):
    """hipDNN: of convolutions gamma(2n) n max|x| max|w|, of other operators one number each; both ways."""
    return close(one, *(max((tolerance(call, claims) for call in one.calls), default=0.0),) * 2)


def tolerance(call, claims):
    """HipDNN's atol and rtol for a call's result."""
    half = stored(claims) in ("float16", "bfloat16")
    if call.op.name == "conv3d" and call.index in (None, 0, 1):
        a, b = call.operands
        w = call.arrays[1].shape
        n = {
            None: int(np.prod(w[1:])),
            0: int(w[0] * np.prod(w[2:])),
            1: 0 if call.dy is None else call.dy.size // call.dy.shape[1],
        }[call.index]
        most = n * np.abs(a).max() * np.abs(b).max()
        epsilon = 2.0 ** -FRACTION[claims.get("accumulate", "float32")]
        gamma = 2 * n * epsilon / (1 - 2 * n * epsilon)
        return most * (gamma + (2.0 ** -FRACTION[stored(claims)] if half else 0))
    pair = STATIC.get(call.op.name, ((1e-3, 1e-3), (1e-3, 1e-3)))[half]
    return pair[call.index is not None]


def tosa(one, claims):
    """TOSA's conformance: of dot products each error, their mean square and sum; what moves values is exact.

    A product with one number and a sum of two are operators of their own there, each rounded once. Norms,
    softmax, losses, dropout and regions are none of TOSA's: accepted.
    """
    ops = [call.op for call in one.calls]
    if any(op.divides for op in ops):
        return True
    moved = [call.op.name == "relu" or (call.op.hands_on and call.index is None) for call in one.calls]
    if all(moved) and len(moved) <= 1:
        return bool(np.array_equal(one.found, one.right))
    fraction = FRACTION[stored(claims)]
    size, terms = np.zeros(one.right.shape), 0
    for call in one.calls:
        more = call.magnitude
        size += more.sum_abs
        terms += int(np.max(more.terms, initial=0))
    count = ceil(terms / 2.0 ** (FRACTION[claims.get("accumulate", "float32")] - fraction))
    none = size == 0
    if not np.array_equal(one.found[none], one.right[none]):
        return False
    unit = np.maximum(size[~none] * 2.0 ** (-1 - fraction), 2.0 ** NORMAL[stored(claims)])
    errors = (one.found[~none] - one.right[~none]) / unit
    if all(op.name in ("affine", "add") for op in ops) and errors.size == one.found.size and terms <= 2:
        return bool((np.abs(errors) <= max(terms, 1)).all())
    variance, elements = 1.6 * count, one.right.size
    return bool(
        (np.abs(errors) <= 2 * count).all()
        and np.square(errors).sum() <= variance * elements
        and abs(errors.sum()) <= sqrt(10 * variance * elements)
    )


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what it says of one array, and where it is from."""

    name: str
    accepts: Callable[[Compared, dict[str, Any]], bool]
    source: str


RULES = (
    Rule(
        "assert_close",
        assert_close,
        "PyTorch, `torch.testing.assert_close`: its default rtol and atol for the dtype",
    ),
    Rule("ONNX", onnx, "ONNX, the runner of `onnx.backend.test`: rtol 1e-3, atol 1e-7"),
    Rule("cosine 0.99", cosine, "a cosine of at least 0.99 between the two arrays"),
    Rule(
        "hipDNN",
        hipdnn,
        "AMD, hipDNN's test SDK, DynamicTolerances.hpp and TestTolerances.hpp: of a convolution of n "
        "products 2 n eps / (1 - 2 n eps) n max(abs x) max(abs w), of other operators one number each, as "
        "atol and rtol",
    ),
    Rule(
        "TOSA",
        tosa,
        "Arm, the TOSA reference model, verify_dot_product.cc: with K terms of magnitude m, in units of "
        "2**-24 m, each error at most 2 K, their mean square 1.6 K, the sum of T of them sqrt(16 K T); "
        "rectifiers, max pools and moves exact",
    ),
)


def first_rejected(rule, rows, claims):
    """The first array that a rule rejects; None if it accepts all of them."""
    return next((one for one in rows if not (one.comparable and rule.accepts(one, dict(claims)))), None)
