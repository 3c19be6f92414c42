"""``refnet golden make``."""

from pathlib import Path
from typing import Annotated

import typer

from refnet import golden
from refnet.arithmetic import ARITHMETICS
from refnet.arrays import DTYPES
from refnet.cli.options import (
    Arch,
    Clip,
    Input,
    Json,
    Options,
    input_shape,
    number,
    read_clip,
    takes_groups,
    word,
)
from refnet.golden import Recipe
from refnet.golden.bundle import require_free
from refnet.render import tables, terminal


@takes_groups
def make(
    arch: Arch,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to be written.")],
    clip: Clip,
    seed: Annotated[int, number("Of parameters, gradients and, without a clip, input.")] = 0,
    input: Input = None,
    dtype: Annotated[str, word(DTYPES, "Of all values.")] = "float64",
    arithmetic: Annotated[
        str, typer.Option(help=f"How operators are carried out: {' or '.join(ARITHMETICS)}.")
    ] = "core",
    backward: Annotated[
        bool, typer.Option("--backward/--no-backward", help="Whether to compute gradients.")
    ] = True,
    hashes_only: Annotated[
        bool,
        typer.Option("--hashes-only", help="Store SHA-256 only (and a clip's pixels): enough to verify."),
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Accept NaN and infinity in a clip.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle.")] = False,
    as_json: Json = False,
    *,
    options: Options,
) -> None:
    """Run a network forward and backward and write every value as a bundle."""
    recipe = Recipe(
        arch,
        input_shape(arch, input),
        options,
        seed,
        dtype=dtype,
        arithmetic=arithmetic,
        backward=backward,
    )
    require_free(out, force)
    recipe, pixels = read_clip(recipe, input, clip, allow_nonfinite)
    with terminal.progress_bar(as_json) as progress:
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
        terminal.print_json({"bundle": str(out), **bundle.manifest})
    else:
        tables.bundle(bundle, terminal.screen())
