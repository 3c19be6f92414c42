"""Golden values that a project pins: derived once on each machine, kept in the user's cache, compared.

What a project keeps in its repository is a manifest: the recipe, and the SHA-256 of every array. The arrays
follow from the recipe, bit by bit, on every machine; `refnet.pytest_plugin` hands them to its tests.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from refnet.arithmetic import ARITHMETICS
from refnet.arrays import Array, ulp_distance, with_one_nan
from refnet.certify import Candidate, Report, certify
from refnet.errors import FileError, RefnetError, UnknownNameError, ValueRangeError, one_line, require_known
from refnet.golden import SECTIONS, Bundle, Recipe, make
from refnet.golden.bundle import GRADIENT
from refnet.golden.folder import MANIFEST
from refnet.networks import ARCHITECTURES
from refnet.regular import open_regular
from refnet.shapes import text

# What a candidate is made of.
PARTS = ("blobs", "given", "gradients", "blob_gradients", "output_gradients")


class Golden:
    """What a recipe gives, in a bundle whose arrays are read when they are asked for.

    Parameters
    ----------
    name : str
        For messages.
    bundle : Bundle
        With its arrays.

    Attributes
    ----------
    recipe : Recipe
    net : Net
    bundle : Bundle
    """

    def __init__(self, name: str, bundle: Bundle):
        self.name, self.bundle, self.recipe = name, bundle, bundle.recipe
        self.net = bundle.structure()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all arrays that it has."""
        return tuple(self.bundle)

    @property
    def given(self) -> dict[str, Array]:
        """Inputs and parameters, by name: what the project's own run starts from."""
        return self._section("inputs") | self._section("params")

    @property
    def output_gradients(self) -> dict[str, Array]:
        """What backward starts from, by node."""
        return self._section("output_gradients")

    def __getitem__(self, name: str) -> Array:
        """The value of a node, input or parameter, or, as ``"d NAME"``, a gradient.

        Raises
        ------
        UnknownNameError
            If the bundle has no such array.
        FileError
            If what the cache holds is not what is pinned.
        """
        require_known(f"array of {self.name}", name, self.bundle)
        try:
            return self.bundle[name]
        except FileError as error:
            raise FileError(f"{error}. Remove the folder; it is derived again") from None

    def same(self, arrays: Mapping[str, Any]) -> None:
        """Compare arrays bit by bit, every NaN being equal.

        Parameters
        ----------
        arrays : mapping of str to array_like
            By name of a node, input or parameter; gradients as ``"d NAME"``.

        Raises
        ------
        AssertionError
            Saying which differ, by how much, and where first.
        UnknownNameError, FileError
            As reading an array does.
        """
        __tracebackhide__ = True
        if not arrays:
            raise AssertionError(f"nothing to compare with {self.name}: expected some arrays by name")
        found = [(name, _difference(np.asarray(array), self[name])) for name, array in arrays.items()]
        wrong = [f"  {name}: {difference}" for name, difference in found if difference]
        if wrong:
            count = f"{len(wrong)} of {len(found)} arrays are not those of {self.name}:"
            raise AssertionError("\n".join([count, *wrong]))

    def check(self, arrays: Mapping[str, Any], **claims: Any) -> Report:
        """Judge arrays by the rounding of what they claim, as `refnet.certify.certify` does.

        Parameters
        ----------
        arrays : mapping of str to array_like
            As for `same`. Inputs, parameters and gradients of outputs among them are what the project's run
            was given, in place of the bundle's own; a gradient may also be a node's.
        **claims
            Those of `certify`: accumulate, store, operands, algorithm, ...

        Returns
        -------
        Report
            Of these arrays; the rest of the network may be missing.

        Raises
        ------
        AssertionError
            With the report, if anything is more than rounding; or if an array was not judged.
        RefnetError
            As `certify` raises it.
        """
        __tracebackhide__ = True
        leaves = {*self.net.inputs, *self.net.params}
        parts: dict[str, Any] = {part: {} for part in PARTS}
        asked = []
        for whole, array in arrays.items():
            name = whole.removeprefix(GRADIENT)
            if self.bundle.places.get(whole, ("",))[0] == "output_gradients":
                part, name = "output_gradients", self.bundle.places[whole][1]
            elif name == whole:
                part = "given" if name in leaves else "blobs"
            else:
                part = "gradients" if name in leaves else "blob_gradients"
            parts[part][name] = np.asarray(array)
            if part not in ("given", "output_gradients"):
                asked.append(whole)
        given = {name: array for name, array in self.given.items() if name not in parts["given"]}
        has_gradients = bool(parts["gradients"] or parts["blob_gradients"])
        if has_gradients:
            parts["output_gradients"] = self.output_gradients | parts["output_gradients"]
        candidate = Candidate(**parts)
        report = certify(self.net, given, candidate, **claims)
        # What was not handed in is not missing: a test may be of one array.
        report = replace(report, verdicts={n: v for n, v in report.verdicts.items() if n in asked})
        if not report.ok:
            raise AssertionError(f"not what {self.name} gives, but for rounding:\n{report!r}")
        unjudged = [name for name in asked if name not in report.verdicts]
        if unjudged:
            raise AssertionError(f"nothing judges {', '.join(unjudged)}: expected arrays of {self.name}")
        return report

    def _section(self, section: str) -> dict[str, Array]:
        return {own: self[name] for name, (of, own) in self.bundle.places.items() if of == section}


def pinned(path: str | Path) -> Golden:
    """Derive what a project has pinned, or take it from the cache.

    Parameters
    ----------
    path : str or Path
        A manifest, or a bundle of hashes only; ``refnet golden make ... --hashes-only`` makes it.

    Returns
    -------
    Golden

    Raises
    ------
    FileError
        If it cannot be read, or what is derived here is not what is pinned: naming the first such array.
    RefnetError
        If the recipe cannot be run.
    """
    path = Path(path)
    content, pin = _read(path)
    if not pin.recipe.architecture or pin.recipe.owns_arithmetic:
        raise FileError(f"{path} is of a network or an arithmetic of its own: expected what a recipe derives")
    return _derived(str(path), sha256(content).hexdigest(), pin.recipe, pin.own(), pin.entries)


def recipe(architecture: str, **options: Any) -> Golden:
    """Derive what a recipe gives, which nothing pins, or take it from the cache.

    Parameters
    ----------
    architecture : str
        A name of `refnet list`.
    **options
        Those of `refnet.golden.Recipe`: input, options, seed, dtype, backward; arithmetic, exact if not said.

    Returns
    -------
    Golden

    Raises
    ------
    RefnetError
        If there is no such recipe, or it cannot be run.
    """
    require_known("architecture", architecture, ARCHITECTURES)
    known = [option.name for option in fields(Recipe) if option.name != "architecture"]
    for option in options:
        if option not in known:
            its = option in ARCHITECTURES[architecture].options
            advice = (
                f"expected it in options={{{option!r}: ...}}, for it is one of {architecture}" if its else ""
            )
            raise UnknownNameError("option of a recipe", option, known, advice=advice)
    made = Recipe(architecture, **{"arithmetic": "exact"} | options)
    made.require_legal()
    if made.owns_arithmetic:
        raise ValueRangeError(f"arithmetic is {made.arithmetic!r}: expected {', '.join(ARITHMETICS)}")
    described = json.dumps([code_of(Path(__file__).parent), made.record()], sort_keys=True)
    return _derived(architecture, sha256(described.encode()).hexdigest(), made, {}, None)


@cache
def code_of(package: Path) -> str:
    """Return the SHA-256 of a package's modules and kernels: a change derives anew what nothing pins."""
    found = sha256()
    for path in sorted(package.rglob("*")):
        if path.name.endswith((".py", *EXTENSION_SUFFIXES)):
            content = path.read_bytes()
            found.update(f"{path.relative_to(package)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def cache_folder() -> Path:
    """Where derived bundles are kept: in the folder that the system has for a user's caches."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    else:
        told = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = told if told.is_absolute() else home / ".cache"
    return base / "refnet" / "golden"


def _read(path: Path) -> tuple[bytes, Bundle]:
    """A manifest's bytes, and the bundle that it is of."""
    if path.is_dir():
        bundle = Bundle(path)
        return json.dumps(bundle.manifest, sort_keys=True).encode(), bundle
    try:
        handle = open_regular(path)
        if handle is None:
            raise FileError(f"{path} is no file: expected a manifest, or a folder that holds one")
        with os.fdopen(handle, "rb") as file:
            content = file.read()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {one_line(error)}: expected a manifest") from error
    with TemporaryDirectory() as folder:
        alone = Path(folder, MANIFEST)
        alone.write_bytes(content)
        try:
            return content, Bundle(folder)
        except FileError as error:
            raise FileError(str(error).replace(str(alone), str(path))) from error


def _derived(
    name: str,
    key: str,
    made: Recipe,
    own: Mapping[str, Mapping[str, Array]],
    pins: Mapping[str, Mapping[str, Mapping[str, Any]]] | None,
) -> Golden:
    """From the cache if it is there and as pinned, else derived."""
    place = cache_folder() / key
    bundle = _cached(place)
    if bundle is None or (pins is not None and _first_other(pins, bundle)):
        pixels = own.get("inputs", {}).get("data")
        bundle = make(place, made, pixels=pixels, params=own.get("params"), force=True)
    if pins is not None and (other := _first_other(pins, bundle)):
        raise FileError(
            f"{name} pins other bits of {other} than {made.arithmetic_name} gives here, which are for "
            f"{bundle.bits}: expected the same. Pin anew what was made by another version, or `refnet golden "
            "verify` it where it was made"
        )
    return Golden(name, bundle)


def _cached(place: Path) -> Bundle | None:
    """What is in the cache; None where nothing is, or no bundle that this version reads."""
    try:
        return Bundle(place)
    except RefnetError:
        return None


def _first_other(pins: Mapping[str, Mapping[str, Mapping[str, Any]]], bundle: Bundle) -> str:
    """The first array of which other bits are pinned, or that one side lacks; empty if there is none."""
    for section in SECTIONS:
        here, there = pins[section], bundle.entries[section]
        for name in {**there, **here}:
            if here.get(name, {}).get("sha256") != there.get(name, {}).get("sha256"):
                return f"{section} {name}"
    return ""


def _difference(array: Array, right: Array) -> str:
    """What is wrong with an array, for people; empty where nothing is."""
    if array.shape != right.shape or array.dtype != right.dtype:
        return f"{array.dtype} {text(array.shape)}, expected {right.dtype} {text(right.shape)}"
    bits = np.dtype(f"u{right.itemsize}")
    array, right = (np.ascontiguousarray(with_one_nan(a), a.dtype.newbyteorder("=")) for a in (array, right))
    wrong = (array.view(bits) != right.view(bits)).reshape(right.shape)
    if not wrong.any():
        return ""
    first = tuple(map(int, np.argwhere(wrong)[0]))
    said = f"{np.count_nonzero(wrong):,} of {wrong.size:,} elements differ"
    if right.dtype.kind == "f":
        said += f", by {int(ulp_distance(array, right).max()):,} ulp at most"
    return f"{said}; first at {list(first)}: {array[first]!r}, expected {right[first]!r}"
