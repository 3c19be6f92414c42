"""What a manifest says, checked: nothing in it is trusted before that.

The format is described in docs/bundle.md.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refnet.arithmetic.exact.fallback import Count
from refnet.arrays import DTYPES
from refnet.errors import FileError, RefnetError, one_line, require_known
from refnet.golden import graph
from refnet.golden.folder import MANIFEST
from refnet.golden.recipe import BITS, GIVEN, OWN, SECTIONS, ClipSource, Recipe, Source
from refnet.inputs.clip import Selection
from refnet.inputs.safetensors_file import MOST_AXES
from refnet.networks import ARCHITECTURES
from refnet.run import Fallbacks
from refnet.shapes import LARGEST_SIZE, volume, whole

VERSION = 3
# Of bundles of version 2, which have no graph, and neither values of anybody's own nor rounded ones.
VERSIONS = (2, VERSION)
WALKS = ("forward", "backward")


@dataclass(frozen=True)
class Manifest:
    """What `Bundle` says under the same names."""

    recipe: Recipe
    entries: dict[str, dict[str, dict[str, Any]]]
    blocked: frozenset[str]
    graph: dict[str, Any] | None
    bits: str
    machine: dict[str, Any]
    fallbacks: dict[str, Fallbacks]


def checked(manifest: Mapping[str, Any], path: Path) -> Manifest:
    """Check a manifest, of a bundle at that path.

    Raises
    ------
    FileError
        If it is of another version, or damaged.
    """
    version = manifest.get("format_version")
    if type(version) is not int or version not in VERSIONS:
        raise FileError(
            f"{path / MANIFEST} has format version {version!r}: "
            f"expected {' or '.join(map(str, VERSIONS))}; make the bundle again with this refnet"
        )
    try:
        json.dumps(manifest, ensure_ascii=False).encode()
    except ValueError as error:  # half a surrogate pair is no text
        raise FileError(f"{path / MANIFEST} is not readable JSON: {one_line(error)}") from error
    try:
        recipe = _recipe(manifest["recipe"])
        return Manifest(
            recipe=recipe,
            entries={section: _entries(section, manifest["tensors"][section]) for section in SECTIONS},
            blocked=frozenset(_strings(manifest["blocked"])),
            graph=None if version == 2 else graph.checked(manifest["graph"]),
            bits=_bits(manifest["bits"], recipe),
            machine=_typed("machine", manifest["machine"], dict),
            fallbacks=_fallbacks(manifest.get("fallbacks", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RefnetError):
            raise FileError(f"{path / MANIFEST}: {error}") from None
        raise FileError(
            f"{path / MANIFEST} is damaged ({type(error).__name__}: {one_line(error)}): make the bundle again"
        ) from error


def _recipe(found: Mapping[str, Any]) -> Recipe:
    values = dict(found)
    _typed("options", values["options"], dict)
    _typed("backward", values["backward"], bool)
    _typed("arithmetic", values["arithmetic"], str)
    own = _typed("own", values.get("own", {}), dict)
    for what in own:
        require_known("thing of somebody's own", what, OWN)
    values["own"] = {what: None if source is None else _source(what, source) for what, source in own.items()}
    if values["architecture"] is not None:
        require_known("architecture", values["architecture"], ARCHITECTURES)
        values["input"] = volume("recipe input", values["input"])
    elif not (values["input"] is values["seed"] is values["clip"] is None and values["options"] == {}):
        raise FileError("architecture is null: expected null for input, seed and clip, and no options")
    elif missing := [what for what in GIVEN[: 2 + values["backward"]] if what not in own]:
        raise FileError(f"architecture is null: expected {missing[0]} among what is own")
    else:
        values |= {"architecture": "", "input": (), "seed": 0}
    if values["clip"] is not None:
        source = dict(values["clip"])
        _typed("clip name", source["name"], str)
        _hash("clip", source["sha256"])
        selection = Selection(
            source["frames"], source["stride"], source["start"], source["size"], source["resize"]
        )
        values["clip"] = ClipSource(**source | asdict(selection))
    return Recipe(**values)


def _source(what: str, found: Any) -> Source:
    source = Source(**_typed(f"own {what}", found, dict))
    _typed(f"name of own {what}", source.name, str)
    if source.sha256 is not None:
        _hash(f"own {what}", source.sha256)
    return source


def _entries(section: str, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    entries = {}
    for name, entry in found.items():
        if entry["file"] not in (None, f"{section}.safetensors"):
            raise FileError(
                f"{section} {name} points to the file {entry['file']!r}: "
                f"expected {section}.safetensors, in the bundle"
            )
        _hash(f"{section} {name}", entry["sha256"])
        if entry["dtype"] not in (*DTYPES, "int64"):
            raise FileError(f"{section} {name} is {entry['dtype']!r}: expected {', '.join(DTYPES)} or int64")
        if len(entry["shape"]) > MOST_AXES:
            raise FileError(f"{section} {name} has {len(entry['shape'])} axes: expected {MOST_AXES} at most")
        shape = [whole(f"{section} {name} size", size, 1, LARGEST_SIZE) for size in entry["shape"]]
        entries[name] = {**entry, "shape": shape}
    return entries


def _strings(found: Any) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TypeError("blocked is not a list of names")
    return found


def _bits(found: object, recipe: Recipe) -> str:
    if not recipe.owns_arithmetic:
        require_known("arithmetic", recipe.arithmetic, BITS)
    if found != recipe.bits:
        raise FileError(
            f"bits are said to be those of {found!r}: expected {recipe.bits}, for {recipe.arithmetic_name}"
        )
    return recipe.bits


def _fallbacks(found: Any) -> dict[str, Fallbacks]:
    """What was counted, walk by walk; how the manifest adds it up is not read."""
    return {
        walk: {
            name: {what: _count(f"fallbacks of {name}, {what},", count) for what, count in of.items()}
            for name, of in found[walk].items()
        }
        for walk in (WALKS if found else ())
    }


def _count(what: str, found: Mapping[str, Any]) -> Count:
    elements = whole(f"{what} elements", found["elements"], 0)
    return Count(elements, whole(f"{what} undecided", found["undecided"], 0, elements))


def _typed(what: str, found: Any, kind: type) -> Any:
    if not isinstance(found, kind):
        raise FileError(f"{what} is {found!r}: expected a JSON {kind.__name__}")
    return found


def _hash(what: str, found: Any) -> None:
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
        raise FileError(f"{what} has sha256 {found!r}: expected 64 hex digits, in small letters")
