"""What a bundle is on disk, and how one comes to be there whole or not at all.

The format is described in docs/bundle.md.
"""

import json
import os
import re
import shutil
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from refnet import bounded_json, memory, placing
from refnet.arithmetic import ARITHMETICS, Arithmetic
from refnet.arithmetic.exact.fallback import Count
from refnet.arrays import DTYPES, Array, dtype_name, with_one_nan
from refnet.errors import (
    FileError,
    RefnetError,
    TooLargeError,
    UnknownNameError,
    ValueRangeError,
    one_line,
    path_of,
    require_known,
)
from refnet.golden import graph
from refnet.inputs import safetensors_file
from refnet.inputs.clip import Selection
from refnet.inputs.safetensors_file import MOST_AXES, Stored
from refnet.net import Net
from refnet.networks import ARCHITECTURES, build
from refnet.pieces import rows
from refnet.regular import open_regular
from refnet.run import Fallbacks
from refnet.shapes import LARGEST_SIZE, Shape, size, text, volume, whole
from refnet.shown import Shown, Table, counted

FORMAT = "refnet golden bundle"
VERSION = 3
# Of bundles of version 2, which have no graph, and neither values of anybody's own nor rounded ones.
VERSIONS = (2, VERSION)
# To which machines the bits of an arithmetic belong: those of core and exact are defined, those of reference
# are made by NumPy's exp, matrix products and sums. Of somebody's own arithmetic nothing is known.
EVERY_MACHINE, ONE_MACHINE, UNKNOWN = "every machine", "one machine", "unknown"
BITS = {"core": EVERY_MACHINE, "reference": ONE_MACHINE, "exact": EVERY_MACHINE}
MANIFEST = "manifest.json"
WALKS = ("forward", "backward")
SECTIONS = ("inputs", "params", "blobs", "output_gradients", "gradients")
# What a bundle can be told to store: each section, or of the blobs the outputs alone.
GROUPS = ("inputs", "params", "blobs", "outputs", "output_gradients", "gradients")
# What may be somebody's own, and then is not derived: what a run is given, and how it is carried out.
GIVEN = ("inputs", "params", "output_gradients")
OWN = (*GIVEN, "arithmetic")
# What the name of a gradient begins with.
GRADIENT = "d "
FILES = (MANIFEST, *(f"{section}.safetensors" for section in SECTIONS))
# How often a bundle is opened again that somebody replaced meanwhile.
ATTEMPTS = 20


@dataclass(frozen=True)
class ClipSource:
    """Which frames of which clip the input was read from."""

    name: str
    sha256: str
    frames: int
    stride: int
    start: int
    size: tuple[int, int] | None
    resize: str


@dataclass(frozen=True)
class Source:
    """Where something of somebody's own was found: in which file or folder, or as which "module:name".

    SHA-256 is that of a file; None for what is none.
    """

    name: str
    sha256: str | None


@dataclass(frozen=True)
class Recipe:
    """What a bundle is derived from; with what is somebody's own (a clip's pixels, parameters), all of it.

    Attributes
    ----------
    architecture : str
        Empty for a run of somebody's own network: the bundle's graph describes it.
    input : (N, 3, T, H, W)
        Of an architecture.
    options : dict
        Every option of the architecture, those left at their default included.
    seed : int
        Of what is drawn: parameters, output gradients and, without a clip, the input.
    clip : ClipSource or None
    dtype : {"float64", "float32"}
    arithmetic : str or Arithmetic
        Somebody's own is an `Arithmetic`; read from a manifest, it is its name, and nothing can be derived by
        it.
    backward : bool
    store : {"float32"} or None
        Values of a run in float64, rounded once when they are stored; None where they are stored as computed.
    own : dict of str to (Source or None)
        What is somebody's own: of "inputs", "params", "output_gradients", "arithmetic" those, and where they
        were found, if that is known. A clip's pixels are not in it.
    """

    architecture: str
    input: Shape
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    clip: ClipSource | None = None
    dtype: str = "float64"
    arithmetic: str | Arithmetic = "core"
    backward: bool = True
    store: str | None = None
    own: Mapping[str, Source | None] = field(default_factory=dict)

    @property
    def arithmetic_name(self) -> str:
        """What the arithmetic is called, somebody's own too."""
        return self.arithmetic if isinstance(self.arithmetic, str) else self.arithmetic.name

    @property
    def owns_arithmetic(self) -> bool:
        """Whether the arithmetic is somebody's own."""
        if isinstance(self.arithmetic, str):
            return "arithmetic" in self.own
        return ARITHMETICS.get(self.arithmetic.name) is not self.arithmetic

    @property
    def bits(self) -> str:
        """To which machines the bits of blobs and gradients belong."""
        return UNKNOWN if self.owns_arithmetic else BITS[self.arithmetic_name]

    def title(self) -> str:
        """Name the network and its input."""
        return f"{self.architecture} on {text(self.input)}" if self.architecture else "a network of its own"

    def is_own(self, section: str, name: str) -> bool:
        """Whether a tensor is somebody's own: it is stored as it was given, for nobody could derive it."""
        return section in self.own or (self.clip is not None and (section, name) == ("inputs", "data"))

    def record(self) -> dict[str, Any]:
        """What a manifest says of it."""
        own = ({"arithmetic": None} if self.owns_arithmetic else {}) | dict(self.own)
        named = bool(self.architecture)
        usual = ARCHITECTURES[self.architecture].options if named else {}
        return {
            "architecture": self.architecture if named else None,
            "input": self.input if named else None,
            "options": usual | self.options,
            "seed": self.seed if named else None,
            "clip": None if self.clip is None else asdict(self.clip),
            "dtype": self.dtype,
            "arithmetic": self.arithmetic_name,
            "backward": self.backward,
            "store": self.store,
            "own": {what: None if source is None else asdict(source) for what, source in own.items()},
        }

    def require_legal(self) -> None:
        """Refuse a dtype, an arithmetic or a way of storing that there is not."""
        if not self.owns_arithmetic:
            require_known("arithmetic", self.arithmetic_name, ARITHMETICS)
        dtype_name(self.dtype)
        if self.store is not None:
            require_known("format to store values in", self.store, ("float32",))
            if self.dtype != "float64":
                raise ValueRangeError(
                    f"values of a run in {self.dtype} are stored in {self.store}: expected a run in float64"
                )

    def __post_init__(self) -> None:
        with suppress(UnknownNameError):  # which `structure` refuses
            object.__setattr__(self, "dtype", dtype_name(self.dtype))

    def structure(self) -> Net:
        """Build the network, however much memory a run would take, and refuse what is unknown."""
        self.require_legal()
        require_known("architecture", self.architecture, ARCHITECTURES)
        for option in self.options:
            require_known(f"option of {self.architecture}", option, ARCHITECTURES[self.architecture].options)
        return build(self.architecture, input=self.input, **self.options)

    def net(self) -> Net:
        """Build the network, and refuse what is unknown or would not fit into memory."""
        net = self.structure()
        memory.require(self.needed_bytes(net), self.title())
        return net

    def needed_bytes(self, net: Net) -> int:
        """About how much memory the run takes.

        Beside what it computes: that rounded, gradients on their way, a pool's winners, a draw in float64.
        """
        computed = sum(self._elements(net).values()) * np.dtype(self.dtype).itemsize
        rounded = computed // 2 if self.store else 0
        return computed + rounded + 5 * max((size(node.shape) for node in net.nodes), default=0) * 8

    def stored_bytes(self, net: Net, groups: Collection[str] = SECTIONS) -> int:
        """About how large the bundle's files are, of those groups."""
        itemsize = np.dtype(self.store or self.dtype).itemsize
        elements = self._elements(net)
        if "blobs" not in groups:
            elements["outputs"] = sum(map(size, net.outputs.values()))
        return sum(count for group, count in elements.items() if group in groups) * itemsize

    def _elements(self, net: Net) -> dict[str, int]:
        """About how many elements each section has."""
        inputs, params = (sum(map(size, given.values())) for given in (net.inputs, net.params))
        return {
            "inputs": inputs,
            "params": params,
            "blobs": sum(size(node.shape) for node in net.nodes),
            "output_gradients": sum(map(size, net.outputs.values())) if self.backward else 0,
            "gradients": inputs + params if self.backward else 0,
        }


class Bundle(Shown):
    """A bundle on disk, its manifest checked; nothing in it is trusted before that.

    Its files are opened at once, all of one folder: what is read belongs together, though the bundle be
    replaced meanwhile.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    manifest : dict
    recipe : Recipe
    graph : dict or None
        The network: "nodes", each with its "name", "operator", "inputs" and "attributes", and "outputs". None
        in bundles of format version 2, which have none.
    entries : dict of section to dict of name to {"shape", "dtype", "sha256", "file"}
    blocked : frozenset of str
    bits : {"every machine", "one machine", "unknown"}
        To which machines the bits of blobs and gradients belong; those of what is given belong to every one.
        Of somebody's own arithmetic it is unknown.
    machine : dict
        What made it: versions, processor.
    fallbacks : dict of {"forward", "backward"} to dict of str to dict of str to Count
        Of exact arithmetic, as `refnet.forward` and `refnet.backward` count: how many elements of what
        each node computed needed integers. Of the others, nothing.

    Raises
    ------
    FileError
        If it is not a bundle, is of another version, or its manifest is damaged.
    """

    def __init__(self, path: str | Path):
        self.path = path_of("bundle", path)
        self._files = _open(self.path)
        weakref.finalize(self, _close, self._files)
        self._stored: dict[str, dict[str, Stored]] = {}
        self.manifest = _read_manifest(self.path, self._files)
        version = self.manifest.get("format_version")
        if type(version) is not int or version not in VERSIONS:
            raise FileError(
                f"{self.path / MANIFEST} has format version {version!r}: "
                f"expected {' or '.join(map(str, VERSIONS))}; make the bundle again with this refnet"
            )
        try:
            json.dumps(self.manifest, ensure_ascii=False).encode()
        except ValueError as error:  # half a surrogate pair is no text
            raise FileError(f"{self.path / MANIFEST} is not readable JSON: {one_line(error)}") from error
        try:
            self.recipe = _recipe(self.manifest["recipe"])
            self.entries = {s: _entries(s, self.manifest["tensors"][s]) for s in SECTIONS}
            self.blocked = frozenset(_strings(self.manifest["blocked"]))
            self.graph = None if version == 2 else graph.checked(self.manifest["graph"])
            self.bits = _bits(self.manifest["bits"], self.recipe)
            self.machine = _typed("machine", self.manifest["machine"], dict)
            self.fallbacks = _fallbacks(self.manifest.get("fallbacks", {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, RefnetError):
                raise FileError(f"{self.path / MANIFEST}: {error}") from None
            raise FileError(
                f"{self.path / MANIFEST} is damaged ({type(error).__name__}: {one_line(error)}): "
                "make the bundle again"
            ) from error

    def structure(self) -> Net:
        """Build the network, however much memory a run would take.

        Raises
        ------
        RefnetError
            If there is no such network.
        """
        if self.recipe.architecture:
            return self.recipe.structure()
        self.recipe.require_legal()
        assert self.graph is not None
        given = ({n: tuple(e["shape"]) for n, e in self.entries[s].items()} for s in ("inputs", "params"))
        try:
            return graph.build(self.graph, *given)
        except RefnetError as error:
            raise FileError(f"{self.path / MANIFEST}: the graph is of no network: {error}") from error

    def net(self) -> Net:
        """Build the network, and refuse one whose run would not fit into memory.

        Raises
        ------
        RefnetError
            If there is no such network.
        TooLargeError
        """
        net = self.structure()
        memory.require(self.recipe.needed_bytes(net), self.recipe.title())
        return net

    @cached_property
    def places(self) -> dict[str, tuple[str, str]]:
        """The section of each tensor, and its name there, by the name that `bundle[name]` takes."""
        starts = {"gradients": GRADIENT, "output_gradients": f"{GRADIENT}output "}
        return {
            starts.get(section, "") + name: (section, name)
            for section in SECTIONS
            for name in self.entries[section]
        }

    def place(self, name: str) -> tuple[str, str]:
        """The section of a tensor, and its name there.

        Raises
        ------
        UnknownNameError
            If the bundle has no such tensor.
        FileError
            If it is a gradient that a stop blocks.
        """
        if isinstance(name, str) and name.removeprefix(GRADIENT) in self.blocked and name not in self.places:
            raise FileError(f"{self.path} has no {name}: a stop blocks that gradient")
        require_known(f"tensor of {self.path}", name, self.places)
        return self.places[name]

    def __getitem__(self, name: str) -> Array:
        """The value of a node, input or parameter; as ``"d NAME"`` the gradient of an input or parameter.

        What backward started from is ``"d output NAME"``.

        Raises
        ------
        UnknownNameError
            If the bundle has no such tensor.
        FileError
            If it holds only its hash, or what it holds is damaged.
        """
        section, own = self.place(name)
        array = self.tensor(section, own)
        if array is None:
            raise FileError(
                f"{self.path} holds only the hash of {name}: expected a bundle with its tensors, "
                "made without --hashes-only or --only"
            )
        if sha(array) != self.entries[section][own]["sha256"]:
            raise FileError(
                f"{self.path} is damaged: the bits of {section} {own} are not those of its SHA-256"
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def _ipython_key_completions_(self) -> list[str]:
        return [*self.places]

    def _shown(self) -> Table:
        made, rows = self.recipe, []
        for section, entries in self.entries.items():
            elements = sum(size(tuple(entry["shape"])) for entry in entries.values())
            stored = sum(entry["file"] is not None for entry in entries.values())
            part = "stored" if stored == len(entries) else f"{stored} stored" if stored else "SHA-256 only"
            rows.append((section, f"{len(entries)}", f"{elements:,}", part))
        title = f"bundle {self.path}: {made.title()}, {made.dtype}, {made.arithmetic_name}"
        title += f"; {counted(len(self.blocked), 'gradient')} blocked"
        return Table(title, ("tensors", "number", "elements", ""), rows)

    def tensor(self, section: str, name: str) -> Array | None:
        """Read one tensor; None where the bundle holds only its hash.

        Raises
        ------
        FileError
            If its file is missing, damaged, or holds something else than the manifest says.
        TooLargeError
            If it would not fit into memory.
        """
        require_known(f"tensor of {section}", name, self.entries[section])
        entry = self.entries[section][name]
        if entry["file"] is None:
            return None
        path = self.path / entry["file"]
        if entry["file"] not in self._files:
            raise FileError(f"{path} is not a file of the bundle: expected the tensors of {section}")
        file = self._files[entry["file"]]
        try:
            if path.name not in self._stored:
                self._stored[path.name] = safetensors_file.stored(file)
            if (found := self._stored[path.name].get(name)) is None:
                raise FileError(f"{path} holds no {name}: expected it as in the manifest")
            if found.shape != tuple(entry["shape"]) or found.dtype != entry["dtype"]:
                raise FileError(
                    f"{path}: {name} is {found.dtype} {text(found.shape)}, "
                    f"expected {entry['dtype']} {text(tuple(entry['shape']))} as in the manifest"
                )
            memory.require(found.size, f"{path}: {name}")
            array = safetensors_file.read(file, found)
        except RefnetError:
            raise
        except (OSError, ValueError) as error:
            raise FileError(f"{path} cannot be read: {one_line(error)}") from error
        return array.astype(entry["dtype"], copy=False)

    def own(self) -> dict[str, dict[str, Array]]:
        """Read what is somebody's own, by section: a clip's pixels, inputs, parameters, output gradients.

        Raises
        ------
        FileError
            If the bundle does not hold them, or others.
        """
        recipe = self.recipe
        if recipe.clip is not None:
            self._require_pixels()
        found: dict[str, dict[str, Array]] = {}
        for section in GIVEN:
            for name, entry in self.entries[section].items():
                if not recipe.is_own(section, name):
                    continue
                array = self.tensor(section, name)
                if array is None:
                    raise FileError(
                        f"{self.path} holds no {section} {name}, and nobody can derive them: "
                        f"expected {section}.safetensors"
                    )
                if entry["dtype"] not in (recipe.dtype, "int64"):
                    raise FileError(
                        f"{self.path}: {section} {name} is {entry['dtype']}: "
                        f"expected {recipe.dtype}, the recipe's"
                    )
                found.setdefault(section, {})[name] = array
        return found

    def _require_pixels(self) -> None:
        entry = self.entries["inputs"].get("data")
        if entry is None or entry["file"] is None:
            raise FileError(f"{self.path} holds no pixels of its clip: expected inputs.safetensors")
        if tuple(entry["shape"]) != self.recipe.input:
            raise FileError(
                f"{self.path} holds pixels of shape {text(entry['shape'])}: "
                f"expected {text(self.recipe.input)}, the recipe's input"
            )


def sha(array: Array) -> str:
    """SHA-256 of the elements in C order, little-endian, every NaN as `np.nan`."""
    array = with_one_nan(array)
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    octets, digest = little.reshape(-1).view(np.uint8), sha256()
    for some in rows(octets.shape):
        digest.update(octets[some].data)
    return digest.hexdigest()


def require_free(out: Path, force: bool) -> None:
    """Refuse to write where something else is, or nothing can be.

    Raises
    ------
    FileError
        If `out` exists and is not a bundle to be replaced, or its folder is not writable.
    """
    if not (out.exists() or out.is_symlink()):
        for parent in out.absolute().parents:
            if parent.exists():
                if not parent.is_dir() or not os.access(parent, os.W_OK):
                    raise FileError(f"{out} cannot be written: {parent} is not a writable folder")
                return
    if out.is_symlink() or not (out / MANIFEST).is_file():
        raise FileError(f"{out} exists and is not a golden bundle: expected a new folder's name")
    if not force:
        raise FileError(f"bundle {out} exists: expected a new folder's name, or --force to replace it")
    _require_replaceable(out, out)


def _require_replaceable(folder: Path, out: Path) -> None:
    """Refuse to delete what is not a bundle, of whatever version, and nothing else."""
    files = _open(folder)
    try:
        _read_manifest(out, files)
    finally:
        _close(files)
    others = sorted(file.name for file in folder.iterdir() if file.name not in FILES)
    if others:
        raise FileError(f"{out} also holds {others[0]}, which is no part of a bundle: it is not replaced")


def require_disk(out: Path, needed: int) -> None:
    """Refuse to write what would not fit onto the disk.

    Raises
    ------
    TooLargeError
        If fewer than `needed` bytes are free where `out` would be.
    """
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise TooLargeError(
            f"the bundle needs about {memory.text(needed)} of disk, {memory.text(free)} is free "
            f"in {parent}: take a smaller input, --store float32, --only or --hashes-only"
        )


@contextmanager
def beside(out: Path, force: bool) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when all went well, and is gone when not."""
    try:
        placing.make_folders(out.parent)
        with placing.workspace(out) as folder:
            folder.mkdir()
            yield folder
            for file in folder.iterdir():
                placing.sync(file)
            placing.sync(folder)
            _place(folder, out, force)
    except RefnetError:
        raise
    except (OSError, SafetensorError) as error:
        raise FileError(f"{out} cannot be written: {one_line(error)}") from error


def _place(folder: Path, out: Path, force: bool) -> None:
    """Give a finished folder its name; what is replaced is then where the new one was made."""
    exchanged = False
    while True:
        require_free(out, force)
        try:
            placing.put(folder, out)
            break
        except FileExistsError:  # of a bundle that may be replaced, or one that came a moment ago
            require_free(out, force)
        if not force:
            continue
        with suppress(FileNotFoundError):  # it has gone meanwhile
            placing.exchange(folder, out)
            exchanged = True
            break
    try:
        if exchanged:
            _require_replaceable(folder, out)  # somebody may have put something into it meanwhile
        placing.sync(out.parent)
    except BaseException:
        if exchanged:
            placing.exchange_back(folder, out)
        else:
            placing.put(out, folder)
        raise


def _open(path: Path) -> dict[str, int]:
    """Open the files of a bundle, by name, all of one folder; what is no regular file is left out."""
    placing.tidy(path.parent)
    for _ in range(ATTEMPTS):
        files: dict[str, int] = {}
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (OSError, ValueError):
            raise FileError(f"{path} is not a folder: expected a golden bundle") from None
        try:
            for name in FILES:
                with suppress(FileNotFoundError):
                    file = open_regular(name, folder=folder, links=False)
                    if file is not None:
                        files[name] = file
            # While the folder has its name, nobody has begun to remove what is in it.
            if os.path.samestat(os.fstat(folder), path.stat()):
                return files
        except FileNotFoundError:
            pass  # replaced by a system that cannot exchange folders
        except OSError as error:
            _close(files)
            raise FileError(f"{path} cannot be read: {one_line(error)}") from error
        finally:
            os.close(folder)
        _close(files)
    raise FileError(f"bundle {path} changed while it was read, {ATTEMPTS} times: expected one that stays")


def _close(files: dict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def _read_manifest(path: Path, files: Mapping[str, int]) -> dict[str, Any]:
    file = path / MANIFEST
    if MANIFEST not in files:
        raise FileError(f"{path} has no {MANIFEST}: expected a golden bundle")
    size = os.fstat(files[MANIFEST]).st_size
    if size > bounded_json.LARGEST:
        raise FileError(f"{file} is larger than {memory.text(bounded_json.LARGEST)}: not a manifest")
    try:
        manifest = bounded_json.loads(os.pread(files[MANIFEST], size, 0))
    except (OSError, ValueError) as error:
        raise FileError(f"{file} is not readable JSON: {one_line(error)}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FileError(f'{file} is not of format "{FORMAT}"')
    return manifest


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


def added(counts: Iterable[Count]) -> Count:
    """Counts of several things as one."""
    total = Count()
    for count in counts:
        total.elements += count.elements
        total.undecided += count.undecided
    return total


def _count(what: str, found: Mapping[str, Any]) -> Count:
    elements = whole(f"{what} elements", found["elements"], 0)
    return Count(elements, whole(f"{what} undecided", found["undecided"], 0, elements))


def _typed(what: str, found: Any, kind: type) -> Any:
    if not isinstance(found, kind):
        raise FileError(f"{what} is {found!r}: expected a JSON {kind.__name__}")
    return found


def _hash(what: str, found: Any) -> None:
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
        raise FileError(f"{what} has sha256 {found!r}: expected 64 hex digits")
