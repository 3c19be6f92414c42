"""What a bundle holds, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from refnet.golden import Bundle, Statistics, graph
from refnet.render.tables import percent, summary
from refnet.render.terminal import say, table
from refnet.shapes import size, text

# Characters of a SHA-256 that tell tensors apart.
HASH = 12
DAMAGED = "stored bits are not those of its SHA-256"


def bundle(shown: Bundle, found: Sequence[Statistics], console: Console) -> None:
    """Show a bundle: its recipe, then a tensor a row."""
    say(f"{shown.path}: {summary(shown)}", console)
    console.print()
    _recipe(shown, console)
    console.print()
    numbers = ("min", "max", "mean", "largest |x|", "zeros", "not finite")
    names = ("tensors", "name", "shape", "dtype", *numbers, "SHA-256", "finding")
    first = ("name", "tensors", "finding", "shape", "min", "max", "mean", "SHA-256", "zeros", "dtype")
    rows = table(*names, numbers=numbers, first=first, needed=2, prose="finding", rest="--json has all")
    for tensor in found:
        finding = DAMAGED if tensor.damaged else "" if tensor.stored else "SHA-256 only"
        sizes = [_number(value) for value in (tensor.min, tensor.max, tensor.mean, tensor.max_abs)]
        counts = ["" if not count else f"{count:,}" for count in (tensor.zeros, tensor.nonfinite)]
        rows.add_row(
            tensor.section,
            tensor.name,
            text(tensor.shape),
            tensor.dtype,
            *sizes,
            *counts,
            tensor.sha256[:HASH],
            finding,
        )
    console.print(rows)
    elements, stored = sum(size(tensor.shape) for tensor in found), sum(tensor.stored for tensor in found)
    console.print(
        f"\n{len(found)} tensors, {elements:,} elements; values of {stored} are stored. Statistics are of "
        "finite elements.",
        soft_wrap=True,
    )


def tensor(shown: Bundle, found: Statistics, console: Console) -> None:
    """Show one tensor, a fact a row."""
    of = {"blobs": "", "gradients": "gradient of ", "output_gradients": "gradient of output "}
    facts = {
        "tensor": f"{of.get(found.section, f'{found.section}: ')}{found.name}",
        "computed by": _node(shown, found),
        "shape": f"{text(found.shape)}, {size(found.shape):,} elements",
        "dtype": found.dtype,
        "SHA-256": found.sha256,
        "values": DAMAGED if found.damaged else "" if found.stored else "not stored, the SHA-256 alone",
        "min": _number(found.min),
        "max": _number(found.max),
        "mean": _number(found.mean),
        "largest |x|": _number(found.max_abs),
        "zeros": _count(found.zeros, found),
        "not finite": _count(found.nonfinite, found),
    }
    rows = table("fact", "value", header=False, prose="value", needed=2)
    for fact, value in facts.items():
        if value:
            rows.add_row(fact, value)
    console.print(rows)


def _recipe(shown: Bundle, console: Console) -> None:
    """The recipe, a fact a row."""
    found = shown.recipe.record()
    own = (f"{what} {source['name']}" if source else what for what, source in found["own"].items())
    facts = {
        "options": _pairs(found["options"]),
        "seed": found["seed"],
        "clip": _pairs(found["clip"] or {}),
        "own": ", ".join(own),
        "bits": shown.bits,
        "format": f"version {shown.manifest['format_version']}, by refnet {shown.manifest.get('refnet')}",
        "made on": shown.machine.get("cpu"),
    }
    rows = table("fact", "value", header=False, prose="value", needed=2)
    for fact, value in facts.items():
        if value not in (None, ""):
            rows.add_row(fact, str(value))
    console.print(rows)


def _pairs(found: Mapping[str, Any]) -> str:
    """Names with their values, no name in another line than its value."""
    return ", ".join(
        f"{name}={text(value) if isinstance(value, tuple | list) else value}" for name, value in found.items()
    )


def _node(shown: Bundle, found: Statistics) -> str:
    """The node that computed a tensor, with its inputs and attributes."""
    if not found.node:
        return ""
    described = shown.graph or graph.record(shown.structure())
    node = next((node for node in described["nodes"] if node["name"] == found.node), None)
    if node is None:
        return f"{found.op} of {found.node}"
    return graph.said(node) if found.section == "blobs" else f"backward of {graph.said(node)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _count(count: int | None, found: Statistics) -> str:
    """A number of elements, and which share that is."""
    return "" if count is None else f"{count:,} ({percent(count, size(found.shape))})"
