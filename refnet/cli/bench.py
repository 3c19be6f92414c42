"""``refnet bench``."""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from refnet.arithmetic import find_arithmetic
from refnet.arrays import DTYPES
from refnet.bench import arithmetics, duration, load, measure
from refnet.bench.agreement import DisagreementError
from refnet.bench.measure import Setting
from refnet.bench.measurement import Measurement, geometric_means
from refnet.bench.peers import PEERS
from refnet.bench.problem import Problem
from refnet.bench.problems import BASE, CONVOLUTIONS, DOUBLED, OTHERS
from refnet.cli.ending import FAILED, fail, say
from refnet.cli.options import (
    Input,
    Json,
    Options,
    completing,
    dashed,
    in_range,
    number,
    one_arithmetic,
    parse_shape,
    parse_words,
    takes_groups,
)
from refnet.errors import RefnetError, ValueRangeError, suggestion
from refnet.net import Net
from refnet.networks import ARCHITECTURES, build
from refnet.ops import OPS
from refnet.progress import silent
from refnet.render import figure, files, measured, roofline, terminal

# Above so many problems a message names half as many.
MOST_NAMED = 6


def words_of_problems(context: typer.Context, incomplete: str) -> list[str]:
    """Complete an operator, or a word of a name, of the problems that are measured by what is given so far.

    Whole names have blanks and arrows, which a shell would take for its own.
    """
    if context.params.get("arch"):
        return []
    problems = measurable(context.params.get("operators"))
    words = [word.strip(",") for problem in problems for word in problem.name.split()]
    telling = [word for word in words if len(word) > 2 and shlex.quote(word) == word]
    known = dict.fromkeys([*(problem.op for problem in problems), *telling])
    return [word for word in known if word.startswith(incomplete)]


@takes_groups
def bench(
    context: typer.Context,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this whole net; can be given several times.",
            autocompletion=completing(ARCHITECTURES),
        ),
    ] = None,
    input: Input = None,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar=",".join(PEERS),
            help="Beside these. [default: all that are installed]",
            autocompletion=completing(PEERS),
        ),
    ] = None,
    threads: Annotated[int | None, number("Of each implementation. [default: all]")] = None,
    rounds: Annotated[int, number("Pairs of runs that a ratio is the median of.")] = 5,
    dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="One or both.", autocompletion=completing(DTYPES))
    ] = ",".join(reversed(DTYPES)),
    arithmetic: Annotated[
        str,
        one_arithmetic("One or more, with commas; all but core are held against core's float64"),
    ] = "core",
    only: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help=f"Problems of this operator, or of this name: {BASE.name}.",
            autocompletion=words_of_problems,
        ),
    ] = None,
    operators: Annotated[bool, typer.Option("--operators", help="Measure what is no convolution.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg|FILE.png", help="Draw convolutions under the roofs (extra `plots`)."),
    ] = None,
    as_json: Json = False,
    *,
    options: Options,
) -> None:
    """Measure beside what is installed. Convolutions, operators or whole nets, results checked first.

    `refnet bench diff A.json B.json` compares two reports.
    """
    if context.invoked_subcommand is not None:
        for name in context.params:
            if (place := context.get_parameter_source(name)) and place.name == "COMMANDLINE":
                raise ValueRangeError(f"{dashed(name)} is given before diff, which measures nothing")
        return
    facts = peer_facts(peers)
    most = os.cpu_count() or 1
    threads = most if threads is None else in_range("--threads", threads, most)
    in_range("--rounds", rounds, 1000)
    dtypes = parse_words("--dtype", "dtype", dtype, DTYPES)
    used = {source: find_arithmetic(source) for source in arithmetic.split(",")}
    architectures = list(dict.fromkeys(arch or ()))
    shape = None if input is None else parse_shape("--input", input)
    for name in architectures:
        require_no_operator(name)
        build(name, input=shape, **options)
    if not architectures:
        require_no_options(input, options)
    elif operators or only is not None:
        other = "--operators" if operators else "--only"
        raise ValueRangeError(f"--arch and {other}: expected one of the two")
    if plot is not None:
        if architectures or operators:
            other = "--arch" if architectures else "--operators"
            raise ValueRangeError(f"--plot draws convolutions: expected it without {other}")
        if "core" not in used:
            raise ValueRangeError(f"--plot draws what core does: expected core in --arithmetic {arithmetic}")
        files.require_writable(plot, *figure.KINDS)
        figure.require_matplotlib()
    problems = named_problems(operators, only)
    usable = [PEERS[name] for name, found in facts.items() if "unusable" not in found]
    silent_setting = Setting(usable, dtypes, threads, rounds, silent)
    whole = [build(name, input=shape, **options) for name in architectures]
    calls = works(problems, whole, used, scaling=only is None and not operators)
    seconds = duration.expected(calls, len(whole) * len(dtypes) * len(used), silent_setting)
    beside = f", beside {', '.join(peer.name for peer in usable)}" if usable else ""
    say(f"measuring takes {duration.text(seconds)}{beside}")
    before = load.look()
    if (warning := load.busy(before, threads)) is not None:
        say(warning)
    start = load.Moment.now()
    with terminal.progress_bar(as_json) as progress:
        setting = replace(silent_setting, progress=progress)
        try:
            rows: dict[str, list[Measurement]] = {}
            if architectures and "core" in used:
                rows["nets"] = measure.nets(architectures, shape, options, setting)
            elif "core" in used:
                rows["operators" if operators else "convolutions"] = measure.operators(problems, setting)
                if only is None and not operators:
                    rows["scaling"] = measure.scaling(setting)
            for source in (source for source in used if source != "core"):
                if architectures:
                    rows[source] = arithmetics.nets(source, architectures, shape, options, setting)
                else:
                    rows[source] = arithmetics.operators(used[source], problems, setting)
        except DisagreementError as error:
            fail(str(error), FAILED)
        during = load.others(start)
        limits = measure.machine_facts(setting) | {"load": load.facts(before, during)}
    warnings = [line for line in (load.busy(max(before, during), threads),) if line is not None]
    warnings += measure.exceeding([row for section in rows.values() for row in section], limits)
    if plot is not None:
        terminal.save(plot, roofline.drawn(rows["convolutions"], limits, plot.suffix[1:].lower()), as_json)
    if as_json:
        print_rows(rows, setting, limits, facts, warnings)
    else:
        lines = [*measured.machine_lines(limits, dtypes), *measured.peer_lines(facts)]
        lines += [f"Warning: {warning}" for warning in warnings]
        measured.show(rows, lines, terminal.screen())


def require_no_operator(name: str) -> None:
    """Refuse an operator where a network is expected, and say which options measure it."""
    if name in OPS:
        only = f" --only {name}" if any(name == problem.op for problem in OTHERS) else ""
        options = "" if name == "conv3d" else f" --operators{only}"
        raise ValueRangeError(f"{name} is an operator: expected refnet bench{options}")


def require_no_subject(name: str) -> None:
    """Refuse a network, an operator or a file where `bench` takes options alone, and say what takes it."""
    require_no_operator(name)
    if name.endswith(".json"):
        file = shlex.quote(name)
        write = f"refnet bench --json > {file}, for --json prints"
        read = f"refnet bench diff {file} OTHER.json"
        raise ValueRangeError(f"{name} is a file: expected {read if Path(name).exists() else write}")
    if name in ARCHITECTURES:
        raise ValueRangeError(f"{name} is an architecture: expected refnet bench --arch {name}")


def works(
    problems: Sequence[Problem], nets: Sequence[Net], used: Iterable[str], scaling: bool
) -> Iterator[tuple[str, float, float]]:
    """What is measured, as `refnet.bench.duration.expected` takes it."""
    for source in used:
        for net in nets:
            yield source, measure.training_multiply_adds(net), 0
        for problem in problems if not nets else ():
            cost = problem.cost(DTYPES[-1])
            yield from [(source, cost.multiply_adds, cost.bytes)] * len(problem.directions)
    if scaling and not nets and "core" in used:
        cost = BASE.cost(DTYPES[-1])
        work = ("core", 2 * cost.multiply_adds, 2 * cost.bytes)
        yield from [work] * (len(DOUBLED) + 1) * len(BASE.directions)


def peer_facts(named: str | None) -> dict[str, dict[str, Any]]:
    """What a report says about each peer: about all, or those named, which must be usable."""
    chosen = list(PEERS) if named is None else parse_words("--peers", "peer", named, PEERS)
    facts = {name: PEERS[name].facts() for name in chosen}
    for found in facts.values() if named is not None else ():
        if "unusable" in found:
            raise RefnetError(found["unusable"])
    return facts


def require_no_options(input: str | None, options: Mapping[str, Any]) -> None:
    """Refuse what only a net takes."""
    for name in (*(["input"] if input is not None else []), *options):
        raise ValueRangeError(f"{dashed(name)} is given, but no net: expected --arch too")


def measurable(operators: bool | None) -> Sequence[Problem]:
    """Convolutions, or what is none."""
    return OTHERS if operators else CONVOLUTIONS


def named_problems(operators: bool, part: str | None) -> list[Problem]:
    """The problems that have it in their name, or are of that operator: convolutions, or what is none."""
    here, elsewhere = measurable(operators), measurable(not operators)

    def among(problems: Iterable[Problem]) -> list[Problem]:
        return [p for p in problems if part is None or part in p.name or part == p.op]

    found = among(here)
    if not found and among(elsewhere):
        advice = "it without --operators" if operators else "--operators too"
        raise ValueRangeError(f"--only is {part!r}, in the name of other problems: expected {advice}")
    if not found:
        advice = suggestion(part, [problem.name for problem in here], most=MOST_NAMED)
        raise ValueRangeError(f"--only is {part!r}, in the name of no problem: {advice}")
    return found


def print_rows(
    rows: Mapping[str, Sequence[Measurement]],
    setting: Setting,
    limits: Mapping[str, Any],
    peers: Mapping[str, Any],
    warnings: Sequence[str],
) -> None:
    """Print what was measured as JSON."""
    settings = {"threads": setting.threads, "rounds": setting.rounds, "dtypes": setting.dtypes}
    sections = {name: [row.as_json() for row in section] for name, section in rows.items()}
    means = {name: geometric_means(section) for name, section in rows.items()}
    terminal.print_json(
        {
            "settings": settings,
            "machine": limits,
            "peers": peers,
            **sections,
            "geometric_means": means,
            "warnings": warnings,
        }
    )
