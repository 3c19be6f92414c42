"""A candidate: what an implementation under test has computed, array by array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from refnet import inplace as in_place
from refnet.arrays import Array, require_mapping
from refnet.errors import FileError
from refnet.inputs import tensor_files
from refnet.net import Net
from refnet.shown import Shown, Table, counted


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Candidate(Shown):
    """The arrays of a forward pass of an implementation under test, and of its backward pass, if it took one.

    Attributes
    ----------
    blobs : dict of str to ndarray
        Values of nodes, by node or by the original's in-place name, and of inputs. Some may be missing.
    gradients : dict of str to ndarray
        Of inputs and parameters.
    blob_gradients : dict of str to ndarray
        Of nodes: of one that several nodes read, the sum of all their contributions.
    output_gradients : dict of str to ndarray
        What the backward pass started from, by node.
    given : dict of str to ndarray
        The inputs and parameters that it was given, those that are known from it.
    prefix : str
        What was taken off every name.
    """

    blobs: Mapping[str, Array]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    blob_gradients: Mapping[str, Array] = field(default_factory=dict)
    output_gradients: Mapping[str, Array] = field(default_factory=dict)
    given: Mapping[str, Array] = field(default_factory=dict)
    prefix: str = ""

    def __post_init__(self) -> None:
        for name, part in self.parts().items():
            require_mapping(name, part)

    def parts(self) -> dict[str, Mapping[str, Array]]:
        """The parts that hold arrays, by name."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "prefix"}

    def _shown(self) -> Table:
        parts = self.parts()
        rows = [
            (name, counted(len(found), "array"), ", ".join([*found][:3])) for name, found in parts.items()
        ]
        return Table("candidate", ("part", "number", "the first"), rows)


# What a name begins with, and the part of a candidate that it then is.
SECTIONS = {
    "blob/": "blobs",
    "input/": "given",
    "param/": "given",
    "dblob/": "gradients",
    "grad/": "gradients",
    "d ": "gradients",
    "dY/": "output_gradients",
    "dy/": "output_gradients",
}
# Beside the arrays, a description of them that is not read.
DESCRIPTION = "meta"


def read(path: str | Path, net: Net) -> Candidate:
    """Read a candidate from a file or a folder that `refnet.inputs.tensor_files` reads.

    | name | is |
    |---|---|
    | ``blob/NODE``, ``NODE`` | the value of a node, by its own or the original's name, or of an input |
    | ``dblob/NODE``, ``d NODE`` | the gradient of a node |
    | ``grad/NAME``, ``d NAME`` | the gradient of an input or parameter |
    | ``dY/NODE``, ``dy/NODE`` | what the backward pass started from |
    | ``input/NAME``, ``param/NAME``; of a parameter ``NAME`` | an input or parameter that it was given |
    | ``meta`` | not read |

    What every one of these names has before it (``module.``) is taken off: `Candidate.prefix`.

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
        If it cannot be read (`refnet.inputs.tensor_files.read`), or two names are of one array.
    """
    parts: dict[str, dict[str, Array]] = {name: {} for name in Candidate(blobs={}).parts()}
    names: dict[tuple[str, str], str] = {}
    found = {whole: array for whole, array in tensor_files.read(path).items() if whole != DESCRIPTION}
    prefix = prefix_of([whole.removeprefix(_start(whole)) for whole in found], net)
    for whole, array in found.items():
        part, name = _part(whole, prefix, net)
        if name in parts[part]:
            raise FileError(
                f"{path} holds one array twice, as {names[part, name]} and as {whole}: expected it once"
            )
        names[part, name] = whole
        parts[part][name] = array
    return Candidate(**parts, prefix=prefix)


def named_as(candidate: Candidate, net: Net) -> Candidate:
    """The candidate without what every one of its names has before those of the net."""
    parts = candidate.parts()
    prefix = prefix_of([name for part in parts.values() for name in part], net)
    if not prefix:
        return candidate
    own = {
        what: {name.removeprefix(prefix): array for name, array in part.items()}
        for what, part in parts.items()
    }
    return Candidate(**own, prefix=prefix)


def prefix_of(names: Sequence[str], net: Net) -> str:
    """What every name has before one of the net, as ``module.``; nothing where some have not."""
    known = {*net.inputs, *net.params, *(node.name for node in net.nodes), *in_place.names(net)}
    if not names or not known.isdisjoint(names) or not all(isinstance(name, str) for name in names):
        return ""
    starts = {names[0].removesuffix(name) for name in known if names[0].endswith(name)}
    fitting = [
        start
        for start in starts
        if not start[-1].isalnum()
        and all(name.startswith(start) and name.removeprefix(start) in known for name in names)
    ]
    return min(fitting, key=len, default="")


def _start(whole: str) -> str:
    """What says of a name of which part it is, if anything does."""
    return next((start for start in SECTIONS if whole.startswith(start)), "")


def _part(whole: str, prefix: str, net: Net) -> tuple[str, str]:
    """Of which part of a candidate an array is, and its name there."""
    start = _start(whole)
    name, part = whole.removeprefix(start).removeprefix(prefix), SECTIONS.get(start, "blobs")
    if not start and name in net.params:
        part = "given"
    if part == "gradients" and name not in net.inputs and name not in net.params:
        part = "blob_gradients"
    return part, name
