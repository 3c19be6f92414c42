"""Each node of a finished run as a linear map of whole numbers: its frozen pattern.

A net of products, sums, rectifiers and max pools is affine in each tensor alone once the masks and winners of
one run are kept. Its derivative at a node is then a product with what the node's other operand holds; that
need not be what it held in the run. So each product gets operands of its own, of -1, 0 and 1, few of them not
0: all sums have few terms, and modulo a prime they are exact in any order (`refnet.check.residues`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.table import Context, Door
from refnet.arrays import Array
from refnet.check.residues import Residues
from refnet.errors import RefnetError
from refnet.net import Node
from refnet.op import InputGradients, Needs
from refnet.ops import OPS, conv3d
from refnet.run import Run
from refnet.shapes import Geometry, Shape, pooling, size, taps

# How many factors are not 0, of those for one element of a result, at most. With two such operands and a bias
# a sum of float32 has up to 25 terms, which leaves room for primes above 10**6.
MOST = {"float32": 12, "float64": 48}
# Entries that are not 0: of each row of weights, and of each channel of x.
EACH = 4
# Filters of a group from which on a second draw of weights is made from the first: see `Turn`.
TURNED = 32

Tangents = Sequence[Array | None]


class Frozen(Protocol):
    """A node on the frozen pattern.

    Attributes
    ----------
    terms : int
        The most terms of a sum that its kernels make.
    faults : dict of int to str
        What was wrong with the form of a gradient, by input.
    """

    terms: int
    faults: dict[int, str]

    def tangent(self, tangents: Tangents, residues: Residues) -> Array:
        """The derivative of y along tangents of the inputs, not all of which are None (zero)."""

    def gradients(self, dy: Array, needs: Needs, residues: Residues) -> InputGradients:
        """What the node's backward kernel makes of dy, reduced; zeros where it returns no gradient."""


class Calls:
    """The kernel of a node, called on whole numbers.

    Parameters
    ----------
    door : Door
    node : Node
    shapes : tuple of Shape
        Of the inputs.
    dtype : dtype
    """

    def __init__(self, door: Door[...], node: Node, shapes: tuple[Shape, ...], dtype: np.dtype[Any]):
        self.door, self.attrs, self.shapes, self.dtype = door, node.attrs, shapes, dtype
        self.faults: dict[int, str] = {}

    def zeros(self, index: int) -> Array:
        """Zeros of an input's shape."""
        return np.zeros(self.shapes[index], self.dtype)

    def forward(self, *arrays: Array) -> tuple[Array, Context]:
        """Call the forward kernel."""
        return self.door.forward(*arrays, **self.attrs)

    def backward(self, dy: Array, context: Context, wanted: Sequence[int]) -> dict[int, Array]:
        """Call the backward kernel for some of the inputs; zeros where it does not return what it must."""
        needs = tuple(i in wanted for i in range(len(self.shapes)))
        try:
            gradients = self.door.backward(dy, context, needs)
        except RefnetError as error:
            self.faults |= dict.fromkeys(wanted, str(error))
            return {i: self.zeros(i) for i in wanted}
        return {i: gradient for i, gradient in enumerate(gradients) if i in wanted and gradient is not None}

    def all(self, found: Mapping[int, Array]) -> InputGradients:
        """The gradients, one or None for each input."""
        return tuple(found.get(i) for i in range(len(self.shapes)))


def _wanted(needs: Needs) -> list[int]:
    return [i for i, need in enumerate(needs) if need]


class Linear:
    """An operator that is linear in all its inputs together: a sum, a move."""

    def __init__(self, calls: Calls, node: Node):
        self._calls = calls
        self.faults = calls.faults
        # Each element of an input goes to at most so many outputs, or the other way round.
        self._spread = max(1, *(size(node.shape) // size(shape) for shape in calls.shapes))
        self.terms = max(len(calls.shapes), self._spread)

    def tangent(self, tangents: Tangents, residues: Residues) -> Array:
        """The operator's own output."""
        calls = self._calls
        y, self._context = calls.forward(
            *(calls.zeros(i) if t is None else t for i, t in enumerate(tangents))
        )
        return residues.total(y) if len(tangents) > 1 else y

    def gradients(self, dy: Array, needs: Needs, residues: Residues) -> InputGradients:
        """The operator's own gradients."""
        found = self._calls.backward(dy, self._context, _wanted(needs))
        if self._spread > 1:
            found = {i: residues.total(gradient) for i, gradient in found.items()}
        return self._calls.all(found)


class Turn:
    """Filters moved by one within their groups, with random signs: a second draw of weights from a first.

    The product of x with the second is that with the first, moved likewise: it need not be computed.

    Parameters
    ----------
    groups, filters : int
        How many groups there are, and filters in each.
    rng : Generator
    """

    def __init__(self, groups: int, filters: int, rng: np.random.Generator):
        self._signs = _signs(rng, (groups, filters, 1))

    def __call__(self, a: Array, axis: int) -> Array:
        """Turn an array along the axis of its filters."""
        old = a.reshape(size(a.shape[:axis]), *self._signs.shape[:2], -1)
        new, signs = empty(old.shape, a.dtype), self._signs.astype(a.dtype)
        np.multiply(old[:, :, 1:], signs[:, :-1], out=new[:, :, :-1])
        np.multiply(old[:, :, :1], signs[:, -1:], out=new[:, :, -1:])
        return new.reshape(a.shape)


class Product:
    """An operator affine in x and in its weights, y = x w + b: the derivative is dx w + x dw + db.

    Parameters
    ----------
    calls : Calls
    x, w : ndarray
        The operands that are frozen.
    terms : int
        The most terms of a sum, those over all positions aside.
    positions : int
        The terms of a sum of dy for one element of b.
    turn : Turn, optional
        What makes a second draw of the weights from a first one.
    """

    def __init__(
        self, calls: Calls, x: Array, w: Array, *, terms: int, positions: int, turn: Turn | None = None
    ):
        self._calls, self._x, self._w, self.terms, self._positions = calls, x, w, terms, positions
        self.faults, self.turn = calls.faults, turn
        self._first: Array | None = None
        self._turned: Array | None = None
        # The gradient of x reads w alone, that of w reads x alone: by the input whose gradient they serve.
        self._contexts: dict[int, Context] = {}

    def turned(self, w_t: Array) -> Array:
        """A second draw of the weights' tangent, whose product is taken from that of the first."""
        assert self.turn is not None
        self._turned = self.turn(w_t, 0)
        return self._turned

    def tangent(self, tangents: Tangents, residues: Residues) -> Array:
        """Two calls, whose contexts serve backward: each holds one of the frozen operands."""
        x_t, w_t, *_ = tangents
        bias = [self._calls.zeros(i) if t is None else t for i, t in enumerate(tangents) if i > 1]
        terms = []
        if x_t is not None or w_t is None:
            x_t = self._calls.zeros(0) if x_t is None else x_t
            y, self._contexts[0] = self._calls.forward(x_t, self._w, *bias)
            terms.append(y)
            bias = [self._calls.zeros(2)] if bias else []
        if w_t is not None and w_t is self._turned:
            assert self.turn is not None and self._first is not None
            terms.append(self.turn(self._first, 1))
            self._first = None
        elif w_t is not None:
            y, self._contexts[1] = self._calls.forward(self._x, w_t, *bias)
            terms.append(y)
            self._first = None if self._turned is None else y
        return residues.total(*terms)

    def gradients(self, dy: Array, needs: Needs, residues: Residues) -> InputGradients:
        """One call for each input; db sums digits of dy, so that no sum over many positions is large."""
        return self._calls.all({i: self._gradient(i, dy, residues) for i in _wanted(needs)})

    def _gradient(self, index: int, dy: Array, residues: Residues) -> Array:
        if index == 2:
            return self._of_bias(dy, residues)
        return residues.total(self._calls.backward(dy, self._context(index), [index])[index])

    def _of_bias(self, dy: Array, residues: Residues) -> Array:
        total = [0] * self._calls.shapes[2][0]
        for unit, digit in residues.digits(dy, self._positions):
            of_digit = self._calls.backward(digit, self._context(2), [2])[2]
            if not (np.rint(of_digit) == of_digit).all():
                return of_digit
            total = [sum_ + unit * int(value) for sum_, value in zip(total, of_digit, strict=True)]
        return residues.array(total)

    def _context(self, index: int) -> Context:
        """One that holds what the gradient of an input reads."""
        if index == 2 and self._contexts:
            return next(iter(self._contexts.values()))
        if index not in self._contexts:
            bias = [self._calls.zeros(2)] if len(self._calls.shapes) > 2 else []
            _, self._contexts[index] = self._calls.forward(self._x, self._w, *bias)
        return self._contexts[index]


class Selection:
    """An operator that chose values in the run: a rectifier by its mask, a max pool by its winners.

    Parameters
    ----------
    calls : Calls
    context : Context
        Of the run.
    choose : callable
        From a tangent of x that of y.
    terms : int
        How many outputs can have chosen one value.
    """

    def __init__(self, calls: Calls, context: Context, choose: Callable[[Array], Array], terms: int):
        self._calls, self._context, self._choose, self.terms = calls, context, choose, terms
        self.faults = calls.faults

    def tangent(self, tangents: Tangents, residues: Residues) -> Array:
        """What the definition chooses."""
        (x_t,) = tangents
        assert x_t is not None
        return self._choose(x_t)

    def gradients(self, dy: Array, needs: Needs, residues: Residues) -> InputGradients:
        """What the kernel hands back, in the context of the run."""
        found = self._calls.backward(dy, self._context, _wanted(needs))
        if self.terms > 1:
            found = {i: residues.total(gradient) for i, gradient in found.items()}
        return self._calls.all(found)


class StandIn:
    """In place of an operator that is not exact on whole numbers, a sum of its inputs in disorder.

    For n the larger size of y and an input x, and random signs c: y.flat[k mod size(y)] += c[k]
    x.flat[k mod size(x)] for all k < n. None of the operator's kernels is called; what lies around it is
    tested with it.
    """

    def __init__(self, calls: Calls, node: Node, rng: np.random.Generator):
        self._calls, self._shape = calls, node.shape
        self.terms, self.faults = 1, calls.faults
        self._signs = {
            i: 2 * rng.integers(0, 2, max(size(node.shape), size(shape)), np.int8) - 1
            for i, shape in enumerate(calls.shapes)
            if OPS[node.op].domain(i).gradient
        }

    def tangent(self, tangents: Tangents, residues: Residues) -> Array:
        """The sum."""
        parts = [
            _folded(t, signs, self._shape, residues)
            for i, signs in self._signs.items()
            if (t := tangents[i]) is not None
        ]
        return residues.total(*parts)

    def gradients(self, dy: Array, needs: Needs, residues: Residues) -> InputGradients:
        """Its adjoint."""
        wanted = {i: self._signs[i] for i in _wanted(needs) if i in self._signs}
        shapes = self._calls.shapes
        return self._calls.all({i: _folded(dy, c, shapes[i], residues) for i, c in wanted.items()})


def _folded(x: Array, signs: Array, shape: Shape, residues: Residues) -> Array:
    """Repeat x to the length of the signs, multiply, and add up what falls on one element of the shape."""
    terms, elements = np.resize(x, signs.shape) * signs, size(shape)
    if terms.size == elements:
        return terms.reshape(shape)
    rows = -(-terms.size // elements)
    total = np.zeros((1 << (rows - 1).bit_length(), elements), x.dtype)
    total.reshape(-1)[: terms.size] = terms
    while len(total) > 1:
        total = residues.total(total[::2], total[1::2])
    return total.reshape(shape)


def frozen(run: Run, node: Node, rng: np.random.Generator) -> Frozen:
    """A node of a run that keeps everything, on the frozen pattern."""
    shapes = tuple(run.net.shape(name) for name in node.inputs)
    calls = Calls(run.arithmetic[node.op], node, shapes, run.blobs[node.name].dtype)
    make = FROZEN.get(node.op)
    return StandIn(calls, node, rng) if make is None else make(run, node, calls, rng)


def _linear(run: Run, node: Node, calls: Calls, rng: np.random.Generator) -> Frozen:
    return Linear(calls, node)


def _rectifier(run: Run, node: Node, calls: Calls, rng: np.random.Generator) -> Frozen:
    kept = (run.blobs[node.name] > 0).astype(calls.dtype)

    def choose(x_t: Array) -> Array:
        chosen: Array = np.multiply(x_t, kept, out=empty(kept.shape, kept.dtype))
        return chosen

    return Selection(calls, run._tape.context(node), choose, 1)


def _max_pool(run: Run, node: Node, calls: Calls, rng: np.random.Generator) -> Frozen:
    x = run.blobs[node.inputs[0]] if node.inputs[0] in run.blobs else run.given[node.inputs[0]]
    window = pooling(x.shape, **node.attrs)
    winners = _winners(x, run.blobs[node.name], window)
    planes = np.arange(len(winners))[:, None]

    def choose(x_t: Array) -> Array:
        chosen: Array = x_t.reshape(len(winners), -1)[planes, winners].reshape(node.shape)
        return chosen

    shared = size(tuple(-(-k // s) for k, s in zip(window.kernel, window.stride, strict=True)))
    return Selection(calls, run._tape.context(node), choose, shared)


def _winners(x: Array, y: Array, window: Geometry) -> Array:
    """Where in its plane lies the first value of each window that is y: (N C, positions of y)."""
    found = np.zeros(y.shape, np.intp)
    position = np.arange(size(x.shape[2:])).reshape(x.shape[2:])
    for _, outputs, inputs in reversed(list(taps(x.shape, y.shape, window))):
        np.copyto(found[..., *outputs], position[inputs], where=x[..., *inputs] == y[..., *outputs])
    return found.reshape(size(y.shape[:2]), -1)


def _affine(run: Run, node: Node, calls: Calls, rng: np.random.Generator) -> Frozen:
    x, (channels,) = calls.zeros(0), calls.shapes[1]
    of_channel = np.arange(channels)[:, None]
    places = rng.integers(0, x[:, 0].size, (channels, EACH))
    samples, positions = np.divmod(places, size(x.shape[2:]))
    x.reshape(len(x), channels, -1)[samples, of_channel, positions] = _signs(rng, places.shape)
    s = _signs(rng, (channels,)).astype(x.dtype)
    return Product(calls, x, s, terms=EACH, positions=x[:, 0].size)


def _matrix(run: Run, node: Node, calls: Calls, rng: np.random.Generator) -> Frozen:
    x, w = calls.zeros(0), calls.zeros(1)
    most = MOST[x.dtype.name]
    for matrix, each in ((x.reshape(len(x), -1), most), (w, EACH)):
        rows, columns = matrix.shape
        places = _balanced(rng, rows, columns, each, most)
        matrix[places] = _signs(rng, places[0].shape)
    return Product(calls, x, w, terms=2 * most + 1, positions=len(x))


def _convolution(run: Run, node: Node, calls: Calls, rng: np.random.Generator) -> Frozen:
    x, w = calls.zeros(0), calls.zeros(1)
    most, groups = MOST[x.dtype.name], node.attrs.get("groups", 1)
    window = conv3d.window(*calls.shapes, **node.attrs)
    live = [
        (tap, [(o.start, o.stop - o.start) for o in outputs])
        for tap, outputs, _ in taps(x.shape, node.shape, window)
        if all(o.start < o.stop for o in outputs)
    ]
    filters, depth = len(w) // groups, w.shape[1]
    turn = Turn(groups, filters, rng) if len(calls.shapes) == 2 and filters >= TURNED else None
    frozen = Product(calls, x, w, terms=2 * most + 1, positions=len(x) * size(node.shape[2:]), turn=turn)
    if not live:  # every tap of every output reads padding
        return frozen
    chosen_taps, boxes = np.array([tap for tap, _ in live]), np.array([box for _, box in live])

    for group in range(groups):
        rows, columns = _balanced(rng, filters, depth, EACH, most)
        tap = chosen_taps[rng.integers(0, len(live), rows.shape)].T
        w[group * filters + rows, columns, *tap] = _signs(rng, rows.shape)

    # Places of x that some output reads with some tap.
    channel = np.repeat(np.arange(x.shape[1]), EACH)
    sample, which = (rng.integers(0, n, channel.shape) for n in (len(x), len(live)))
    first, count = boxes[which, :, 0], boxes[which, :, 1]
    output = first + (rng.random(first.shape) * count).astype(np.intp)
    place = output * window.stride + chosen_taps[which] * window.dilation - window.pad
    entries = (sample, channel, *place.T)
    while (read := _most_in_a_window(entries, depth, x.shape, node.shape, window)) > most:
        kept = rng.random(len(entries[0])) < max(0.5, most / read)
        entries = tuple(index[kept] for index in entries)
    x[entries] = _signs(rng, entries[0].shape)
    return frozen


def _most_in_a_window(entries: tuple[Array, ...], depth: int, x: Shape, y: Shape, window: Geometry) -> int:
    """The largest number of entries, places (n, c, t, h, w) of x, that one output reads."""
    sample, channel, *place = entries
    there = np.zeros((x[0], x[1] // depth, *x[2:]), np.int32)
    np.add.at(there, (sample, channel // depth, *place), 1)
    read = np.zeros((*there.shape[:2], *y[2:]), np.int32)
    for _, outputs, inputs in taps(x, y, window):
        read[..., *outputs] += there[..., *inputs]
    return int(read.max())


def _balanced(rng: np.random.Generator, rows: int, columns: int, each: int, most: int) -> tuple[Array, Array]:
    """Places of a matrix: in most rows `each`, no row or column holding more than `most`."""
    each = max(1, min(each, columns, most * columns // rows))
    kept = min(rows, most * columns // each)
    row = np.repeat(rng.permutation(rows)[:kept], each)
    column = rng.permutation(columns)[np.arange(kept * each) % columns]
    return row, column


def _signs(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.choice([-1, 1], shape)


FROZEN: dict[str, Callable[[Run, Node, Calls, np.random.Generator], Frozen]] = {
    "conv3d": _convolution,
    "linear": _matrix,
    "affine": _affine,
    "relu": _rectifier,
    "max_pool3d": _max_pool,
} | dict.fromkeys(
    (
        "add",
        "upsample_nearest",
        "slice_keyframe",
        "time_to_channels",
        "channels_to_time",
        "time_to_batch",
        "batch_to_time",
    ),
    _linear,
)
