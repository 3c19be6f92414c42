"""Arrays of another number of axes than the net's: of a network in 2D, or flattened."""

from __future__ import annotations

from collections.abc import Mapping

from refnet.arrays import Array
from refnet.inputs.candidate import Candidate
from refnet.net import Net
from refnet.shapes import Shape, size


def fits(found: Shape, expected: Shape) -> bool:
    """Whether a shape is another but for axes of size 1 that it lacks, or for what is flattened in it."""
    if len(found) == len(expected):
        return found == expected
    flat = len(found) == 2 and found == (*expected[:1], size(expected[1:]))
    return flat or [n for n in found if n != 1] == [n for n in expected if n != 1]


def fitted(net: Net, candidate: Candidate) -> Candidate:
    """Return the candidate, its arrays with the axes of size 1 that they lack: T of a network in 2D.

    An array that does not fit is left as it is, for its verdict to say.
    """

    def shaped(found: Mapping[str, Array]) -> dict[str, Array]:
        return {name: _shaped(net, name, value) for name, value in found.items()}

    return Candidate(
        blobs=shaped(candidate.blobs),
        gradients=shaped(candidate.gradients),
        blob_gradients=shaped(candidate.blob_gradients),
        output_gradients=shaped(candidate.output_gradients),
        given=shaped(candidate.given),
    )


def _shaped(net: Net, name: str, value: Array) -> Array:
    known = name in net.inputs or name in net.params or any(node.name == name for node in net.nodes)
    shape = net.shape(name) if known else value.shape
    return value.reshape(shape) if value.ndim != len(shape) and fits(value.shape, shape) else value
