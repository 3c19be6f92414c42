"""A golden bundle that is read: its recipe, its network, its tensors.

The format is described in docs/bundle.md.
"""

from __future__ import annotations

import atexit  # noqa: F401, here: weakref.finalize would import it when it is first called
import weakref
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from refnet import memory
from refnet.arrays import Array, with_one_nan
from refnet.cached import cached_property
from refnet.errors import FileError, RefnetError, one_line, path_of, require_known
from refnet.golden import folder, graph, manifest
from refnet.golden.folder import MANIFEST
from refnet.golden.recipe import GIVEN, SECTIONS
from refnet.inputs import safetensors_file
from refnet.inputs.safetensors_file import Stored
from refnet.net import Net
from refnet.pieces import rows
from refnet.shapes import size, text
from refnet.shown import Names, Record, ShownMapping, Table, counted

# What the name of a gradient begins with.
GRADIENT = "d "


class Bundle(ShownMapping[Array]):
    """A bundle on disk, its manifest checked before all else is read. `golden.diff` compares two.

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
        self._files = folder.opened(self.path)
        weakref.finalize(self, folder.close, self._files)
        self._stored: dict[str, dict[str, Stored]] = {}
        self.manifest = Record(folder.manifest(self.path, self._files))
        found = manifest.checked(self.manifest, self.path)
        self.recipe, self.entries, self.blocked = found.recipe, Record(found.entries), Names(found.blocked)
        self.graph, self.bits = None if found.graph is None else Record(found.graph), found.bits
        self.machine, self.fallbacks = found.machine, found.fallbacks

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
            derivable = self.recipe.architecture and self.recipe.clip is None and not self.recipe.own
            advice = "; refnet.golden.make(folder, bundle.recipe) derives one" if derivable else ""
            raise self.lacks(name, advice)
        if sha(array) != self.entries[section][own]["sha256"]:
            raise FileError(
                f"{self.path} is damaged: the bits of {section} {own} are not those of its SHA-256"
            )
        return array

    def lacks(self, what: str, advice: str = "") -> FileError:
        """The error that it holds only the hash of something."""
        expected = "a bundle with its tensors, made without hashes_only=True or only=[...]"
        return FileError(f"{self.path} holds only the hash of {what}: expected {expected}{advice}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def _shown(self) -> Table:
        made, rows = self.recipe, []
        for section, entries in self.entries.items():
            elements = sum(size(tuple(entry["shape"])) for entry in entries.values())
            stored = sum(entry["file"] is not None for entry in entries.values())
            part = "stored" if stored == len(entries) else f"{stored} stored" if stored else "SHA-256 only"
            part = part if entries else "none"
            rows.append((section, f"{len(entries)}", f"{elements:,}", part))
        title = f"bundle {self.path}: {made.title()}, {made.dtype}, {made.arithmetic_name}"
        blocked = f"{counted(len(self.blocked), 'gradient')} blocked"
        title += f"; {blocked if made.backward else 'no gradients'}"
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
        require_known("section", section, self.entries)
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
