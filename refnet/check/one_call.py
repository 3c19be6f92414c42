"""One call of an operator that somebody else has made, judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

from numpy.typing import DTypeLike

from refnet.arrays import Array
from refnet.check.claims import claimed, facts, reproducible, require_delta
from refnet.check.dumped import Dumped, as_dumped
from refnet.check.expected import Known
from refnet.check.formulas import FOREIGN
from refnet.check.handed import Backward, judge_gradient
from refnet.check.jury import Call, Jury, Ways
from refnet.check.plausible import Levels
from refnet.check.report import Report
from refnet.environment import errstate
from refnet.errors import DTypeError, ValueRangeError, kind_of, require_known
from refnet.net import Node
from refnet.op import OUTPUT
from refnet.ops import OPS
from refnet.shapes import Shape


def check(
    op: str,
    arrays: Sequence[Array],
    y: Array | None = None,
    *,
    dy: Array | None = None,
    gradients: Sequence[Array | None] | None = None,
    accumulate: DTypeLike = "float32",
    store: DTypeLike = "float32",
    operands: DTypeLike = "float32",
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
    require_delta(delta)
    if isinstance(y, tuple):
        raise DTypeError(f"y is a tuple of {len(y)}: expected an array, of what forward returns the first")
    _require_sequence("arrays", arrays)
    _require_sequence("gradients", gradients or ())
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
    with errstate(all="ignore"):
        if y is not None:
            found = _fitting(jury, Dumped("y", op, op, y), shape)
            if found is not None:
                ways: Ways = {way: partial(jury.oracle(way).forward, op, known, attrs) for way in jury.ways()}
                jury.judge("y", op, found, ways, Call(record, tuple(read), attrs, OUTPUT))
        if dy is not None and any(g is not None for g in given):
            needs = tuple(g is not None for g in given)
            taken = as_dumped("dy", dy)
            out = None if y is None else as_dumped("y", y)
            calls = Backward(jury, node, Known(taken), known, out, needs)
            for index, gradient in enumerate(given):
                if gradient is None:
                    continue
                found = _fitting(jury, Dumped(names[index], op, op, gradient), read[index].shape)
                if found is not None:
                    judge_gradient(jury, names[index], [calls.part(index)], found)
    jury.settle()
    report = Report(title=f"one call of {op}", verdicts=jury.verdicts, facts=facts(claim, delta) | {"op": op})
    call = [f"check({op!r}, arrays", *(["y"] if y is not None else [])]
    call += ["dy=dy, gradients=gradients"] if gradients is not None else []
    return reproducible(report, ", ".join(call), claim, **attrs)


def _fitting(jury: Jury, dumped: Dumped, shape: Shape) -> Array | None:
    """A dumped array as it can be judged; None where that it cannot be is the finding."""
    array, (cause, hypothesis) = dumped.read(shape)
    if array is None:
        jury.fail(dumped.tensor, dumped.node, dumped.op, cause, hypothesis)
    return array


def _require_sequence(what: str, found: object) -> None:
    """Refuse what is no sequence of arrays."""
    if not isinstance(found, Sequence):
        advice = "a sequence, in the order of the operator's inputs"
        raise DTypeError(f"{what} is {kind_of(found)}: expected {advice}")
