"""What the run of a candidate of ``refnet certify`` started from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from refnet.arrays import Array, wide
from refnet.cached import cached_property
from refnet.check.dumped import BLOB, laid_out
from refnet.check.precision import format_of
from refnet.environment import errstate
from refnet.errors import require_known
from refnet.inputs.candidate import Candidate


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
    axes, kernel_axes : str
        The order of the candidate's axes, as `refnet.certify.certify` takes it.
    """

    bundle: Mapping[str, Mapping[str, Array]]
    candidate: Candidate
    store: str
    axes: str
    kernel_axes: str

    @cached_property
    def own(self) -> dict[str, Array]:
        """Inputs and parameters that the candidate holds, with our order of axes.

        Raises
        ------
        UnknownNameError
            If it holds one that the bundle lacks.
        ValueRangeError
            If its axes are no such order.
        """
        inputs, params = self.bundle["inputs"], self.bundle["params"]
        for name in self.candidate.given:
            require_known("input or parameter of the candidate", name, [*inputs, *params])
        return {
            name: laid_out(array, self.kernel_axes if name in params else self.axes)
            for name, array in self.candidate.given.items()
        }

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

    def judged(self) -> Candidate:
        """The candidate without what its run started from, but for inputs that are not the bundle's."""
        read = {name: self.candidate.given[name] for name in self.others if name in self.bundle["inputs"]}
        return replace(self.candidate, blobs={**read, **self.candidate.blobs}, given={}, output_gradients={})

    def output_gradients(self) -> dict[str, Array] | None:
        """What the backward pass started from, in the candidate's order of axes; None where it took none.

        The candidate's own, where it holds them, and the bundle's.
        """
        if not (self.candidate.gradients or self.candidate.blob_gradients):
            return None
        order = [BLOB.index(axis) for axis in self.axes]
        values = {
            name: self._rounded(dy).transpose(order) if dy.ndim == len(order) else self._rounded(dy)
            for name, dy in self.bundle["output_gradients"].items()
        }
        return {**values, **self.candidate.output_gradients} or None

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
        with errstate(invalid="ignore"):
            near = np.abs(wide(own) - wide(value)) <= 2 * form.unit * np.abs(wide(value)) + form.smallest
        return bool(near.all())
