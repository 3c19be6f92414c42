"""Every gradient of a net: each backward call of a run judged on its own dy and inputs; their composition.

Errors do not accumulate, for a call is judged on what it was given. What lies between the calls is judged
too: the gradient of a value is the sum of what its readers handed back, and none comes from behind a stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from refnet.arithmetic import ARITHMETICS, Arithmetic, Kernel, named
from refnet.arithmetic.table import Context
from refnet.arrays import Array, wide
from refnet.check import composition
from refnet.check.bounds import EXACT, bound, plain
from refnet.check.compare import Comparison, compare
from refnet.check.diagnosis import diagnosed, verdict_of
from refnet.check.flow import Flow, flow, readers_of_stops, relevant, without_stops
from refnet.check.judge import Judge, oracle_of
from refnet.check.report import Report, Verdict
from refnet.environment import errstate
from refnet.errors import DTypeError, ValueRangeError, brief, require_known
from refnet.given import clean_values
from refnet.inputs import fill
from refnet.net import Net, Node, learns_from, require_net
from refnet.op import OUTPUT, InputGradients, Magnitude, Needs
from refnet.progress import Progress, silent, steps
from refnet.run import Gradients, Run, backward, forward


def check_net(
    net: Net,
    blobs: Mapping[str, Array],
    arithmetic: str | Arithmetic = "core",
    *,
    tensors: Iterable[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Report:
    """Judge every element of every gradient of a net.

    A forward and a backward pass run in the arithmetic that is checked, from random gradients of the
    outputs. Each node that gradients go through is judged on the inputs and the dy that it was given, in
    float64, by `reference` where its kernel is core's own and by `core` otherwise: all that its backward
    returns, within the bound that follows from the dtype, and its value; rectifiers, pools and moves exactly.
    Then the composition of all calls is checked modulo a prime, with threshold 0, and which gradients are
    blocked. The values of products, which take longest and which no gradient reads, are judged where the
    composition is wrong: `check_op` judges them all.

    Parameters
    ----------
    net : Net
    blobs : mapping of str to ndarray
        Inputs and parameters, all float32 or all float64.
    arithmetic : str or Arithmetic
        What is checked; `Arithmetic.replace` puts a kernel of one's own into one.
    tensors : iterable of str, optional
        The inputs and parameters whose gradients are judged; all by default. The calls that hand a gradient
        on to them are judged too.
    seed : int
        Of the gradients of the outputs, and of the composition.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Report
        A verdict for the gradient of each of these tensors and of each node that it goes through, under its
        name, and for values that are judged, under ``"value of NAME"``. The node of a verdict is the one
        whose call made the worst part of a gradient.

    Raises
    ------
    RefnetError
        If the blobs do not fit the net, or a kernel returns what is no result.
    """
    require_net(net)
    arithmetic = named(arithmetic)
    if not net.nodes:
        raise ValueRangeError("the net has no nodes: expected at least one")
    wanted = _wanted(net, tensors)
    with errstate(all="ignore"):
        watch = _Watch(arithmetic)
        values = clean_values(net, blobs, allow_nonfinite=False)
        step = steps(progress, "forward", len(net.nodes))
        # A kernel that returns NaN gets a verdict, not an error.
        run = forward(net, values, watch.arithmetic, allow_nonfinite=True, on_node=step)
        dy = fill.output_gradients(net, seed, _dtype(run))
        walk = _Walk(run, watch, flow(net, dy), wanted, dy, progress)
        gradients = backward(run, dy, allow_nonfinite=True, on_node=walk.judge)
        walk.finish(gradients)
        composed = composition.check(run, seed)
        for failure in composed.failures:
            walk.fail_composed(failure)
        walk.say_how(seed)
        return Report(
            title=f"gradients of {len(net.nodes)} nodes in {arithmetic.name}, {_dtype(run)}",
            verdicts=walk.verdicts,
            facts={
                "arithmetic": arithmetic.name,
                "oracle": {
                    op: oracle_of(arithmetic, op, _dtype(run)).name
                    for op in sorted({node.op for node in net.nodes})
                },
                "dtype": _dtype(run),
                "seed": seed,
                "elements": sum(verdict.elements for verdict in walk.verdicts.values()),
                "modulus": composed.modulus,
                "draws": composed.draws,
                "miss": composed.miss,
                "stand-ins": list(composed.stand_ins),
            },
        )


def _wanted(net: Net, tensors: Iterable[str] | None) -> set[str]:
    """The values whose gradients are judged."""
    learnt = net.learnt()
    if tensors is None:
        return relevant(net, learnt)
    if not isinstance(tensors, Iterable):
        raise DTypeError(f"tensors is {brief(tensors)}: expected names of inputs and parameters")
    tensors = [tensors] if isinstance(tensors, str) else list(tensors)
    if not tensors:
        raise ValueRangeError("no tensors to judge: expected at least one, or None for all")
    for name in tensors:
        require_known("input or parameter with a gradient", name, sorted(learnt))
    return relevant(net, tensors)


def _dtype(run: Run) -> str:
    return next(value.dtype.name for value in run.blobs.values())


@dataclass(frozen=True)
class _Call:
    """What a backward kernel was given, and returned."""

    dy: Array
    gradients: InputGradients


class _Watch:
    """An arithmetic whose last backward call is remembered."""

    def __init__(self, arithmetic: Arithmetic):
        self.of = arithmetic
        self.last: _Call | None = None
        self.arithmetic = Arithmetic(
            arithmetic.name, {op: self._watched(kernel) for op, kernel in arithmetic.kernels.items()}
        )

    def _watched(self, kernel: Kernel) -> Kernel:
        def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
            gradients = kernel.backward(dy, context, needs)
            self.last = _Call(dy, gradients)
            return gradients

        return Kernel(kernel.forward, backward)


@dataclass(frozen=True)
class _Part:
    """What a reader handed back for the gradient of a value."""

    reader: str
    gradient: Array


class _Walk:
    """Follows a backward pass node by node; a call is judged when it has returned, and then let go."""

    def __init__(
        self,
        run: Run,
        watch: _Watch,
        expected: Flow,
        wanted: set[str],
        dy: Mapping[str, Array],
        progress: Progress,
    ):
        self._run, self._watch, self._expected, self._wanted = run, watch, expected, wanted
        self._claim = plain(_dtype(run))
        self._readers_of_stops = {node.name for node in readers_of_stops(run.net)}
        self._behind_stops: dict[str, Array] = {}
        self._dy = dict(dy)
        self._parts: dict[str, list[_Part]] = {name: [_Part("", value)] for name, value in dy.items()}
        self._step = steps(progress, "judge", len(expected.reached & {n.name for n in run.net.nodes}))
        self.verdicts: dict[str, Verdict] = {}

    def judge(self, node: Node) -> None:
        """Judge the node whose backward has just been called."""
        call = self._watch.last
        assert call is not None
        if node.name in self._readers_of_stops:
            self._behind_stops[node.name] = call.dy
        if node.name not in self._expected.reached:
            self._fail(
                node.name, node, "a gradient went through it, though none leads from it to what is learnt"
            )
        elif node.name in self._wanted:
            self._judge_sum(node.name, call.dy)
            self._judge_call(node, call)
        learns = learns_from(node)
        for name, gradient in zip(node.inputs, call.gradients, strict=True):
            if gradient is not None and name in learns and name in self._expected.reached:
                self._parts.setdefault(name, []).append(_Part(node.name, gradient))
        self._parts.pop(node.name, None)
        self._step(node)

    def _judge_call(self, node: Node, call: _Call) -> None:
        judge = self._judge_of(node)
        context = self._judge_value(node, judge) if judge.op.context is None else judge.context()
        judged = self._wanted & self._expected.reached
        needs = tuple(name in judged and name in learns_from(node) for name in node.inputs)
        comparisons = judge.gradients(call.dy, call.gradients, context, needs)
        for index, name in enumerate(node.inputs):
            found, comparison = call.gradients[index], comparisons[index]
            if found is not None and comparison is not None:
                self._keep_diagnosed(name, node, judge, index, found, comparison, call.dy)
            elif needs[index]:
                self._fail(name, node, f"{node.op} returned no gradient of it")

    def _judge_of(self, node: Node) -> Judge:
        run = self._run
        arrays = tuple(run.given[name] if name in run.given else run.blobs[name] for name in node.inputs)
        return Judge.of(self._watch.of, node.op, self._claim, arrays, node.attrs)

    def _judge_value(self, node: Node, judge: Judge) -> Context:
        """Judge the value of a node; return the oracle's context."""
        expected, context = judge.forward()
        y = self._run.blobs[node.name]
        self._keep_diagnosed(f"value of {node.name}", node, judge, OUTPUT, y, judge.output(y, expected))
        return context

    def _keep_diagnosed(
        self,
        name: str,
        node: Node,
        judge: Judge,
        subject: int,
        found: Array,
        comparison: Comparison,
        dy: Array | None = None,
    ) -> None:
        verdict = verdict_of(name, node.name, node.op, comparison)
        self._keep(diagnosed(verdict, comparison, judge, subject, found, dy))

    def _judge_sum(self, name: str, found: Array) -> None:
        """Judge whether a gradient is the sum of what the readers handed back."""
        parts = self._parts.get(name, [])
        gradients = [part.gradient for part in parts]
        readers = " and ".join(part.reader or "the output's own" for part in parts)
        if not gradients:
            self._fail(name, None, "no reader handed a gradient back, but there is one")
            return
        if len(gradients) == 1 and _same(found, gradients[0]):
            self._keep(Verdict(tensor=name, verdict="ok", node=name, elements=found.size))
            return
        total = sum(wide(gradient) for gradient in gradients[1:]) + wide(gradients[0])
        size = np.asarray(sum(abs(wide(gradient)) for gradient in gradients))
        additions = Magnitude(size, np.asarray(len(parts) - 1))
        allowed = EXACT if len(parts) == 1 else bound(additions, self._claim)
        comparison = compare(found, total, allowed)
        cause = f"it is not the sum of what its readers handed back: {readers}"
        self._keep(verdict_of(name, name, "", comparison, cause=cause))

    def finish(self, gradients: Gradients) -> None:
        """Judge which gradients there are, and what the ones of inputs and parameters add up to."""
        net, expected = self._run.net, self._expected
        through = self._through() if expected.blocked else {}
        for name in (*net.inputs, *net.params):
            reader = next((node for node in net.nodes if name in node.inputs), None)
            if name in expected.blocked & self._wanted:
                self._judge_blocked(name, reader, gradients, through.get(name))
            elif name in expected.reached & self._wanted:
                if name in gradients:
                    self._judge_sum(name, gradients[name])
                else:
                    self._fail(name, reader, "there is no gradient, though no stop lies on a path to it")
        for node in net.nodes:
            if node.name in expected.reached & self._wanted - self.verdicts.keys():
                self._fail(
                    node.name, node, "no gradient went through it, though no stop lies on a path to it"
                )

    def _judge_blocked(
        self, name: str, reader: Node | None, gradients: Gradients, through: Array | None
    ) -> None:
        if name in gradients or name not in gradients.blocked:
            self._fail(name, reader, "it has a gradient, though a stop lies on each path to it")
            return
        norm = None if through is None else float(np.linalg.norm(wide(through).reshape(-1)))
        why = "a stop lies on each path to it"
        self.verdicts[name] = Verdict(tensor=name, verdict="blocked", why=why, through=norm)

    def _through(self) -> Mapping[str, Array]:
        """The derivatives through the stops, which training does not see."""
        run = self._run
        net, reads = without_stops(run.net)
        starts = self._behind_stops
        if starts.keys() != self._readers_of_stops or not reads.keys().isdisjoint(self._dy):
            # No gradient went through some reader of a stop, or a stop is an output.
            starts = {}
            for name, dy in self._dy.items():
                start = reads.get(name, name)
                starts[start] = starts[start] + dy if start in starts else dy
        given = {name: dy for name, dy in starts.items() if name in run.given}
        made = {name: dy for name, dy in starts.items() if name not in run.given}
        found = (
            dict(
                backward(
                    Run(net, self._watch.of, run.given, run.blobs, run._tape), made, allow_nonfinite=True
                )
            )
            if made
            else {}
        )
        return found | {name: found[name] + dy if name in found else dy for name, dy in given.items()}

    def say_how(self, seed: int) -> None:
        """Say of each failure how to see it again."""
        name = self._watch.of.name
        arithmetic = repr(name) if name in ARITHMETICS else "arithmetic"
        for verdict in self.verdicts.values():
            if verdict.verdict in ("wrong", "undecided"):
                again = f"refnet.gradcheck.check_net(net, blobs, {arithmetic}, seed={seed})"
                line = f'{again}.verdicts["{verdict.tensor}"]'
                self.verdicts[verdict.tensor] = replace(verdict, reproduce=line)

    def fail_composed(self, failure: composition.Failure) -> None:
        """Note what the composition found, where nothing else has explained it, not even the node's value."""
        for node in self._run.net.nodes:
            if node.name == failure.node:
                self._judge_value(node, self._judge_of(node))
                if self.verdicts[f"value of {node.name}"].verdict == "wrong":
                    return
        name = failure.tensor or "composition"
        before = self.verdicts.get(name)
        if not self._is_finite(failure):
            why = "there are infinities or NaN at this node: no pattern is to be kept there"
            self._keep(Verdict(tensor=name, verdict="undecided", node=failure.node, why=why))
            return
        if before is None or before.verdict != "wrong" or not (before.cause or before.structure):
            changed = before or Verdict(tensor=name, verdict="wrong")
            at = failure.node or changed.node
            self.verdicts[name] = replace(
                changed,
                verdict="wrong",
                margin=inf,
                node=at,
                cause=failure.sentence,
                hypothesis="composition",
            )

    def _is_finite(self, failure: composition.Failure) -> bool:
        """Whether all values are finite at the node of a failure."""
        blobs = self._run.blobs
        at = [node for node in self._run.net.nodes if failure.node in (node.name, *node.inputs)]
        names = {name for node in at for name in (node.name, *node.inputs)} & blobs.keys()
        return all(np.isfinite(blobs[name]).all() for name in names)

    def _fail(self, name: str, node: Node | None, cause: str) -> None:
        """Note what is wrong as a whole."""
        op = "" if node is None else node.op
        where = name if node is None else node.name
        self._keep(Verdict(tensor=name, verdict="wrong", margin=inf, node=where, op=op, cause=cause))

    def _keep(self, verdict: Verdict) -> None:
        before = self.verdicts.get(verdict.tensor)
        if before is None or verdict.badness > before.badness:
            self.verdicts[verdict.tensor] = verdict


def _same(a: Array, b: Array) -> bool:
    """Whether two arrays are one, or hold the same."""
    one = a.shape == b.shape and a.__array_interface__["data"] == b.__array_interface__["data"]
    return one or np.array_equal(a, b)
