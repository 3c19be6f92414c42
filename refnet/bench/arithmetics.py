"""Measuring an arithmetic beside core, and beside peers, all those in float64: whatever its own dtype is.

Who wants correctly rounded float32 has float64 as the other way to it, core's or a peer's, and that is what
the time is held against. Results are checked first.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from refnet.arithmetic import Arithmetic, core, find_arithmetic
from refnet.arithmetic.exact.fallback import Count, counted
from refnet.bench import own
from refnet.bench.agreement import Requirement, require_close, require_equal, roundoff
from refnet.bench.measure import (
    TRAINING,
    Setting,
    Sides,
    pairs,
    peak,
    rounding_bound,
    steps,
    training_work,
)
from refnet.bench.measurement import REFNET, Measurement, Spread
from refnet.bench.peer import Call, Calls
from refnet.bench.problem import Problem
from refnet.bench.threads import limited
from refnet.inputs import fill
from refnet.networks import build
from refnet.run import backward, forward
from refnet.shapes import Shape, text

DOUBLE = "float64"
IN_INTEGERS = "in integers, %"


@dataclass(frozen=True)
class Subject:
    """What is measured, in any dtype and arithmetic.

    Attributes
    ----------
    name : str
    directions : tuple of str
    ours : ``(arithmetic, dtype, whole) -> calls``
        By direction; of small whole numbers, where those are wanted.
    theirs : ``() -> calls of each peer``
        In float64.
    require : ``(dtype) -> requirement``
        How far its results may be from core's.
    exactly : bool
        Whether that is shown on whole numbers.
    counts : ``(arithmetic, dtype, direction) -> counts``
        How many elements are computed, and how many of those in integers.
    facts : dict
        What is known of each direction: multiply-adds, where they bound the time.
    """

    name: str
    directions: tuple[str, ...]
    ours: Callable[[Arithmetic, str, bool], Mapping[str, Call]]
    theirs: Callable[[], Mapping[str, Calls]]
    require: Callable[[str], Requirement]
    exactly: bool
    counts: Callable[[Arithmetic, str, str], Iterable[Count]]
    facts: Mapping[str, float]

    def check(self, arithmetic: Arithmetic, dtype: str) -> None:
        """Compare everything that is computed with core's."""
        both = (self.ours(core, dtype, self.exactly), self.ours(arithmetic, dtype, self.exactly))
        sides = Sides(both[0], {arithmetic.name: both[1]})
        for direction in self.directions:
            sides.check(f"{self.name}, {direction}, {dtype}", direction, self.require(dtype))

    def measured(self, arithmetic: Arithmetic, dtype: str, rounds: int) -> Iterator[Measurement]:
        """A row for each direction."""
        calls, double = self.ours(arithmetic, dtype, False), self.ours(core, DOUBLE, False)
        theirs = self.theirs()
        for direction in self.directions:
            beside = {"core": double[direction]} | {peer: of[direction] for peer, of in theirs.items()}
            found = {
                name: pairs(call, calls[direction], rounds)
                for name, call in beside.items()
                if not isinstance(call, str)
            }
            ratios = {f"over {name}'s {DOUBLE}": pair.ratios for name, pair in found.items()}
            seconds = {REFNET: found["core"].second} | {name: pair.first for name, pair in found.items()}
            counts = list(self.counts(arithmetic, dtype, direction))
            facts: dict[str, float] = {
                **self.facts,
                "elements": sum(count.elements for count in counts),
                "undecided": sum(count.undecided for count in counts),
            }
            if counts:
                ratios[IN_INTEGERS] = Spread((100 * facts["undecided"] / facts["elements"],))
            yield Measurement(self.name, direction, dtype, facts, ratios, {}, seconds)


def operators(arithmetic: Arithmetic, problems: Sequence[Problem], setting: Setting) -> list[Measurement]:
    """Operators in every direction; first all results are compared with core's.

    Raises
    ------
    DisagreementError
        If a result is another; nothing has been timed then.
    """
    return list(_rows(arithmetic, [_operator(problem, setting) for problem in problems], setting))


def nets(
    source: str,
    architectures: Sequence[str],
    input: Shape | None,
    options: Mapping[str, Any],
    setting: Setting,
) -> list[Measurement]:
    """Whole nets forward and backward, time and peak memory; first all results are compared with core's.

    The arithmetic is found by its source (`refnet.arithmetic.find_arithmetic`), here and in the processes
    whose memory is measured.

    Raises
    ------
    DisagreementError
        If a result is another; nothing has been timed then.
    RefnetError
        If an architecture is unknown, or does not take an option or the input.
    """
    arithmetic, rows = find_arithmetic(source), []
    for name in architectures:
        recipe = {"architecture": name, "input": input, "options": dict(options)}
        for row in _rows(arithmetic, [_net(name, input, options, setting)], setting):
            rows += [row, *_memory(row, source, recipe, setting.threads)]
    return rows


def _rows(arithmetic: Arithmetic, subjects: Sequence[Subject], setting: Setting) -> Iterator[Measurement]:
    with limited(setting.threads):
        for subject, dtype in steps(setting, f"check {arithmetic.name}", subjects):
            subject.check(arithmetic, dtype)
        for subject, dtype in steps(setting, arithmetic.name, subjects):
            yield from subject.measured(arithmetic, dtype, setting.rounds)


def _operator(problem: Problem, setting: Setting) -> Subject:
    def ours(arithmetic: Arithmetic, dtype: str, whole: bool) -> Mapping[str, Call]:
        return own.operator(arithmetic, problem, *problem.arrays(dtype, whole))

    def theirs() -> Mapping[str, Calls]:
        arrays = problem.arrays(DOUBLE)
        return {peer.name: peer.operator(setting.threads, problem, *arrays) for peer in setting.peers}

    def require(dtype: str) -> Requirement:
        return require_equal if problem.compute_bound else require_close(sqrt(roundoff(dtype)))

    def counts(arithmetic: Arithmetic, dtype: str, direction: str) -> Iterable[Count]:
        call = ours(arithmetic, dtype, False)[direction]
        with counted() as found:
            call()
        return found.of.values()

    facts = problem.work if problem.compute_bound else {}
    exactly = problem.compute_bound
    return Subject(problem.name, problem.directions, ours, theirs, require, exactly, counts, facts)


def _net(name: str, input: Shape | None, options: Mapping[str, Any], setting: Setting) -> Subject:
    net = build(name, input=input, **options)

    def arrays(dtype: str) -> tuple[Any, Any]:
        given = fill.params(net, dtype=dtype) | fill.inputs(net, dtype=dtype)
        return given, fill.output_gradients(net, dtype=dtype)

    def ours(arithmetic: Arithmetic, dtype: str, whole: bool) -> Mapping[str, Call]:
        return {TRAINING: own.train(net, *arrays(dtype), arithmetic)}

    def theirs() -> Mapping[str, Calls]:
        given, dys = arrays(DOUBLE)
        return {
            peer.name: {TRAINING: peer.train(setting.threads, net, given, dys) if peer.train else "none"}
            for peer in setting.peers
        }

    def require(dtype: str) -> Requirement:
        return require_close(rounding_bound(net, dtype), gradients=sqrt)

    def counts(arithmetic: Arithmetic, dtype: str, direction: str) -> Iterable[Count]:
        given, dys = arrays(dtype)
        run = forward(net, given, arithmetic, keep="outputs")
        both = run.fallbacks, backward(run, dys).fallbacks
        return [count for of in both for by_what in of.values() for count in by_what.values()]

    shown = [f"{name} on {text(next(iter(net.inputs.values())))}"]
    title = ", ".join([*shown, *(f"{option} {value}" for option, value in options.items())])
    facts = training_work(net)
    return Subject(title, (TRAINING,), ours, theirs, require, False, counts, facts)


def _memory(
    timed: Measurement, source: str, recipe: Mapping[str, Any], threads: int
) -> Iterator[Measurement]:
    """Peak memory of a fresh process over that of one which does it in core's float64."""
    theirs = peak({**recipe, "dtype": DOUBLE}, None, threads)
    ours = peak({**recipe, "dtype": timed.dtype, "arithmetic": source}, None, threads)
    for what, label in (("peak", "peak memory"), ("risen", "of it, above the process before")):
        ratio = {f"over core's {DOUBLE}": Spread((ours[what] / theirs[what],))}
        facts = {"bytes": ours[what], f"bytes of core in {DOUBLE}": theirs[what]}
        yield Measurement(timed.problem, label, timed.dtype, facts, ratio, {})
