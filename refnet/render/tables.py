"""The commands' tables, each with the lines below it, on a console."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from rich.console import Console

from refnet import memory
from refnet.arithmetic.exact.fallback import Count
from refnet.golden import Bundle, Finding, Rounding, first_difference
from refnet.golden.bundle import EVERY_MACHINE, added
from refnet.render.facts import FREEZE_COLUMNS, FREEZE_FIRST, FREEZE_NOTE, freeze_rows, short
from refnet.render.terminal import table
from refnet.shapes import text
from refnet.trace import FreezePoint, Row
from refnet.trace.receptive import text as field_text

# Columns of a terminal from which on a trace has room for every digit.
TRACE_WIDTH = 110
# Names of the differing tensors that a person is shown; --json has them all.
MOST_SHOWN = 40
# Names that a sentence lists.
MOST_NAMED = 5


def architectures(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Show the catalog, an architecture a row."""
    counts = ("parameters", "multiply-adds")
    names = ("architecture", "blocks", "widths", "input", *counts, "outputs")
    first = ("architecture", *counts, "outputs", "input", "blocks")
    shown = table(*names, numbers=counts, first=first)
    for row in found:
        first, *others = row["outputs"].values()
        shown.add_row(
            row["name"],
            " ".join(map(str, row["blocks"])),
            " ".join(map(str, row["feat_dims"])),
            text(row["input"]),
            f"{row['params'] / 1e6:.2f} M",
            f"{row['multiply_adds'] / 1e9:.2f} G",
            text(first) + (f" and {len(others)} more" if others else ""),
        )
    console.print(shown)


def options(found: Iterable[tuple[str, str, str]], console: Console) -> None:
    """Show the options of an architecture, one a row: how it is given, its default, what it is."""
    shown = table("option", "default", "meaning", prose="meaning", needed=2)
    for row in found:
        shown.add_row(*row)
    console.print()
    console.print(shown)


def machine(facts: Mapping[str, Any], console: Console) -> None:
    """Show what runs here and how fast it can be, a fact a row."""
    texts = {
        "memory_available": memory.text(facts["memory_available"]),
        "kernels": "\n".join(f"{op}: {how}" for op, how in facts["kernels"].items()),
    }
    shown = table("fact", "value", header=False, prose="value", needed=2)
    for name, value in facts.items():
        shown.add_row(name.replace("_", " "), texts.get(name, str(value)))
    console.print(shown)


def trace(rows: Sequence[Row], totals: Mapping[str, int], console: Console) -> None:
    """Show a network, a node a row, in as many digits and columns as the console has room for."""
    count = "{:,}".format if console.width >= TRACE_WIDTH else short
    counts = ("parameters", "multiply-adds")
    names = ("node", "operator", "input", "output", *counts, "gradient", "field")
    first = ("node", "output", "gradient", *reversed(counts), "operator", "input")
    shown = table(*names, numbers=counts, first=first)
    for row in rows:
        shown.add_row(
            row.name,
            row.op,
            " ".join(dict.fromkeys(map(text, row.inputs))),  # a sum's two inputs have one shape
            text(row.output),
            count(row.params) if row.params else "",
            count(row.multiply_adds) if row.multiply_adds else "",
            "flows" if row.gradient else "blocked",
            field_text(row.field) if row.field else "",
            style=None if row.gradient else "dim",
        )
    console.print(shown)
    console.print(
        f"\n{len(rows)} nodes, {totals['params']:,} parameters, {totals['multiply_adds']:,} multiply-adds, "
        f"blobs {memory.text(totals['blob_bytes_float64'])} in float64."
    )


def freeze(points: Sequence[FreezePoint], console: Console) -> None:
    """Show what backward costs and what it does not see, a freeze point a row."""
    shown = table(*FREEZE_COLUMNS, numbers=FREEZE_COLUMNS[1:], first=FREEZE_FIRST)
    for row in freeze_rows(points):
        shown.add_row(*row)
    console.print(shown)
    console.print(f"\n{FREEZE_NOTE}")


def bundle(made: Bundle, console: Console) -> None:
    """Show what a bundle holds, a section a row."""
    counts = ("number", "elements")
    shown = table("tensors", *counts, "file", numbers=counts)
    for section, entries in made.entries.items():
        files = {entry["file"] or "SHA-256 only" for entry in entries.values()}
        elements = sum(prod(entry["shape"]) for entry in entries.values())
        shown.add_row(section, str(len(entries)), f"{elements:,}", " ".join(files))
    console.print(shown)
    recipe, stop = made.recipe, made.recipe.options["freeze_at"]
    blocked = f"{len(made.blocked)} gradients blocked (freeze_at {stop})."
    console.print(
        f"\n{made.path}: {recipe.architecture} on {text(recipe.input)}, {recipe.dtype}, {recipe.arithmetic}; "
        f"{blocked if recipe.backward else 'no gradients.'}",
        soft_wrap=True,
    )
    if made.fallbacks:
        console.print()
        _fallbacks(made, console)


def _fallbacks(made: Bundle, console: Console) -> None:
    """Show how many elements needed integers, an operator and what it computes a row."""
    ops = {node.name: node.op for node in made.recipe.structure().nodes}
    found: dict[tuple[str, str], list[Count]] = {}
    for of in made.fallbacks.values():
        for name, by_what in of.items():
            for what, count in by_what.items():
                met = what == "sum"  # the gradients of one value, whatever its operator
                found.setdefault(("", "gradients that meet") if met else (ops[name], what), []).append(count)
    counts = ("elements", "in integers", "share")
    shown = table("operator", "computes", *counts, numbers=counts)
    for (op, what), some in found.items():
        count = added(some)
        shown.add_row(op, what, f"{count.elements:,}", f"{count.undecided:,}", _share(count))
    total = added(count for some in found.values() for count in some)
    console.print(shown)
    console.print(
        f"\n{total.undecided:,} of {total.elements:,} elements ({_share(total)}) needed integers: sums in a "
        "few doubles did not decide how they are rounded.",
        soft_wrap=True,
    )


def _share(count: Count) -> str:
    """How much of all, in per cent."""
    return f"{100 * count.undecided / max(count.elements, 1):.4f} %"


def findings(found: Sequence[Finding], what: str, console: Console) -> None:
    """Show which tensors differ, one a row, and how many do not."""
    bad = [finding for finding in found if not finding.equal]
    if bad:
        counts = ("elements", "largest ulp")
        names = ("tensors", "name", "operator", *counts, "finding")
        first = ("name", "tensors", "finding", *counts)
        shown = table(*names, numbers=counts, first=first, needed=2, prose="finding")
        for finding in bad[:MOST_SHOWN]:
            numbers = ("" if n is None else f"{n:,}" for n in (finding.different, finding.max_ulp))
            shown.add_row(finding.section, finding.name, finding.op, *numbers, finding.note)
        console.print(shown)
        if len(bad) > MOST_SHOWN:
            console.print(f"... and {len(bad) - MOST_SHOWN} more (--json prints all)")
        console.print()
    equal = f"{what}: {len(found) - len(bad)} of {len(found)} tensors equal bit for bit"
    console.print(f"{equal}, {len(bad)} not." if bad else f"{equal}.", soft_wrap=True)
    for line in _where_it_begins(bad):
        console.print(line, soft_wrap=True)


def roundings(found: Sequence[Rounding], bundle: Bundle, arithmetic: str, console: Console) -> None:
    """Show how far from correctly rounded each tensor is that is not, one a row."""
    numbers = ("elements", "worst ulp", "median ulp", "correctly rounded")
    names = ("tensors", "name", "operator", *numbers, "worst at", "finding")
    first = ("name", "tensors", "finding", "worst ulp", "correctly rounded", "elements", "median ulp")
    shown = table(*names, numbers=numbers, first=first, needed=2, prose="finding")
    rest = [rounding for rounding in found if rounding.note or rounding.correct < rounding.elements]
    for rounding in rest:
        errors = [""] * 3
        if rounding.elements and rounding.worst is not None and rounding.typical is not None:
            share = 100 * rounding.correct / rounding.elements
            errors = [f"{rounding.worst:,}", f"{rounding.typical:,.0f}", f"{share:.2f} %"]
        where = "" if rounding.where is None else ", ".join(map(str, rounding.where))
        bad = f"not finite: {rounding.unexplained:,}" if rounding.unexplained else ""
        note = "; ".join(filter(None, (rounding.note, bad)))
        row = (rounding.section, rounding.name, rounding.op, f"{rounding.elements:,}", *errors, where, note)
        shown.add_row(*row)
    if rest:
        console.print(shown)
        console.print()
    correct, elements = sum(r.correct for r in found), sum(r.elements for r in found)
    console.print(
        f"{bundle.path}, made by {bundle.recipe.arithmetic}, against {arithmetic}: {correct:,} of "
        f"{elements:,} elements correctly rounded, all in {len(found) - len(rest)} of {len(found)} tensors.",
        soft_wrap=True,
    )
    if any(rounding.derived for rounding in rest):
        console.print(
            "Blobs are compared on the bundle's own inputs. It holds no gradients of blobs: those that its "
            f"gradients are compared by are {arithmetic}'s, from its output gradients on.",
            soft_wrap=True,
        )
    if unexplained := [rounding.name for rounding in found if not rounding.explained]:
        more = f" and {len(unexplained) - MOST_NAMED} more" if len(unexplained) > MOST_NAMED else ""
        console.print(f"No rounding explains {', '.join(unexplained[:MOST_NAMED])}{more}.", soft_wrap=True)


def _where_it_begins(bad: Sequence[Finding]) -> Iterator[str]:
    """Say which tensor is the first to differ, how, and whether it explains the others."""
    if (first := first_difference(bad)) is None:
        return
    place = f" ({first.op})" if first.section == "blobs" else ""
    if first.section == "gradients":
        place = f" ({first.op} backward at {first.node})"
    yield f"The first to differ is {first.name} of {first.section}{place}: {_amount(first)}."
    if first.different is None and first.elements is not None:
        yield (
            f"In how many of its {first.elements:,} elements, and by how much: refnet golden diff of bundles "
            "that hold values."
        )
    if others := bad[1:]:
        follow = sum(finding.follows for finding in others)
        yield f"{len(others)} more differ after it, {follow} of them computed from something that differs."
        if alone := [finding.name for finding in others if finding.op and not finding.follows]:
            more = f" and {len(alone) - MOST_NAMED} more" if len(alone) > MOST_NAMED else ""
            yield f"Computed from what is equal, and different: {', '.join(alone[:MOST_NAMED])}{more}."


def _amount(finding: Finding) -> str:
    """In how many elements a tensor differs, and by how much, as far as it is known."""
    if finding.different is None:
        return finding.note
    ulp = "" if finding.max_ulp is None else f", by {finding.max_ulp:,} ulp at most"
    return f"{finding.different:,} of {finding.elements:,} elements{ulp}"


def other_machine(made: Bundle, here: Mapping[str, Any], console: Console) -> None:
    """Say whether another machine may have other bits, and in what that which made a bundle differs."""
    line = f"The bits of {made.recipe.arithmetic} belong to "
    if made.bits == EVERY_MACHINE:
        line += "every machine: others are of another version of refnet (CHANGELOG.md), or of a changed file."
    else:
        line += "the machine that made them: NumPy's exp, matrix products and sums differ."
    console.print(line, soft_wrap=True)
    for name, value in here.items():
        if made.machine.get(name) != value:
            console.print(f"made with {name} {made.machine.get(name)}, here {value}", soft_wrap=True)
