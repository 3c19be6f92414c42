"""Certification: each operator, or chain between two dumped blobs, judged on the candidate's own inputs.

Errors do not accumulate, so the first failure is where the bug sits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from inspect import signature
from itertools import product
from typing import Any

import numpy as np

from refnet.arrays import INTEGER, Array, require_mapping, wide
from refnet.check import choices
from refnet.check.bounds import Claim, unit
from refnet.check.dumped import Dumped, as_dumped, laid_out
from refnet.check.expected import Expected, Known, UnderivedError, of_errors
from refnet.check.flow import Flow, flow
from refnet.check.formulas import FOREIGN
from refnet.check.jury import Call, Jury, Ways, names_of, one_way
from refnet.check.plausible import Levels
from refnet.check.precision import FORMATS, WAYS, Way
from refnet.check.report import Report, Verdict
from refnet.check.wrong_shape import explained
from refnet.errors import ValueRangeError, require_fraction, require_known
from refnet.given import clean_values
from refnet.inplace import names as names_in_place
from refnet.inputs.candidate import Candidate
from refnet.net import Net, Node, learns_from
from refnet.op import OUTPUT, Needs
from refnet.ops import OPS
from refnet.progress import Progress, silent, steps
from refnet.shapes import Shape, size, text

ALGORITHMS = ("direct", "winograd", "fft", "one-pass variance")
STORES = ("float64", "float32", "bfloat16", "float16")


def claimed(
    accumulate: str,
    store: str,
    operands: str,
    operand_rounding: str | None,
    flush_to_zero: bool,
    algorithm: str,
) -> Claim:
    """A claim, its words checked.

    Raises
    ------
    UnknownNameError
        Naming what is not known.
    """
    require_known("format to accumulate in", accumulate, STORES)
    require_known("format to store in", store, STORES)
    require_known("format of operands", operands, FORMATS)
    require_known("algorithm", algorithm, ALGORITHMS)
    if operand_rounding is not None:
        require_known("rounding of operands", operand_rounding, WAYS)
    return Claim(accumulate, store, operands, operand_rounding, bool(flush_to_zero), algorithm)


def certify(
    net: Net,
    given: Mapping[str, Array],
    candidate: Candidate | Mapping[str, Array],
    *,
    output_gradients: Mapping[str, Array] | None = None,
    gradients: Mapping[str, Array] | None = None,
    blob_gradients: Mapping[str, Array] | None = None,
    accumulate: str = "float32",
    store: str = "float32",
    operands: str = "float32",
    operand_rounding: str | None = None,
    flush_to_zero: bool = False,
    algorithm: str = "direct",
    fused: Iterable[Iterable[str]] = (),
    axes: str = "NCTHW",
    kernel_axes: str = "KCTHW",
    delta: float = 1e-6,
    progress: Progress = silent,
) -> Report:
    """Judge what an implementation under test has computed, node by node, on its own inputs.

    Each dumped blob is compared with what its operator, or the chain of operators from the nearest dumped
    blobs, makes of these in float64. The bound of each element follows from what the candidate claims, never
    from a tolerance: B, which no order of a sum exceeds, and the error that is expected of a plain chain. The
    differences are tested for structure. What fails is computed again under each mistake of a catalogue, and
    the one that explains it is named: docs/certify.md.

    Parameters
    ----------
    net : Net
    given : mapping of str to ndarray
        Inputs and parameters, as the candidate had them: float32, float64, bfloat16 or float16.
    candidate : Candidate or mapping of str to ndarray
        Values by node, or all by the original's in-place names. A blob may be missing.
    output_gradients : mapping of str to ndarray, optional
        What the candidate's backward pass started from, by node.
    gradients : mapping of str to ndarray, optional
        The candidate's gradients of inputs and parameters.
    blob_gradients : mapping of str to ndarray, optional
        Of nodes. A blob read by several has one: the sum. Those that are missing are derived from the
        nearest that are there.
    accumulate, store : {"float32", "float64", "bfloat16", "float16"}
        What the candidate claims: the format of its sums, and of its arrays.
    operands : {"float32", "tf32", "bfloat16", "float16", "float64"}
        The format to which operands of convolutions and linear layers are rounded.
    operand_rounding : {"nearest", "away", "zero"}, optional
        How: ties to even, ties away from zero, toward zero; None for any of them.
    flush_to_zero : bool
        Whether what is below the smallest normal number may be zero, operands included.
    algorithm : {"direct", "winograd", "fft", "one-pass variance"}
    fused : iterable of iterables of str
        Groups of nodes computed by one kernel, which hand on values that are not rounded to `store`.
    axes, kernel_axes : str
        The order of the candidate's own axes of blobs and of kernels, permutations of "NCTHW" and "KCTHW".
    delta : float
        The probability with which an honest candidate may be rejected by chance.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Report
        Verdicts by node of values, in the order of the net, then as ``"d NAME"`` of gradients of nodes,
        parameters and inputs, in the order of a backward pass.

    Raises
    ------
    RefnetError
        If what is given does not fit the net, or a claim is unknown. What the candidate lacks, or has in
        another shape or dtype, is a finding.
    """
    claim = claimed(accumulate, store, operands, operand_rounding, flush_to_zero, algorithm)
    require_fraction("delta", delta)
    parts = _Parts.of(net, candidate, output_gradients, gradients, blob_gradients)
    layout = axes, kernel_axes
    values = clean_values(net, {**parts.candidate.given, **given}, allow_nonfinite=True)
    with np.errstate(all="ignore"):
        walk = _Walk(net, values, parts, claim, _groups(net, fused), layout, delta, progress)
        walk.forward()
        walk.backward()
    return Report(
        title=f"a candidate of {len(net.nodes)} nodes",
        verdicts=walk.jury.verdicts,
        facts={
            **_facts(claim, delta),
            "fused": [sorted(group) for group in _groups(net, fused)],
            "axes": axes,
            "kernel axes": kernel_axes,
            "elements": sum(verdict.elements for verdict in walk.jury.verdicts.values()),
            "not dumped": walk.absent,
        },
    )


def _facts(claim: Claim, delta: float) -> dict[str, Any]:
    return {
        "accumulate": claim.accumulate,
        "store": claim.store,
        "operands": claim.operands,
        "operand rounding": claim.operand_rounding or "any",
        "flush to zero": claim.flush_to_zero,
        "algorithm": claim.algorithm,
        "delta": delta,
        "oracle": "core, float64",
    }


def check(
    op: str,
    arrays: Sequence[Array],
    y: Array | None = None,
    *,
    dy: Array | None = None,
    gradients: Sequence[Array | None] | None = None,
    accumulate: str = "float32",
    store: str = "float32",
    operands: str = "float32",
    operand_rounding: str | None = None,
    flush_to_zero: bool = False,
    algorithm: str = "direct",
    delta: float = 1e-6,
    **attrs: Any,
) -> Report:
    """Judge one call of an operator: its y, its gradients, or both.

    Parameters
    ----------
    op : str
        Such as "conv3d".
    arrays : sequence of ndarray
        What the operator read, in its order: x, w, b.
    y : ndarray, optional
        What was computed.
    dy : ndarray, optional
        What backward was given.
    gradients : sequence of (ndarray or None), optional
        What it returned, for each input in order.
    accumulate, store, operands, operand_rounding, flush_to_zero, algorithm, delta
        What is claimed: `certify`.
    **attrs
        The operator's: stride, pad, ...

    Returns
    -------
    Report
        Verdicts "y", "dx", "dw", ...: by the names of the operator's inputs.

    Raises
    ------
    RefnetError
        If the arrays do not fit the operator, or there is nothing to judge.
    """
    claim = claimed(accumulate, store, operands, operand_rounding, flush_to_zero, algorithm)
    require_fraction("delta", delta)
    require_known("operator", op, OPS)
    record = FOREIGN[op]
    read = [
        as_dumped(f"input {i} of {op}", a, integer=record.domain(i).integer) for i, a in enumerate(arrays)
    ]
    shape = record.output_shape(tuple(a.shape for a in read), attrs)
    given = [None] * len(read) if gradients is None else list(gradients)
    if y is None and all(g is None for g in given):
        raise ValueRangeError("there is nothing to judge: expected y, or dy and gradients")
    if len(given) != len(read):
        raise ValueRangeError(
            f"{len(given)} gradients are given: expected {len(read)}, one for each input, or None"
        )
    if dy is None and any(g is not None for g in given):
        raise ValueRangeError("gradients are given without dy: expected what backward was given")
    names = [f"d{name}" for name in list(signature(record.infer).parameters)[: len(read)]]
    shapes = [shape, *(a.shape for a in read)]
    jury = Jury(claim, Levels.of(shapes, delta))
    node = Node(op, op, (), attrs, shape)
    known = [Known(a) for a in read]
    with np.errstate(all="ignore"):
        if y is not None:
            found = _fitting(jury, Dumped("y", op, op, y), shape)
            if found is not None:
                ways: Ways = {way: partial(jury.oracle(way).forward, op, known, attrs) for way in jury.ways()}
                jury.judge("y", op, found, ways, Call(record, tuple(read), attrs, OUTPUT))
        if dy is not None and any(g is not None for g in given):
            needs = tuple(g is not None for g in given)
            taken = as_dumped("dy", dy)
            out = None if y is None else as_dumped("y", y)
            calls = _Backward(jury, node, Known(taken), known, out, needs)
            for index, gradient in enumerate(given):
                if gradient is None:
                    continue
                found = _fitting(jury, Dumped(names[index], op, op, gradient), read[index].shape)
                if found is not None:
                    _judge_gradient(jury, names[index], [calls.part(index)], found)
    return Report(title=f"one call of {op}", verdicts=jury.verdicts, facts=_facts(claim, delta) | {"op": op})


def _fitting(jury: Jury, dumped: Dumped, shape: Shape) -> Array | None:
    """A dumped array as it can be judged; None where that it cannot be is the finding."""
    array, (cause, hypothesis) = dumped.read(shape)
    if array is None:
        jury.fail(dumped.tensor, dumped.node, dumped.op, cause, hypothesis)
    return array


@dataclass(frozen=True)
class _Parts:
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
    ) -> "_Parts":
        if not isinstance(candidate, Candidate):
            require_mapping("candidate", candidate)
            candidate = Candidate(blobs=candidate)
        nodes = [node.name for node in net.nodes]
        given = [*net.inputs, *net.params]
        blobs = dict(candidate.blobs)
        in_place = names_in_place(net)
        if blobs and blobs.keys() == in_place.keys():
            blobs = {in_place[name]: array for name, array in blobs.items()}
        for name in blobs:
            require_known("node of the candidate", name, [*nodes, *net.inputs])
        starts = output_gradients if output_gradients is not None else candidate.output_gradients
        of_given = gradients if gradients is not None else candidate.gradients
        of_nodes = dict(blob_gradients if blob_gradients is not None else candidate.blob_gradients)
        for what, found, known in (
            ("output_gradients", starts, nodes),
            ("gradients", of_given, given),
            ("blob_gradients", of_nodes, [*nodes, *net.inputs]),
        ):
            require_mapping(what, found)
            for name in found:
                require_known(f"name of {what}", name, known)
        of_given = {**{n: of_nodes.pop(n) for n in list(of_nodes) if n in net.inputs}, **of_given}
        return cls(candidate, blobs, starts, of_given, of_nodes)


def _groups(net: Net, fused: Iterable[Iterable[str]]) -> list[frozenset[str]]:
    """Groups of nodes that hand on unrounded values."""
    groups = [frozenset([group] if isinstance(group, str) else group) for group in fused]
    for group in groups:
        for name in group:
            require_known("node of a fused group", name, [node.name for node in net.nodes])
    return groups


@dataclass(frozen=True)
class _Part:
    """What a reader hands back for the gradient of a value."""

    reader: str
    ways: Ways
    call: Call | None = None
    total: Callable[[Array], str] | None = None


class _Backward:
    """The backward call of one node, by each way in which operands may have been rounded."""

    def __init__(
        self, jury: Jury, node: Node, dy: Known, inputs: Sequence[Known], y: Array | None, needs: Needs
    ):
        self._jury, self._node, self._dy, self._inputs, self._needs = jury, node, dy, inputs, needs
        self._y = y
        self._pooled: choices.Pooled | None = None
        self._by_way = cache(self._gradients)

    def _gradients(self, way: Way | None) -> tuple[Expected | None, ...]:
        node, op = self._node, self._node.op
        if op == "relu":
            return (choices.rectified(self._dy, self._inputs[0], self._y),)
        if op == "max_pool3d":
            claim = self._jury.claim
            self._pooled = choices.pooled(
                self._dy, self._inputs[0], self._y, str(claim.accumulate), dict(node.attrs)
            )
            return (self._pooled.expected,)
        return self._jury.oracle(way).gradients(op, self._dy, self._inputs, self._needs, node.attrs)

    def _of(self, way: Way | None, index: int) -> Expected:
        found = self._by_way(way)[index]
        assert found is not None, "what is needed is there"
        return found

    def part(self, index: int) -> _Part:
        """What is handed back to one input."""
        op = FOREIGN[self._node.op]
        ways = self._jury.ways() if op.family == "product" else (None,)
        exact = self._dy.exact and all(known.exact for known in self._inputs)
        arrays = tuple(known.value for known in self._inputs)
        call = Call(op, arrays, dict(self._node.attrs), index, self._dy.value, exact)
        total = self._unshared if self._node.op == "max_pool3d" else None
        return _Part(self._node.name, {way: partial(self._of, way, index) for way in ways}, call, total)

    def _unshared(self, found: Array) -> str:
        """Say of the gradient of a max pool's input if it does not add up to that of its output."""
        if self._pooled is None or not self._pooled.chosen or not self._dy.exact:
            return ""
        dy, claim = wide(self._dy.value), self._jury.claim
        axes = tuple(range(2, dy.ndim))
        off = np.abs(wide(found).sum(axis=axes) - dy.sum(axis=axes))
        u = max(unit(claim.accumulate), unit(claim.store))
        windows = size(FOREIGN["max_pool3d"].window(found.shape, **self._node.attrs).kernel)  # type: ignore[misc]
        limit = (2 * windows * u + dy[0, 0].size * unit("float64")) * np.abs(dy).sum(axis=axes)
        wrong = int(np.count_nonzero(~(off <= limit)))
        if not wrong:
            return ""
        return (
            f"in {wrong} of {off.size} planes it does not add up to the gradient of the pool: "
            "each of several equal values has all of it, or none has"
        )


def _judge_gradient(
    jury: Jury, tensor: str, parts: Sequence[_Part], found: Array, node: str | None = None
) -> None:
    """Judge a gradient: the sum of what its readers hand back, operands rounded as fits best."""
    combined: dict[Any, Callable[[], Expected]] = {}
    for ways in product(*(part.ways for part in parts)):
        chosen = [part.ways[way] for part, way in zip(parts, ways, strict=True)]
        key = ways[0] if len(ways) == 1 else ways
        combined[key] = partial(_totalled, jury, chosen)
    call = parts[0].call if len(parts) == 1 else None
    where = node or parts[0].reader
    jury.judge(tensor, where, found, combined, call)
    verdict = jury.verdicts[tensor]
    if verdict.passes and len(parts) == 1 and parts[0].total is not None:
        said = parts[0].total(found)
        if said:
            jury.fail(tensor, where, verdict.op, said, "gradient to every tie")
    if not verdict.passes and len(parts) > 1 and verdict.verdict != "refused":
        _explain_sum(jury, tensor, parts, found)


def _totalled(jury: Jury, chosen: Sequence[Callable[[], Expected]]) -> Expected:
    return jury.oracle(None).total([one() for one in chosen])


def _explain_sum(jury: Jury, tensor: str, parts: Sequence[_Part], found: Array) -> None:
    """Say which reader's share a sum of gradients lacks, or has twice."""
    shares = [next(iter(part.ways.values()))() for part in parts]
    whole = np.asarray(sum(share.value for share in shares))
    limit = np.asarray(sum(share.stored(jury.claim).error() for share in shares)) * 2
    for part, share in zip(parts, shares, strict=True):
        for factor, said, name in ((-1, "lacks", "missing"), (1, "has twice", "doubled")):
            if (
                np.abs(found - (whole + factor * share.value))
                <= limit + unit(jury.claim.store) * np.abs(whole)
            ).all():
                jury.verdicts[tensor] = replace(
                    jury.verdicts[tensor],
                    cause=f"the sum of its readers' gradients {said} that of {part.reader}",
                    hypothesis=f"reader {name}",
                )
                return


class _Walk:
    """Goes through the net forward, then backward."""

    def __init__(
        self,
        net: Net,
        given: Mapping[str, Array],
        parts: _Parts,
        claim: Claim,
        fused: Sequence[frozenset[str]],
        layout: tuple[str, str],
        delta: float,
        progress: Progress,
    ):
        self._net, self._given, self._parts, self._claim, self._fused = net, given, parts, claim, fused
        self._axes, self._kernel_axes = layout
        found = [*parts.blobs, *parts.blob_gradients, *parts.gradients]
        self.jury = Jury(claim, Levels.of([net.shape(name) for name in found], delta))
        self._values: dict[str, Known] = {name: Known(value) for name, value in given.items()}
        self._dumped: dict[str, Array] = {}
        self._progress = progress
        self._handed: dict[str, list[_Part]] = {}
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
                if node.name in self._parts.blobs:
                    self.jury.refuse(node.name, node.name, node.op, str(error))
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
            expected = of_errors(rounded, np.zeros(()), None, 0)
            call = Call(FOREIGN["relu"], (given,), {}, OUTPUT, exact=False)
            self.jury.judge(name, name, found, one_way(replace(expected)), call)
            verdict = self.jury.verdicts[name]
            if not verdict.passes:
                self.jury.verdicts[name] = replace(verdict, op="", **_of_input(found, wide(given)))
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
            if dumped is None:
                return
            found = self._read(node.name, node.name, node.op, dumped, node.shape)
            if found is not None:
                self._hold(node, found)
                self.jury.refuse(
                    node.name, node.name, node.op, "what it reads was not dumped, and cannot be derived"
                )
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
        call = Call(op, tuple(known.value for known in inputs), dict(node.attrs), OUTPUT, exact=exact)
        self.jury.judge(node.name, node.name, found, ways, call, self._chain(node))
        self._hold(node, found)

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
        if op.family == "product" and operands is not None and unit(operands) > unit(self._claim.accumulate):
            # Either operand may be off by 2 u of itself, in a way that nobody saw.
            off = (
                wide(expected.absolute.reshape(expected.value.shape)) * expected.scale * (4 * unit(operands))
            )
            squares = (
                wide(expected.spread.reshape(expected.value.shape))
                * (expected.scale * 4 * unit(operands)) ** 2
            )
            return Known(known.value, known.error + off, known.variance + squares)
        return known

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
            self._hand(name, _Part("", one_way(_exactly(array))))
        step = steps(self._progress, "gradients", len(self._net.nodes))
        for node in reversed(self._net.nodes):
            self._judge_node(node, expected)
            step(node)
        self._finish(expected)

    def _hand(self, name: str, part: _Part) -> None:
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
        call = _Backward(self.jury, node, dy, inputs, self._dumped.get(node.name), needs)
        readers = self._readers()
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

    def _derived(self, parts: Sequence[_Part]) -> Known:
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
        self, tensor: str, node: Node, found: Array, parts: list[_Part], reached: bool
    ) -> None:
        if parts:
            try:
                # The node of a gradient is the one whose backward made it; of a sum, the node itself.
                where = parts[0].reader if len(parts) == 1 and parts[0].reader else node.name
                _judge_gradient(self.jury, tensor, parts, found, where)
            except UnderivedError as error:
                self.jury.refuse(tensor, node.name, node.op, str(error))
        elif not reached and found.any():
            self.jury.fail(
                tensor,
                node.name,
                node.op,
                "a gradient went through it, though a stop lies on each path to what is learnt: it leaks",
                "gradient leak",
            )

    @cache  # noqa: B019
    def _readers(self) -> dict[str, int]:
        """How many nodes read each input and parameter."""
        counts = dict.fromkeys((*self._net.inputs, *self._net.params), 0)
        for node in self._net.nodes:
            for name in node.inputs:
                if name in counts:
                    counts[name] += 1
        return counts

    def _judge_given(self, name: str, parts: list[_Part]) -> None:
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
            _judge_gradient(self.jury, tensor, parts, found)
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
                        "gradient leak",
                    )


def _exactly(value: Array) -> Expected:
    return Expected(value=wide(value), absolute=np.zeros(1, np.float32), spread=np.empty(0, np.float32))


def _of_input(found: Array, given: Array) -> dict[str, Any]:
    """What was done to an input before it was read."""
    if given.ndim != 5:
        return {"cause": "it is not what was given"}
    scale = np.abs(given).max(initial=0)
    near = 8 * unit("float32") * scale

    def same(a: Array, b: Array) -> bool:
        return a.shape == b.shape and bool((np.abs(a - b) <= near).all())

    changes: tuple[tuple[str, str, Array], ...] = (
        ("channels reversed", "its channels are in reverse order: BGR for RGB", given[:, ::-1]),
        ("time flipped", "its frames are in reverse order", given[:, :, ::-1]),
        ("lines reversed", "its lines are in reverse order", given[:, :, :, ::-1]),
        ("columns reversed", "its columns are in reverse order", given[..., ::-1]),
    )
    for name, said, changed in changes:
        if same(found, changed):
            return {"cause": said, "hypothesis": name}
    off = found - given
    mean = off.mean(axis=(0, 2, 3, 4), keepdims=True)
    if same(off - mean, np.zeros_like(off)):
        values = ", ".join(f"{v:.4g}" for v in mean.ravel())
        return {
            "cause": f"its channels are off by {values}: a mean not subtracted, or another",
            "hypothesis": "mean not subtracted",
        }
    ratio = float((wide(found) * given).sum() / max(np.square(given).sum(), 1e-300))
    if same(wide(found), given * ratio):
        return {"cause": f"it is {ratio:.6g} times what was given", "hypothesis": "scaled"}
    return {"cause": "it is not what was given"}


__all__ = ["ALGORITHMS", "STORES", "certify", "check", "claimed"]
