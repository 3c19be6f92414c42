"""What a bundle holds, tensor by tensor: the sizes of its values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np

from refnet.arrays import Array, wide
from refnet.environment import errstate, in_default
from refnet.golden.bundle import Bundle, sha
from refnet.golden.findings import Origin, origins
from refnet.golden.recipe import SECTIONS
from refnet.progress import Progress, silent, steps
from refnet.shapes import Shape


@dataclass(frozen=True)
class Statistics:
    """One tensor of a bundle; where its hash alone is there, nothing is said of values.

    Attributes
    ----------
    section, name : str
    node, op : str
        The node that computed it, of a gradient the one whose backward did, and its operator; empty for
        what is given.
    shape : tuple of int
    dtype, sha256 : str
    stored : bool
        Whether the bundle holds the values.
    damaged : bool
        Whether those have other bits than those of the SHA-256.
    min, max, mean, max_abs : float or None
        Of the finite elements.
    zeros, nonfinite : int or None
        Elements that are zero, of either sign; that are NaN or infinite.
    """

    section: str
    name: str
    node: str
    op: str
    shape: Shape
    dtype: str
    sha256: str
    stored: bool
    damaged: bool = False
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    max_abs: float | None = None
    zeros: int | None = None
    nonfinite: int | None = None


@in_default
def statistics(
    bundle: str | Path | Bundle, name: str | None = None, *, progress: Progress = silent
) -> list[Statistics]:
    """Say how large the values of a bundle are.

    Parameters
    ----------
    bundle : str, Path or Bundle
    name : str, optional
        Of one tensor, as ``Bundle[name]`` takes it; all if not given.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    list of Statistics
        In the order of the walk: what is given, forward, backward.

    Raises
    ------
    UnknownNameError
        If there is no tensor of that name.
    FileError
        If the bundle cannot be read, or that is a gradient that a stop blocks.
    RefnetError
        If there is no such network as its recipe says.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    from_ = origins(bundle.structure())
    if name is not None:
        wanted = [bundle.place(name)]
    else:
        order = {place: i for i, place in enumerate(from_)}
        wanted = sorted(
            bundle.places.values(), key=lambda place: (SECTIONS.index(place[0]), order.get(place, len(order)))
        )
    step = steps(progress, "read", len(wanted))
    found = []
    for section, own in wanted:
        found.append(_of(bundle, section, own, from_.get((section, own), Origin())))
        step(own)
    return found


def _of(bundle: Bundle, section: str, name: str, origin: Origin) -> Statistics:
    entry, array = bundle.entries[section][name], bundle.tensor(section, name)
    known = Statistics(
        section,
        name,
        origin.node,
        origin.op,
        tuple(entry["shape"]),
        entry["dtype"],
        entry["sha256"],
        array is not None,
    )
    if array is None:
        return known
    finite = wide(array[np.isfinite(array)])
    low, high = _extremes(finite)
    return replace(
        known,
        damaged=sha(array) != entry["sha256"],
        min=low,
        max=high,
        mean=_mean(finite),
        max_abs=None if low is None or high is None else max(-low, high),
        zeros=int(np.count_nonzero(array == 0)),
        nonfinite=array.size - finite.size,
    )


def _extremes(finite: Array) -> tuple[float | None, float | None]:
    return (float(finite.min()), float(finite.max())) if finite.size else (None, None)


def _mean(finite: Array) -> float | None:
    """The mean, by NumPy's sum in float64; None where that is too large."""
    if not finite.size:
        return None
    with errstate(over="ignore"):
        mean = float(np.mean(finite))
    return mean if isfinite(mean) else None
