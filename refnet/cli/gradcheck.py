"""``refnet gradcheck``."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from refnet import gradcheck as checks
from refnet.arithmetic import Arithmetic, find_arithmetic
from refnet.arrays import DTYPES
from refnet.check import Report
from refnet.cli.ending import FAILED
from refnet.cli.options import (
    MOST_DRAWS,
    Input,
    Json,
    Options,
    all_options,
    arguments,
    completing,
    completing_of_net,
    in_range,
    input_shape,
    made,
    number,
    one_arithmetic,
    parse_words,
    require_none,
    takes_groups,
    title,
    word,
)
from refnet.errors import require_known
from refnet.golden import Recipe
from refnet.inputs import fill
from refnet.net import Net
from refnet.networks import ARCHITECTURES
from refnet.ops import OPS
from refnet.render import files, terminal, verdict_page, verdicts
from refnet.render.made import today
from refnet.shapes import text


@takes_groups
def gradcheck(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ARCH|OP",
            help="A name of `refnet list`, or an operator: conv3d.",
            autocompletion=completing((*ARCHITECTURES, *OPS)),
        ),
    ],
    input: Input = None,
    dtype: Annotated[
        str | None,
        word(
            DTYPES,
            "Of an architecture. [default: float64, which rounds less, so that smaller mistakes show] "
            "An operator is checked in both.",
        ),
    ] = None,
    seed: Annotated[int, number("Of all that is drawn.")] = 0,
    arithmetic: Annotated[str, one_arithmetic("What is checked")] = "core",
    tensors: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Inputs and parameters; all that are learnt if not given.",
            autocompletion=completing_of_net(lambda net: sorted(net.learnt())),
        ),
    ] = None,
    draws: Annotated[
        int | None, number("Geometries drawn for an operator beside its cases; 32 if not given.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page: verdicts on the graph, margins, failures."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show verdicts of nodes too, and every failure in full.")
    ] = False,
    as_json: Json = False,
    *,
    options: Options,
) -> None:
    """Check gradients. Every element of a network's or an operator's, within what rounding can do."""
    if html is not None:
        files.require_writable(html, ".html")
        today()
    require_known("architecture or operator", name, [*ARCHITECTURES, *OPS])
    net = None
    folded: set[str] = set()
    used = find_arithmetic(arithmetic)
    facts = {"arithmetic": arithmetic, "seed": seed}
    again = ("--seed", str(seed), "--arithmetic", arithmetic)
    if name in OPS:
        require_none(
            {"input": input, "dtype": dtype, "tensors": tensors, **options},
            f"{name} is an operator: expected an architecture",
        )
        facts |= {"operator": name, "draws": draws or "32"}
        report = check_operator(name, used, seed, draws, again, as_json)
        report = replace(report, title=f"{name} in {arithmetic}")
    else:
        require_none({"draws": draws}, f"{name} is an architecture: expected an operator")
        shape = input_shape(name, input)
        dtype = "float64" if dtype is None else dtype
        require_known("--dtype", dtype, DTYPES)
        recipe = Recipe(name, shape, options, seed, dtype=dtype)
        net = recipe.net()
        facts |= all_options(recipe) | {"dtype": recipe.dtype, "tensors": tensors or "all that are learnt"}
        report = check_architecture(recipe, net, used, tensors, again, as_json)
        report = replace(report, title=f"{title(recipe)}, {recipe.dtype}, {arithmetic}")
        folded = report.verdicts.keys() - net.inputs.keys() - net.params.keys()
    if html is not None:
        terminal.save(html, verdict_page.html(report, net, folded, made(html, facts)).encode(), as_json)
    if as_json:
        terminal.print_json(report.record())
    else:
        verdicts.show(report, terminal.screen(), folded=folded, every=every)
    if not report.ok:
        raise typer.Exit(FAILED)


def check_operator(
    name: str, arithmetic: Arithmetic, seed: int, draws: int | None, again: Sequence[str], quiet: bool
) -> Report:
    """Check an operator; each failure has the command that shows it again."""
    chosen: dict[str, Any] = {}
    if draws is not None:
        chosen["draws"] = in_range("--draws", draws, MOST_DRAWS)
    with terminal.progress_bar(quiet) as progress:
        found = checks.check_op(name, arithmetic, seed, progress=progress, **chosen)
    words = ["refnet", "gradcheck", name, *again]
    for option, value in chosen.items():
        words += [f"--{option}", str(value)]
    failed = {v.tensor: replace(v, reproduce=shlex.join(words)) for v in found.failures}
    return replace(found, verdicts={**found.verdicts, **failed})


def check_architecture(
    recipe: Recipe,
    net: Net,
    arithmetic: Arithmetic,
    tensors: str | None,
    again: Sequence[str],
    quiet: bool,
) -> Report:
    """Check a net; each failure has the command that shows it again."""
    learnt = sorted(net.learnt())
    chosen = None if tensors is None else parse_words("--tensors", "tensor", tensors, learnt)
    blobs = fill.inputs(net, recipe.seed, recipe.dtype) | fill.params(net, recipe.seed, recipe.dtype)
    with terminal.progress_bar(quiet) as progress:
        found = checks.check_net(net, blobs, arithmetic, tensors=chosen, seed=recipe.seed, progress=progress)
    failed = {
        v.tensor: replace(v, reproduce=command(recipe, v.tensor if v.tensor in learnt else tensors, again))
        for v in found.failures
    }
    order = (*net.inputs, *net.params, *(node.name for node in net.nodes))
    known = {tensor: found.verdicts[tensor] for tensor in order if tensor in found.verdicts}
    return replace(found, verdicts={**known, **found.verdicts, **failed})


def command(recipe: Recipe, tensors: str | None, again: Sequence[str]) -> str:
    """The command that checks an architecture."""
    words = ["refnet", "gradcheck", recipe.architecture, *arguments(recipe.options)]
    words += ["--input", text(recipe.input), "--dtype", recipe.dtype, *again]
    return shlex.join(words if tensors is None else [*words, "--tensors", tensors])
