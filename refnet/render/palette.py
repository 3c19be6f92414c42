"""What figure and page agree on: panels, colours of operators, where a network's stages begin."""

import re
from collections.abc import Callable, Iterable

from refnet.op import Family
from refnet.shapes import size
from refnet.trace import Row

# The colours of each family of operators: on light ground, on dark ground.
FAMILIES: dict[Family, tuple[str, str]] = {
    "product": ("#2b6cc4", "#74aef5"),
    "norm": ("#12857f", "#4fc6bc"),
    "activation": ("#b87a00", "#e8b44a"),
    "pooling": ("#3f8a36", "#86cc7a"),
    "sum": ("#8346bd", "#c296f2"),
    "stop": ("#c5352b", "#ff8276"),
    "move": ("#b04a74", "#ee93b5"),
    "other": ("#646d7a", "#a7b0bd"),
}

# What is drawn along a network: a title, and a number for each node.
PANELS: tuple[tuple[str, Callable[[Row], int | None]], ...] = (
    ("values of the output", lambda row: size(row.output)),
    ("multiply-adds", lambda row: row.multiply_adds),
    ("parameters", lambda row: row.params),
    ("receptive field, along H", lambda row: row.field[1].size if row.field and row.field[1] else None),
)


def stage_and_block(name: str) -> tuple[str, str]:
    """Where a node's name says that it is; a pair of empty strings where it does not."""
    if found := re.match(r"(res\d+)_\d+(?=_)", name):
        return found[1], found[0]
    if found := re.match(r"fpn_(?:inner_)?(res\d+)_", name):
        return "fpn", f"fpn_{found[1]}"
    return "", ""


def places(names: Iterable[str]) -> list[tuple[str, str]]:
    """Stage and block of every node, in order; what has none is the stem, or a head."""
    found: list[tuple[str, str]] = []
    heads = 0
    for name in names:
        stage, block = stage_and_block(name)
        if not stage and found and not found[-1][0].startswith(("stem", "head")):
            heads += 1
        if not stage:
            stage = ("head" if heads == 1 else f"head {heads}") if heads else "stem"
            block = stage
        found.append((stage, block))
    return found


def bands(names: Iterable[str]) -> list[tuple[str, int, int]]:
    """Runs of nodes of one stage: (stage, first, behind the last)."""
    runs: list[tuple[str, int, int]] = []
    for i, (stage, _) in enumerate(places(names)):
        if runs and runs[-1][0] == stage:
            runs[-1] = (stage, runs[-1][1], i + 1)
        else:
            runs.append((stage, i, i + 1))
    return runs
