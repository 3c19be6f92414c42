"""Gradients as readers hand them back: what each should be, and their sum, judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np

from refnet.arrays import Array, wide
from refnet.check import choices
from refnet.check.bounds import unit
from refnet.check.expected import Expected, Known, Oracle
from refnet.check.formulas import FOREIGN
from refnet.check.jury import Call, Jury, Ways
from refnet.check.precision import WAYS, Format, Way, below
from refnet.net import Node
from refnet.op import Needs
from refnet.shapes import pooling, size


@dataclass(frozen=True)
class Part:
    """What a reader hands back for the gradient of a value.

    Attributes
    ----------
    reader : str
        "" for the output's own gradient.
    ways : mapping
        What it should be, by each way in which operands may have been rounded.
    call : Call, optional
    total : callable, optional
        Says of a gradient that passes element by element if it does not add up.
    """

    reader: str
    ways: Ways
    call: Call | None = None
    total: Callable[[Array], str] | None = None


class Backward:
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
            return (choices.rectified(self._dy, self._inputs[0], self._y, self._jury.claim),)
        if op == "max_pool3d":
            self._pooled = choices.pooled(
                self._dy, self._inputs[0], self._y, self._jury.claim, dict(node.attrs)
            )
            return (self._pooled.expected,)
        return self._jury.oracle(way).gradients(op, self._dy, self._inputs, self._needs, node.attrs)

    def _of(self, way: Way | None, index: int) -> Expected:
        found = self._by_way(way)[index]
        assert found is not None, "what is needed is there"
        return found

    def part(self, index: int) -> Part:
        """What is handed back to one input."""
        op = FOREIGN[self._node.op]
        ways = self._jury.ways() if op.family == "product" else (None,)
        exact = self._dy.exact and all(known.exact for known in self._inputs)
        arrays = tuple(known.value for known in self._inputs)
        call = Call(op, arrays, dict(self._node.attrs), index, self._dy.value, exact)
        total = self._unshared if self._node.op == "max_pool3d" else None
        return Part(self._node.name, {way: partial(self._of, way, index) for way in ways}, call, total)

    def _unshared(self, found: Array) -> str:
        """Say of the gradient of a max pool's input if it does not add up to that of its output."""
        if self._pooled is None or not self._pooled.chosen or not self._dy.exact:
            return ""
        dy, claim = wide(self._dy.value), self._jury.claim
        axes = tuple(range(2, dy.ndim))
        off = np.abs(wide(found).sum(axis=axes) - dy.sum(axis=axes))
        u = max(unit(claim.accumulate), unit(claim.store))
        windows = size(pooling(found.shape, **self._node.attrs).kernel)
        limit = (2 * windows * u + dy[0, 0].size * unit("float64")) * np.abs(dy).sum(axis=axes)
        wrong = int(np.count_nonzero(~(off <= limit)))
        if not wrong:
            return ""
        return (
            f"in {wrong} of {off.size} planes it does not add up to the gradient of the pool: "
            "each of several equal values has all of it, or none has"
        )


def judge_gradient(
    jury: Jury, tensor: str, parts: Sequence[Part], found: Array, node: str | None = None
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
            jury.fail(tensor, where, verdict.op, said, "every tie")
    if not verdict.passes and len(parts) > 1 and verdict.verdict != "refused":
        _explain_sum(jury, tensor, parts, found)


def _totalled(jury: Jury, chosen: Sequence[Callable[[], Expected]]) -> Expected:
    return jury.oracle(None).total([one() for one in chosen])


def _explain_sum(jury: Jury, tensor: str, parts: Sequence[Part], found: Array) -> None:
    """Say which reader's share a sum of gradients lacks, has twice, or has as a mistake makes it."""
    shares = [next(iter(part.ways.values()))() for part in parts]
    whole = np.asarray(sum(share.value for share in shares))
    limit = np.asarray(sum(share.stored(jury.claim).error() for share in shares)) * 2
    limit += unit(jury.claim.store) * np.abs(whole)
    for part, share in zip(parts, shares, strict=True):
        for factor, said, name in ((-1, "lacks", "once"), (1, "has twice", "twice")):
            if (np.abs(found - (whole + factor * share.value)) <= limit).all():
                jury.verdicts[tensor] = replace(
                    jury.verdicts[tensor],
                    cause=f"the sum of its readers' gradients {said} that of {part.reader}",
                    hypothesis=f"fan-out added {name}",
                )
                return
    narrow = _narrow_operands(jury, parts, shares, found)
    if narrow is not None:
        form, way = narrow
        jury.verdicts[tensor] = replace(
            jury.verdicts[tensor],
            cause=f"it is the sum of gradients of operands rounded to {form.title}, {WAYS[way]}",
            hypothesis=f"operands {form.name} {way}",
        )
        return
    for part, share in zip(parts, shares, strict=True):
        if part.call is not None and part.call.exact:
            own = (found - (whole - share.value)).astype(found.dtype)
            cause = jury.explained(part.call, own, share.stored(jury.claim), limit)
            if cause is not None and not cause.hypothesis.startswith("sums"):
                jury.verdicts[tensor] = replace(
                    jury.verdicts[tensor],
                    node=part.reader,
                    op=part.call.op.name,
                    cause=f"of {part.reader}, {cause.sentence}",
                    hypothesis=cause.hypothesis,
                )
                return


def _narrow_operands(
    jury: Jury, parts: Sequence[Part], shares: Sequence[Expected], found: Array
) -> tuple[Format, Way] | None:
    """The format to which the operands of all products among the readers were rounded, and how."""
    for form in below(jury.claim.accumulate):
        claim = jury.claim._replace(operands=form.name)
        for way in WAYS:
            narrow = [
                jury.again(claim, part.call, part.call.arrays, way)
                if part.call is not None and part.call.exact and part.call.op.family == "product"
                else share
                for part, share in zip(parts, shares, strict=True)
            ]
            expected = Oracle(claim).total(narrow).stored(claim)
            limit = jury.levels.largest * np.sqrt(expected.variance(2.0))
            if (np.abs(found - expected.value) <= np.minimum(limit, expected.error())).all():
                return form, way
    return None
