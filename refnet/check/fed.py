"""What was done to an input before it was read: channels in another order, a mean not taken off."""

from typing import Any

import numpy as np

from refnet.arrays import Array, wide
from refnet.check.bounds import unit


def mistake_of(found: Array, given: Array) -> dict[str, Any]:
    """What was done to an input before it was read."""
    if given.ndim != 5:
        return {"cause": "it is not what was given"}
    scale = np.abs(given).max(initial=0)
    near = 8 * unit("float32") * scale

    def same(a: Array, b: Array) -> bool:
        return a.shape == b.shape and bool((np.abs(a - b) <= near).all())

    changes: tuple[tuple[str, str, Array], ...] = (
        ("channels reversed", "its channels are in reverse order: BGR for RGB", given[:, ::-1]),
        ("time flipped", "its frames are in reverse order", given[:, :, ::-1]),
        ("lines reversed", "its lines are in reverse order", given[:, :, :, ::-1]),
        ("columns reversed", "its columns are in reverse order", given[..., ::-1]),
    )
    for name, said, changed in changes:
        if same(found, changed):
            return {"cause": said, "hypothesis": name}
    off = found - given
    mean = off.mean(axis=(0, 2, 3, 4), keepdims=True)
    if same(off - mean, np.zeros_like(off)):
        values = ", ".join(f"{v:.4g}" for v in mean.ravel())
        return {
            "cause": f"its channels are off by {values}: a mean not subtracted, or another",
            "hypothesis": "channel offset",
        }
    ratio = float((wide(found) * given).sum() / max(np.square(given).sum(), 1e-300))
    if same(wide(found), given * ratio):
        return {"cause": f"it is {ratio:.6g} times what was given", "hypothesis": "scaled"}
    return {"cause": "it is not what was given"}
