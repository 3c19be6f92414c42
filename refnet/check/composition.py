"""The composition of a backward pass, checked with threshold 0 on the frozen pattern of one run.

Kernels may all be right and a gradient wrong: a contribution lost where paths meet, one from behind a stop.
Every node of a net is a linear map J of whole numbers modulo a prime (`refnet.check.frozen`). Tangents v of
all inputs and parameters go forward through them, gradients go backward along the walk that is checked, and

    sum over outputs of <dy, J v>  =  sum over inputs and parameters of <gradient, v>      modulo p

must hold exactly, whatever the depth. Each v is drawn from all residues alike, so gradients that are wrong
modulo p pass with probability 1 / p (R. Freivalds, *Probabilistic machines can use less running time*, IFIP
Congress 1977); as many v are drawn as bring that below 10**-12. Which gradients should be there at all
follows from the graph (`refnet.check.flow`). Where the sums differ, the pass is repeated, and every call is
looked at.

The second draw of a convolution's weights is the first with its n filters moved by one, and random signs
(`refnet.check.frozen.Turn`), which costs no call. Errors d[k] of its filters meet both equations by chance as
rarely as with two draws, unless s[k] d[k] = c d[k + 1] for all signs s[k] and one c. Where some d[k] is not
0, c is not 0, none is 0, s[0] decides c and d the other signs: probability 2**(1 - n), for n of at least 32.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import log
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic import Arithmetic, Kernel
from refnet.arithmetic.table import Context
from refnet.arrays import Array
from refnet.check.flow import Flow, flow
from refnet.check.frozen import TURNED, Frozen, Product, StandIn, frozen
from refnet.check.residues import Residues, modulus
from refnet.errors import ValueRangeError
from refnet.given import real_dtype
from refnet.net import Node
from refnet.op import InputGradients, Needs
from refnet.ops import OPS
from refnet.remat import Tape
from refnet.run import Gradients, Run, backward
from refnet.shapes import text

MISS = 1e-12
# Paths that meet in one value: of more, not all ways to lose some are tried.
MOST_PATHS = 6

Walk = Callable[..., Gradients]
# Kernels that return NaN are findings.
every_walk = partial(backward, allow_nonfinite=True)
Arrays = dict[str, Array]


class Failure(NamedTuple):
    """Something that is wrong with a composition.

    Attributes
    ----------
    tensor : str
        The input, parameter or node whose gradient is wrong.
    node : str
        The node at which it went wrong.
    sentence : str
        What went wrong.
    """

    tensor: str
    node: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Composition:
    """What a check of a composition found.

    Attributes
    ----------
    modulus, draws : int
    miss : float
        The probability that a check passes gradients that are wrong modulo the modulus.
    failures : tuple of Failure
        The places where something went wrong, not all that is wrong because of it.
    stand_ins : tuple of str
        Nodes in whose place another linear map stood, for their operator is not exact on whole numbers: what
        lies around them is checked, their kernels are not.
    """

    modulus: int
    draws: int
    miss: float
    failures: tuple[Failure, ...]
    stand_ins: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return not self.failures


def check(run: Run, seed: int = 0, *, walk: Walk = every_walk) -> Composition:
    """Check that all gradients of a net's outputs are those of the composition of its nodes.

    Parameters
    ----------
    run : Run
        From `refnet.forward`, with ``keep="all"``. Its arithmetic's kernels are called; from its blobs are
        the masks of rectifiers and the winners of max pools.
    seed : int
    walk : callable
        The backward pass that is checked, as `refnet.backward`.

    Returns
    -------
    Composition

    Raises
    ------
    ValueRangeError
        If the run kept only its outputs.
    """
    for node in run.net.nodes:
        if node.name not in run.blobs:
            raise ValueRangeError(
                f'the run has not kept {node.name}: expected one of refnet.forward with keep="all"'
            )
    trial = _Trial(run, seed)
    expected = [trial.expected(tangents) for tangents in trial.tangents()]
    found = trial.gradients(walk, trial.backward)
    if trial.agrees(found, expected):
        failures: tuple[Failure, ...] = ()
    else:
        failures = tuple(_Diagnosis(trial, walk).failures()) or (
            Failure("", "", "the gradients are not those of the composition; a second pass shows no place"),
        )
    residues = trial.residues
    return Composition(
        modulus=residues.p,
        draws=len(trial.along),
        miss=trial.miss,
        failures=failures,
        stand_ins=tuple(name for name, node in trial.nodes.items() if isinstance(node, StandIn)),
    )


class _Call(NamedTuple):
    """A call of a node's backward kernel."""

    dy: Array
    gradients: InputGradients


class _Trial:
    """A net on the frozen pattern of a run, with what is drawn."""

    def __init__(self, run: Run, seed: int):
        rng = np.random.default_rng(seed)
        self.run, self.net = run, run.net
        self.flow: Flow = flow(run.net, run.net.outputs)
        self.dtype = real_dtype(run.given) or np.dtype(np.float64)
        self.nodes: dict[str, Frozen] = {
            node.name: frozen(run, node, rng) for node in run.net.nodes if node.name in self.flow.reached
        }
        most = max((node.terms for node in self.nodes.values()), default=1)
        self.residues = Residues(modulus(most, self.dtype), self.dtype)
        self.tensors = [name for name in (*run.net.inputs, *run.net.params) if name in self.flow.reached]
        # The share of what is turned is less than a thousandth of this.
        draws = 1 + int(-log(0.999 * MISS) / log(self.residues.p))
        draw = self.residues.draw
        self.along: list[Arrays] = [
            {name: draw(rng, run.net.shape(name)) for name in self.tensors} for _ in range(draws)
        ]
        self.miss = float(self.residues.p) ** -draws
        if draws > 1 and self._turn():
            self.miss += 2.0 ** (1 - TURNED) / self.residues.p
        self.output_gradients = {name: draw(rng, shape) for name, shape in run.net.outputs.items()}
        self._rng = rng

    def _turn(self) -> int:
        """Make second draws of weights from the first where one product alone reads them; count them."""
        readers: dict[str, list[tuple[Node, int]]] = {}
        for node in self.net.nodes:
            for index, name in enumerate(node.inputs):
                readers.setdefault(name, []).append((node, index))
        count = 0
        first, second, *_ = self.along
        for name in self.tensors:
            (node, index), *others = readers[name]
            product_ = self.nodes.get(node.name)
            if not others and index == 1 and isinstance(product_, Product) and product_.turn is not None:
                second[name] = product_.turned(first[name])
                count += 1
        return count

    def tangents(self, *, keep: bool = False) -> list[Arrays]:
        """For each draw the tangents of all, or of outputs and what is left, where they are not zero."""
        every, last = [dict(v) for v in self.along], self.net.last_use()
        for index, node in enumerate(self.net.nodes):
            for found in every:
                if node.name in self.nodes:
                    of_inputs = [found.get(name) for name in node.inputs]
                    found[node.name] = self.nodes[node.name].tangent(of_inputs, self.residues)
                for name in () if keep else {node.name, *node.inputs} - self.net.outputs.keys():
                    if last.get(name) == index:
                        found.pop(name, None)
        return every

    def expected(self, tangents: Arrays) -> int | None:
        """Sum over outputs of <dy, J v>."""
        return self.sum(
            (dy, tangents[name]) for name, dy in self.output_gradients.items() if name in tangents
        )

    def sum(self, pairs: Iterable[tuple[Array, Array]]) -> int | None:
        """The sum of scalar products modulo p; None where something is no whole number."""
        total = 0
        for a, b in pairs:
            found = self.residues.dot(a, b)
            if found is None:
                return None
            total += found
        return total % self.residues.p

    def gradients(self, walk: Walk, kernel: Callable[..., InputGradients], **options: Any) -> Gradients:
        """What a walk returns, with ``kernel(dy, node, needs)`` in place of all backward kernels."""
        run, tape = self.run, Tape()
        for node in self.net.nodes:
            shapes = tuple(map(self.net.shape, node.inputs))
            context = Context(run.arithmetic.name, node.op, node, shapes, node.shape, self.dtype)
            tape.record(node, context, run.blobs)

        def forward(op: str) -> Callable[..., tuple[Array, None]]:
            def reduced(*arrays: Array, **attrs: Any) -> tuple[Array, None]:
                return self.residues.total(run.arithmetic[op].forward(*arrays, **attrs)[0]), None

            return reduced

        kernels = {op: Kernel(forward(op), kernel) for op in run.arithmetic}
        arithmetic = Arithmetic(run.arithmetic.name, kernels)
        return walk(Run(self.net, arithmetic, run.given, run.blobs, tape), self.output_gradients, **options)

    def backward(self, dy: Array, node: Node, needs: Needs) -> InputGradients:
        """The gradients of a node; behind a stop, where there should be no call, anything but zeros."""
        if node.name in self.nodes:
            return self.nodes[node.name].gradients(dy, needs, self.residues)
        shapes = map(self.net.shape, node.inputs)
        return tuple(
            self.residues.draw(self._rng, shape) if need else None
            for shape, need in zip(shapes, needs, strict=True)
        )

    def fits(self, gradient: Array, name: str) -> bool:
        """Whether a gradient has the shape and dtype of a value."""
        return gradient.shape == self.net.shape(name) and gradient.dtype == self.dtype

    def agrees(self, found: Gradients, expected: list[int | None]) -> bool:
        """Whether the right gradients are there, and their scalar products with each v are as expected."""
        if {*found} != {*self.tensors} or found.blocked != self.flow.blocked:
            return False
        if any(not self.fits(found[name], name) for name in self.tensors):
            return False
        sums = [self.sum((found[name], v[name]) for name in self.tensors) for v in self.along]
        return None not in sums and sums == expected and not any(n.faults for n in self.nodes.values())


class _Diagnosis:
    """Where a composition went wrong: the same pass again, with every call written down."""

    def __init__(self, trial: _Trial, walk: Walk):
        self._trial, self._net = trial, trial.net
        self._readers: dict[str, list[tuple[Node, int]]] = {}
        for node in self._net.nodes:
            for index, name in enumerate(node.inputs):
                self._readers.setdefault(name, []).append((node, index))
        self._calls: dict[str, _Call] = {}
        self._order: list[str] = []
        self._walked: list[tuple[str, str]] = []

        def noted(dy: Array, node: Node, needs: Needs) -> InputGradients:
            gradients = trial.backward(dy, node, needs)
            self._calls[node.name] = _Call(dy, gradients)
            self._order.append(node.name)
            return gradients

        def on_node(node: Node) -> None:
            self._walked.append((node.name, self._order[-1] if self._order else "no node"))

        self._found = trial.gradients(walk, noted, on_node=on_node)

    def failures(self) -> Iterator[Failure]:
        """All places."""
        strays = [
            Failure(a, a, f"backward of {a} took the context of {b}") for a, b in self._walked if a != b
        ]
        if strays:
            yield from strays
            return
        for name in sorted({name for name in self._order if self._order.count(name) > 1}):
            yield Failure(name, name, f"backward went through {name} more than once")
        yield from self._unexpected()
        yield from self._missing()
        yield from self._blocked()
        yield from self._meetings()
        yield from self._kernels()

    def _unexpected(self) -> Iterator[Failure]:
        """Gradients that should not be there."""
        for name in self._found:
            if name in self._trial.flow.blocked:
                stop = self._stop(name)
                yield Failure(
                    name,
                    stop,
                    f"{name} has a gradient, though {stop} stops it: backward leaks through {stop}",
                )
            elif name not in self._trial.tensors:
                node = self._readers[name][0][0].name if name in self._readers else ""
                yield Failure(
                    name, node, f"{name} has a gradient, though no output depends on it, or it is given"
                )

    def _stop(self, name: str) -> str:
        """The first node on a path from a value to the outputs that has no gradient of what it reads."""
        queue = [name]
        for value in queue:
            for node, index in self._readers.get(value, []):
                if not OPS[node.op].domain(index).gradient:
                    return node.name
                queue.append(node.name)
        return ""

    def _missing(self) -> Iterator[Failure]:
        """Gradients that should be there, and the nodes at which they were lost."""
        for name in self._trial.tensors:
            if name not in self._found:
                node, how = self._lost(name)
                yield Failure(name, node, f"{name} has no gradient: backward {how}")
            elif not self._trial.fits(self._found[name], name):
                found, expected = self._found[name], f"{self._trial.dtype} {text(self._net.shape(name))}"
                sentence = f"the gradient of {name} is {found.dtype} {text(found.shape)}: expected {expected}"
                yield Failure(name, "", sentence)
        for name in self._trial.nodes:
            if name not in self._calls and self._parts(name):
                yield Failure(name, name, f"backward did not go through {name}, though it has a gradient")

    def _lost(self, name: str) -> tuple[str, str]:
        """Where a gradient was lost on its way down to a value."""
        while True:
            above = [node.name for node, _ in self._edges(name)]
            called = [node for node in above if node in self._calls]
            if called and not self._parts(name):
                return called[0], f"did not ask {called[0]} for the gradient of {name}"
            if called or not above:
                return name, f"did not go through {name}" if name in self._trial.nodes else "left it out"
            name = above[0]

    def _blocked(self) -> Iterator[Failure]:
        """What is said to be blocked."""
        expected = self._trial.flow.blocked
        for name in sorted(expected - self._found.blocked - {*self._found}):
            yield Failure(name, self._stop(name), f"{name} is blocked, and is not said to be")
        for name in sorted(self._found.blocked - expected - {*self._trial.tensors}):
            yield Failure(name, "", f"{name} is said to be blocked, though no stop lies on a path to it")

    def _edges(self, name: str) -> list[tuple[Node, int]]:
        """The nodes, and at which of their inputs, whose backward should hand a gradient to a value."""
        return [
            (node, index)
            for node, index in self._readers.get(name, [])
            if node.name in self._trial.nodes and OPS[node.op].domain(index).gradient
        ]

    def _parts(self, name: str) -> dict[str, Array]:
        """The contributions to a value's gradient, by where they come from."""
        parts = {}
        for node, index in self._edges(name):
            if node.name in self._calls:
                gradient = self._calls[node.name].gradients[index]
                if gradient is not None:
                    again = f" (input {index})" if node.inputs.count(name) > 1 else ""
                    parts[node.name + again] = gradient
        if name in self._trial.output_gradients:
            parts["the output"] = self._trial.output_gradients[name]
        return parts

    def _meetings(self) -> Iterator[Failure]:
        """Gradients that are not the sum of the contributions to them."""
        for name in (*reversed(self._trial.nodes), *self._trial.tensors):
            if name in self._trial.nodes:
                found = self._calls[name].dy if name in self._calls else None
            else:
                found = self._found.get(name)
            for reader, index in self._edges(name):
                call = self._calls.get(reader.name)
                if call is not None and call.gradients[index] is None:
                    sentence = f"backward did not ask {reader.name} for its contribution to {name}"
                    yield Failure(name, reader.name, sentence)
            if found is None or not self._trial.fits(found, name):
                continue
            parts = self._parts(name)
            node = name if name in self._trial.nodes else next(iter(parts), "")
            if not self._same(found, self._sum(parts.values())):
                yield Failure(name, node, f"the gradient of {name} {self._explained(name, found, parts)}")

    def _explained(self, name: str, found: Array, parts: Mapping[str, Array]) -> str:
        """How a gradient differs from the sum of its parts."""
        if len(parts) <= MOST_PATHS:
            for counts in sorted(
                product(range(3), repeat=len(parts)), key=lambda counts: sum(c != 1 for c in counts)
            ):
                taken = [
                    part for part, count in zip(parts.values(), counts, strict=True) for _ in range(count)
                ]
                if self._same(found, self._sum(taken)):
                    return _counted(dict(zip(parts, counts, strict=True)))
        for other, call in self._calls.items():
            if other != name and self._same(found, call.dy):
                return f"is that of {other}"
        leaked = {
            node.name: gradient
            for node, index in self._readers.get(name, [])
            if node.name in self._calls and node.name not in self._trial.nodes
            if (gradient := self._calls[node.name].gradients[index]) is not None
        }
        if leaked and self._same(found, self._sum([*parts.values(), *leaked.values()])):
            return (
                f"holds the contribution of {_and(leaked)} too, which {self._stop(next(iter(leaked)))} stops"
            )
        rest = self._sum([found, -self._sum(parts.values())]) if parts else found
        for other, call in self._calls.items():
            if any(g is not None and self._same(rest, g) for g in call.gradients):
                return f"holds a contribution of {other} too, which hands it none"
        return f"is not the sum of its contributions: {_and(parts)}"

    def _kernels(self) -> Iterator[Failure]:
        """Backward kernels that are not the adjoint of the derivative of the node."""
        trial = self._trial
        every = trial.tangents(keep=True)
        for node in self._net.nodes:
            if node.name not in self._calls or node.name not in trial.nodes:
                continue
            faults, call = trial.nodes[node.name].faults, self._calls[node.name]
            for index, (name, gradient) in enumerate(zip(node.inputs, call.gradients, strict=True)):
                what = f"the gradient of {name} by {node.name} ({node.op})"
                if index in faults:
                    yield Failure(name, node.name, f"{what}: {faults[index]}")
                elif gradient is None or not _is_whole(call.dy):
                    continue
                elif not _is_whole(gradient):
                    sentence = (
                        f"{what} of whole numbers holds fractions or NaN: expected sums of at most "
                        f"{trial.nodes[node.name].terms} products, exact in {trial.dtype}"
                    )
                    yield Failure(name, node.name, sentence)
                elif not all(self._adjoint(node, index, gradient, call.dy, tangents) for tangents in every):
                    yield Failure(name, node.name, f"{what} is not that of its forward")

    def _adjoint(self, node: Node, index: int, gradient: Array, dy: Array, tangents: Arrays) -> bool:
        """Whether <dy, derivative along one input's tangent> is <its gradient, the tangent>."""
        trial, name = self._trial, node.inputs[index]
        if name not in tangents:
            return True
        along = tangents[name]
        if not _is_whole(along):  # a node before made fractions of it; here any whole numbers do
            along = trial.residues.total(np.rint(np.nan_to_num(along, posinf=0.0, neginf=0.0)))
        alone = [along if i == index else None for i in range(len(node.inputs))]
        t = trial.nodes[node.name].tangent(alone, trial.residues)
        found = trial.sum([(gradient, along)])
        return found is not None and found == trial.sum([(dy, t)])

    def _sum(self, parts: Iterable[Array]) -> Array:
        total: Array | None = None
        for part in parts:
            total = part if total is None else self._trial.residues.total(total, part)
        return np.zeros(()) if total is None else total

    def _same(self, a: Array, b: Array) -> bool:
        """Whether two arrays are equal modulo p; an empty sum is zero."""
        if b.ndim == 0 and a.ndim and not b:
            return not self._trial.residues.total(a).any()
        if a.shape != b.shape:
            return False
        return np.array_equal(a, b, equal_nan=True) or not self._trial.residues.total(a, -b).any()


def _is_whole(a: Array) -> bool:
    """Whether an array holds whole numbers alone."""
    return np.array_equal(np.rint(a), a)


def _counted(counts: Mapping[str, int]) -> str:
    """In words, how often each part is in a sum."""
    alone = [part for part, count in counts.items() if count]
    missing = [part for part, count in counts.items() if not count]
    doubled = [part for part, count in counts.items() if count == 2]
    if not alone:
        return "is zero"
    if missing and len(alone) == 1 and not doubled:
        return f"is the contribution of {alone[0]} alone; that of {_and(missing)} is missing"
    lacks = [f"lacks the contribution of {_and(missing)}"] if missing else []
    return ", and ".join(lacks + [f"holds the contribution of {part} twice" for part in doubled])


def _and(names: Iterable[str]) -> str:
    return " and ".join(names) or "none"
