"""From a comparison to a verdict: where a result is wrong, and why."""

from dataclasses import replace

from refnet.arrays import Array
from refnet.check.causes import explain
from refnet.check.compare import Comparison
from refnet.check.judge import Judge
from refnet.check.locate import axes_of, structure
from refnet.check.maps import maps
from refnet.check.report import Verdict
from refnet.op import OUTPUT


def verdict_of(tensor: str, node: str, op: str, found: Comparison, *, cause: str = "") -> Verdict:
    """The verdict of a comparison: ok, wrong, or undecided where it does not speak of every element.

    Parameters
    ----------
    tensor, node, op : str
        The array's name, and whose result it is.
    found : Comparison
    cause : str
        What it means if it is wrong, where that is known.
    """
    decided = found.says or not found.ok
    return Verdict(
        tensor=tensor,
        verdict="wrong" if not found.ok else "ok" if decided else "undecided",
        why="" if decided else "some elements, or what bounds them, overflow or hold NaN",
        margin=found.margin,
        node=node,
        op=op,
        where=found.where,
        found=found.found,
        expected=found.expected,
        bound=found.bound,
        wrong=found.wrong,
        elements=found.elements,
        cause="" if found.ok else cause,
    )


def diagnosed(
    verdict: Verdict,
    comparison: Comparison,
    judge: Judge,
    subject: int,
    found: Array,
    dy: Array | None = None,
) -> Verdict:
    """Say of a wrong verdict which indices are wrong and what explains them.

    Parameters
    ----------
    verdict : Verdict
        Of the comparison; handed back as it is if it is not wrong.
    comparison : Comparison
    judge : Judge
        Of the call.
    subject : int
        Which input's gradient it is, by position; OUTPUT is y.
    found : ndarray
    dy : ndarray, optional
        What backward was given.
    """
    if comparison.beyond is None:
        return verdict
    axes = axes_of(judge.op, subject, found.ndim)
    cause = explain(judge, "output" if subject == OUTPUT else subject, found, dy)
    return replace(
        verdict,
        structure=structure(comparison.beyond, axes, judge.attrs.get("groups", 1)),
        maps=maps(comparison.beyond, axes),
        cause=verdict.cause if cause is None else cause.sentence,
        hypothesis=None if cause is None else cause.hypothesis,
    )
