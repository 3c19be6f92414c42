"""``refnet info``."""

from refnet import machine, memory
from refnet.cli.options import Json
from refnet.render import tables, terminal


def info(as_json: Json = False) -> None:
    """Show what runs here. Versions, OpenMP, the processor, kernels: what decides about speed and bits."""
    facts = machine.facts() | {"memory_available": memory.available(), "kernels": machine.kernels()}
    if as_json:
        terminal.print_json(facts)
    else:
        tables.machine(facts, terminal.screen())
