"""A candidate: what an implementation under test has computed, array by array."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from refnet.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The arrays of a forward pass of an implementation under test, and of its backward pass, if it took one.

    Attributes
    ----------
    blobs : dict of str to ndarray
        Values of nodes, by node or by the original's in-place name. Some may be missing.
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
