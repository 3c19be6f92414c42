"""A bundle's values compared with the correctly rounded ones, each on the bundle's own inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from refnet import memory
from refnet.arithmetic import exact
from refnet.arrays import Array, ulp_distance
from refnet.environment import in_default
from refnet.errors import FileError, NotFiniteError, UnknownNameError
from refnet.given import clean_values
from refnet.golden.bundle import Bundle, sha
from refnet.golden.candidate import stored
from refnet.golden.findings import Origin, origins
from refnet.net import Net, Node
from refnet.progress import Progress, silent, steps
from refnet.remat import Tape
from refnet.run import Run, backward
from refnet.shapes import Shape, text
from refnet.shown import Shown, Table, counted

# What a bundle can be compared with: one right value for every element, whatever the order.
JUDGES = ("exact",)


@dataclass(frozen=True)
class Rounding:
    """One blob or gradient, compared with its correctly rounded values.

    Attributes
    ----------
    section, name : str
    node, op : str
        The node that computed it, of a gradient the one whose backward did, and its operator.
    note : str
        Why it is not compared, or not to be trusted; empty where nothing is wrong.
    elements : int
    correct : int
        Elements with the bits of the correctly rounded value.
    unexplained : int
        Elements that are not finite, where the correctly rounded value is another.
    worst : int or None
        The largest error, in units in the last place, of the other elements; None where none was compared.
    typical : float or None
        The median of their errors.
    where : tuple of int or None
        Where the first unexplained element is, or else the first with the largest error; None where all are
        correct.
    derived : bool
        Of a gradient, whether the dy of its node is exact's own: a bundle holds those of outputs alone. Then
        the error is that of the whole walk from the outputs to it.
    """

    section: str
    name: str
    node: str
    op: str
    note: str = ""
    elements: int = 0
    correct: int = 0
    unexplained: int = 0
    worst: int | None = None
    typical: float | None = None
    where: tuple[int, ...] | None = None
    derived: bool = False

    @property
    def explained(self) -> bool:
        """Whether every element is a number that rounding may have made, however far off."""
        return not self.note and not self.unexplained


class Roundings(Shown, list[Rounding]):
    """Roundings in the order of the walk: a list that shows what is not correctly rounded.

    True where it is `ok`.
    """

    @property
    def ok(self) -> bool:
        """Whether something was compared, and every element is a number that rounding may have made."""
        return len(self) > 0 and all(rounding.explained for rounding in self)

    def __bool__(self) -> bool:
        return self.ok

    def _shown(self) -> Table:
        rest = [one for one in self if one.note or one.correct < one.elements]
        rows = [
            (one.section, one.name, one.note, "" if one.worst is None else f"{one.worst:,}") for one in rest
        ]
        title = f"{counted(len(self), 'tensor')}, {len(rest)} not all correctly rounded"
        return Table(title, ("tensors", "name", "finding", "worst ulp"), rows)


@in_default
def against(
    path: str | Path | Bundle, arithmetic: str = "exact", *, progress: Progress = silent
) -> Roundings:
    """Compare a bundle, whoever made it, element by element with the correctly rounded values.

    Each blob is computed again from the bundle's own blobs, inputs and parameters, so errors do not
    accumulate. A bundle holds no gradients of blobs: they are computed from the bundle's own output
    gradients and blobs, and what its gradients of inputs and parameters have lost on the way counts as
    theirs.

    Parameters
    ----------
    path : str, Path or Bundle
        A bundle that holds its tensors, not only their hashes.
    arithmetic : {"exact"}
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Roundings
        A list, true where it is `ok`. One Rounding for each blob and gradient that the bundle or its network
        has, in the order of the walk.

    Raises
    ------
    FileError
        If the bundle cannot be read, holds only hashes or rounded values, or its inputs or parameters are
        damaged.
    RefnetError
        If its inputs and parameters are not those of its network.
    """
    if arithmetic not in JUDGES:
        advice = (
            f"expected {' or '.join(JUDGES)}, every value correctly rounded; golden diff compares two bundles"
        )
        raise UnknownNameError("arithmetic to compare with", arithmetic, JUDGES, advice=advice)
    bundle = path if isinstance(path, Bundle) else Bundle(path)
    if bundle.recipe.store is not None:
        raise FileError(
            f"{bundle.path} holds values rounded to {bundle.recipe.store}, not those that a node was given: "
            "expected a bundle of values as they were computed"
        )
    net = bundle.net()
    memory.require(2 * bundle.recipe.needed_bytes(net), f"{bundle.path}, compared with {arithmetic}")
    given = {name: array for s in ("inputs", "params") for name, array in stored(bundle, s).items()}
    dys, blobs, gradients = (stored(bundle, s) for s in ("output_gradients", "blobs", "gradients"))
    for section, arrays in (("inputs", given), ("params", given), ("output_gradients", dys)):
        for name in arrays.keys() & bundle.entries[section].keys():
            if damaged := _damage(bundle, section, name, arrays[name]):
                raise FileError(f"{bundle.path}: {section} {name}: {damaged}")
    walk = _Walk(net, clean_values(net, given, allow_nonfinite=True), blobs)
    found = Roundings(walk.forward(bundle, progress))
    if bundle.recipe.backward:
        found += walk.backward(bundle, dys, gradients, progress)
    return found


class _Walk:
    """Correctly rounded values on the way through a net, each from what a bundle holds.

    Parameters
    ----------
    net : Net
    given : dict of str to ndarray
        Inputs and parameters.
    blobs : dict of str to ndarray
        Those of the bundle; where one is missing, the correctly rounded one takes its place.
    """

    def __init__(self, net: Net, given: dict[str, Array], blobs: Mapping[str, Array]):
        self._net, self._given, self._theirs = net, given, blobs
        self._dtype = next(array.dtype for array in given.values() if array.dtype.kind == "f")
        self._origins = origins(net)
        self._blobs: dict[str, Array] = {}
        self._tape = Tape()

    def forward(self, bundle: Bundle, progress: Progress) -> Iterator[Rounding]:
        """Compare blob by blob."""
        step = steps(progress, "forward", len(self._net.nodes))
        for node in self._net.nodes:
            begun = Rounding("blobs", node.name, node.name, node.op)
            theirs = self._theirs.get(node.name)
            note = "missing" if theirs is None else _damage(bundle, "blobs", node.name, theirs)
            right = self._value(node)
            if isinstance(right, str):
                note = note or right
            if theirs is not None and (theirs.shape, theirs.dtype) != (node.shape, self._dtype):
                note, theirs = _other(theirs, node.shape, self._dtype), None
            if theirs is not None and not isinstance(right, str):
                begun = _compared(begun, theirs, right)
            yield replace(begun, note=note)
            if theirs is not None:
                self._blobs[node.name] = theirs
            elif not isinstance(right, str):
                self._blobs[node.name] = right
            step(node.name)
        for name in self._theirs.keys() - {node.name for node in self._net.nodes}:
            yield Rounding("blobs", name, "", "", "not of this network")

    def _value(self, node: Node) -> Array | str:
        """The correctly rounded value of a node, or why there is none."""
        arrays = []
        for name in node.inputs:
            if name not in self._given and name not in self._blobs:
                return f"not compared: there is no {name} to compute it from"
            arrays.append(self._given[name] if name in self._given else self._blobs[name])
        try:
            right, context = exact[node.op].forward(*arrays, **node.attrs)
        except NotFiniteError as error:
            return f"not compared: {error.within(node.name, node.inputs)}"
        self._tape.record(node, context, self._blobs)
        return right

    def backward(
        self, bundle: Bundle, dys: Mapping[str, Array], theirs: Mapping[str, Array], progress: Progress
    ) -> Iterator[Rounding]:
        """Compare gradients of inputs and parameters."""
        why, right, blocked = "", dict[str, Array](), frozenset[str]()
        if missing := [node.name for node in self._net.nodes if node.name not in self._tape]:
            why = f"not compared: {missing[0]} has no correctly rounded value to go back through"
        else:
            run = Run(self._net, exact, self._given, self._blobs, self._tape)
            try:
                computed = backward(run, dys, allow_nonfinite=True)
                right, blocked = dict(computed), computed.blocked
            except NotFiniteError as error:
                why = f"not compared: {error}"
        names = {**right, **theirs}
        order = [name for section, name in self._origins if section == "gradients" and name in names]
        step = steps(progress, "backward", len(names))
        for name in dict.fromkeys([*order, *names]):
            origin = self._origins.get(("gradients", name), Origin())
            begun = Rounding("gradients", name, origin.node, origin.op, derived=origin.node not in dys)
            found, expected = theirs.get(name), right.get(name)
            note = "missing" if found is None else _damage(bundle, "gradients", name, found)
            if expected is None:
                note = note or why or ("blocked by a stop" if name in blocked else "not of this network")
            elif found is not None and (found.shape, found.dtype) != (expected.shape, expected.dtype):
                note = _other(found, expected.shape, expected.dtype)
            elif found is not None:
                begun = _compared(begun, found, expected)
            yield replace(begun, note=note)
            step(name)


def _damage(bundle: Bundle, section: str, name: str, array: Array) -> str:
    """What is wrong with stored bits, if anything."""
    right = bundle.entries[section][name]["sha256"]
    return "" if sha(array) == right else "stored bits are not those of its SHA-256"


def _other(found: Array, shape: Shape, dtype: np.dtype[Any]) -> str:
    return f"not compared: {found.dtype} {text(found.shape)}, expected {dtype} {text(shape)}"


def _compared(begun: Rounding, found: Array, right: Array) -> Rounding:
    """Compare two arrays of one shape and dtype."""
    shape, bits = found.shape, f"u{found.itemsize}"
    found, right = np.ravel(found), np.ravel(right)
    same = found.view(bits) == right.view(bits)
    explained = same | np.isfinite(found)
    errors = ulp_distance(np.where(explained, found, right), right)
    where: tuple[int, ...] | None = None
    if not same.all():
        first = int((errors if explained.all() else ~explained).argmax())
        where = tuple(map(int, np.unravel_index(first, shape)))
    return replace(
        begun,
        elements=found.size,
        correct=int(np.count_nonzero(same)),
        unexplained=int(np.count_nonzero(~explained)),
        worst=int(errors.max()),
        typical=float(np.median(errors[explained])) if explained.any() else None,
        where=where,
    )
