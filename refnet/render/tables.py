"""The commands' tables, each with the lines below it, on a console."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from rich.console import Console

from refnet import memory
from refnet.arithmetic.exact.fallback import Count, added
from refnet.golden import Bundle, Cause, Finding, Rounding, first_difference
from refnet.golden.findings import BITS_DIFFER, NOT_STORED, ONE_SIDE
from refnet.golden.recipe import EVERY_MACHINE, GIVEN, SECTIONS, UNKNOWN
from refnet.render.facts import FREEZE_COLUMNS, FREEZE_FIRST, FREEZE_NOTE, freeze_rows, short
from refnet.render.terminal import say, table
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
    shown = table("option", "default", "meaning", prose="meaning", needed=3)
    for row in found:
        shown.add_row(*row)
    console.print()
    console.print(shown)


def machine(facts: Mapping[str, Any], console: Console) -> None:
    """Show what runs here and how fast it can be, a fact a row."""
    texts = {
        "memory_available": [memory.text(facts["memory_available"])],
        "kernels": [f"{op}: {how}" for op, how in facts["kernels"].items()],
    }
    shown = table("fact", "value", header=False, prose="value", needed=2)
    for name, value in facts.items():
        for line, said in enumerate(texts.get(name, [str(value)])):
            shown.add_row("" if line else name.replace("_", " "), said)
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
    console.print()
    for sentence in FREEZE_NOTE:
        console.print(sentence)


def bundle(made: Bundle, console: Console) -> None:
    """Show what a bundle holds, a section a row."""
    counts = ("number", "elements")
    shown = table("tensors", *counts, "file", numbers=counts)
    for section, entries in made.entries.items():
        files = sorted({entry["file"] or "SHA-256 only" for entry in entries.values()}, reverse=True)
        elements = sum(prod(entry["shape"]) for entry in entries.values())
        shown.add_row(section, str(len(entries)), f"{elements:,}", ", ".join(files))
    console.print(shown)
    console.print()
    say(f"{made.path}: {summary(made)}", console)
    if made.fallbacks:
        console.print()
        _fallbacks(made, console)


def summary(made: Bundle) -> str:
    """What a bundle is of, in a sentence."""
    recipe = made.recipe
    values = any(entry["file"] for entries in made.entries.values() for entry in entries.values())
    stored = f", {'stored' if values else 'hashed'} in {recipe.store}" if recipe.store else ""
    said = [f"{recipe.title()}, {recipe.dtype}{stored}, {recipe.arithmetic_name}"]
    if source := recipe.own.get("params"):
        said.append(f"parameters of {source.name}")
    stop = recipe.options.get("freeze_at")
    stopped = "" if stop is None else f" (freeze_at {stop})"
    gradients = f"{len(made.blocked)} gradients blocked{stopped}" if recipe.backward else "no gradients"
    return "; ".join([*said, gradients]) + "."


def _fallbacks(made: Bundle, console: Console) -> None:
    """Show how many elements needed integers, an operator and what it computes a row."""
    ops = {node.name: node.op for node in made.structure().nodes}
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


def causes(
    found: Sequence[Cause], findings: Sequence[Finding], bundles: tuple[Bundle, Bundle], console: Console
) -> None:
    """Say in what two bundles' recipes differ, before how much their tensors do."""
    if not found and all(finding.equal for finding in findings):
        return
    said = differences(found, bundles)
    if found and found[0].what == "recipe":
        own = bundles[0] if found[0].a is None else bundles[1]
        rest = differences(found[1:], bundles)
        line = f"{own.path} holds a run's own values and no recipe{rest and '; ' + rest}."
    elif found and found[0].recipe:
        line = f"The recipes differ: {said}."
    elif found:
        line = f"The recipes are the same; made with {said}."
    elif bundles[0].bits == EVERY_MACHINE:
        line = "The recipes are the same, so one of the two is wrong: refnet golden verify says which."
    else:
        line = "The recipes are the same."
    say(line, console)
    console.print()


def differences(found: Sequence[Cause], bundles: tuple[Bundle, Bundle]) -> str:
    """Say in what two bundles differ."""
    blocked = " and ".join(str(len(bundle.blocked)) for bundle in bundles)
    hints = {"seed": " (what is drawn is other)", "freeze_at": f" ({blocked} gradients blocked)"}
    return "; ".join(f"{c.what} {_value(c.a)} and {_value(c.b)}{hints.get(c.what, '')}" for c in found)


def _value(value: Any) -> str:
    """A value of a recipe, for people."""
    return text(value) if isinstance(value, tuple | list) else "none" if value is None else str(value)


def findings(found: Sequence[Finding], what: str, console: Console) -> None:
    """Show which tensors differ, one a row, and how many do not."""
    bad = [finding for finding in found if not finding.equal]
    if bad:
        numbers = ("elements", "share", "largest error", "relative", "ulp")
        names = ("tensors", "name", "operator", *numbers, "at", "finding")
        first = ("name", "tensors", "finding", "share", "largest error", "ulp", "relative", "elements")
        shown = table(*names, numbers=numbers, first=first, needed=2, prose="finding")
        notes = {finding.note for finding in bad}
        # What is said of all, the line on the first says.
        silent = {BITS_DIFFER} | {note for note in notes if len(notes) == 1 and note.endswith(NOT_STORED)}
        for finding in bad[:MOST_SHOWN]:
            at = "" if finding.where is None else ",".join(map(str, finding.where))
            note = "" if finding.note in silent else finding.note
            shown.add_row(finding.section, finding.name, finding.op, *_sizes(finding), at, note)
        console.print(shown)
        if len(bad) > MOST_SHOWN:
            console.print(f"... and {len(bad) - MOST_SHOWN} more (--json prints all)")
        console.print()
    derived = [finding for finding in found if finding.derived]
    tensors = [finding for finding in derived if finding.section in SECTIONS]
    wrong = sum(not finding.equal for finding in tensors)
    equal = f"{what}: {len(tensors) - wrong} of {len(tensors)} tensors equal"
    if rounded := [finding for finding in tensors if finding.equal and finding.rounded]:
        some = "" if len(rounded) == len(tensors) - wrong else f", {len(rounded):,} of them"
        equal += f"{some} once the wider side is rounded to {rounded[0].rounded}"
    else:
        equal += " bit for bit"
    equal += f", {wrong} not" if wrong else ""
    if others := len(bad) - sum(finding.section in SECTIONS for finding in bad):
        equal += f"; of the graph and the blocked gradients, {_differ(others)}"
    say(f"{equal}.", console)
    for line in _where_it_begins(bad):
        say(line, console)


def _sizes(finding: Finding) -> tuple[str, str, str, str, str]:
    """How many elements differ, which share that is, and by how much; empty where it is not known."""
    count, elements = finding.different, finding.elements
    known = finding.max_abs is not None and (finding.max_abs > 0 or ONE_SIDE not in finding.note)
    return (
        "" if count is None else f"{count:,}",
        "" if count is None or not elements else percent(count, elements),
        f"{finding.max_abs:.2e}" if known else "",
        f"{finding.max_rel:.1e}" if known and finding.max_rel is not None else "",
        "" if finding.max_ulp is None else ulps(finding.max_ulp),
    )


def ulps(count: int) -> str:
    """A distance in ulp; of one that is no rounding any more, the size."""
    return f"{count:,}" if count < 10**9 else f"{count:.1e}"


def percent(count: int, total: int) -> str:
    """A share of elements, none of them rounded to nothing, nor to all."""
    share = 100 * count / total
    if count > 0 and share < 0.01:
        return "< 0.01 %"
    return "> 99.99 %" if count < total and share > 99.99 else f"{share:.2f} %"


def not_derived(found: Sequence[Finding], bundle: Bundle, console: Console) -> None:
    """Say what could not be derived, and why."""
    taken = [finding for finding in found if not finding.derived]
    by_section = {s: [f.name for f in taken if f.section == s] for s in SECTIONS}
    given = [_number(names, s) for s, names in by_section.items() if names and s in GIVEN]
    computed = [_number(names, s) for s, names in by_section.items() if names and s not in GIVEN]
    if given:
        say(f"Not derived, but taken as stored: {', '.join(given)}.", console)
    if computed:
        source = bundle.recipe.own.get("arithmetic")
        name = source.name if source else "MODULE:NAME"
        say(
            f"Not derived: {', '.join(computed)}, computed by an arithmetic of somebody's own, "
            f"{bundle.recipe.arithmetic_name} (--arithmetic {name} derives by it).",
            console,
        )


def _number(names: Sequence[str], section: str) -> str:
    """How many tensors of a section; a single one by its name."""
    what = section.replace("_", " ")
    return f"{names[0]} of {what}" if len(names) == 1 else f"{len(names)} {what}"


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
    say(
        f"{bundle.path}, made by {bundle.recipe.arithmetic_name}, against {arithmetic}: {correct:,} of "
        f"{elements:,} elements correctly rounded, all in {len(found) - len(rest)} of {len(found)} tensors.",
        console,
    )
    if any(rounding.derived for rounding in rest):
        console.print(
            "Blobs are compared on the bundle's own inputs. It holds no gradients of blobs: those that its "
            f"gradients are compared by are {arithmetic}'s, from its output gradients on.",
            soft_wrap=True,
        )
    if unexplained := [rounding.name for rounding in found if not rounding.explained]:
        more = f" and {len(unexplained) - MOST_NAMED} more" if len(unexplained) > MOST_NAMED else ""
        say(f"No rounding explains {', '.join(unexplained[:MOST_NAMED])}{more}.", console)


def _where_it_begins(bad: Sequence[Finding]) -> Iterator[str]:
    """Say which tensor is the first to differ, how, and whether it explains the others."""
    if (first := first_difference(bad)) is None:
        return
    place = f" ({first.op})" if first.op else ""
    if first.op and first.section == "gradients":
        place = f" ({first.op} backward at {first.node})"
    yield f"The first to differ is {first.name} of {first.section}{place}: {_amount(first)}."
    if first.different is None and first.elements is not None:
        yield (
            f"In how many of its {first.elements:,} elements, and by how much: refnet golden diff of bundles "
            "that hold values."
        )
    if others := bad[1:]:
        follow = sum(finding.follows for finding in others)
        differ = _differ(len(others), "more ")
        yield f"{differ} after it, {follow} of them computed from something that differs."
        if alone := [finding.name for finding in others if finding.op and not finding.follows]:
            more = f" and {len(alone) - MOST_NAMED} more" if len(alone) > MOST_NAMED else ""
            yield f"Computed from what is equal, and different: {', '.join(alone[:MOST_NAMED])}{more}."


def _differ(count: int, more: str = "") -> str:
    """So many of something differ."""
    return f"{count:,} {more}{'differs' if count == 1 else 'differ'}"


def _amount(finding: Finding) -> str:
    """In how many elements a tensor differs, and by how much, as far as it is known."""
    if finding.different is None:
        return finding.note
    _, share, error, relative, ulp = _sizes(finding)
    said = f"{finding.different:,} of {finding.elements:,} elements ({share})"
    if finding.max_ulp == 0:
        return f"{said}, by the signs of zeros alone"
    sizes = [f"{ulp} ulp"] if ulp else []
    if finding.max_abs:
        sizes.append(f"{relative} of their size")
    if sizes:
        said += f", by {' and '.join(sizes)} at most"
    if ONE_SIDE in finding.note:
        said += f"{finding.note[finding.note.index(', with ') :]}, at {list(finding.where or ())}"
    elif finding.max_abs and finding.where is not None:
        said += f"; the largest error is {error}, at {list(finding.where)}"
        if finding.values is not None:
            said += ": {!r} and {!r}".format(*finding.values)
    return said


def other_machine(made: Bundle, here: Mapping[str, Any], console: Console) -> None:
    """Say whether another machine may have other bits, and in what that which made a bundle differs."""
    line = f"The bits of {made.recipe.arithmetic_name} belong to "
    if made.bits == UNKNOWN:
        line = f"{made.recipe.arithmetic_name} is an arithmetic of somebody's own: its bits are unknown here."
    elif made.bits == EVERY_MACHINE:
        line += "every machine: others are of another version of refnet (CHANGELOG.md), or of a changed file."
    else:
        line += "the machine that made them: NumPy's exp, matrix products and sums differ."
    console.print(line, soft_wrap=True)
    for name, value in here.items():
        if made.machine.get(name) != value:
            say(f"made with {name} {made.machine.get(name)}, here {value}", console)
