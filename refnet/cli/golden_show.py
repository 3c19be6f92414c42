"""``refnet golden show``."""

from dataclasses import asdict
from typing import Annotated

import typer

from refnet import golden
from refnet.cli.ending import FAILED
from refnet.cli.options import BundlePath, Json
from refnet.golden import Bundle
from refnet.render import golden_show, terminal


def show(
    bundle: BundlePath,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="One tensor: a node, an input, a parameter; as 'd NAME' a gradient, as 'd output NAME' what "
            "backward started from.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a bundle holds. Its recipe, and of every tensor shape, hash and statistics."""
    opened = Bundle(bundle)
    with terminal.progress_bar(as_json) as progress:
        found = golden.statistics(opened, name, progress=progress)
    if as_json:
        facts = {"bundle": str(bundle), **{k: v for k, v in opened.manifest.items() if k != "tensors"}}
        tensors = [asdict(tensor) for tensor in found]
        terminal.print_json(facts | {"tensors": tensors} if name is None else tensors[0])
    elif name is None:
        golden_show.bundle(opened, found, terminal.screen())
    else:
        golden_show.tensor(opened, found[0], terminal.screen())
    if any(tensor.damaged for tensor in found):
        raise typer.Exit(FAILED)
