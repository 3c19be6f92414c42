"""What a bundle is on disk, and how one comes to be there whole or not at all.

The format is described in docs/bundle.md.
"""

import json
import os
import re
import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from refnet import bounded_json, memory, placing
from refnet.arithmetic import ARITHMETICS
from refnet.arithmetic.exact.fallback import Count
from refnet.arrays import DTYPES, Array, with_one_nan
from refnet.errors import FileError, RefnetError, TooLargeError, one_line, require_known
from refnet.inputs import safetensors_file
from refnet.inputs.clip import Selection
from refnet.inputs.safetensors_file import MOST_AXES, Stored
from refnet.net import Net
from refnet.networks import ARCHITECTURES, build
from refnet.pieces import rows
from refnet.regular import open_regular
from refnet.remat import blob_bytes
from refnet.run import Fallbacks
from refnet.shapes import LARGEST_SIZE, Shape, size, text, volume, whole

FORMAT = "refnet golden bundle"
VERSION = 2
# To which machines the bits of an arithmetic belong: those of core and exact are defined, those of reference
# are made by NumPy's exp, matrix products and sums.
EVERY_MACHINE, ONE_MACHINE = "every machine", "one machine"
BITS = {"core": EVERY_MACHINE, "reference": ONE_MACHINE, "exact": EVERY_MACHINE}
MANIFEST = "manifest.json"
WALKS = ("forward", "backward")
SECTIONS = ("inputs", "params", "blobs", "output_gradients", "gradients")
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
class Recipe:
    """What a bundle is derived from; with the clip's pixels, all of it.

    Attributes
    ----------
    architecture : str
    options : dict
        Every option of the architecture, those left at their default included.
    input : (N, 3, T, H, W)
    seed : int
        Of the parameters, the output gradients and, without a clip, the input.
    clip : ClipSource or None
    dtype : {"float64", "float32"}
    arithmetic : str
    backward : bool
    """

    architecture: str
    input: Shape
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    clip: ClipSource | None = None
    dtype: str = "float64"
    arithmetic: str = "core"
    backward: bool = True

    def structure(self) -> Net:
        """Build the network, however much memory a run would take, and refuse what is unknown."""
        require_known("arithmetic", self.arithmetic, ARITHMETICS)
        require_known("dtype", self.dtype, DTYPES)
        require_known("architecture", self.architecture, ARCHITECTURES)
        for option in self.options:
            require_known(f"option of {self.architecture}", option, ARCHITECTURES[self.architecture].options)
        return build(self.architecture, input=self.input, **self.options)

    def net(self) -> Net:
        """Build the network, and refuse what is unknown or would not fit into memory."""
        net = self.structure()
        memory.require(self.needed_bytes(net), f"{self.architecture} on {text(self.input)}")
        return net

    def needed_bytes(self, net: Net) -> int:
        """About how much memory the run takes.

        Beside what is stored: gradients on their way, a pool's winners, a draw in float64.
        """
        return self.stored_bytes(net) + 5 * max(size(node.shape) for node in net.nodes) * 8

    def stored_bytes(self, net: Net) -> int:
        """About how large the bundle's files are."""
        itemsize = np.dtype(self.dtype).itemsize
        params = sum(map(size, net.params.values())) * (2 if self.backward else 1)
        return blob_bytes(net, itemsize) + (params + 2 * size(self.input)) * itemsize


class Bundle:
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
    entries : dict of section to dict of name to {"shape", "dtype", "sha256", "file"}
    blocked : frozenset of str
    bits : {"every machine", "one machine"}
        To which machines the bits of blobs and gradients belong; those of what is given belong to every one.
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
        self.path = Path(path)
        self._files = _open(self.path)
        weakref.finalize(self, _close, self._files)
        self._stored: dict[str, dict[str, Stored]] = {}
        self.manifest = _read_manifest(self.path, self._files)
        version = self.manifest.get("format_version")
        if type(version) is not int or version != VERSION:
            raise FileError(
                f"{self.path / MANIFEST} has format version {version!r}: "
                f"expected {VERSION}; make the bundle again with this refnet"
            )
        try:
            json.dumps(self.manifest, ensure_ascii=False).encode()
        except ValueError as error:  # half a surrogate pair is no text
            raise FileError(f"{self.path / MANIFEST} is not readable JSON: {one_line(error)}") from error
        try:
            self.recipe = _recipe(self.manifest["recipe"])
            self.entries = {s: _entries(s, self.manifest["tensors"][s]) for s in SECTIONS}
            self.blocked = frozenset(_strings(self.manifest["blocked"]))
            self.bits = _bits(self.manifest["bits"], self.recipe.arithmetic)
            self.machine = _typed("machine", self.manifest["machine"], dict)
            self.fallbacks = _fallbacks(self.manifest.get("fallbacks", {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, RefnetError):
                raise FileError(f"{self.path / MANIFEST}: {error}") from None
            raise FileError(
                f"{self.path / MANIFEST} is damaged ({type(error).__name__}: {one_line(error)}): "
                "make the bundle again"
            ) from error

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

    def pixels(self) -> Array | None:
        """Read the pixels of the recipe's clip; None where it has none.

        Raises
        ------
        FileError
            If the bundle does not hold them, or others.
        """
        if self.recipe.clip is None:
            return None
        entry = self.entries["inputs"].get("data")
        if entry is None or entry["file"] is None:
            raise FileError(f"{self.path} holds no pixels of its clip: expected inputs.safetensors")
        if tuple(entry["shape"]) != self.recipe.input:
            raise FileError(
                f"{self.path} holds pixels of shape {text(entry['shape'])}: "
                f"expected {text(self.recipe.input)}, the recipe's input"
            )
        return self.tensor("inputs", "data")


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
            f"in {parent}: take a smaller input, or --hashes-only"
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
    values["input"] = volume("recipe input", values["input"])
    _typed("options", values["options"], dict)
    _typed("backward", values["backward"], bool)
    if values["clip"] is not None:
        source = dict(values["clip"])
        _typed("clip name", source["name"], str)
        _hash("clip", source["sha256"])
        selection = Selection(
            source["frames"], source["stride"], source["start"], source["size"], source["resize"]
        )
        values["clip"] = ClipSource(**source | asdict(selection))
    return Recipe(**values)


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


def _bits(found: object, arithmetic: str) -> str:
    require_known("arithmetic", arithmetic, BITS)
    if found != BITS[arithmetic]:
        raise FileError(
            f"bits are said to be those of {found!r}: expected {BITS[arithmetic]}, for {arithmetic}"
        )
    return BITS[arithmetic]


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
