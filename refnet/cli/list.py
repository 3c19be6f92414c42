"""``refnet list``."""

from refnet.cli.options import Json
from refnet.networks import ARCHITECTURES, build
from refnet.render import tables, terminal
from refnet.shapes import size
from refnet.trace import trace


def list_architectures(as_json: Json = False) -> None:
    """List the architectures, with their sizes for the default options and input."""
    found = []
    for architecture in ARCHITECTURES.values():
        net = build(architecture.name)
        found.append(
            {
                "name": architecture.name,
                "blocks": list(architecture.block_counts),
                "feat_dims": list(architecture.feat_dims),
                "input": list(architecture.input),
                "options": architecture.options,
                "params": sum(map(size, net.params.values())),
                "multiply_adds": sum(row.multiply_adds for row in trace(net)),
                "outputs": {name: list(shape) for name, shape in net.outputs.items()},
            }
        )
    if as_json:
        terminal.print_json({"architectures": found})
    else:
        tables.architectures(found, terminal.screen())
