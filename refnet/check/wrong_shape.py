"""The mistake that explains a blob of another shape: an attribute by which it would have it."""

from typing import Any

import numpy as np

from refnet.arithmetic.core import core
from refnet.arrays import Array, wide
from refnet.check.bounds import Claim, bound
from refnet.check.dumped import Dumped, laid_out
from refnet.errors import RefnetError
from refnet.ops import OPS
from refnet.shapes import ONES, ZEROS

CHANGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("stride dropped", "that of a stride of 1", {"stride": ONES}),
    ("stride 2 added", "that of a stride of 2 along H and W", {"stride": (1, 2, 2)}),
    ("pad missing", "that of a call without padding", {"pad": ZEROS}),
    ("dilation dropped", "that of a dilation of 1", {"dilation": ONES}),
)


def explained(
    op: str, arrays: tuple[Array, ...], attrs: dict[str, Any], dumped: Dumped, claim: Claim
) -> tuple[str, str] | None:
    """Say and name which attribute gives a blob its shape, and its values if they are right.

    Returns
    -------
    tuple of str, or None
        The sentence and the hypothesis.
    """
    found = np.asarray(laid_out(dumped.array, dumped.axes))
    known = attrs | {}
    changes = [*CHANGES]
    pad = tuple(known.get("pad", ZEROS))
    changes += [
        (f"pad missing {axis}", f"that of no padding along {axis}", {"pad": (*pad[:i], 0, *pad[i + 1 :])})
        for i, axis in enumerate("THW")
        if pad[i]
    ]
    for name, said, change in changes:
        if any(key in known and tuple(known[key]) == value for key, value in change.items()):
            continue
        try:
            other = known | change
            if OPS[op].output_shape(tuple(a.shape for a in arrays), other) != found.shape:
                continue
            y, _ = core[op].forward(*map(wide, arrays), **other)
            allowed = bound(OPS[op].magnitude(*map(wide, arrays), **other), claim)
        except RefnetError:
            continue
        right = (np.abs(found - y) <= allowed.absolute + allowed.relative * np.abs(y)).all()
        if right:
            return said, name
    return _rounded_up(op, arrays, known, found)


def _rounded_up(
    op: str, arrays: tuple[Array, ...], attrs: dict[str, Any], found: Array
) -> tuple[str, str] | None:
    """A pool whose output size is rounded up (ceil_mode): its last windows hang over the end."""
    if op not in ("max_pool3d", "average_pool3d") or found.ndim != 5:
        return None
    right = OPS[op].output_shape(tuple(a.shape for a in arrays), attrs)
    more = [f - r for f, r in zip(found.shape[2:], right[2:], strict=True)]
    if found.shape[:2] != right[:2] or not all(m in (0, 1) for m in more) or not any(more):
        return None
    return "that of an output size rounded up (ceil mode)", "ceil"
