"""``refnet bench``."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from refnet.arithmetic import find_arithmetic
from refnet.arrays import DTYPES
from refnet.bench import arithmetics, measure
from refnet.bench.agreement import DisagreementError
from refnet.bench.measure import Setting
from refnet.bench.measurement import Measurement, geometric_means
from refnet.bench.peers import PEERS
from refnet.bench.problem import Problem
from refnet.bench.problems import CONVOLUTIONS, OTHERS
from refnet.cli.ending import FAILED, fail
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
from refnet.errors import RefnetError, ValueRangeError
from refnet.networks import ARCHITECTURES, build
from refnet.render import figure, files, measured, roofline, terminal


@takes_groups
def bench(
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
        str | None, typer.Option(metavar="TEXT", help="Problems that have this in their name.")
    ] = None,
    operators: Annotated[bool, typer.Option("--operators", help="Measure what is no convolution.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw convolutions under the roofs (extra `plots`)."),
    ] = None,
    as_json: Json = False,
    *,
    options: Options,
) -> None:
    """Measure beside what is installed. Convolutions, operators or whole nets, results checked first."""
    facts = peer_facts(peers)
    most = os.cpu_count() or 1
    threads = most if threads is None else in_range("--threads", threads, most)
    in_range("--rounds", rounds, 1000)
    dtypes = parse_words("--dtype", "dtype", dtype, DTYPES)
    used = {source: find_arithmetic(source) for source in arithmetic.split(",")}
    architectures = list(dict.fromkeys(arch or ()))
    shape = None if input is None else parse_shape("--input", input)
    for name in architectures:
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
        files.require_writable(plot, ".svg")
        figure.require_matplotlib()
    problems = named_problems(OTHERS if operators else CONVOLUTIONS, only)
    usable = [PEERS[name] for name, found in facts.items() if "unusable" not in found]
    with terminal.progress_bar(as_json) as progress:
        setting = Setting(usable, dtypes, threads, rounds, progress)
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
        limits = measure.machine_facts(setting)
    if plot is not None:
        terminal.save(plot, roofline.svg(rows["convolutions"], limits), as_json)
    if as_json:
        print_rows(rows, setting, limits, facts)
    else:
        lines = [*measured.machine_lines(limits, dtypes), *measured.peer_lines(facts)]
        measured.show(rows, lines, terminal.screen())


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


def named_problems(problems: Sequence[Problem], part: str | None) -> list[Problem]:
    """The problems that have it in their name."""
    found = [problem for problem in problems if part is None or part in problem.name]
    if not found:
        raise ValueRangeError(f"--only is {part!r}: expected a part of a problem's name")
    return found


def print_rows(
    rows: Mapping[str, Sequence[Measurement]],
    setting: Setting,
    limits: Mapping[str, Any],
    peers: Mapping[str, Any],
) -> None:
    """Print what was measured as JSON."""
    settings = {"threads": setting.threads, "rounds": setting.rounds, "dtypes": setting.dtypes}
    sections = {name: [row.as_json() for row in section] for name, section in rows.items()}
    means = {name: geometric_means(section) for name, section in rows.items()}
    terminal.print_json(
        {"settings": settings, "machine": limits, "peers": peers, **sections, "geometric_means": means}
    )
