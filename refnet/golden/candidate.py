"""What a bundle gives to certification: what its run starts from, and itself as a candidate."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from refnet import memory
from refnet.arrays import Array
from refnet.environment import in_default
from refnet.errors import FileError, path_of
from refnet.golden.bundle import Bundle, sha
from refnet.golden.derive import Tensors, as_stored, start
from refnet.golden.folder import MANIFEST
from refnet.golden.recipe import SECTIONS
from refnet.inputs import candidate
from refnet.inputs.candidate import Candidate
from refnet.net import Net, require_net


@in_default
def given(bundle: Bundle, net: Net) -> Tensors:
    """Derive what the run of a bundle starts from, whether its tensors are stored or only their hashes.

    Parameters
    ----------
    bundle : Bundle
    net : Net
        That of its recipe.

    Returns
    -------
    dict
        The sections "inputs", "params" and "output_gradients", in the recipe's dtype.

    Raises
    ------
    FileError
        If a hash in the manifest is not that of what the recipe gives.
    """
    found = start(bundle.recipe, net, bundle.own())
    for section, arrays in found.items():
        for name, array in arrays.items():
            right = sha(as_stored(bundle.recipe, section, name, array))
            if bundle.entries[section].get(name, {}).get("sha256") != right:
                raise FileError(
                    f"{bundle.path}: {section} {name} is not what its recipe gives: "
                    "`refnet golden verify` compares everything"
                )
    return found


def read(path: str | Path, net: Net) -> Candidate:
    """Read a candidate: a bundle's folder, or what `refnet.inputs.candidate.read` reads.

    Parameters
    ----------
    path : str or Path
    net : Net
        Whose inputs, parameters and nodes the names are.

    Returns
    -------
    Candidate

    Raises
    ------
    FileError
        If it cannot be read; of a bundle, if it holds hashes only. What it holds no values of is missing.
    TooLargeError
        If it would not fit into memory.
    """
    require_net(net)
    path = path_of("candidate", path)
    if not (path / MANIFEST).is_file():
        return candidate.read(path, net)
    bundle = Bundle(path)
    entries = [entry for section in bundle.entries.values() for entry in section.values() if entry["file"]]
    memory.require(sum(prod(e["shape"]) * np.dtype(e["dtype"]).itemsize for e in entries), str(path))
    found = {section: _kept(bundle, section) for section in SECTIONS}
    if not found["blobs"] and not found["gradients"]:
        raise bundle.lacks("blobs and gradients")
    return Candidate(
        blobs=found["blobs"],
        gradients=found["gradients"],
        output_gradients=found["output_gradients"],
        given=found["inputs"] | found["params"],
    )


def stored(bundle: Bundle, section: str) -> dict[str, Array]:
    """Read every tensor of a section.

    Raises
    ------
    FileError
        If the bundle holds only their hashes.
    """
    found = _kept(bundle, section)
    for name in bundle.entries[section]:
        if name not in found:
            raise bundle.lacks(f"{section} {name}")
    return found


def _kept(bundle: Bundle, section: str) -> dict[str, Array]:
    """Those tensors of a section that a bundle holds the values of."""
    found = ((name, bundle.tensor(section, name)) for name in bundle.entries[section])
    return {name: array for name, array in found if array is not None}
