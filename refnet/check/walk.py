"""A walk through a net, forward and backward, that judges what a candidate dumped and derives the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from refnet.arrays import INTEGER, Array, require_mapping, wide
from refnet.cached import cached_property
from refnet.check.bounds import Claim, unit
from refnet.check.dumped import Dumped, as_dumped, laid_out
from refnet.check.expected import Expected, Known, UnderivedError, exactly
from refnet.check.fed import mistake_of
from refnet.check.flow import Flow, flow
from refnet.check.formulas import FOREIGN
from refnet.check.handed import Backward, Part, judge_gradient
from refnet.check.jury import Call, Jury, Ways, names_of, one_way
from refnet.check.plausible import Levels
from refnet.check.precision import FORMATS
from refnet.check.report import Verdict
from refnet.check.wrong_shape import explained
from refnet.errors import ValueRangeError, require_known
from refnet.inplace import names as names_in_place
from refnet.inputs.candidate import Candidate, named_as
from refnet.net import Net, Node, learns_from
from refnet.op import OUTPUT
from refnet.progress import Progress, steps
from refnet.run import Run
from refnet.shapes import Shape, text


@dataclass(frozen=True)
class Parts:
    """A candidate by the names of the net's nodes, inputs and parameters."""

    candidate: Candidate
    blobs: Mapping[str, Array]
    output_gradients: Mapping[str, Array]
    gradients: Mapping[str, Array]
    blob_gradients: Mapping[str, Array]

    @classmethod
    def of(
        cls,
        net: Net,
        candidate: Candidate | Mapping[str, Array],
        output_gradients: Mapping[str, Array] | None,
        gradients: Mapping[str, Array] | None,
        blob_gradients: Mapping[str, Array] | None,
    ) -> "Parts":
        """The parts of a candidate; what is given by itself goes before what the candidate holds.

        Raises
        ------
        UnknownNameError, DTypeError
            If a name is not one of the net, or something maps no names to arrays.
        """
        if isinstance(candidate, Run):
            candidate = Candidate(blobs=candidate.blobs, given=candidate.given)
        elif not isinstance(candidate, Candidate):
            require_mapping("candidate", candidate)
            candidate = Candidate(blobs=candidate)
        candidate = candidate if candidate.prefix else named_as(candidate, net)
        nodes = [node.name for node in net.nodes]
        given = [*net.inputs, *net.params]
        blobs = dict(candidate.blobs)
        in_place = names_in_place(net)
        if blobs and blobs.keys() - net.inputs.keys() == in_place.keys():
            blobs = {in_place.get(name, name): array for name, array in blobs.items()}
        for name in blobs:
            require_known("node of the candidate", name, [*nodes, *net.inputs])
        starts = output_gradients if output_gradients is not None else candidate.output_gradients
        of_given = gradients if gradients is not None else candidate.gradients
        of_nodes = blob_gradients if blob_gradients is not None else candidate.blob_gradients
        for what, found, known in (
            ("output_gradients", starts, nodes),
            ("gradients", of_given, given),
            ("blob_gradients", of_nodes, [*nodes, *net.inputs]),
        ):
            require_mapping(what, found)
            for name in found:
                require_known(f"name of {what}", name, known)
        of_given = {**{n: of_nodes[n] for n in of_nodes if n in net.inputs}, **of_given}
        of_nodes = {n: gradient for n, gradient in of_nodes.items() if n not in net.inputs}
        return cls(candidate, blobs, starts, of_given, of_nodes)

    @property
    def names(self) -> list[str]:
        """Of all that is judged."""
        return [*self.blobs, *self.blob_gradients, *self.gradients]


# Kernels of other nodes that are tried in place of a node's own.
MOST_OTHERS = 8


class Walk:
    """Goes through the net forward, then backward."""

    def __init__(
        self,
        net: Net,
        given: Mapping[str, Array],
        parts: Parts,
        claim: Claim,
        fused: Sequence[frozenset[str]],
        layout: tuple[str, str],
        delta: float,
        progress: Progress,
    ):
        self._net, self._given, self._parts, self._claim, self._fused = net, given, parts, claim, fused
        self._axes, self._kernel_axes = layout
        self.jury = Jury(claim, Levels.of([net.shape(name) for name in parts.names], delta))
        self._values: dict[str, Known] = {name: Known(value) for name, value in given.items()}
        self._dumped: dict[str, Array] = {}
        self._progress = progress
        self._handed: dict[str, list[Part]] = {}
        self.absent: list[str] = []
        self._op = {node.name: node.op for node in net.nodes}

    def forward(self) -> None:
        """Judge the values that were dumped; derive the others."""
        for name in self._net.inputs:
            if name in self._parts.blobs:
                self._judge_input(name)
        step = steps(self._progress, "values", len(self._net.nodes))
        pending: list[str] = []
        for node in self._net.nodes:
            try:
                self._judge_value(node)
            except UnderivedError as error:
                self._refuse_value(node, str(error))
            if node.name not in self._dumped:
                pending.append(node.name)
            step(node)
        self.absent = pending
        for name in self._net.outputs:
            if name not in self.jury.verdicts and name not in self._dumped and self._parts.blobs:
                self.jury.refuse(name, name, self._op[name], "it is an output, and was not dumped")

    def _judge_input(self, name: str) -> None:
        """Judge whether what the candidate read is what it was given."""
        given = self._given[name]
        found = self._read(
            name, name, "", self._parts.blobs[name], given.shape, integer=given.dtype == INTEGER
        )
        if found is None:
            return
        if found.dtype != INTEGER and given.dtype != INTEGER:
            form = FORMATS[str(self._claim.store)]
            rounded = form.round(wide(given)) if form.unit > unit(given.dtype) else wide(given)
            call = Call(FOREIGN["relu"], (given,), {}, OUTPUT, exact=False)
            self.jury.judge(name, name, found, one_way(exactly(rounded, self._claim)), call)
            verdict = self.jury.verdicts[name]
            if not verdict.passes:
                self.jury.verdicts[name] = replace(verdict, op="", **mistake_of(found, wide(given)))
        elif not np.array_equal(found, given):
            self.jury.fail(name, name, "", "it is not what was given")
        else:
            self.jury.keep(Verdict(tensor=name, verdict="exact", node=name, elements=found.size))
        self._values[name] = Known(found)

    def _judge_value(self, node: Node) -> None:
        inputs = [self._read_by(node, name) for name in node.inputs]
        dumped = self._parts.blobs.get(node.name)
        op = FOREIGN[node.op]
        if any(name not in self._values for name in node.inputs):
            self._refuse_value(node, "what it reads was not dumped, and cannot be derived")
            return
        ways: Ways = {
            way: partial(self.jury.oracle(way).forward, node.op, inputs, node.attrs)
            for way in (self.jury.ways() if op.family == "product" else (None,))
        }
        found = None
        if dumped is not None:
            found = self._read(
                node.name, node.name, node.op, dumped, node.shape, inputs=inputs, node_attrs=node.attrs
            )
        if found is None:
            expected = next(iter(ways.values()))()
            self._values[node.name] = self._handed_on(node, inputs, expected)
            return
        exact = all(known.exact for known in inputs)
        arrays = tuple(known.value for known in inputs)
        call = Call(op, arrays, dict(node.attrs), OUTPUT, exact=exact, others=self._others(node))
        self.jury.judge(node.name, node.name, found, ways, call, self._chain(node))
        self._hold(node, found)

    def _refuse_value(self, node: Node, why: str) -> None:
        """Note that a dumped value cannot be judged; who reads it is judged by it all the same."""
        if node.name not in self._parts.blobs:
            return
        found = self._read(node.name, node.name, node.op, self._parts.blobs[node.name], node.shape)
        if found is not None:
            self._hold(node, found)
            self.jury.refuse(node.name, node.name, node.op, why)

    def _others(self, node: Node) -> tuple[tuple[str, dict[int, Array]], ...]:
        """Other nodes of the same operator, with parameters of the same shapes, the nearest first."""
        own = {i: self._net.params[n] for i, n in enumerate(node.inputs) if n in self._net.params}
        if not own:
            return ()
        at = {other.name: index for index, other in enumerate(self._net.nodes)}
        alike = [
            other
            for other in self._net.nodes
            if other.op == node.op
            and other.name != node.name
            and {i: self._net.params.get(n) for i, n in enumerate(other.inputs) if i in own} == own
        ]
        alike.sort(key=lambda other: abs(at[other.name] - at[node.name]))
        return tuple(
            (other.name, {i: self._given[other.inputs[i]] for i in own}) for other in alike[:MOST_OTHERS]
        )

    def _hold(self, node: Node, found: Array) -> None:
        self._values[node.name] = Known(found)
        self._dumped[node.name] = found

    def _chain(self, node: Node) -> str:
        """Say of a chain of which nodes it is."""
        missing = []
        pending = list(node.inputs)
        while pending:
            name = pending.pop()
            if name in self._op and name not in self._dumped:
                missing.append(name)
                pending += next(n.inputs for n in self._net.nodes if n.name == name)
        return f"with {names_of(reversed(missing))}, not dumped" if missing else ""

    def _handed_on(self, node: Node, inputs: Sequence[Known], expected: Expected) -> Known:
        """What is known of a value that was not dumped."""
        op = FOREIGN[node.op]
        if op.hands_on and all(known.exact for known in inputs):
            return Known(expected.value)
        known = expected.known(self._claim)
        operands = self._claim.operands
        if op.family != "product" or operands is None or unit(operands) <= unit(self._claim.accumulate):
            return known
        # Either operand may be off by 2 u of itself, in a way that nobody saw.
        part, sizes = 4 * unit(operands), [expected.absolute, expected.spread]
        off, squares = (wide(a.reshape(expected.value.shape)) if a.size > 1 else np.zeros(()) for a in sizes)
        return Known(
            known.value,
            known.error + expected.scale * part * off,
            known.variance + (expected.scale * part) ** 2 * squares,
        )

    def _read_by(self, node: Node, name: str) -> Known:
        """What a node has read: within a fused group, values that were not rounded when they were stored."""
        known = self._values.get(name, Known(np.zeros(())))
        together = any(node.name in group and name in group for group in self._fused)
        if not together or not known.exact:
            return known
        return self._unrounded(known.value)

    def _unrounded(self, value: Array) -> Known:
        off = unit(self._claim.store) * np.abs(wide(value)) + FORMATS[str(self._claim.store)].smallest
        return Known(value, off, np.square(off) / 3)

    def _read(
        self,
        tensor: str,
        node: str,
        op: str,
        array: Array,
        shape: Shape,
        *,
        integer: bool = False,
        inputs: Sequence[Known] = (),
        node_attrs: Mapping[str, Any] | None = None,
    ) -> Array | None:
        """A dumped array in our layout; None where it cannot be judged, which is noted."""
        axes = self._kernel_axes if tensor.removeprefix("d ") in self._net.params else self._axes
        dumped = Dumped(tensor, node, op, array, axes=axes, integer=integer)
        found, (cause, hypothesis) = dumped.read(shape)
        if found is None:
            if inputs and all(known.exact for known in inputs):
                told = explained(
                    op, tuple(k.value for k in inputs), dict(node_attrs or {}), dumped, self._claim
                )
                cause, hypothesis = (f"{cause}: {told[0]}", told[1]) if told else (cause, hypothesis)
            self.jury.fail(tensor, node, op, cause, hypothesis)
        return found

    def backward(self) -> None:
        """Judge the gradients that were dumped; derive those between."""
        parts = self._parts
        if not (parts.gradients or parts.blob_gradients):
            return
        starts = {name: parts.output_gradients[name] for name in parts.output_gradients}
        for name in self._net.outputs:
            if not starts and name in parts.blob_gradients:
                starts[name] = parts.blob_gradients[name]
        if not starts:
            raise ValueRangeError(
                "gradients are given, but not what the backward pass started from: expected output_gradients"
            )
        expected = flow(self._net, starts)
        for name, dy in starts.items():
            array = as_dumped(f"gradient of {name}", laid_out(dy, self._axes))
            if array.shape != self._net.shape(name):
                raise ValueRangeError(
                    f"gradient of {name} has shape {text(array.shape)}: "
                    f"expected {text(self._net.shape(name))}"
                )
            self._hand(name, Part("", one_way(exactly(array, self._claim))))
        step = steps(self._progress, "gradients", len(self._net.nodes))
        for node in reversed(self._net.nodes):
            self._judge_node(node, expected)
            step(node)
        self._finish(expected)

    def _hand(self, name: str, part: Part) -> None:
        self._handed.setdefault(name, []).append(part)

    def _judge_node(self, node: Node, expected: Flow) -> None:
        """Judge the gradient of a node, then hand back what it makes of it."""
        parts = self._handed.pop(node.name, [])
        given = self._parts.blob_gradients.get(node.name)
        reached = node.name in expected.reached
        dy: Known | None = None
        if given is not None:
            tensor = f"d {node.name}"
            found = self._read(tensor, node.name, node.op, given, node.shape)
            if found is not None:
                self._judge_blob_gradient(tensor, node, found, parts, reached)
                dy = Known(found)
        if dy is None and parts:
            dy = self._derived(parts)
        if not reached or dy is None:
            return
        learns = set(learns_from(node)) & expected.reached
        inputs = [self._read_by(node, name) for name in node.inputs]
        if any(name not in self._values for name in node.inputs):
            return
        needs = tuple(name in learns for name in node.inputs)
        if not any(needs):
            return
        if given is not None and self._is_fused(node):
            dy = self._unrounded(dy.value)
        call = Backward(self.jury, node, dy, inputs, self._dumped.get(node.name), needs)
        readers = self._readers
        for index, name in enumerate(node.inputs):
            if not needs[index]:
                continue
            part = call.part(index)
            if name in self._net.params and readers[name] == 1:
                self._judge_given(name, [part])
            else:
                self._hand(name, part)

    def _is_fused(self, node: Node) -> bool:
        """Whether the kernel that has made the gradient of a node goes on with it."""
        readers = [n.name for n in self._net.nodes if node.name in n.inputs]
        return any(node.name in group and not group.isdisjoint(readers) for group in self._fused)

    def _derived(self, parts: Sequence[Part]) -> Known:
        """What is known of a gradient that was not dumped."""
        try:
            shares = [next(iter(part.ways.values()))() for part in parts]
        except UnderivedError:
            return Known(np.zeros(()), np.full((), np.inf))
        total = self.jury.oracle(None).total(shares)
        if len(parts) == 1 and not total.error().any():
            return Known(total.value)
        return total.known(self._claim)

    def _judge_blob_gradient(
        self, tensor: str, node: Node, found: Array, parts: list[Part], reached: bool
    ) -> None:
        if parts:
            try:
                # The node of a gradient is the one whose backward made it; of a sum, the node itself.
                where = parts[0].reader if len(parts) == 1 and parts[0].reader else node.name
                judge_gradient(self.jury, tensor, parts, found, where)
            except UnderivedError as error:
                self.jury.refuse(tensor, node.name, node.op, str(error))
        elif not reached and found.any():
            self.jury.fail(
                tensor,
                node.name,
                node.op,
                "a gradient went through it, though a stop lies on each path to what is learnt: it leaks",
                "stop missing",
            )

    @cached_property
    def _readers(self) -> dict[str, int]:
        """How many nodes read each input and parameter."""
        counts = dict.fromkeys((*self._net.inputs, *self._net.params), 0)
        for node in self._net.nodes:
            for name in node.inputs:
                if name in counts:
                    counts[name] += 1
        return counts

    def _judge_given(self, name: str, parts: list[Part]) -> None:
        """Judge the gradient of an input or a parameter."""
        given, tensor, node = self._parts.gradients.get(name), f"d {name}", parts[0].reader
        if given is None:
            if self._parts.gradients and name in self._net.params:
                self.jury.refuse(
                    tensor,
                    node,
                    self._op.get(node, ""),
                    "the candidate has no gradient of it: detached before it, or not dumped",
                )
            return
        found = self._read(tensor, node, self._op.get(node, ""), given, self._net.shape(name))
        if found is None:
            return
        try:
            judge_gradient(self.jury, tensor, parts, found)
        except UnderivedError as error:
            self.jury.refuse(tensor, node, self._op.get(node, ""), str(error))

    def _finish(self, expected: Flow) -> None:
        """Judge what is left: shared parameters, inputs, what should have no gradient."""
        for name in (*self._net.params, *self._net.inputs):
            reader = next((n for n in self._net.nodes if name in n.inputs), None)
            if name in self._handed:
                self._judge_given(name, self._handed.pop(name))
            elif name in expected.blocked and reader is not None:
                given = self._parts.gradients.get(name)
                if given is None or not np.any(as_dumped(f"gradient of {name}", given)):
                    self.jury.keep(
                        Verdict(
                            tensor=f"d {name}",
                            verdict="blocked",
                            node=reader.name,
                            why="a stop lies on each path to it",
                        )
                    )
                else:
                    self.jury.fail(
                        f"d {name}",
                        reader.name,
                        reader.op,
                        "it has a gradient, though a stop lies on each path to it: it leaks through a stop",
                        "stop missing",
                    )
