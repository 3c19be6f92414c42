"""Measuring beside peers: results checked first, then both in turn, and ratios pair by pair.

Each turn begins when the threads of the one before are asleep. A ratio of two calls that ran one after
the other holds when the machine's speed drifts; bare times, reported beside them, do not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from typing import Any, NamedTuple, TypeVar

from refnet import machine
from refnet.arithmetic import core
from refnet.arithmetic.core.conv3d import workspace_bytes
from refnet.bench import limits, own
from refnet.bench.agreement import Requirement, check, require_close, require_equal, roundoff
from refnet.bench.measurement import OPERATIONS, REFNET, Measurement, Spread
from refnet.bench.peer import Call, Calls, Peer
from refnet.bench.problem import Problem
from refnet.bench.problems import BASE, DOUBLED
from refnet.bench.threads import blas, limited
from refnet.errors import RefnetError
from refnet.inputs import fill
from refnet.net import Net
from refnet.networks import build
from refnet.ops import OPS
from refnet.progress import Progress
from refnet.shapes import Shape, size, text
from refnet.timing import seconds
from refnet.trace import backward_multiply_adds, trace
from refnet.trace.explanation import useful_multiply_adds

# A peer that takes longer than this, in seconds and in refnet's times, is measured once.
SLOW, FAR = 1.0, 10.0
TRAINING = "forward + backward"
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Setting:
    """How everything in a run is measured."""

    peers: Sequence[Peer]
    dtypes: Sequence[str]
    threads: int
    rounds: int
    progress: Progress


@dataclass(frozen=True)
class Sides:
    """What is measured: in each direction, a call of refnet's and each peer's."""

    ours: Mapping[str, Call]
    theirs: Mapping[str, Calls]

    def check(self, what: str, direction: str, require: Requirement) -> None:
        """Compare everything that each peer computes in a direction with refnet's."""
        mine = self.ours[direction]()
        for peer, calls in self.theirs.items():
            call = calls[direction]
            if not isinstance(call, str):
                check(f"{peer}: {what}", mine, call(), require)

    def beside(self, direction: str, rounds: int) -> "dict[str, Pairs | str]":
        """Each peer's seconds after refnet's."""
        ours, found = self.ours[direction], {peer: calls[direction] for peer, calls in self.theirs.items()}
        return {
            peer: call if isinstance(call, str) else pairs(ours, call, rounds, once_if_slow=True)
            for peer, call in found.items()
        }


def machine_facts(setting: Setting) -> dict[str, Any]:
    """The machine, and its limits on that many threads: multiply-adds and bytes a second."""
    with limited(setting.threads):
        facts = machine.facts() | {"threads": setting.threads, "bandwidth": limits.bandwidth(setting.threads)}
        facts["blas"], facts["blas_chosen"] = blas(), os.environ.get("OPENBLAS_CORETYPE", "")
        for dtype in setting.dtypes:
            gemm = limits.gemm(dtype)
            rates = Spread(tuple(limits.GEMM_SIZE**3 / seconds(gemm) for _ in range(limits.ATTEMPTS)))
            facts[dtype] = {
                "multiply_add_peak": limits.multiply_add_peak(dtype),
                "gemm_rate": rates.as_json(),
                "workspace_bytes_per_thread": workspace_bytes(dtype),
            }
    return facts


def exceeding(rows: Iterable[Measurement], machine: Mapping[str, Any]) -> Iterator[str]:
    """Say which figures are above what the machine can do at most, were all padding left out."""
    for row in rows:
        peak = OPERATIONS * machine[row.dtype]["multiply_add_peak"] / 1e9
        for name, all_of_them in row.gflops.items():
            rate = all_of_them * row.facts["useful_multiply_adds"] / row.facts["multiply_adds"]
            if rate > peak:
                less = "" if name == REFNET else "it multiplies less, as Winograd's algorithm does, or "
                yield (
                    f"{name} does {rate:.0f} GFLOP/s in {row.problem}, {row.direction}, {row.dtype}, padding "
                    f"not counted, more than the {peak:.0f} of multiply-adds in registers: {less}the machine "
                    "was busy when its peak was measured; measure again"
                )


def operators(problems: Sequence[Problem], setting: Setting) -> list[Measurement]:
    """Operators in every direction beside the peers; first all results are compared.

    Convolutions are compared on small whole numbers: sums of those are exact in every order and precision, so
    any difference is an error. Others are compared to half of their digits: a wrong formula shows there,
    a rounding does not.

    Raises
    ------
    DisagreementError
        If a peer's result is another; nothing has been timed then.
    """

    def sides(problem: Problem, dtype: str, whole: bool = False) -> Sides:
        inputs, dy = problem.arrays(dtype, whole)
        theirs = {peer.name: peer.operator(setting.threads, problem, inputs, dy) for peer in setting.peers}
        return Sides(own.operator(core, problem, inputs, dy), theirs)

    with limited(setting.threads):
        for problem, dtype in steps(setting, "check", problems):
            found = sides(problem, dtype, whole=problem.compute_bound)
            require = require_equal if problem.compute_bound else require_close(sqrt(roundoff(dtype)))
            for direction in problem.directions:
                found.check(f"{problem.name}, {direction}, {dtype}", direction, require)
        rows = []
        for problem, dtype in steps(setting, "measure", problems):
            found, cost = sides(problem, dtype), problem.cost(dtype)
            facts: dict[str, float] = {"bytes": cost.bytes}
            if problem.compute_bound:
                facts = problem.work | facts
                held_against = partial(_share_of_gemm, cost.multiply_adds, dtype)
            else:
                held_against = partial(_copies, limits.Copy(cost.bytes // 2, setting.threads))
            for direction in problem.directions:
                own_ratios, alone = held_against(found.ours[direction], setting.rounds)
                beside = found.beside(direction, setting.rounds)
                row = Measurement(problem.name, direction, dtype, facts, own_ratios, *timed(alone, beside))
                rows.append(row)
    return rows


def scaling(setting: Setting) -> list[Measurement]:
    """Time against work: N, T and HxW doubled, and all threads against one; refnet alone."""
    rows = []

    def calls(problem: Problem, dtype: str) -> dict[str, Call]:
        return own.operator(core, problem, *problem.arrays(dtype))

    with limited(setting.threads):
        for (axis, factors), dtype in steps(setting, "scaling", DOUBLED.items()):
            x, w = BASE.case.shapes
            larger = tuple(n * f for n, f in zip(x, factors, strict=True))
            doubled = replace(BASE, case=replace(BASE.case, shapes=(larger, w)))
            once, twice = calls(BASE, dtype), calls(doubled, dtype)
            for direction in BASE.directions:
                found = pairs(once[direction], twice[direction], setting.rounds)
                what, own_ratios = f"{BASE.name}, {axis} doubled", {"time": found.ratios}
                rows.append(Measurement(what, direction, dtype, {}, own_ratios, *timed(found, {})))
    for dtype in setting.dtypes if setting.threads > 1 else ():
        many = calls(BASE, dtype)
        for direction in BASE.directions:
            found = _on_threads(many[direction], setting)
            what, own_ratios = f"{BASE.name}, {setting.threads} threads for 1", {"time of one": found.ratios}
            seconds = {REFNET: found.first}
            rows.append(Measurement(what, direction, dtype, {}, own_ratios, {}, seconds))
    return rows


def nets(
    architectures: Sequence[str], input: Shape | None, options: Mapping[str, Any], setting: Setting
) -> list[Measurement]:
    """Whole nets forward and backward beside the peers: time, and peak memory of a process that does it.

    First every output and gradient is compared, by norm: `rounding_bound` says how.

    Raises
    ------
    DisagreementError
        If a peer's result is another; nothing has been timed then.
    RefnetError
        If an architecture is unknown, or does not take an option or the input.
    """
    built = {name: build(name, input=input, **options) for name in architectures}

    def sides(net: Net, dtype: str) -> Sides:
        given = fill.params(net, dtype=dtype) | fill.inputs(net, dtype=dtype)
        dys = fill.output_gradients(net, dtype=dtype)
        theirs: dict[str, Calls] = {
            peer.name: {
                TRAINING: peer.train(setting.threads, net, given, dys) if peer.train else "no whole nets"
            }
            for peer in setting.peers
        }
        return Sides({TRAINING: own.train(net, given, dys)}, theirs)

    with limited(setting.threads):
        for name, dtype in steps(setting, "check", architectures):
            require = require_close(rounding_bound(built[name], dtype), gradients=sqrt)
            sides(built[name], dtype).check(f"{name}, {dtype}", TRAINING, require)
        rows = []
        for name, dtype in steps(setting, "measure", architectures):
            net = built[name]
            found = sides(net, dtype)
            shown = [f"{name} on {text(next(iter(net.inputs.values())))}"]
            title = ", ".join([*shown, *(f"{option} {value}" for option, value in options.items())])
            facts = training_work(net)
            own_ratios, alone = _share_of_gemm(
                facts["multiply_adds"], dtype, found.ours[TRAINING], setting.rounds
            )
            beside = found.beside(TRAINING, setting.rounds)
            row = Measurement(title, TRAINING, dtype, facts, own_ratios, *timed(alone, beside))
            recipe = {"architecture": name, "input": input, "options": dict(options), "dtype": dtype}
            rows += [row, *_memory(row, recipe, setting.threads)]
    return rows


def training_multiply_adds(net: Net) -> int:
    """Those of a net forward and backward."""
    return sum(row.multiply_adds for row in trace(net)) + backward_multiply_adds(net)


def training_work(net: Net) -> dict[str, int]:
    """The same, and how many of them read no padding."""
    flow, trainable, useful = net.gradient_flow(), net.trainable(), 0
    for node in net.nodes:
        gradients = sum(name in trainable for name in node.inputs[:2]) if node.name in flow else 0
        of_one = useful_multiply_adds(OPS[node.op], *map(net.shape, node.inputs), **node.attrs)
        useful += (1 + gradients) * of_one
    return {"multiply_adds": training_multiply_adds(net), "useful_multiply_adds": useful}


def rounding_bound(net: Net, dtype: str) -> float:
    """How far apart two right results of a net may lie, over their norm.

    The unit roundoff times the terms of the sums of every product, added up over the net; for gradients
    the square root of that: a value within it of zero passes one ReLU and not the other, and a share p of
    such values is sqrt(p) of a norm.
    """
    terms = sum(row.multiply_adds // size(row.output) for row in trace(net))
    return roundoff(dtype) * terms


def _share_of_gemm(
    multiply_adds: int, dtype: str, call: Call, rounds: int
) -> "tuple[dict[str, Spread], Pairs]":
    """The rate of multiply-adds as a share of a GEMM's, and the seconds of both."""
    found = pairs(limits.gemm(dtype), call, rounds)
    gemms = multiply_adds / limits.GEMM_SIZE**3
    return {"share of GEMM": Spread(tuple(gemms / ratio for ratio in found.ratios.values))}, found


def _copies(copy: limits.Copy, call: Call, rounds: int) -> "tuple[dict[str, Spread], Pairs]":
    """The time over that of a copy, and the seconds of both."""
    found = pairs(copy, call, rounds)
    return {"copies": found.ratios}, found


class Pairs(NamedTuple):
    """Seconds of two that ran in turn."""

    first: Spread
    second: Spread

    @property
    def ratios(self) -> Spread:
        """The second's over the first's, pair by pair."""
        both = zip(self.first.values, self.second.values, strict=True)
        return Spread(tuple(second / first for first, second in both))


def timed(
    alone: Pairs, beside: Mapping[str, Pairs | str]
) -> tuple[dict[str, Spread | str], dict[str, Spread]]:
    """Peers' ratios, and everybody's seconds: refnet's are those of the pairs in which it came second."""
    ratios = {peer: found if isinstance(found, str) else found.ratios for peer, found in beside.items()}
    theirs = {peer: found.second for peer, found in beside.items() if not isinstance(found, str)}
    return ratios, {REFNET: alone.second} | theirs


def pairs(
    first: Callable[[], Any],
    second: Callable[[], Any],
    rounds: int,
    *,
    once_if_slow: bool = False,
) -> Pairs:
    """Run both in turn."""

    def pair() -> tuple[float, float]:
        return seconds(first), seconds(second)

    found = [pair()]
    own_time, their_time = found[0]
    if once_if_slow and their_time > max(SLOW, FAR * own_time):
        rounds = 1
    found += [pair() for _ in range(rounds - 1)]
    return Pairs(Spread(tuple(a for a, _ in found)), Spread(tuple(b for _, b in found)))


def _on_threads(call: Call, setting: Setting) -> Pairs:
    """Seconds of all threads and of one, in turn."""

    def on(threads: int) -> float:
        with limited(threads):
            return seconds(call)

    on(setting.threads)
    on(1)
    found = [(on(setting.threads), on(1)) for _ in range(setting.rounds)]
    return Pairs(Spread(tuple(a for a, _ in found)), Spread(tuple(b for _, b in found)))


def _memory(timed: Measurement, recipe: Mapping[str, Any], threads: int) -> Iterator[Measurement]:
    """Peak memory of a fresh process for each side, and how far it rose above what was there before."""
    ours = peak(recipe, None, threads)
    peers = [peer for peer, cell in timed.peers.items() if not isinstance(cell, str)]
    theirs = {peer: peak(recipe, peer, threads) for peer in peers}
    for what, label in (("peak", "peak memory"), ("risen", "of it, above the process before")):
        ratios: dict[str, Spread | str] = {
            peer: Spread((found[what] / ours[what],)) for peer, found in theirs.items()
        }
        facts = {"bytes": ours[what]} | {f"bytes of {peer}": found[what] for peer, found in theirs.items()}
        yield Measurement(timed.problem, label, timed.dtype, facts, {}, timed.peers | ratios)


def peak(recipe: Mapping[str, Any], peer: str | None, threads: int) -> dict[str, float]:
    """Peak memory of a fresh process that runs a net, by refnet or a peer, and how far it rose for that."""
    request = json.dumps(dict(recipe) | {"peer": peer, "threads": threads})
    command = [sys.executable, "-m", "refnet.bench.peak", request]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["no message"])[-1]
        raise RefnetError(f"the process that measures memory ended with {done.returncode}: {reason}")
    found: dict[str, float] = json.loads(done.stdout)
    return {"peak": found["peak"], "risen": found["peak"] - found["before"]}


def steps(setting: Setting, stage: str, things: Iterable[Thing]) -> Iterator[tuple[Thing, str]]:
    """Everything in each dtype, told to `progress`."""
    pairs = [(thing, dtype) for thing in things for dtype in setting.dtypes]
    for done, pair in enumerate(pairs):
        setting.progress(stage, done, len(pairs))
        yield pair
    setting.progress(stage, len(pairs), len(pairs))
