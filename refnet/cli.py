"""The command line: ``refnet --help``.

Exit codes: 0 fine, 1 a check failed, 2 unusable input (one line says what), 128 + n stopped by signal n.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from math import prod
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

from refnet import golden, machine, memory
from refnet.arithmetic import ARITHMETICS
from refnet.arrays import DTYPES, Array
from refnet.bench import measure
from refnet.bench.measure import Row
from refnet.bench.peers import PEERS
from refnet.bench.problems import CONV3D, OPERATORS
from refnet.errors import RefnetError, ShapeError, ValueRangeError, require_known
from refnet.golden.bundle import Bundle, Recipe, require_free
from refnet.inputs import fill
from refnet.inputs.clip import Selection
from refnet.networks import ARCHITECTURES, build
from refnet.networks.resnet3d import TRANSFORMATIONS
from refnet.networks.time_link import LINKS
from refnet.op import Case
from refnet.progress import Progress, steps
from refnet.remat import blob_bytes
from refnet.render import figure, files, measured, page, roofline, terminal
from refnet.render.facts import FREEZE_COLUMNS, FREEZE_NOTE, freeze_rows, short
from refnet.shapes import Shape, text
from refnet.shapes import size as elements
from refnet.trace import FreezePoint, freeze_points
from refnet.trace import trace as trace_net
from refnet.trace.explanation import explain as explain_node
from refnet.trace.receptive import text as field_text

FAILED, UNUSABLE = 1, 2
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
# Names of the differing tensors that a person is shown; --json has them all.
MOST_SHOWN = 40
# Columns of a terminal from which on a trace has room for every digit.
TRACE_WIDTH = 110
# ... and from which on for receptive fields too.
FIELD_WIDTH = 130

app = typer.Typer(
    help="A correctness oracle for 3D residual networks: golden values, on any CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
golden_app = typer.Typer(help="Golden bundles: make, verify, compare.", no_args_is_help=True)
app.add_typer(golden_app, name="golden")


def integer(value: str) -> int:
    """Read a whole number."""
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number") from None


def number(help: str) -> Any:
    """Declare an option that takes a whole number."""
    return typer.Option(parser=integer, metavar="INTEGER", help=help)


Arch = Annotated[str, typer.Argument(metavar="ARCH", help="A name of `refnet list`.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
Input = Annotated[
    str | None,
    typer.Option(
        metavar="NxCxTxHxW", help="Shape of the input; 1x3x8x224x224, of a classifier 1x3x1x224x224."
    ),
]


def optional_number(help: str) -> Any:
    """Declare an architecture's option that takes a whole number."""
    return Annotated[int | None, number(help)]


def optional_flag(names: str, help: str) -> Any:
    """Declare an architecture's option that is on or off."""
    return Annotated[bool | None, typer.Option(names, help=help)]


def optional_word(known: Iterable[str], help: str) -> Any:
    """Declare an architecture's option that takes a word."""
    return Annotated[str | None, typer.Option(help=f"{help}: {', '.join(known)}.")]


# The options of the architectures; where one is not given, the architecture decides.
CHOICES = {
    "transformation": optional_word(TRANSFORMATIONS, "The kind of block"),
    "freeze_at": optional_number("Stage behind which gradients stop; 0: none."),
    "time_kernel": optional_number("Odd kernel size along T, from res3 on."),
    "time_stride": optional_flag("--time-stride/--no-time-stride", "Stride in T too, from res3 on."),
    "groups": optional_number("Groups of branch2b."),
    "width_per_group": optional_number("Inner width of res2, per group."),
    "stride_1x1": optional_flag("--stride-1x1/--stride-3x3", "Where a bottleneck strides."),
    "dilation": optional_number("Dilation of res5 in H and W."),
    "batch_norm": optional_flag("--batch-norm/--affine", "Batch norms in place of frozen affines."),
    "training": optional_flag("--training/--inference", "Batch norms by the batch's own statistics."),
    "rois": optional_number("Tubes of a head over regions."),
    "resolution": optional_number("Lines and columns of a pooled region, 14 or 7."),
    "sampling_ratio": optional_number("Samples of RoIAlign per bin and axis; 0: adaptive."),
    "aligned": optional_flag("--aligned/--legacy", "RoIAlign with or without the half-pixel shift."),
    "link": optional_word(LINKS, "Between body and head"),
    "classes": optional_number("Classes of a classifier."),
}


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all architectures; it is called with those that were given."""

    @wraps(command)
    def wrapped(**values: Any) -> None:
        given = {name: values.pop(name) for name in CHOICES}
        command(**values, options={name: value for name, value in given.items() if value is not None})

    own = [p for p in signature(command).parameters.values() if p.name != "options"]
    added = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in CHOICES.items()]
    wrapped.__signature__ = Signature([*own, *added])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return wrapped


Clip = Annotated[Path | None, typer.Option(help="A video, a folder of images, .npy or .npz.")]
Frames = Annotated[int | None, number("Frames of the clip; those of the input if not given.")]
Stride = Annotated[int | None, number("Take every so many-th; 1 if not given.")]
Start = Annotated[int | None, number("Index of the first; 0 if not given.")]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Resize frames to this.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the architectures, with their sizes for the default options and input."""
    rows: list[dict[str, Any]] = []
    for architecture in ARCHITECTURES.values():
        net = build(architecture.name)
        rows.append(
            {
                "name": architecture.name,
                "blocks": list(architecture.block_counts),
                "feat_dims": list(architecture.feat_dims),
                "input": list(architecture.input),
                "options": architecture.options,
                "params": sum(map(elements, net.params.values())),
                "multiply_adds": sum(row.multiply_adds for row in trace_net(net)),
                "outputs": {name: list(shape) for name, shape in net.outputs.items()},
            }
        )
    if as_json:
        return print_json({"architectures": rows})
    table = Table("architecture", "blocks", "widths", "input", box=None)
    for column in ("parameters", "multiply-adds"):
        table.add_column(column, justify="right")
    table.add_column("outputs")
    for row in rows:
        table.add_row(
            row["name"],
            " ".join(map(str, row["blocks"])),
            " ".join(map(str, row["feat_dims"])),
            text(row["input"]),
            f"{row['params'] / 1e6:.2f} M",
            f"{row['multiply_adds'] / 1e9:.2f} G",
            outputs_text(row["outputs"]),
        )
    show(table)
    screen().print("\nThe options of each, with their defaults: refnet list --json.")


@app.command()
def info(as_json: Json = False) -> None:
    """Show what decides about bits and speed here: versions, BLAS, OpenMP, processor, kernels."""
    facts = machine.facts() | {
        "memory_available": memory.available(),
        "kernels": machine.kernels(),
    }
    if as_json:
        return print_json(facts)
    table = Table(box=None, show_header=False)
    shown = {
        **facts,
        "blas": "\n".join(facts["blas"]),
        "memory_available": memory.text(facts["memory_available"]),
        "kernels": "\n".join(f"{op}: {how}" for op, how in facts["kernels"].items()),
    }
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), str(value))
    show(table)


@app.command()
@takes_options
def trace(
    arch: Arch,
    options: dict[str, Any],
    input: Input = None,
    freeze: Annotated[
        str | None,
        typer.Option(metavar="0,2,3", help="Compare these values of freeze-at, by running backward."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(metavar="NODE", help="What this node does with its tensors, the gather drawn."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw shapes and cost along the network (extra `plots`)."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page: the graph, every node's shapes and cost."),
    ] = None,
    clip: Clip = None,
    frames: Frames = None,
    stride: Stride = None,
    start: Start = None,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Show a network node by node: shapes, parameters, multiply-adds, whether a gradient flows."""
    recipe = Recipe(arch, input_shape(arch, input), options)
    recipe, pixels = read_clip(recipe, input, clip, frames, stride, start, size)
    shape = recipe.input
    if freeze is not None and explain is not None:
        raise ValueRangeError(f"--explain {explain} and --freeze {freeze}: expected one of the two")
    points = None if freeze is None else parse_numbers("--freeze", freeze)
    net = build(arch, input=shape, **options)
    explained = None if explain is None else explain_node(net, explain)
    if plot is not None:
        files.require_writable(plot, ".svg")
        figure.require_matplotlib()
    if html is not None:
        files.require_writable(html, ".html")
    frozen = None if points is None else measure_freeze(recipe, pixels, points, as_json)
    rows = trace_net(net)
    usual = ARCHITECTURES[arch].options
    chosen = [f"{name} {value}" for name, value in options.items() if value != usual[name]]
    title = ", ".join([f"{arch} on {text(shape)}", *chosen])
    if plot is not None:
        written(plot, figure.svg(title, rows), as_json)
    if html is not None:
        written(html, page.html(title, net, frozen).encode(), as_json)
    if frozen is not None:
        return show_freeze(frozen, as_json)
    if explained is not None:
        return print_json(explained.as_json()) if as_json else terminal.show(explained, screen())
    if (plot or html) and not as_json:
        return None
    totals = {
        "params": sum(map(elements, net.params.values())),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "blob_bytes_float64": blob_bytes(net, 8),
    }
    if as_json:
        return print_json({"nodes": [row.as_json() for row in rows], "totals": totals})
    table = Table("node", "operator", "input", "output", box=None)
    for column in ("parameters", "multiply-adds"):
        table.add_column(column, justify="right")
    table.add_column("gradient")
    fields = screen().width >= FIELD_WIDTH
    if fields:
        table.add_column("field")
    count = "{:,}".format if screen().width >= TRACE_WIDTH else short
    for row in rows:
        # A sum's two inputs have one shape.
        table.add_row(
            row.name,
            row.op,
            " ".join(dict.fromkeys(map(text, row.inputs))),
            text(row.output),
            count(row.params) if row.params else "",
            count(row.multiply_adds) if row.multiply_adds else "",
            "flows" if row.gradient else "blocked",
            *([field_text(row.field) if row.field else ""] if fields else []),
            style=None if row.gradient else "dim",
        )
    show(table)
    screen().print(
        f"\n{len(rows)} nodes, {totals['params']:,} parameters, {totals['multiply_adds']:,} multiply-adds, "
        f"blobs {memory.text(totals['blob_bytes_float64'])} in float64.",
    )


def written(out: Path, content: bytes, as_json: bool) -> None:
    """Write a file, and say so."""
    files.write(out, content)
    if not as_json:
        screen().print(f"{out}: {memory.text(len(content))}", soft_wrap=True)


def measure_freeze(recipe: Recipe, pixels: Array | None, points: list[int], quiet: bool) -> list[FreezePoint]:
    """Run backward for several freeze points, on a clip or on a seeded input."""

    def frozen(point: int) -> Recipe:
        return replace(recipe, options={**recipe.options, "freeze_at": point})

    nets = {point: frozen(point).net() for point in (0, *points)}  # all are checked before one is run
    given = fill.params(nets[0]) | fill.inputs(nets[0])
    if pixels is not None:
        given["data"] = pixels
    with progress_bar(quiet) as progress:
        return freeze_points(
            nets.__getitem__,
            points,
            given,
            fill.output_gradients,
            on_point=steps(progress, "freeze", len(points)),
        )


def show_freeze(points: list[FreezePoint], as_json: bool) -> None:
    """Show, for several freeze points, what backward costs and what it does not see."""
    if as_json:
        return print_json([asdict(point) for point in points])
    table = Table(FREEZE_COLUMNS[0], box=None)
    for column in FREEZE_COLUMNS[1:]:
        table.add_column(column, justify="right")
    for row in freeze_rows(points):
        table.add_row(*row)
    show(table)
    screen().print(f"\n{FREEZE_NOTE}")


@golden_app.command()
@takes_options
def make(
    arch: Arch,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to be written.")],
    options: dict[str, Any],
    clip: Clip = None,
    frames: Frames = None,
    stride: Stride = None,
    start: Start = None,
    size: Size = None,
    seed: Annotated[int, number("Of parameters, gradients and, without a clip, input.")] = 0,
    input: Input = None,
    dtype: Annotated[str, typer.Option(help=f"{' or '.join(DTYPES)}.")] = "float64",
    arithmetic: Annotated[
        str, typer.Option(help=f"How operators are carried out: {' or '.join(ARITHMETICS)}.")
    ] = "core",
    backward: Annotated[
        bool, typer.Option("--backward/--no-backward", help="Whether to compute gradients.")
    ] = True,
    hashes_only: Annotated[
        bool, typer.Option("--hashes-only", help="Store SHA-256 only (and a clip's pixels).")
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Accept NaN and infinity in a clip.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle.")] = False,
    as_json: Json = False,
) -> None:
    """Run a network forward and backward and write every value as a bundle."""
    recipe = Recipe(
        arch,
        input_shape(arch, input),
        options,
        seed,
        None,
        dtype,
        arithmetic,
        backward,
    )
    require_free(out, force)
    recipe, pixels = read_clip(recipe, input, clip, frames, stride, start, size, allow_nonfinite)
    with progress_bar(as_json) as progress:
        bundle = golden.make(
            out,
            recipe,
            pixels=pixels,
            hashes_only=hashes_only,
            force=force,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
        )
    if as_json:
        return print_json({"bundle": str(out), **bundle.manifest})
    table = Table("tensors", box=None)
    for column in ("number", "elements"):
        table.add_column(column, justify="right")
    table.add_column("file")
    for section, entries in bundle.entries.items():
        files = {entry["file"] or "SHA-256 only" for entry in entries.values()}
        count = sum(prod(entry["shape"]) for entry in entries.values())
        table.add_row(section, str(len(entries)), f"{count:,}", " ".join(files))
    show(table)
    screen().print(
        f"\n{out}: {arch} on {text(recipe.input)}, {recipe.dtype}, {recipe.arithmetic}; "
        + (
            f"{len(bundle.blocked)} gradients blocked "
            f"(freeze_at {bundle.manifest['recipe']['options']['freeze_at']})."
            if backward
            else "no gradients."
        ),
        soft_wrap=True,
    )


@golden_app.command()
def verify(bundle: BundlePath, as_json: Json = False) -> None:
    """Derive a bundle again from its manifest and compare bits."""
    with progress_bar(as_json) as progress:
        findings = golden.verify(bundle, progress=progress)
    report(findings, as_json, f"{bundle}: derived again")
    if not as_json and not all(finding.equal for finding in findings):
        made, here = Bundle(bundle).machine, machine.facts()
        for name in here:
            if made.get(name) != here[name]:
                screen().print(f"made with {name} {made.get(name)}, here {here[name]}")
    finish(findings)


@golden_app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle's folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    as_json: Json = False,
) -> None:
    """Compare two bundles: which tensors differ, in how many bits and by how many ulp."""
    with progress_bar(as_json) as progress:
        findings = golden.diff(a, b, progress=progress)
    report(findings, as_json, f"{a} and {b}")
    finish(findings)


def report(findings: list[golden.Finding], as_json: bool, what: str) -> None:
    """Print which tensors differ."""
    bad = [finding for finding in findings if not finding.equal]
    if as_json:
        return print_json({"ok": not bad, "tensors": [asdict(finding) for finding in findings]})
    if bad:
        table = Table("tensors", "name", box=None)
        for column in ("elements", "largest ulp"):
            table.add_column(column, justify="right")
        table.add_column("finding")
        for finding in bad[:MOST_SHOWN]:
            table.add_row(
                finding.section,
                finding.name,
                "" if finding.different is None else f"{finding.different:,}",
                "" if finding.max_ulp is None else f"{finding.max_ulp:,}",
                finding.note,
            )
        show(table)
        if len(bad) > MOST_SHOWN:
            screen().print(f"... and {len(bad) - MOST_SHOWN} more (--json prints all)")
        screen().print()
    equal = len(findings) - len(bad)
    screen().print(
        f"{what}: {equal} of {len(findings)} tensors equal bit for bit"
        + (f", {len(bad)} not." if bad else "."),
        soft_wrap=True,
    )


def finish(findings: list[golden.Finding]) -> None:
    """Exit with 1 if a tensor differs."""
    if not all(finding.equal for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
@takes_options
def bench(
    options: dict[str, Any],
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
    check_bench(architectures, shape, options, only, operators, plot)
    cases = problems_with(only, CONV3D)
    table = {op: found for op, every in OPERATORS.items() if (found := problems_with(only, every))}
    if not (table if operators else cases):
        raise ValueRangeError(f"--only is {only!r}: expected a part of a problem's name")
    with progress_bar(as_json) as progress:
        usable = [PEERS[name] for name in chosen if "unusable" not in facts[name]]
        setting = measure.Setting(usable, dtypes, threads, rounds, progress)
        try:
            if architectures:
                rows = {"nets": measure.nets(architectures, shape, options, setting)}
            elif operators:
                rows = {"operators": measure.operators(table, setting)}
            else:
                rows = {"convolutions": measure.convolutions(cases, setting)}
                if only is None:
                    rows["scaling"] = measure.scaling(setting)
        except measure.DisagreementError as error:
            fail(str(error), FAILED)
        limits = measure.machine_facts(setting)
    if plot is not None:
        written(plot, roofline.svg(rows["convolutions"], limits), as_json)
    if as_json:
        settings = {"threads": threads, "rounds": rounds, "dtypes": dtypes}
        sections = {name: [row.as_json() for row in section] for name, section in rows.items()}
        means = {name: measure.geometric_means(section) for name, section in rows.items()}
        return print_json(
            {"settings": settings, "machine": limits, "peers": facts, **sections, "geometric_means": means}
        )
    show_bench(rows, [*measured.machine_lines(limits, dtypes), *measured.peer_lines(facts)])


def show_bench(rows: dict[str, list[Row]], lines: Iterable[str]) -> None:
    """Show what was measured, and then what it rests on."""
    for name, section in rows.items():
        for table in measured.tables(section):
            show(table)
            screen().print()
        for line in measured.means(section) if name != "nets" else ():
            screen().print(line)
        screen().print()
    for line in (measured.NOTE, *lines):
        screen().print(line, soft_wrap=True)


def check_bench(
    architectures: list[str],
    input: Shape | None,
    options: dict[str, Any],
    only: str | None,
    operators: bool,
    plot: Path | None,
) -> None:
    """Refuse what does not go together, before anything is measured."""
    for name in architectures:
        build(name, input=input, **options)
    if not architectures:
        given = [*(["input"] if input is not None else []), *options]
        if given:
            raise ValueRangeError(f"--{given[0].replace('_', '-')} is given, but no net: expected --arch too")
    elif only is not None or operators:
        raise ValueRangeError(
            f"--arch and {'--operators' if operators else '--only'}: expected one of the two"
        )
    if plot is not None:
        if architectures or operators:
            other = "--arch" if architectures else "--operators"
            raise ValueRangeError(f"--plot draws convolutions: expected it without {other}")
        files.require_writable(plot, ".svg")
        figure.require_matplotlib()


def problems_with(part: str | None, cases: Sequence[Case]) -> list[Case]:
    """The problems that have it in their name."""
    return [case for case in cases if part is None or part in case.name]


def in_range(option: str, value: int, most: int) -> int:
    """Refuse a number below 1 or above what there is."""
    if not 1 <= value <= most:
        raise ValueRangeError(f"{option} is {value}: expected a whole number from 1 to {most}")
    return value


def parse_words(option: str, what: str, value: str, known: Iterable[str]) -> list[str]:
    """Read ``torch,numpy``, each a known name."""
    words = list(dict.fromkeys(value.split(",")))
    for word in words:
        require_known(f"{what} of {option}", word, known)
    return words


def read_clip(
    recipe: Recipe,
    input: str | None,
    clip: Path | None,
    frames: int | None,
    stride: int | None,
    start: int | None,
    size: str | None,
    allow_nonfinite: bool = False,
) -> tuple[Recipe, Array | None]:
    """Read the clip that was given, and the recipe for it; the recipe as it is where none was."""
    if clip is None:
        given = {"frames": frames, "stride": stride, "start": start, "size": size}
        for name, value in given.items():
            if value is not None:
                raise ValueRangeError(f"--{name} is {value}, but there is no clip: expected --clip too")
        return recipe, None
    if input is not None:
        raise ValueRangeError(f"--input is {input}, but there is a clip: expected --frames and --size")
    selection = Selection(
        recipe.input[2] if frames is None else frames,
        1 if stride is None else stride,
        0 if start is None else start,
        None if size is None else parse_shape("--size", size, rank=2),
    )
    return golden.clip_recipe(clip, selection, recipe, allow_nonfinite=allow_nonfinite)


def input_shape(arch: str, given: str | None) -> Shape:
    """The input's shape; the architecture's own if none is given."""
    require_known("architecture", arch, ARCHITECTURES)
    return ARCHITECTURES[arch].input if given is None else parse_shape("--input", given)


def parse_shape(option: str, value: str, rank: int = 5) -> Shape:
    """Read ``1x3x8x224x224``."""
    parts = value.split("x")
    if len(parts) != rank or not all(re.fullmatch("-?[0-9]{1,18}", part) for part in parts):
        example = "1x3x8x224x224" if rank == 5 else "224x224"
        raise ShapeError(f"{option} is {value!r}: expected {rank} whole numbers, such as {example}")
    return tuple(int(part) for part in parts)


def parse_numbers(option: str, value: str) -> list[int]:
    """Read ``0,2,3``."""
    parts = value.split(",")
    if not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise ShapeError(f"{option} is {value!r}: expected whole numbers between commas, such as 0,2,3")
    return [int(part) for part in parts]


def outputs_text(outputs: dict[str, list[int]]) -> str:
    """Write the shape of the first output, and how many others there are."""
    first, *others = outputs.values()
    return text(first) + (f" and {len(others)} more" if others else "")


def screen() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    width = None if sys.stdout.isatty() else 160
    return Console(width=width, markup=False, highlight=False)


def show(table: Table) -> None:
    """Print a table; what is too wide goes on in the next line, nothing is cut off."""
    for column in table.columns:
        column.overflow = "fold"
    screen().print(table)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A bar on standard error for each stage, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        rich_progress.TextColumn("{task.description:>8}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)

        yield progress


def print_json(value: Any) -> None:
    """Print JSON, one document."""
    json.dump(value, sys.stdout, indent=1)
    print()


def version_option(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        print(f"refnet {machine.facts()['refnet']}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=version_option, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take what goes before a command."""


def main() -> NoReturn:
    """Run the command line; every expected failure is one line on standard error."""
    for name in STOPPING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), terminate)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except RefnetError as error:
        fail(str(error), UNUSABLE)
    except typer.TyperException as error:
        if not error.format_message().strip():  # a group without a command has shown its help
            sys.exit(UNUSABLE)
        fail(error.format_message(), UNUSABLE)
    except MemoryError:
        fail("out of memory: take a smaller input, or float32", UNUSABLE)
    except OSError as error:
        sys.stdout = None  # it may be what failed; nothing is left to be flushed at exit
        fail(f"{error.filename or 'standard output'}: {error.strerror}", UNUSABLE)
    sys.exit(code if isinstance(code, int) else 0)


def terminate(number: int, frame: object) -> NoReturn:
    """Unwind, so that nothing half-written stays."""
    print(f"refnet: stopped by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong, in one line, and exit."""
    print("refnet:", *message.split(), file=sys.stderr)
    sys.exit(code)
