"""A training step that another implementation has taken, judged call by call on what was recorded of it.

A call that was recorded is judged on its own inputs and dy. Between recorded calls lie others, of which
nothing is known (a rectifier that is a mere function, a sum): they are judged as a chain, from what the
recorded calls behind them handed back to what arrived at the recorded calls before them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from refnet.arithmetic.core import core
from refnet.arrays import INTEGER, Array, wide
from refnet.check import enclosure
from refnet.check.bounds import Bound, Claim
from refnet.check.compare import compare
from refnet.check.diagnosis import diagnosed, verdict_of
from refnet.check.enclosure import Enclosure, exactly
from refnet.check.flow import flow
from refnet.check.judge import Judge
from refnet.check.locate import axes_of, structure
from refnet.check.report import Verdict
from refnet.net import Net, Node, learns_from
from refnet.op import OUTPUT, Op
from refnet.ops import OPS


@dataclass(eq=False)
class Call:
    """What one call read, returned, was given and handed back.

    Attributes
    ----------
    arrays : list of ndarray
        What it read besides parameters, in the operator's order.
    y : ndarray
    dy : ndarray, optional
        None where no gradient arrived.
    gradients : list of (ndarray or None)
        What it handed back to what it read.
    """

    arrays: list[Array]
    y: Array
    dy: Array | None = None
    gradients: list[Array | None] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Capture:
    """A training step: values, gradients of values, gradients of inputs and parameters, by name.

    Attributes
    ----------
    calls : dict of str to Call
        By node; every node with a parameter is among them.
    given : dict of str to ndarray
        Inputs and parameters.
    outputs : dict of str to ndarray
        What was returned, by node.
    dy : dict of str to ndarray
        The gradients that the backward pass started from.
    gradients : dict of str to ndarray
        Of inputs and parameters.
    constant : dict of str to str
        Inputs and parameters of which no gradient was wanted, and why.
    """

    calls: Mapping[str, Call]
    given: Mapping[str, Array]
    outputs: Mapping[str, Array]
    dy: Mapping[str, Array]
    gradients: Mapping[str, Array]
    constant: Mapping[str, str]


def judge_capture(
    net: Net, capture: Capture, claim: Claim, ops: Mapping[str, Op] = OPS
) -> dict[str, Verdict]:
    """Judge every recorded call, and the chains between.

    Parameters
    ----------
    net : Net
        What the implementation should be.
    capture : Capture
    claim : Claim
        Of the implementation.
    ops : mapping of str to Op
        The operators, with the magnitudes of the formulas that the implementation uses.

    Returns
    -------
    dict of str to Verdict
        Of the gradient of each input, parameter and recorded node, of those that recorded calls handed back,
        and of values under ``"value of NAME"``.
    """
    walk = _Walk(net, capture, claim, ops)
    walk.forward()
    walk.backward()
    walk.finish()
    return walk.verdicts


class _Walk:
    """Goes through the net forward, then backward."""

    def __init__(self, net: Net, capture: Capture, claim: Claim, ops: Mapping[str, Op]):
        self._net, self._capture, self._claim, self._ops = net, capture, claim, ops
        upstream = net.upstream(capture.outputs)
        self._nodes = [node for node in net.nodes if node.name in upstream]
        self._names = [name for name in (*net.inputs, *net.params) if name in upstream]
        self._expected = flow(net, capture.dy)
        self._values: dict[str, Enclosure] = {
            name: exactly(value) for name, value in capture.given.items() if name in upstream
        }
        self._parts: dict[str, list[Enclosure]] = {}
        self._from: dict[str, list[str]] = {}
        for name, dy in capture.dy.items():
            self._hand(name, exactly(dy), "the output's own")
        self._arrived: set[str] = set()
        self.verdicts: dict[str, Verdict] = {}

    def forward(self) -> None:
        """Judge the values that were recorded; derive the others."""
        for node in self._nodes:
            call = self._capture.calls.get(node.name)
            if call is None:
                inputs = tuple(self._values[name] for name in node.inputs)
                self._values[node.name] = enclosure.forward(
                    self._ops[node.op], self._claim, inputs, node.attrs
                )
            else:
                for name, found in zip(self._read(node), call.arrays, strict=True):
                    self._judge_value(name, found, node)
                self._values[node.name] = exactly(call.y)
        for name, found in self._capture.outputs.items():
            self._judge_value(name, found, None)

    def _judge_value(self, name: str, found: Array, reader: Node | None) -> None:
        """Judge what was read as a value; from then on it is the value."""
        value = self._values[name]
        if found.dtype == INTEGER:
            return
        comparison = compare(found, wide(value.value), Bound(value.error, 0.0))
        derived = name not in self._capture.calls and name not in self._net.inputs
        if derived or not comparison.ok:
            who = "the output" if reader is None else f"what {reader.name} reads"
            cause = f"{who} is not the value of {name}" + self._made_of(name)
            self._keep(verdict_of(f"value of {name}", name, self._op_of(name), comparison, cause=cause))
        self._values[name] = exactly(found)

    def _made_of(self, name: str) -> str:
        """How the value of a node that was not recorded is made, in words."""
        node = self._node(name)
        if node is None or name in self._capture.calls:
            return ""
        return f", {node.op} of {' and '.join(node.inputs)}"

    def backward(self) -> None:
        """Judge the gradients that were recorded; derive what lies between."""
        for node in reversed(self._nodes):
            call = self._capture.calls.get(node.name)
            if call is None:
                self._derive(node)
            else:
                self._judge(node, call)

    def _derive(self, node: Node) -> None:
        """Hand on what the readers of a node handed back that was not recorded."""
        parts = self._parts.pop(node.name, [])
        learns = set(learns_from(node)) & self._expected.reached
        if not parts or not learns:
            return
        arrays = tuple(self._values[name].value for name in node.inputs)
        needs = tuple(name in learns for name in node.inputs)
        dy = enclosure.total(parts, self._claim)
        found = enclosure.backward(self._ops[node.op], self._claim, dy, arrays, needs, node.attrs)
        readers = self._from[node.name]
        for name, gradient in zip(node.inputs, found, strict=True):
            if gradient is not None:
                self._hand(name, gradient, *readers)

    def _judge(self, node: Node, call: Call) -> None:
        """Judge a call that was recorded."""
        reached = node.name in self._expected.reached
        arrays = (*call.arrays, *(self._capture.given[name] for name in node.inputs[len(call.arrays) :]))
        judge = Judge(self._ops[node.op], core, self._claim, arrays, node.attrs)
        expected, context = judge.forward()
        comparison = judge.output(call.y, expected)
        verdict = verdict_of(f"value of {node.name}", node.name, node.op, comparison)
        self._keep(diagnosed(verdict, comparison, judge, OUTPUT, call.y))
        if not reached and call.dy is not None:
            self._fail(
                node.name, node, "a gradient went through it, though none leads from it to what is learnt"
            )
        if not reached:
            return
        if call.dy is None:
            self._fail_missing(node.name, node)
            return
        self._arrived.add(node.name)
        self._judge_sum(node.name, call.dy)
        found = [*call.gradients, *(self._capture.gradients.get(p) for p in node.inputs[len(call.arrays) :])]
        needs = tuple(
            name in self._expected.reached and name in learns_from(node) and gradient is not None
            for name, gradient in zip(node.inputs, found, strict=True)
        )
        comparisons = judge.gradients(call.dy, tuple(found), context, needs)
        for index, name in enumerate(node.inputs):
            gradient, compared = found[index], comparisons[index]
            if gradient is not None and compared is not None:
                verdict = verdict_of(name, node.name, node.op, compared)
                self._keep(diagnosed(verdict, compared, judge, index, gradient, call.dy))
                if index < len(call.arrays):
                    self._hand(name, exactly(gradient), node.name)
            elif index < len(call.arrays) and name in self._expected.reached and name in learns_from(node):
                self._fail(name, node, f"{node.name} handed back no gradient of it: detached before it?")

    def _judge_sum(self, name: str, found: Array) -> None:
        """Judge whether the gradient that arrived is what the recorded calls behind it make."""
        parts, node = self._parts.pop(name, []), self._node(name)
        if not parts:
            self._fail(name, node, "no reader handed a gradient back, but there is one")
            return
        expected = enclosure.total(parts, self._claim)
        compared = compare(found, expected.value, Bound(expected.error, 0.0))
        readers = " and ".join(dict.fromkeys(self._from[name]))
        cause = f"it is not what its readers make of what they were handed: {readers}"
        verdict = verdict_of(name, name, "" if node is None else node.op, compared, cause=cause)
        if compared.beyond is not None and node is not None:
            words = structure(compared.beyond, axes_of(OPS[node.op], OUTPUT, found.ndim))
            verdict = replace(verdict, structure=words)
        self._keep(verdict)

    def finish(self) -> None:
        """Judge which gradients of inputs and parameters there are."""
        gradients, constant = self._capture.gradients, self._capture.constant
        for name in self._names:
            reader = next(node for node in self._nodes if name in node.inputs)
            if name in self._expected.blocked:
                if name in gradients:
                    self._fail(name, reader, "it has a gradient, though a stop lies on each path to it")
                else:
                    self.verdicts[name] = Verdict(
                        tensor=name, verdict="blocked", why="a stop lies on each path to it"
                    )
            elif name in self._expected.reached:
                if name in gradients:
                    if name in self._net.inputs:
                        self._judge_sum(name, gradients[name])
                elif name in constant:
                    self.verdicts[name] = Verdict(tensor=name, verdict="blocked", why=constant[name])
                else:
                    self._fail_missing(name, reader)

    def _fail_missing(self, name: str, node: Node) -> None:
        """Note a gradient that should be there: missing here first, or already at the readers."""
        readers = self._from.get(name, [node.name] if node.name in self._arrived else [])
        cause = "there is no gradient, as there is none of what reads it"
        if readers:
            who = " and ".join(dict.fromkeys(readers))
            cause = f"there is no gradient, though {who} had one and no stop lies between: detached there?"
        self._fail(name, node, cause)

    def _hand(self, name: str, gradient: Enclosure, *readers: str) -> None:
        self._parts.setdefault(name, []).append(gradient)
        self._from.setdefault(name, []).extend(readers)

    def _read(self, node: Node) -> list[str]:
        """What a recorded call reads besides parameters."""
        return [name for name in node.inputs if name not in self._net.params]

    def _node(self, name: str) -> Node | None:
        return next((node for node in self._nodes if node.name == name), None)

    def _op_of(self, name: str) -> str:
        node = self._node(name)
        return "" if node is None else node.op

    def _fail(self, name: str, node: Node | None, cause: str) -> None:
        """Note what is wrong as a whole."""
        where, op = (name, "") if node is None else (node.name, node.op)
        self._keep(Verdict(tensor=name, verdict="wrong", margin=inf, node=where, op=op, cause=cause))

    def _keep(self, verdict: Verdict) -> None:
        before = self.verdicts.get(verdict.tensor)
        if before is None or verdict.badness > before.badness:
            self.verdicts[verdict.tensor] = verdict
