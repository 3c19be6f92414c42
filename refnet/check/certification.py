"""Certification: each operator, or chain between two dumped blobs, judged on the candidate's own inputs.

Errors do not accumulate, so the first failure is where the bug sits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from numpy.typing import DTypeLike

from refnet.arrays import Array, require_mapping
from refnet.check.claims import claimed, facts, reproducible, require_delta
from refnet.check.dumped import laid_out, require_axes, require_order
from refnet.check.report import Report
from refnet.check.walk import Parts, Walk
from refnet.environment import errstate
from refnet.errors import DTypeError, brief, require_known
from refnet.given import clean_values
from refnet.inputs.candidate import Candidate
from refnet.net import Net, require_net
from refnet.progress import Progress, silent

USUAL = {"fused": [], "axes": "NCTHW", "kernel_axes": "KCTHW", "delta": 1e-6}


def certify(
    net: Net,
    given: Mapping[str, Array],
    candidate: Candidate | Mapping[str, Array],
    *,
    output_gradients: Mapping[str, Array] | None = None,
    gradients: Mapping[str, Array] | None = None,
    blob_gradients: Mapping[str, Array] | None = None,
    accumulate: DTypeLike = "float32",
    store: DTypeLike = "float32",
    operands: DTypeLike = "float32",
    operand_rounding: str | None = None,
    flush_to_zero: bool = False,
    algorithm: str = "direct",
    fused: Iterable[Iterable[str]] = (),
    axes: str = "NCTHW",
    kernel_axes: str = "KCTHW",
    delta: float = 1e-6,
    progress: Progress = silent,
) -> Report:
    """Judge what an implementation under test has computed, node by node, on its own inputs.

    Each dumped blob is compared with what its operator, or the chain of operators from the nearest dumped
    blobs, makes of these in float64. The bound of each element follows from what the candidate claims, never
    from a tolerance: B, which no order of a sum exceeds, and the error that is expected of a plain chain. The
    differences are tested for structure. What fails is computed again under each mistake of a catalogue, and
    the one that explains it is named: docs/certify.md.

    Parameters
    ----------
    net : Net
    given : mapping of str to ndarray
        Inputs and parameters, as the candidate had them: float32, float64, bfloat16 or float16, in the net's
        axes. What a `Candidate` holds itself may be left out.
    candidate : Candidate, Run or mapping of str to ndarray
        Values by node, or all by the original's in-place names. A blob may be missing. What every name has
        before these (``module.``) is taken off, and the report's facts say so.
    output_gradients : mapping of str to ndarray, optional
        What the candidate's backward pass started from, by node.
    gradients : mapping of str to ndarray, optional
        The candidate's gradients of inputs and parameters.
    blob_gradients : mapping of str to ndarray, optional
        Of nodes. A blob read by several has one: the sum. Those that are missing are derived from the
        nearest that are there.
    accumulate, store : {"float32", "float64", "bfloat16", "float16"}
        What the candidate claims: the format of its sums, and of its arrays.
    operands : {"float32", "tf32", "bfloat16", "float16", "float64"}
        The format to which operands of convolutions and linear layers are rounded.
    operand_rounding : {"nearest", "away", "zero"}, optional
        How: ties to even, ties away from zero, toward zero; None for any of them.
    flush_to_zero : bool
        Whether what is below the smallest normal number may be zero, operands included.
    algorithm : {"direct", "winograd", "fft", "one-pass variance"}
    fused : iterable of iterables of str
        Groups of nodes computed by one kernel, which hand on values that are not rounded to `store`.
    axes, kernel_axes : str
        The order of the candidate's own axes of blobs and of kernels, permutations of "NCTHW" and "KCTHW".
    delta : float
        The probability with which an honest candidate may be rejected by chance.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Report
        Verdicts by node of values, in the order of the net, then as ``"d NAME"`` of gradients of nodes,
        parameters and inputs, in the order of a backward pass.

    Raises
    ------
    RefnetError
        If what is given does not fit the net, a claim is unknown, or most of the candidate's arrays have
        their axes in another order than `axes` says. What it lacks, or has in another shape or dtype, is a
        finding.
    """
    claim = claimed(accumulate, store, operands, operand_rounding, flush_to_zero, algorithm)
    require_delta(delta)
    require_axes(axes, kernel_axes)
    require_net(net)
    require_mapping("given", given)
    groups = _groups(net, fused)
    parts = Parts.of(net, candidate, output_gradients, gradients, blob_gradients)
    layout = axes, kernel_axes
    shapes = {name: net.shape(name) for name in parts.names}
    of_params = {name: array for name, array in parts.gradients.items() if name in net.params}
    require_order(parts.blobs or parts.blob_gradients, shapes, "axes", axes)
    require_order(of_params, shapes, "kernel_axes", kernel_axes)
    own = {
        name: laid_out(value, kernel_axes if name in net.params else axes)
        for name, value in parts.candidate.given.items()
    }
    values = clean_values(net, {**own, **given}, allow_nonfinite=True)
    with errstate(all="ignore"):
        walk = Walk(net, values, parts, claim, groups, layout, delta, progress)
        walk.forward()
        walk.backward()
        walk.jury.settle()
    report = Report(
        title=f"a candidate of {len(net.nodes)} nodes",
        verdicts=walk.jury.verdicts,
        facts={
            **facts(claim, delta),
            "fused": [sorted(group) for group in groups],
            "axes": axes,
            "kernel axes": kernel_axes,
            "elements": sum(verdict.elements for verdict in walk.jury.verdicts.values()),
            "not dumped": walk.absent,
            **({"names without": parts.candidate.prefix} if parts.candidate.prefix else {}),
        },
    )
    named = {"output_gradients": output_gradients, "gradients": gradients, "blob_gradients": blob_gradients}
    call = ["certify(net, given, candidate", *(f"{k}={k}" for k, v in named.items() if v is not None)]
    options = {"fused": report.facts["fused"], "axes": axes, "kernel_axes": kernel_axes, "delta": delta}
    unusual = {name: value for name, value in options.items() if value != USUAL[name]}
    return reproducible(report, ", ".join(call), claim, **unusual)


def _groups(net: Net, fused: Iterable[Iterable[str]]) -> list[frozenset[str]]:
    """Groups of nodes that hand on unrounded values."""
    if isinstance(fused, str) or not isinstance(fused, Iterable):
        raise DTypeError(
            f"fused is {brief(fused)}: expected groups of nodes, such as [['conv1', 'res_conv1_bn']]"
        )
    groups = [frozenset([group] if isinstance(group, str) else group) for group in fused]
    for group in groups:
        for name in group:
            require_known("node of a fused group", name, [node.name for node in net.nodes])
    return groups
