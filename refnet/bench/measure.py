"""Measuring beside peers: results checked first, then both in turn, and ratios pair by pair.

A ratio of two calls that ran one after the other holds when the machine's speed drifts; bare times are
not reported.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import geometric_mean, median
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from refnet import machine
from refnet.arithmetic import core
from refnet.arithmetic.core.conv3d import workspace_bytes
from refnet.arrays import Array
from refnet.bench import limits, own
from refnet.bench.peer import DIRECTIONS, Call, Calls, Peer
from refnet.bench.problems import BASE, DOUBLED
from refnet.errors import RefnetError
from refnet.inputs import fill
from refnet.inputs.fill import uniform
from refnet.net import Net
from refnet.networks import build
from refnet.op import Case
from refnet.ops import OPS
from refnet.progress import Progress
from refnet.shapes import Shape, size, text
from refnet.timing import PAUSE, seconds
from refnet.trace import backward_multiply_adds, trace

# A peer that takes longer than this, in seconds and in refnet's times, is measured once.
SLOW, FAR = 1.0, 10.0
TRAINING = "forward + backward"
Thing = TypeVar("Thing")


class DisagreementError(Exception):
    """A peer's result is not refnet's."""


@dataclass(frozen=True)
class Spread:
    """Numbers measured one after the other, such as ratios pair by pair."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    def as_json(self) -> dict[str, Any]:
        """All of them, and what is shown of them."""
        found = {"median": self.median, "least": min(self.values), "most": max(self.values)}
        return found | {"values": list(self.values)}


@dataclass(frozen=True)
class Row:
    """One thing measured.

    Attributes
    ----------
    problem, direction, dtype : str
    facts : dict
        Whole numbers and rates that the ratios rest on.
    own : dict of str to Spread
        Ratios of refnet's alone, by what they are: to the GEMM rate, to a copy, to less work.
    peers : dict of str to Spread or str
        For each peer its time, or memory, over refnet's; in words why there is none.
    """

    problem: str
    direction: str
    dtype: str
    facts: Mapping[str, float]
    own: dict[str, Spread]
    peers: dict[str, Spread | str]

    def as_json(self) -> dict[str, Any]:
        """Everything, in what JSON has."""
        own = {name: spread.as_json() for name, spread in self.own.items()}
        peers = {
            name: {"unavailable": cell} if isinstance(cell, str) else cell.as_json()
            for name, cell in self.peers.items()
        }
        named = {"problem": self.problem, "direction": self.direction, "dtype": self.dtype}
        return named | {"facts": dict(self.facts), "own": own, "peers": peers}


@dataclass(frozen=True)
class Setting:
    """How everything in a run is measured."""

    peers: Sequence[Peer]
    dtypes: Sequence[str]
    threads: int
    rounds: int
    progress: Progress


def machine_facts(setting: Setting) -> dict[str, Any]:
    """The machine, and its limits on that many threads: multiply-adds and bytes a second."""
    with threadpool_limits(setting.threads):
        facts = machine.facts() | {"threads": setting.threads, "bandwidth": limits.bandwidth(setting.threads)}
        facts["blas_chosen"] = os.environ.get("OPENBLAS_CORETYPE", "")
        for dtype in setting.dtypes:
            gemm = limits.gemm(dtype)
            rates = Spread(tuple(limits.GEMM_SIZE**3 / seconds(gemm) for _ in range(limits.ATTEMPTS)))
            facts[dtype] = {
                "multiply_add_peak": limits.multiply_add_peak(dtype),
                "gemm_rate": rates.as_json(),
                "workspace_bytes_per_thread": workspace_bytes(dtype),
            }
    return facts


def convolutions(cases: Sequence[Case], setting: Setting) -> list[Row]:
    """Convolution in every direction beside the peers; first all are exact on small whole numbers.

    Sums of small whole numbers are exact in every order and precision, so any difference is an error.

    Raises
    ------
    DisagreementError
        If a peer's result is another; nothing has been timed then.
    """

    def calls(case: Case, dtype: str, whole: bool) -> tuple[Calls, dict[str, Calls]]:
        arrays = drawn(case, dtype, whole)
        theirs = {peer.name: peer.conv3d(setting.threads, *arrays, case.attrs) for peer in setting.peers}
        return own.conv3d(core, *arrays, case.attrs), theirs

    with threadpool_limits(setting.threads):
        for case, dtype in _steps(setting, "check", cases):
            ours, theirs = calls(case, dtype, whole=True)
            for direction in DIRECTIONS:
                _check(f"{case.name}, {direction}, {dtype}", direction, ours, theirs, _require_equal)
        rows = []
        for case, dtype in _steps(setting, "measure", cases):
            ours, theirs = calls(case, dtype, whole=False)
            cost = OPS["conv3d"].cost(*case.shapes, itemsize=np.dtype(dtype).itemsize, **case.attrs)
            facts = {"multiply_adds": cost.multiply_adds, "bytes": cost.bytes}
            for direction in DIRECTIONS:
                rows.append(_share(case.name, direction, dtype, facts, ours, theirs, setting.rounds))
    return rows


def operators(table: Mapping[str, Sequence[Case]], setting: Setting) -> list[Row]:
    """Every other operator, forward and backward, beside the peers and beside a copy of half its bytes.

    Results are first compared to half of their digits: a wrong formula shows there, a rounding does not.

    Raises
    ------
    DisagreementError
        If a peer's result is another; nothing has been timed then.
    """
    named = [(op, case) for op, cases in table.items() for case in cases]

    def calls(op: str, case: Case, dtype: str) -> tuple[Calls, dict[str, Calls]]:
        inputs, dy = _operator_arrays(op, case, dtype)
        ours = own.operator(core, op, inputs, dy, case.attrs)
        theirs: dict[str, Calls] = {}
        for peer in setting.peers:
            if peer.operator is None:
                theirs[peer.name] = dict.fromkeys(ours, "convolution only")
            else:
                theirs[peer.name] = peer.operator(setting.threads, op, inputs, dy, case.attrs)
        return ours, theirs

    with threadpool_limits(setting.threads):
        for (op, case), dtype in _steps(setting, "check", named):
            ours, theirs = calls(op, case, dtype)
            for direction in ours:
                what = f"{case.name}, {direction}, {dtype}"
                _check(what, direction, ours, theirs, _require_close(sqrt(_roundoff(dtype))))
        rows = []
        for (op, case), dtype in _steps(setting, "measure", named):
            ours, theirs = calls(op, case, dtype)
            moved = OPS[op].cost(*case.shapes, itemsize=np.dtype(dtype).itemsize, **case.attrs).bytes
            copy = limits.Copy(moved // 2, setting.threads)
            for direction in ours:
                call = _call(ours[direction])
                own_ratios = {"copies": Spread(_pairs(copy, call, setting.rounds))}
                cells = _beside(direction, call, theirs, setting.rounds)
                rows.append(Row(case.name, direction, dtype, {"bytes": moved}, own_ratios, cells))
    return rows


def scaling(setting: Setting) -> list[Row]:
    """Time against work: N, T and HxW doubled, and all threads against one; refnet alone."""
    rows = []

    def calls(case: Case, dtype: str) -> dict[str, Call]:
        return own.conv3d(core, *drawn(case, dtype, whole=False), case.attrs)

    with threadpool_limits(setting.threads):
        for (axis, factors), dtype in _steps(setting, "scaling", DOUBLED.items()):
            x, w = BASE.shapes
            doubled = Case(BASE.name, (tuple(n * f for n, f in zip(x, factors, strict=True)), w), BASE.attrs)
            once, twice = calls(BASE, dtype), calls(doubled, dtype)
            for direction in DIRECTIONS:
                own_ratios = {"time": Spread(_pairs(once[direction], twice[direction], setting.rounds))}
                rows.append(Row(f"{BASE.name}, {axis} doubled", direction, dtype, {}, own_ratios, {}))
    for dtype in setting.dtypes if setting.threads > 1 else ():
        many = calls(BASE, dtype)
        for direction in DIRECTIONS:
            ratios = _thread_ratios(many[direction], setting)
            what = f"{BASE.name}, {setting.threads} threads for 1"
            rows.append(Row(what, direction, dtype, {}, {"time of one": Spread(ratios)}, {}))
    return rows


def nets(
    architectures: Sequence[str], input: Shape | None, options: Mapping[str, Any], setting: Setting
) -> list[Row]:
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

    def calls(net: Net, dtype: str) -> tuple[Calls, dict[str, Calls]]:
        given = fill.params(net, dtype=dtype) | fill.inputs(net, dtype=dtype)
        dys = fill.output_gradients(net, dtype=dtype)
        theirs: dict[str, Calls] = {
            peer.name: {
                TRAINING: peer.train(setting.threads, net, given, dys) if peer.train else "no whole nets"
            }
            for peer in setting.peers
        }
        return {TRAINING: own.train(net, given, dys)}, theirs

    with threadpool_limits(setting.threads):
        for name, dtype in _steps(setting, "check", architectures):
            ours, theirs = calls(built[name], dtype)
            require = _require_close(rounding_bound(built[name], dtype), gradients=sqrt)
            _check(f"{name}, {dtype}", TRAINING, ours, theirs, require)
        rows = []
        for name, dtype in _steps(setting, "measure", architectures):
            net = built[name]
            ours, theirs = calls(net, dtype)
            work = sum(row.multiply_adds for row in trace(net)) + backward_multiply_adds(net)
            title = ", ".join(
                [
                    f"{name} on {text(next(iter(net.inputs.values())))}",
                    *(f"{k} {v}" for k, v in options.items()),
                ]
            )
            row = _share(title, TRAINING, dtype, {"multiply_adds": work}, ours, theirs, setting.rounds)
            rows.append(row)
            recipe = {"architecture": name, "input": input, "options": dict(options), "dtype": dtype}
            timed = [peer for peer, cell in row.peers.items() if not isinstance(cell, str)]
            rows += _memory(title, dtype, recipe, row, timed, setting.threads)
    return rows


def rounding_bound(net: Net, dtype: str) -> float:
    """How far apart two right results of a net may lie, over their norm.

    The unit roundoff times the terms of the sums of every product, added up over the net; for gradients
    the square root of that: a value within it of zero passes one ReLU and not the other, and a share p of
    such values is sqrt(p) of a norm.
    """
    terms = sum(row.multiply_adds // size(row.output) for row in trace(net))
    return _roundoff(dtype) * terms


def geometric_means(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """For each dtype and peer, the geometric mean of the medians."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for peer, cell in row.peers.items():
            if not isinstance(cell, str):
                found.setdefault(row.dtype, {}).setdefault(peer, []).append(cell.median)
    return {
        dtype: {peer: geometric_mean(ratios) for peer, ratios in peers.items()}
        for dtype, peers in found.items()
    }


def drawn(case: Case, dtype: str, whole: bool) -> tuple[Array, Array, Array]:
    """x, w and dy of a convolution: U(-1, 1), or whole numbers from -2 to 2."""
    shapes = (*case.shapes, OPS["conv3d"].infer(*case.shapes, **case.attrs))
    arrays = (uniform(name, shape, 0) for name, shape in zip(("x", "w", "dy"), shapes, strict=True))
    x, w, dy = ((np.rint(2 * a) if whole else a).astype(dtype) for a in arrays)
    return x, w, dy


def _operator_arrays(op: str, case: Case, dtype: str) -> tuple[list[Array], Array]:
    """Legal inputs of an operator, and dy."""
    inputs = []
    for i, shape in enumerate(case.shapes):
        values, draw = uniform(f"{case.name} {i}", shape, 0), OPS[op].domain(i).draw
        values = values if draw is None else draw(values, *case.shapes, **case.attrs)
        inputs.append(values if values.dtype == np.int64 else values.astype(dtype))
    dy = uniform("dy", OPS[op].infer(*case.shapes, **case.attrs), 0).astype(dtype)
    return inputs, dy


def _share(
    problem: str,
    direction: str,
    dtype: str,
    facts: Mapping[str, float],
    ours: Calls,
    theirs: Mapping[str, Calls],
    rounds: int,
) -> Row:
    """Measure beside the peers, and the rate of multiply-adds as a share of a GEMM's."""
    call = _call(ours[direction])
    ratios = _pairs(limits.gemm(dtype), call, rounds, pause=limits.PAUSE_AFTER_GEMM)
    gemms = facts["multiply_adds"] / limits.GEMM_SIZE**3
    share = Spread(tuple(gemms / ratio for ratio in ratios))
    return Row(
        problem, direction, dtype, facts, {"share of GEMM": share}, _beside(direction, call, theirs, rounds)
    )


def _beside(direction: str, call: Call, theirs: Mapping[str, Calls], rounds: int) -> dict[str, Spread | str]:
    """Each peer's time over refnet's."""
    found = {peer: calls[direction] for peer, calls in theirs.items()}
    return {
        peer: their if isinstance(their, str) else Spread(_pairs(call, their, rounds, once_if_slow=True))
        for peer, their in found.items()
    }


def _pairs(
    first: Callable[[], Any],
    second: Callable[[], Any],
    rounds: int,
    *,
    once_if_slow: bool = False,
    pause: float = PAUSE,
) -> tuple[float, ...]:
    """Run both in turn: the second's time over the first's, pair by pair."""

    def pair() -> tuple[float, float]:
        return seconds(first), seconds(second, pause=pause)

    pairs = [pair()]
    own_time, their_time = pairs[0]
    if once_if_slow and their_time > max(SLOW, FAR * own_time):
        rounds = 1
    pairs += [pair() for _ in range(rounds - 1)]
    return tuple(b / a for a, b in pairs)


def _thread_ratios(call: Call, setting: Setting) -> tuple[float, ...]:
    """One thread's seconds over those of all, in turn."""

    def timed(threads: int) -> float:
        with threadpool_limits(threads):
            return seconds(call)

    timed(setting.threads)
    timed(1)
    return tuple(timed(1) / timed(setting.threads) for _ in range(setting.rounds))


def _memory(
    title: str, dtype: str, recipe: Mapping[str, Any], row: Row, peers: Sequence[str], threads: int
) -> Iterator[Row]:
    """Peak memory of a fresh process for each side, and how far it rose above what was there before."""
    ours = _peak(recipe, None, threads)
    theirs = {peer: _peak(recipe, peer, threads) for peer in peers}
    for what, label in (("peak", "peak memory"), ("risen", "of it, above the process before")):
        cells: dict[str, Spread | str] = {
            peer: Spread((theirs[peer][what] / ours[what],)) if peer in theirs else cell
            for peer, cell in row.peers.items()
        }
        facts = {"bytes": ours[what]} | {f"bytes of {peer}": found[what] for peer, found in theirs.items()}
        yield Row(title, label, dtype, facts, {}, cells)


def _peak(recipe: Mapping[str, Any], peer: str | None, threads: int) -> dict[str, float]:
    request = json.dumps(dict(recipe) | {"peer": peer, "threads": threads})
    command = [sys.executable, "-m", "refnet.bench.peak", request]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["no message"])[-1]
        raise RefnetError(f"the process that measures memory ended with {done.returncode}: {reason}")
    peak: dict[str, float] = json.loads(done.stdout)
    return {"peak": peak["peak"], "risen": peak["peak"] - peak["before"]}


def _steps(setting: Setting, stage: str, things: Iterable[Thing]) -> Iterator[tuple[Thing, str]]:
    """Everything in each dtype, told to `progress`."""
    pairs = [(thing, dtype) for thing in things for dtype in setting.dtypes]
    for done, pair in enumerate(pairs):
        setting.progress(stage, done, len(pairs))
        yield pair
    setting.progress(stage, len(pairs), len(pairs))


def _call(found: Call | str) -> Call:
    """What refnet computes; it lacks nothing."""
    assert not isinstance(found, str)
    return found


def _check(
    what: str,
    direction: str,
    ours: Calls,
    theirs: Mapping[str, Calls],
    require: Callable[[str, str, Array, Array], None],
) -> None:
    """Compare everything that each peer computes with refnet's."""
    mine = _call(ours[direction])()
    for peer, calls in theirs.items():
        their = calls[direction]
        if isinstance(their, str):
            continue
        found = their()
        if found.keys() != mine.keys():
            odd = sorted(found.keys() ^ mine.keys())
            raise DisagreementError(f"{peer}: {what}: only one of the two has {odd[0]}; nothing is timed")
        for name in mine:
            if found[name].shape != mine[name].shape:
                shapes = f"{text(found[name].shape)}, refnet's {text(mine[name].shape)}"
                raise DisagreementError(f"{peer}: {what}: {name} is {shapes}; nothing is timed")
            require(f"{peer}: {what}", name, mine[name], found[name])


def _require_equal(what: str, name: str, ours: Array, theirs: Array) -> None:
    if not np.array_equal(ours, theirs):
        count = int((ours != theirs).sum())
        raise DisagreementError(
            f"{what}: {count} of {ours.size} values of {name} are not refnet's, "
            "on whole numbers; nothing is timed"
        )


def _require_close(
    bound: float, gradients: Callable[[float], float] = float
) -> Callable[[str, str, Array, Array], None]:
    """Compare by norm, gradients with a bound of their own."""

    def require(what: str, name: str, ours: Array, theirs: Array) -> None:
        most = gradients(bound) if name.startswith("gradient") else bound
        distance, norm = float(np.linalg.norm(ours - theirs)), float(np.linalg.norm(ours))
        if not distance <= most * norm:
            raise DisagreementError(
                f"{what}: {name} is {distance / norm if norm else distance:.1e} of its norm away from "
                f"refnet's, more than {most:.1e}; nothing is timed"
            )

    return require


def _roundoff(dtype: str) -> float:
    return float(np.finfo(dtype).eps) / 2
