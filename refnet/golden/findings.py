"""Bundles compared: with what their recipe gives when it is derived again, or with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic import Arithmetic
from refnet.arrays import DTYPES, Array, rounded, ulp_distance, wide, with_one_nan
from refnet.environment import errstate, in_default
from refnet.errors import ValueRangeError
from refnet.golden import graph
from refnet.golden.bundle import Bundle, sha
from refnet.golden.derive import Derived, Tensors, as_stored, derive, start
from refnet.golden.recipe import GIVEN, SECTIONS, Recipe
from refnet.net import Net
from refnet.progress import Progress, silent, steps
from refnet.shapes import text
from refnet.shown import Shown, Table, counted

BITS_DIFFER = "bits differ"
ONE_SIDE = "on one side alone"
NOT_STORED = "values are not stored"


@dataclass(frozen=True)
class Finding:
    """One tensor, compared.

    Attributes
    ----------
    section, name : str
    equal : bool
        Whether all bits are, those of the wider side once it is rounded where `rounded` says so; of what is
        not derived, whether what is stored has the bits of its SHA-256.
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
    max_abs, max_rel : float or None
        The largest |a - b|, and the largest |a - b| / max(|a|, |b|), of elements that are finite on both
        sides; None where there are none, or the tensors are not both at hand.
    where : tuple of int or None
        Of the elements with other bits, one with the largest |a - b|; where some are NaN or infinite on one
        side alone, the first of these.
    values : tuple of float or None
        a and b there; None where one is not finite.
    rounded : str
        The dtype that the wider side was rounded to before; empty where both sides have one.
    derived : bool
        Whether it was compared with something: False where `verify` cannot derive it.
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
    max_abs: float | None = None
    max_rel: float | None = None
    where: tuple[int, ...] | None = None
    values: tuple[float, float] | None = None
    rounded: str = ""
    derived: bool = True


class Findings(Shown, list[Finding]):
    """Findings in the order of the walk: a list that shows what differs, and is true where nothing does."""

    @property
    def ok(self) -> bool:
        """Whether something was compared, not only taken as stored, and all of it is equal."""
        return all(finding.equal for finding in self) and any(finding.derived for finding in self)

    def __bool__(self) -> bool:
        return self.ok

    def _shown(self) -> Table:
        bad = [finding for finding in self if not finding.equal]
        rows = [(f.section, f.name, f.note, "" if f.max_abs is None else f"{f.max_abs:.2e}") for f in bad]
        title = f"{counted(len(self), 'tensor')}, {len(bad)} not equal"
        return Table(title, ("tensors", "name", "finding", "largest error"), rows)


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
def verify(
    path: str | Path | Bundle, arithmetic: Arithmetic | None = None, *, progress: Progress = silent
) -> Findings:
    """Derive a bundle again from its manifest and compare bits with what it says and holds.

    What is somebody's own (a clip's pixels, parameters) nobody can derive: the bundle's are taken, and the
    rest is derived from them. What an arithmetic of one's own computed cannot be derived without that.

    Parameters
    ----------
    path : str, Path or Bundle
    arithmetic : Arithmetic, optional
        The one that made the bundle, where that is somebody's own.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Findings
        A list, true where it is `ok`: ``assert golden.verify(...)`` fails where something differs. One
        Finding for each tensor that the bundle or the recipe has, in the order of the walk: what is given,
        blobs as forward computes them, gradients as backward does. Nodes that the manifest describes as the
        recipe does not are of section "graph".

    Raises
    ------
    FileError
        If the bundle cannot be read.
    RefnetError
        If its recipe cannot be run.
    """
    bundle = path if isinstance(path, Bundle) else Bundle(path)
    recipe = bundle.recipe
    if arithmetic is not None:
        if not recipe.owns_arithmetic:
            raise ValueRangeError(
                f"{bundle.path} was made by {recipe.arithmetic_name}: "
                "expected an arithmetic only where somebody's own made it"
            )
        recipe = replace(recipe, arithmetic=arithmetic)
    can_run = not (recipe.owns_arithmetic and isinstance(recipe.arithmetic, str))
    net = bundle.net()
    tensors, blocked, _ = _derivable(recipe, net, bundle, can_run, progress)
    findings = _described_otherwise(bundle, net) + _each(
        origins(net),
        bundle.entries,
        tensors if can_run else {**tensors, "blobs": dict.fromkeys(node.name for node in net.nodes)},
        lambda section, name: _verify_tensor(bundle, section, name, tensors[section].get(name), can_run),
        progress,
    )
    if not can_run:
        return Findings(findings)
    return Findings(findings + _blocked_findings(bundle.blocked, "the manifest", blocked, "the derivation"))


@in_default
def diff(a: str | Path | Bundle, b: str | Path | Bundle, *, progress: Progress = silent) -> Findings:
    """Compare two bundles tensor by tensor; `causes` says why they may differ.

    Where one side is in float64 and the other in float32, the wider is rounded before.

    Parameters
    ----------
    a, b : str, Path or Bundle
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Findings
        A list, true where it is `ok`: ``assert golden.diff(a, b)`` fails where something differs. One
        Finding for each tensor that either has, in the order of the walk.

    Raises
    ------
    FileError
        If a bundle cannot be read.
    RefnetError
        If there is no such network as its recipe says.
    """
    first, second = (it if isinstance(it, Bundle) else Bundle(it) for it in (a, b))
    findings = _each(
        origins(second.structure()) | origins(first.structure()),
        first.entries,
        second.entries,
        lambda section, name: _diff_tensor(first, second, section, name),
        progress,
    )
    if not (first.recipe.backward and second.recipe.backward):
        return Findings(findings)
    blocked = _blocked_findings(first.blocked, first.path, second.blocked, second.path)
    return Findings(findings + blocked)


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
    judged = []
    for section, name in names:
        judged.append(judge(section, name))
        step(name)
    # Of two networks, what one of them computes from may come later in the other, or not at all.
    before = ("inputs", "params", "blobs")
    forward = {found.name for found in judged if not found.equal and found.section in before}
    findings, begun = [], False
    for found in judged:
        origin = origins.get((found.section, found.name), Origin())
        follows = begun if found.section == "gradients" else not forward.isdisjoint(origin.sources)
        begun = begun or not found.equal
        findings.append(replace(found, node=origin.node, op=origin.op, follows=follows and not found.equal))
    return findings


def _blocked_findings(a: frozenset[str], a_name: object, b: frozenset[str], b_name: object) -> list[Finding]:
    return [
        Finding("blocked", name, False, f"blocked only in {a_name if name in a else b_name}")
        for name in sorted(a ^ b)
    ]


def _derivable(recipe: Recipe, net: Net, bundle: Bundle, can_run: bool, progress: Progress) -> Derived:
    """What can be derived: everything, or without the arithmetic, what its run started from."""
    own = bundle.own()
    if can_run:
        return derive(recipe, net, own, True, progress)
    tensors: Tensors = {
        section: {name: as_stored(recipe, section, name, array) for name, array in arrays.items()}
        for section, arrays in start(recipe, net, own).items()
    }
    return Derived({section: tensors.get(section, {}) for section in SECTIONS}, frozenset(), {})


def _described_otherwise(bundle: Bundle, net: Net) -> list[Finding]:
    """The nodes that a manifest describes as its recipe does not."""
    if bundle.graph is None or not bundle.recipe.architecture:
        return []
    return [
        Finding("graph", name, False, f"{found} in the manifest, derived {right}")
        for name, found, right in graph.differences(bundle.graph, graph.record(net))
    ]


def _taken(bundle: Bundle, section: str, name: str) -> Finding:
    """What is not derived: only that it is what was stored can be seen."""
    stored, entry = bundle.tensor(section, name), bundle.entries[section][name]
    right = stored is None or sha(stored) == entry["sha256"]
    note = "" if right else "stored bits are not those of its SHA-256"
    return Finding(section, name, right, note, elements=prod(entry["shape"]), derived=False)


def _verify_tensor(bundle: Bundle, section: str, name: str, derived: Array | None, can_run: bool) -> Finding:
    entry = bundle.entries[section].get(name)
    if entry is None:
        return Finding(section, name, False, "missing from the manifest")
    if bundle.recipe.is_own(section, name) or (section not in GIVEN and not can_run):
        return _taken(bundle, section, name)
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
    if ours["shape"] != theirs["shape"] or not _comparable(ours["dtype"], theirs["dtype"]):
        found = " and ".join(f"{e['dtype']} {text(tuple(e['shape']))}" for e in (ours, theirs))
        return Finding(section, name, False, f"not comparable: {found}")
    x, y = a.tensor(section, name), b.tensor(section, name)
    elements = prod(ours["shape"])
    for bundle, entry, stored in ((a, ours, x), (b, theirs, y)):
        if stored is not None and sha(stored) != entry["sha256"]:
            note = f"stored bits of {bundle.path} are not those of its SHA-256"
            return Finding(section, name, False, note, elements=elements)
    narrow, hashes = "", [ours["sha256"], theirs["sha256"]]
    if ours["dtype"] != theirs["dtype"]:
        narrow = min(ours["dtype"], theirs["dtype"], key=lambda dtype: np.dtype(dtype).itemsize)
        x, y = (None if v is None else rounded(v, narrow) for v in (x, y))
        hashes = [sha(v) if v is not None else h for v, h in zip((x, y), hashes, strict=True)]
        if (x if theirs["dtype"] == narrow else y) is None:
            note = f"not comparable: the values of the wider, to be rounded to {narrow}, are not stored"
            return Finding(section, name, False, note, elements=elements)
    if x is None or y is None:
        equal = hashes[0] == hashes[1]
        note = "" if equal else f"other SHA-256; {NOT_STORED}"
        return Finding(section, name, equal, note, elements=elements, rounded=narrow)
    return replace(_compare(section, name, x, y, BITS_DIFFER), rounded=narrow)


def _comparable(a: str, b: str) -> bool:
    """Whether values of two dtypes can be compared, the wider ones rounded."""
    return a == b or {a, b} == set(DTYPES)


def _compare(section: str, name: str, a: Array, b: Array, note: str) -> Finding:
    bits = np.dtype(f"u{a.itemsize}")
    a, b = (np.ascontiguousarray(with_one_nan(array)) for array in (a, b))
    different = int(np.count_nonzero(a.view(bits) != b.view(bits)))
    if different == 0:
        same = None if a.dtype.kind != "f" else 0.0
        return Finding(section, name, True, "", 0, 0, a.size, max_abs=same, max_rel=same)
    found = _errors(Finding(section, name, False, note, different, None, a.size), a, b)
    if a.dtype.kind != "f":
        return found
    for what, is_it in (("NaN", np.isnan), ("infinity", np.isinf)):
        alone = is_it(a) != is_it(b)
        if alone.any():
            where = tuple(map(int, np.unravel_index(int(alone.argmax()), a.shape)))
            found = replace(found, note=f"{note}, with {what} {ONE_SIDE}", where=where, values=None)
            if what == "NaN":
                return found
    return replace(found, max_ulp=int(ulp_distance(a, b).max()))


def _errors(found: Finding, a: Array, b: Array) -> Finding:
    """Say how far two arrays are from each other, and where farthest."""
    shape = a.shape
    bits = np.dtype(f"u{a.itemsize}")
    differ = (a.view(bits) != b.view(bits)).ravel()
    x, y = (wide(v).ravel() for v in (a, b))
    finite = np.isfinite(x) & np.isfinite(y)
    with errstate(over="ignore", invalid="ignore", divide="ignore"):
        error = np.where(finite, np.abs(x - y), 0)
        relative = np.where(error > 0, error / np.maximum(np.abs(x), np.abs(y)), 0)
    farthest = int(error.argmax()) if error.any() else int(differ.argmax())
    where = tuple(map(int, np.unravel_index(farthest, shape)))
    values = (float(x[farthest]), float(y[farthest])) if finite[farthest] else None
    if not finite.any():
        return replace(found, where=where)
    most = (float(v.max()) for v in (error, relative))
    max_abs, max_rel = (v if np.isfinite(v) else None for v in most)
    return replace(found, max_abs=max_abs, max_rel=max_rel, where=where, values=values)
