"""``refnet trace``."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from refnet.arithmetic.core import runtime
from refnet.arrays import Array
from refnet.bench import load
from refnet.cli.ending import say
from refnet.cli.options import (
    Arch,
    Clip,
    Input,
    Json,
    Options,
    Threads,
    all_options,
    completing_of_net,
    input_shape,
    made,
    on_threads,
    parse_numbers,
    read_clip,
    require_none,
    say_own_size,
    takes_groups,
    title,
)
from refnet.errors import ValueRangeError
from refnet.golden import Recipe
from refnet.inputs import fill
from refnet.net import Net
from refnet.networks import build
from refnet.progress import steps
from refnet.remat import blob_bytes
from refnet.render import explanation, figure, files, page, tables, terminal
from refnet.shapes import size
from refnet.trace import Explanation, FreezePoint, Row, freeze_points
from refnet.trace import explain as explain_node
from refnet.trace import trace as trace_net


@takes_groups
def trace(
    arch: Arch,
    input: Input = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="0,2,3", help="Compare these stops, by running backward: what each costs, and hides."
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="NODE",
            help="What this node does with its tensors, the gather drawn.",
            autocompletion=completing_of_net(lambda net: [node.name for node in net.nodes]),
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.svg|FILE.png", help="Draw shapes and cost along the network (extra `plots`)."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page: the graph, every node's shapes and cost."),
    ] = None,
    *,
    clip: Clip,
    threads: Threads = None,
    as_json: Json = False,
    options: Options,
) -> None:
    """Show a network node by node. Shapes, parameters, multiply-adds, whether a gradient flows."""
    recipe, pixels = read_clip(Recipe(arch, input_shape(arch, input), options), input, clip)
    if freeze is not None and explain is not None:
        raise ValueRangeError(f"--explain {explain} and --freeze {freeze}: expected one of the two")
    if freeze is not None and "freeze_at" in options:
        given = f"--freeze {freeze} and --freeze-at {options['freeze_at']}"
        raise ValueRangeError(f"{given} both say where gradients stop: expected one of the two")
    if freeze is None:
        require_none({"threads": threads}, "nothing is computed: expected --freeze too")
    points = None if freeze is None else parse_numbers("--freeze", freeze)
    net = build(arch, input=recipe.input, **options)
    explained = None if explain is None else explain_node(net, explain)
    if plot is not None:
        files.require_writable(plot, *figure.KINDS)
        figure.require_matplotlib()
    if html is not None:
        files.require_writable(html, ".html")
        others = {"clip": clip.get("clip", "none"), "freeze": freeze or "not measured"}
        how = made(html, all_options(recipe) | others)
    if points is not None:
        say_own_size(recipe, clip)
    with on_threads(threads):
        frozen = None if points is None else measure_freeze(recipe, pixels, points, as_json)
    rows = trace_net(net)
    if plot is not None:
        terminal.save(plot, figure.drawn(title(recipe), rows, plot.suffix[1:].lower()), as_json)
    if html is not None:
        terminal.save(html, page.html(title(recipe), net, frozen, how).encode(), as_json)
    if frozen is not None:
        show_freeze(frozen, as_json)
    elif explained is not None:
        show_explanation(explained, as_json)
    elif as_json or not (plot or html):
        show_nodes(net, rows, as_json)


def measure_freeze(recipe: Recipe, pixels: Array | None, points: list[int], quiet: bool) -> list[FreezePoint]:
    """Run backward for several freeze points, on a clip or on a seeded input; say if the machine is busy."""

    def frozen(point: int) -> Recipe:
        return replace(recipe, options={**recipe.options, "freeze_at": point})

    nets = {point: frozen(point).net() for point in (0, *points)}  # all are checked before one is run
    if (warning := load.busy(load.look(), runtime.threads())) is not None:
        say(warning)
    given = fill.params(nets[0]) | fill.inputs(nets[0])
    if pixels is not None:
        given["data"] = pixels
    with terminal.progress_bar(quiet) as progress:
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
        terminal.print_json([asdict(point) for point in points])
    else:
        tables.freeze(points, terminal.screen())


def show_explanation(found: Explanation, as_json: bool) -> None:
    """Show what one node does with its tensors."""
    if as_json:
        terminal.print_json(found.as_json())
    else:
        explanation.show(found, terminal.screen())


def show_nodes(net: Net, rows: list[Row], as_json: bool) -> None:
    """Show a network node by node."""
    totals = {
        "params": sum(map(size, net.params.values())),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "blob_bytes_float64": blob_bytes(net, 8),
    }
    if as_json:
        terminal.print_json({"nodes": [row.as_json() for row in rows], "totals": totals})
    else:
        tables.trace(rows, totals, terminal.screen())
