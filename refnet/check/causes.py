"""The likely cause of a wrong result, by replay: the call computed again with one mistake in it.

The catalogue is a list of groups, by what they need of an operator: a window, a kernel, groups, a scale for
each channel. A group looks at a call and proposes hypotheses; the one under which the result is explained is
named. Nothing fits: nothing is named, and `locate` says where it is wrong.
"""

from typing import NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.check.compare import beyond
from refnet.check.judge import Judge
from refnet.check.mistakes import CATALOGUE, SMALL, Hypothesis, Proposer
from refnet.check.replay import Call
from refnet.environment import errstate
from refnet.errors import RefnetError
from refnet.op import OUTPUT

# Of the wrong elements, how many a hypothesis may leave unexplained, beside being the best one.
LEFT = 0.02
# Relative to the values, what no format's rounding makes of most elements.
FAR = 0.125
# Of the norm of what is right, the norm of errors below which formats are tried first: simple mistakes of
# what is nearly right are in a few places.
NEARLY = 2.0**-8


class Cause(NamedTuple):
    """What explains a result.

    Attributes
    ----------
    hypothesis : str
        The name of the first hypothesis that does.
    sentence : str
        For people: "dx is that of a kernel flipped along T".
    others : tuple of str
        Names of others that do, too.
    """

    hypothesis: str
    sentence: str
    others: tuple[str, ...] = ()


class Fit(NamedTuple):
    """How well a hypothesis explains a result: the elements that it leaves, of those that are wrong."""

    hypothesis: Hypothesis
    left: int
    wrong: int
    part: bool


def explain(
    judge: Judge,
    kind: str | int,
    found: Array,
    dy: Array | None = None,
    *,
    typical: Array | None = None,
    slack: Array | None = None,
) -> Cause | None:
    """Name the mistake that explains a wrong result.

    Every hypothesis is replayed in float64 by the judge's oracle, simple ones first. One explains the result
    if every element is within B of what it gives: the candidate's B, and once more that for the replay.
    Of several, the first is named, and the next beside it. If none explains every element, the one that
    explains the most is named, with what it leaves, provided that this is at most 2 % of the elements that
    are wrong. Factors and formats, which explain much, are tried last.

    A convolution of very many products is replayed in part: some filters or channels, the worst among
    them.

    Parameters
    ----------
    judge : Judge
        Of the call.
    kind : "output" or int
        Whether it is y, or the gradient of which input.
    found : ndarray
    dy : ndarray, optional
        What backward was given.
    typical : ndarray of float64, optional
        What an honest error does not exceed, in units of the sum of magnitudes of the terms, element by
        element of the result: hypotheses are judged by it where it is less than B.
    slack : ndarray of float64, optional
        How far `found` may be from what was found, where it is the difference of two arrays.

    Returns
    -------
    Cause or None
        None if nothing is wrong, or nothing explains it.
    """
    with errstate(all="ignore"):
        call = Call.of_judge(judge, OUTPUT if isinstance(kind, str) else kind, found, dy, typical, slack)
        if not np.isfinite(found).all() or not call.wrong.any():
            return None
        for tier in SMALL if _is_small(call) else CATALOGUE:
            fits = _fits(call, tier)
            if fits:
                return _cause(call, fits)
    return None


def _is_small(call: Call) -> bool:
    """Whether the result is nearly right as a whole: what a format's rounding makes, and few mistakes do."""
    off = np.linalg.norm((call.found - call.right).ravel())
    return bool(off < NEARLY * np.linalg.norm(call.right.ravel()))


def _fits(call: Call, tier: tuple[Proposer, ...]) -> list[Fit]:
    """The first two hypotheses that explain everything; else the one that explains the most."""
    whole: list[Fit] = []
    best: Fit | None = None
    for propose in tier:
        for hypothesis in propose(call):
            fit = _fit(call, hypothesis)
            if fit is None or any(hypothesis.name == other.hypothesis.name for other in whole):
                continue
            if fit.left == 0:
                whole.append(fit)
                if len(whole) == 2:
                    return whole
            elif fit.left <= LEFT * fit.wrong and (best is None or fit.left < best.left):
                best = fit
    return whole or ([] if best is None else [best])


def _fit(call: Call, hypothesis: Hypothesis) -> Fit | None:
    """Replay a hypothesis; None where it cannot be, or does not bring the result near."""
    try:
        values = hypothesis.replay(call)
    except RefnetError:  # the mistake makes a call that cannot be
        return None
    if values is None or values.shape not in call.shapes:
        return None
    found, right, wrong, near = (
        call.cut(array, values.shape) for array in (call.found, call.right, call.wrong, call.near)
    )
    left = np.abs(found - values)
    if not np.linalg.norm(left.ravel()) < np.linalg.norm((found - right).ravel()):
        return None
    # Magnitudes cost as much as the replay: only where at least half of what is wrong may be explained.
    far = wrong & (left > FAR * (np.abs(found) + np.abs(values))) & (left > near)
    count = int(np.count_nonzero(wrong))
    if 2 * np.count_nonzero(far) >= count:
        return None
    sizes = (hypothesis.sizes or hypothesis.replay)(call.in_magnitudes)
    assert sizes is not None, "what can be replayed has a magnitude"
    stored = 0.0 if hypothesis.stored is None else hypothesis.stored.unit
    beyond_it = beyond(found, values, call.bound(sizes, stored))
    return Fit(hypothesis, int(np.count_nonzero(beyond_it)), count, values.shape != call.found.shape)


def _cause(call: Call, fits: list[Fit]) -> Cause:
    first = fits[0]
    said = " or ".join(fit.hypothesis.sentence for fit in fits)
    notes = []
    if first.left:
        notes.append(f"all but {first.left} of {first.wrong} wrong elements")
    if first.part:
        notes.append(f"replayed on {call.part}")
    note = f" ({'; '.join(notes)})" if notes else ""
    return Cause(
        first.hypothesis.name,
        f"{call.title} {said}{note}",
        tuple(fit.hypothesis.name for fit in fits[1:]),
    )
