"""What the run of a candidate of ``refnet certify`` started from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from refnet.arrays import Array, wide
from refnet.check.precision import format_of
from refnet.errors import require_known
from refnet.inputs.candidate import Candidate

AXES, KERNEL_AXES = "NCTHW", "KCTHW"


@dataclass(frozen=True)
class Layout:
    """The order of a candidate's axes, as `refnet.certify.certify` takes it."""

    axes: str
    kernel_axes: str

    def in_ours(self, array: Array, kernel: bool) -> Array:
        """View a blob or a kernel of five axes in the order N C T H W or K C T H W."""
        theirs, ours = (self.kernel_axes, KERNEL_AXES) if kernel else (self.axes, AXES)
        if array.ndim != len(ours) or sorted(theirs) != sorted(ours):
            return array
        return array.transpose([theirs.index(axis) for axis in ours])


@dataclass(frozen=True)
class Start:
    """The values of a bundle as a candidate was given them.

    They are rounded to the format in which the candidate stores its blobs, by way of float32. One that keeps
    its parameters in another format, or rounds them in another way, holds them itself: those are taken where
    they are the bundle's within two roundings.

    Attributes
    ----------
    bundle : dict
        The sections "inputs", "params" and "output_gradients" of the bundle.
    candidate : Candidate
    store : str
    layout : Layout
    """

    bundle: Mapping[str, Mapping[str, Array]]
    candidate: Candidate
    store: str
    layout: Layout

    @cached_property
    def own(self) -> dict[str, Array]:
        """Inputs and parameters that the candidate holds, with our order of axes.

        Raises
        ------
        UnknownNameError
            If it holds one that the bundle lacks.
        """
        inputs, params = self.bundle["inputs"], self.bundle["params"]
        for name in self.candidate.given:
            require_known("input or parameter of the candidate", name, [*inputs, *params])
        return {name: self.layout.in_ours(a, name in params) for name, a in self.candidate.given.items()}

    @cached_property
    def others(self) -> list[str]:
        """Those of them that are not the bundle's, however rounded."""
        values = {**self.bundle["inputs"], **self.bundle["params"]}
        return [name for name, own in self.own.items() if not self._is_rounded(own, values[name])]

    def given(self) -> dict[str, Array]:
        """Inputs and parameters."""
        values = {**self.bundle["inputs"], **self.bundle["params"]}
        taken = self.own.keys() - set(self.others)
        return {n: self.own[n] if n in taken else self._rounded(value) for n, value in values.items()}

    def output_gradients(self) -> dict[str, Array] | None:
        """What the backward pass started from; None where there was none, or nobody knows."""
        if not (self.candidate.gradients or self.candidate.blob_gradients):
            return None
        values = {name: self._rounded(dy) for name, dy in self.bundle["output_gradients"].items()}
        own = {name: self.layout.in_ours(dy, False) for name, dy in self.candidate.output_gradients.items()}
        return {**values, **own} or None

    def _rounded(self, value: Array) -> Array:
        if value.dtype.kind != "f" or self.store == "float64":
            return value
        single = value.astype(np.float32)
        if self.store == "float32":
            return single
        return format_of(self.store).round(wide(single)).astype(np.float32)

    def _is_rounded(self, own: Array, value: Array) -> bool:
        if own.shape != value.shape or own.dtype.kind != value.dtype.kind:
            return False
        form = format_of(self.store)
        with np.errstate(invalid="ignore"):
            near = np.abs(wide(own) - wide(value)) <= 2 * form.unit * np.abs(wide(value)) + form.smallest
        return bool(near.all())
