"""Why two bundles may differ: what their recipes say differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from refnet.errors import require_kind
from refnet.golden import graph
from refnet.golden.bundle import Bundle
from refnet.golden.recipe import EVERY_MACHINE


class Cause(NamedTuple):
    """One thing in which two bundles differ, and what it is of each.

    `recipe` says whether the recipes differ in it, or what made the bundles.
    """

    what: str
    a: Any
    b: Any
    recipe: bool = True


# How a run was carried out and stored.
RUN = ("dtype", "arithmetic", "backward", "store")


def causes(a: Bundle, b: Bundle) -> list[Cause]:
    """What may explain that two bundles differ.

    Parameters
    ----------
    a, b : Bundle

    Returns
    -------
    list of Cause
        The network ("architecture", "input", its options, the first node of the "graph" that differs), what
        it was given ("seed", "clip name", "own params", ...), how it was run ("dtype", "arithmetic",
        "backward"), how it is stored ("store"). Where one holds a run's own values and no recipe ("recipe"),
        only what a run has of these. Where the recipes say the same, the versions of refnet, and where bits
        belong to one machine, the machines. Of what is equal there is nothing.
    """
    for name, bundle in (("a", a), ("b", b)):
        require_kind(name, bundle, Bundle, "as refnet.golden.Bundle(path)")
    ours, theirs = a.recipe.record(), b.recipe.record()
    one, other = (bundle.recipe.title() if bundle.recipe.architecture else None for bundle in (a, b))
    only_one = (one is None) != (other is None)
    if only_one:
        found = [Cause("recipe", one, other)]
        found += _differing(*({name: recipe[name] for name in RUN} for recipe in (ours, theirs)))
    else:
        sides = _network(ours) | _given(a, ours), _network(theirs) | _given(b, theirs)
        found = list(_differing(*sides))
    same_network = only_one or _network(ours) == _network(theirs)
    if a.graph is not None and b.graph is not None and same_network:
        others = graph.differences(a.graph, b.graph)
        found += [Cause("graph", here, there) for _, here, there in others][:1]
    return found or [cause._replace(recipe=False) for cause in _differing(_made(a), _made(b))]


def of_another_run(a: Bundle, b: Bundle) -> list[Cause]:
    """Those causes for which two bundles are of other networks, or of other values that a run was given."""
    kept = [cause for cause in causes(a, b) if cause.recipe and cause.what not in (*RUN, "recipe", "graph")]
    return [cause for cause in kept if not cause.what.startswith("own ")]


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Cause]:
    for what in {**a, **b}:
        if a.get(what) != b.get(what):
            yield Cause(what, a.get(what), b.get(what))


def _network(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a network is built from."""
    return {"architecture": recipe["architecture"], "input": recipe["input"], **recipe["options"]}


def _given(bundle: Bundle, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a network was run on, and how."""
    clip = {} if recipe["clip"] is None else {f"clip {what}": value for what, value in recipe["clip"].items()}
    return {**{name: recipe[name] for name in ("seed", *RUN)}, **clip, **_own(bundle)}


def _own(bundle: Bundle) -> dict[str, str]:
    """What is somebody's own: where it was found, and the beginning of a hash of it."""
    found = {}
    for what, source in bundle.recipe.own.items():
        hashes = [entry["sha256"] for entry in bundle.entries.get(what, {}).values()]
        digest = f", {sha256(''.join(hashes).encode()).hexdigest()[:12]}" if hashes else ""
        found[f"own {what}"] = f"{source.name if source else 'unnamed'}{digest}"
    return found


def _made(bundle: Bundle) -> dict[str, Any]:
    """What made a bundle, as far as it matters to its bits."""
    machine = {} if bundle.bits == EVERY_MACHINE else bundle.machine
    return {**machine, "refnet": bundle.manifest.get("refnet")}
