"""``refnet bench``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from refnet.arrays import DTYPES
from refnet.bench import measure
from refnet.bench.agreement import DisagreementError
from refnet.bench.peers import PEERS
from refnet.bench.problems import CONVOLUTIONS, OTHERS
from refnet.bench.rows import geometric_means
from refnet.cli.ending import FAILED, fail
from refnet.cli.options import Input, Json, Options, in_range, number, parse_shape, parse_words, takes_groups
from refnet.errors import RefnetError, ValueRangeError
from refnet.networks import build
from refnet.render import figure, files, measured, roofline, terminal


@takes_groups
def bench(
    arch: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure this whole net; can be given several times."),
    ] = None,
    input: Input = None,
    peers: Annotated[
        str | None,
        typer.Option(metavar=",".join(PEERS), help="Beside these; all that are installed if not given."),
    ] = None,
    threads: Annotated[int | None, number("Of each implementation; all if not given.")] = None,
    rounds: Annotated[int, number("Pairs of runs that a ratio is the median of.")] = 5,
    dtype: Annotated[str, typer.Option(help="One or both.")] = ",".join(reversed(DTYPES)),
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
    """Measure beside what is installed, results checked first: convolutions, operators or whole nets."""
    chosen = list(PEERS) if peers is None else parse_words("--peers", "peer", peers, PEERS)
    facts = {name: PEERS[name].facts() for name in chosen}
    unusable = [found["unusable"] for found in facts.values() if "unusable" in found]
    if peers is not None and unusable:
        raise RefnetError(unusable[0])
    most = os.cpu_count() or 1
    threads = most if threads is None else in_range("--threads", threads, most)
    in_range("--rounds", rounds, 1000)
    dtypes = parse_words("--dtype", "dtype", dtype, DTYPES)
    architectures = list(dict.fromkeys(arch or ()))
    shape = None if input is None else parse_shape("--input", input)
    for name in architectures:
        build(name, input=shape, **options)
    given = [*(["input"] if input is not None else []), *options]
    if given and not architectures:
        raise ValueRangeError(f"--{given[0].replace('_', '-')} is given, but no net: expected --arch too")
    if architectures and (operators or only is not None):
        other = "--operators" if operators else "--only"
        raise ValueRangeError(f"--arch and {other}: expected one of the two")
    if plot is not None:
        require_plot(plot, architectures, operators)
    problems = [p for p in (OTHERS if operators else CONVOLUTIONS) if only is None or only in p.name]
    if not problems:
        raise ValueRangeError(f"--only is {only!r}: expected a part of a problem's name")
    with terminal.progress_bar(as_json) as progress:
        usable = [PEERS[name] for name in chosen if "unusable" not in facts[name]]
        setting = measure.Setting(usable, dtypes, threads, rounds, progress)
        try:
            if architectures:
                rows = {"nets": measure.nets(architectures, shape, options, setting)}
            else:
                rows = {"operators" if operators else "convolutions": measure.operators(problems, setting)}
                if only is None and not operators:
                    rows["scaling"] = measure.scaling(setting)
        except DisagreementError as error:
            fail(str(error), FAILED)
        limits = measure.machine_facts(setting)
    if plot is not None:
        terminal.save(plot, roofline.svg(rows["convolutions"], limits), as_json)
    if as_json:
        settings = {"threads": threads, "rounds": rounds, "dtypes": dtypes}
        sections = {name: [row.as_json() for row in section] for name, section in rows.items()}
        means = {name: geometric_means(section) for name, section in rows.items()}
        return terminal.print_json(
            {"settings": settings, "machine": limits, "peers": facts, **sections, "geometric_means": means}
        )
    lines = [*measured.machine_lines(limits, dtypes), *measured.peer_lines(facts)]
    measured.show(rows, lines, terminal.screen())


def require_plot(plot: Path, architectures: Sequence[str], operators: bool) -> None:
    """Refuse a plot of anything but convolutions, or one that could not be written."""
    if architectures or operators:
        other = "--arch" if architectures else "--operators"
        raise ValueRangeError(f"--plot draws convolutions: expected it without {other}")
    files.require_writable(plot, ".svg")
    figure.require_matplotlib()
