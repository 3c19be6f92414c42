"""``refnet list``."""

from typing import Annotated, Any

import typer

from refnet.cli.options import MEANINGS, Json, completing, spelled
from refnet.errors import require_known
from refnet.networks import ARCHITECTURES, build
from refnet.render import tables, terminal
from refnet.shapes import size
from refnet.trace import trace


def list_architectures(
    arch: Annotated[
        str | None,
        typer.Argument(
            metavar="[ARCH]", help="Show this one's options.", autocompletion=completing(ARCHITECTURES)
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the architectures. Their sizes are those for the default options and input."""
    if arch is not None:
        require_known("architecture", arch, ARCHITECTURES)
    found = [described(name) for name in (ARCHITECTURES if arch is None else [arch])]
    if as_json:
        terminal.print_json({"architectures": found})
        return
    tables.architectures(found, terminal.screen())
    if arch is None:
        terminal.screen().print("\nThe options of one, with their defaults: refnet list ARCH.")
    else:
        rows = [(*spelled(option, value), MEANINGS[option]) for option, value in found[0]["options"].items()]
        tables.options(rows, terminal.screen())


def described(name: str) -> dict[str, Any]:
    """What is said of an architecture."""
    architecture, net = ARCHITECTURES[name], build(name)
    return {
        "name": name,
        "blocks": list(architecture.block_counts),
        "feat_dims": list(architecture.feat_dims),
        "input": list(architecture.input),
        "options": architecture.options,
        "params": sum(map(size, net.params.values())),
        "multiply_adds": sum(row.multiply_adds for row in trace(net)),
        "outputs": {name: list(shape) for name, shape in net.outputs.items()},
    }
