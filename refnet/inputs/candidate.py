"""A candidate: what an implementation under test has computed, array by array."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from refnet.arrays import Array, require_mapping
from refnet.errors import FileError
from refnet.inputs import tensor_files
from refnet.net import Net
from refnet.shown import Shown, Table, counted


@dataclass(frozen=True, kw_only=True, repr=False)
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
    """

    blobs: Mapping[str, Array]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    blob_gradients: Mapping[str, Array] = field(default_factory=dict)
    output_gradients: Mapping[str, Array] = field(default_factory=dict)
    given: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in fields(self):
            require_mapping(part.name, getattr(self, part.name))

    def _shown(self) -> Table:
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
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
    parts: dict[str, dict[str, Array]] = {part.name: {} for part in fields(Candidate)}
    names: dict[tuple[str, str], str] = {}
    for whole, array in tensor_files.read(path).items():
        if whole == DESCRIPTION:
            continue
        part, name = _part(whole, net)
        if name in parts[part]:
            raise FileError(
                f"{path} holds one array twice, as {names[part, name]} and as {whole}: expected it once"
            )
        names[part, name] = whole
        parts[part][name] = array
    return Candidate(**parts)


def _part(whole: str, net: Net) -> tuple[str, str]:
    """Of which part of a candidate an array is, and its name there."""
    start = next((start for start in SECTIONS if whole.startswith(start)), "")
    name, part = whole.removeprefix(start), SECTIONS.get(start, "blobs")
    if not start and name in net.params:
        part = "given"
    if part == "gradients" and name not in net.inputs and name not in net.params:
        part = "blob_gradients"
    return part, name
