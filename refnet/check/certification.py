"""Certification: every operator, or chain of operators between two dumped blobs, on the candidate's own inputs."""

from collections.abc import Iterable, Mapping

from refnet.arrays import Array
from refnet.check.report import Report
from refnet.inputs.candidate import Candidate
from refnet.net import Net
from refnet.progress import Progress, silent


def certify(
    net: Net,
    given: Mapping[str, Array],
    candidate: Candidate | Mapping[str, Array],
    *,
    output_gradients: Mapping[str, Array] | None = None,
    gradients: Mapping[str, Array] | None = None,
    blob_gradients: Mapping[str, Array] | None = None,
    accumulate: str = "float32",
    store: str = "float32",
    operands: str = "float32",
    operand_rounding: str | None = None,
    flush_to_zero: bool = False,
    algorithm: str = "direct",
    fused: Iterable[Iterable[str]] = (),
    axes: str = "NCTHW",
    kernel_axes: str = "KCTHW",
    delta: float = 1e-6,
    progress: Progress = silent,
) -> Report:
    """Judge what an implementation under test has computed, node by node, on its own inputs."""
    raise NotImplementedError
