"""``refnet golden make``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from refnet import golden
from refnet.arithmetic import find_arithmetic
from refnet.arrays import DTYPES, Array
from refnet.cli.options import (
    Arch,
    Clip,
    Input,
    Json,
    Options,
    completing,
    input_shape,
    number,
    one_arithmetic,
    parse_words,
    read_clip,
    say_own_size,
    takes_groups,
    word,
)
from refnet.errors import ValueRangeError, require_known
from refnet.golden import GROUPS, SECTIONS, Recipe, Source
from refnet.golden.folder import require_free
from refnet.render import tables, terminal


@takes_groups
def make(
    arch: Arch,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to be written.")],
    clip: Clip,
    seed: Annotated[int, number("Of parameters, gradients and, without a clip, input.")] = 0,
    input: Input = None,
    dtype: Annotated[str, word(DTYPES, "Of all values.")] = "float64",
    arithmetic: Annotated[str, one_arithmetic("How operators are carried out")] = "core",
    params: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Parameters of one's own, all of them by name: .npz, .safetensors, a folder of .npy.",
        ),
    ] = None,
    backward: Annotated[
        bool, typer.Option("--backward/--no-backward", help="Whether to compute gradients.")
    ] = True,
    hashes_only: Annotated[
        bool,
        typer.Option("--hashes-only", help="Store SHA-256 only (and what is one's own: pixels, parameters)."),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP,GROUP",
            help=f"Store values of these alone, of others SHA-256: {', '.join(GROUPS)}.",
            autocompletion=completing(GROUPS),
        ),
    ] = None,
    store: Annotated[
        str | None,
        word(("float32",), "Round values of a run in float64 when they are stored."),
    ] = None,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Accept NaN and infinity in what is given.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle.")] = False,
    as_json: Json = False,
    *,
    options: Options,
) -> None:
    """Write every value of a network's run as a bundle. Forward and backward."""
    if only is not None and hashes_only:
        raise ValueRangeError(f"--only {only} and --hashes-only: expected one of the two")
    groups = None if only is None else parse_words("--only", "group", only, GROUPS)
    for group in groups or ():
        if not backward and group in ("gradients", "output_gradients"):
            raise ValueRangeError(
                f"--only {only} and --no-backward: there are no {group}, expected other groups"
            )
    require_known("--dtype", dtype, DTYPES)
    recipe = Recipe(
        arch,
        input_shape(arch, input),
        options,
        seed,
        dtype=dtype,
        arithmetic=find_arithmetic(arithmetic),
        backward=backward,
        store=store,
    )
    recipe.require_legal()
    if recipe.owns_arithmetic:
        recipe = replace(recipe, own={"arithmetic": Source(arithmetic, None)})
    if allow_nonfinite and params is None and "clip" not in clip:
        raise ValueRangeError("--allow-nonfinite is given, but nothing else: expected --clip or --params too")
    require_free(out, force)
    recipe, pixels = read_clip(recipe, input, clip, allow_nonfinite)
    own: dict[str, Array] | None = None
    if params is not None:
        recipe, own = golden.params_recipe(params, recipe)
    say_own_size(recipe, clip, () if hashes_only else SECTIONS if groups is None else groups)
    with terminal.progress_bar(as_json) as progress:
        bundle = golden.make(
            out,
            recipe,
            pixels=pixels,
            params=own,
            only=groups,
            hashes_only=hashes_only,
            force=force,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
        )
    if as_json:
        terminal.print_json({"bundle": str(out), **bundle.manifest})
    else:
        tables.bundle(bundle, terminal.screen())
