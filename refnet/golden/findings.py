"""Bundles compared: with what their recipe gives when it is derived again, or with each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refnet.arrays import Array, ulp_distance, with_one_nan
from refnet.environment import in_default
from refnet.golden.bundle import SECTIONS, Bundle, sha
from refnet.golden.derive import derive
from refnet.net import Net
from refnet.progress import Progress, silent, steps
from refnet.shapes import text

NOT_STORED = "values are not stored"


@dataclass(frozen=True)
class Finding:
    """One tensor, compared.

    Attributes
    ----------
    section, name : str
    equal : bool
        Whether all bits are.
    note : str
        What is wrong, for people; empty where nothing is.
    different : int or None
        Elements with other bits, NaN and NaN being equal; None where the tensors are not both at hand.
    max_ulp : int or None
        The largest distance in units in the last place; None also where only one side is
        NaN, and for integers.
    elements : int or None
        Of the tensor; None where the two sides have other shapes, or one is missing.
    node, op : str
        The node that computed it, of a gradient the one whose backward did, and its operator; empty for
        what is given.
    follows : bool
        Whether something that it is computed from differs too: then it may be right for what it was
        computed from. Of a gradient, whether anything before it in the walk does.
    """

    section: str
    name: str
    equal: bool
    note: str = ""
    different: int | None = None
    max_ulp: int | None = None
    elements: int | None = None
    node: str = ""
    op: str = ""
    follows: bool = False


def first_difference(found: Sequence[Finding]) -> Finding | None:
    """Return the first tensor that differs, in the order of the walk: forward, then backward.

    Parameters
    ----------
    found : sequence of Finding
        From `verify` or `diff`.

    Returns
    -------
    Finding or None
        What it was computed from is equal; what differs after it may differ for that alone.
    """
    return next((finding for finding in found if not finding.equal), None)


@in_default
def verify(path: str | Path | Bundle, *, progress: Progress = silent) -> list[Finding]:
    """Derive a bundle again from its manifest and compare bits with what it says and holds.

    Parameters
    ----------
    path : str, Path or Bundle
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    list of Finding
        One for each tensor that the bundle or the recipe has, in the order of the walk: what is given,
        blobs as forward computes them, gradients as backward does.

    Raises
    ------
    FileError
        If the bundle cannot be read.
    RefnetError
        If its recipe cannot be run.
    """
    bundle = path if isinstance(path, Bundle) else Bundle(path)
    net = bundle.recipe.net()
    tensors, blocked, _ = derive(bundle.recipe, net, bundle.pixels(), True, progress)
    findings = _each(
        origins(net),
        bundle.entries,
        tensors,
        lambda section, name: _verify_tensor(bundle, section, name, tensors[section].get(name)),
        progress,
    )
    return findings + _blocked_findings(bundle.blocked, "the manifest", blocked, "the derivation")


@in_default
def diff(a: str | Path, b: str | Path, *, progress: Progress = silent) -> list[Finding]:
    """Compare two bundles tensor by tensor.

    Parameters
    ----------
    a, b : str or Path
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    list of Finding
        One for each tensor that either has, in the order of the walk.

    Raises
    ------
    FileError
        If a bundle cannot be read.
    RefnetError
        If there is no such network as its recipe says.
    """
    first, second = Bundle(a), Bundle(b)
    findings = _each(
        origins(second.recipe.structure()) | origins(first.recipe.structure()),
        first.entries,
        second.entries,
        lambda section, name: _diff_tensor(first, second, section, name),
        progress,
    )
    if not (first.recipe.backward and second.recipe.backward):
        return findings
    return findings + _blocked_findings(first.blocked, first.path, second.blocked, second.path)


class Origin(NamedTuple):
    """Where a tensor comes from."""

    node: str = ""
    op: str = ""
    sources: tuple[str, ...] = ()


def origins(net: Net) -> dict[tuple[str, str], Origin]:
    """Where each tensor of a net comes from, by section and name, in the order of the walk."""
    given = [("inputs", name) for name in net.inputs] + [("params", name) for name in net.params]
    origins = dict.fromkeys(given, Origin())
    for node in net.nodes:
        origins["blobs", node.name] = Origin(node.name, node.op, node.inputs)
    origins |= dict.fromkeys((("output_gradients", name) for name in net.outputs), Origin())
    # The gradient of what several nodes read is complete once backward has been through the first of them.
    read = [name for node in net.nodes for name in node.inputs]
    for name in reversed(dict.fromkeys(read)):
        reader = net.first_reader(name)
        if reader is not None and (name in net.inputs or name in net.params):
            origins["gradients", name] = Origin(reader[0].name, reader[0].op)
    return origins


def _each(
    origins: Mapping[tuple[str, str], Origin],
    a: Mapping[str, Mapping[str, Any]],
    b: Mapping[str, Mapping[str, Any]],
    judge: Callable[[str, str], Finding],
    progress: Progress,
) -> list[Finding]:
    """Judge every tensor that either side has, in the order of the walk, and say where it comes from."""
    place = {key: index for index, key in enumerate(origins)}
    names = [(section, name) for section in SECTIONS for name in {**a[section], **b[section]}]
    names.sort(key=lambda key: (SECTIONS.index(key[0]), place.get(key, len(place))))
    step = steps(progress, "compare", len(names))
    findings, differing = [], set[str]()
    for section, name in names:
        origin = origins.get((section, name), Origin())
        finding = judge(section, name)
        follows = bool(differing) if section == "gradients" else not differing.isdisjoint(origin.sources)
        if not finding.equal:
            differing.add(name)
        follows = follows and not finding.equal
        findings.append(replace(finding, node=origin.node, op=origin.op, follows=follows))
        step(name)
    return findings


def _blocked_findings(a: frozenset[str], a_name: object, b: frozenset[str], b_name: object) -> list[Finding]:
    return [
        Finding("blocked", name, False, f"blocked only in {a_name if name in a else b_name}")
        for name in sorted(a ^ b)
    ]


def _verify_tensor(bundle: Bundle, section: str, name: str, derived: Array | None) -> Finding:
    entry = bundle.entries[section].get(name)
    if entry is None:
        return Finding(section, name, False, "missing from the manifest")
    if derived is None:
        return Finding(section, name, False, "in the manifest, but not of this recipe")
    if entry["shape"] != list(derived.shape) or entry["dtype"] != derived.dtype.name:
        found = f"{entry['dtype']} {text(tuple(entry['shape']))}"
        return Finding(
            section,
            name,
            False,
            f"{found} in the manifest, derived {derived.dtype} {text(derived.shape)}",
        )
    stored, claimed, right = bundle.tensor(section, name), entry["sha256"], sha(derived)
    if stored is None:
        note = "" if claimed == right else f"derived bits are not those of its SHA-256; {NOT_STORED}"
        return Finding(section, name, not note, note, elements=derived.size)
    if sha(stored) != claimed:
        compared = _compare(section, name, stored, derived, "")
        return replace(compared, equal=False, note="stored bits are not those of its SHA-256")
    return _compare(section, name, stored, derived, "derived bits differ")


def _diff_tensor(a: Bundle, b: Bundle, section: str, name: str) -> Finding:
    ours, theirs = a.entries[section].get(name), b.entries[section].get(name)
    if ours is None or theirs is None:
        return Finding(section, name, False, f"missing from {a.path if ours is None else b.path}")
    if ours["shape"] != theirs["shape"] or ours["dtype"] != theirs["dtype"]:
        found = " and ".join(f"{e['dtype']} {text(tuple(e['shape']))}" for e in (ours, theirs))
        return Finding(section, name, False, f"not comparable: {found}")
    x, y = a.tensor(section, name), b.tensor(section, name)
    for bundle, entry, stored in ((a, ours, x), (b, theirs, y)):
        if stored is not None and sha(stored) != entry["sha256"]:
            note = f"stored bits of {bundle.path} are not those of its SHA-256"
            return Finding(section, name, False, note, elements=prod(ours["shape"]))
    if x is None or y is None:
        equal = ours["sha256"] == theirs["sha256"]
        note = "" if equal else f"other SHA-256; {NOT_STORED}"
        return Finding(section, name, equal, note, elements=prod(ours["shape"]))
    return _compare(section, name, x, y, "bits differ")


def _compare(section: str, name: str, a: Array, b: Array, note: str) -> Finding:
    bits = np.dtype(f"u{a.itemsize}")
    a, b = (np.ascontiguousarray(with_one_nan(array)) for array in (a, b))
    different = int(np.count_nonzero(a.view(bits) != b.view(bits)))
    if different == 0:
        return Finding(section, name, True, "", 0, 0, a.size)
    if a.dtype.kind != "f":
        return Finding(section, name, False, note, different, None, a.size)
    if (np.isnan(a) != np.isnan(b)).any():
        return Finding(section, name, False, f"{note}, with NaN on one side alone", different, None, a.size)
    return Finding(section, name, False, note, different, int(ulp_distance(a, b).max()), a.size)
