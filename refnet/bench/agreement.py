"""Whether what a peer computes is what refnet computes."""

from collections.abc import Callable, Mapping

import numpy as np

from refnet.arrays import Array
from refnet.shapes import text

# Compares two arrays of one shape: ``(what, name, ours, theirs)``; raises DisagreementError.
Requirement = Callable[[str, str, Array, Array], None]


class DisagreementError(Exception):
    """A peer's result is not refnet's."""


def check(what: str, ours: Mapping[str, Array], theirs: Mapping[str, Array], require: Requirement) -> None:
    """Compare all that a peer computes with refnet's, array by array.

    Raises
    ------
    DisagreementError
        If one of the two lacks an array, a shape is another, or `require` refuses one.
    """
    if theirs.keys() != ours.keys():
        odd = sorted(theirs.keys() ^ ours.keys())
        raise DisagreementError(f"{what}: only one of the two has {odd[0]}; nothing is timed")
    for name in ours:
        if theirs[name].shape != ours[name].shape:
            shapes = f"{text(theirs[name].shape)}, refnet's {text(ours[name].shape)}"
            raise DisagreementError(f"{what}: {name} is {shapes}; nothing is timed")
        require(what, name, ours[name], theirs[name])


def require_equal(what: str, name: str, ours: Array, theirs: Array) -> None:
    """Refuse any difference."""
    if not np.array_equal(ours, theirs):
        count = int((ours != theirs).sum())
        raise DisagreementError(
            f"{what}: {count} of {ours.size} values of {name} are not refnet's, "
            "on whole numbers; nothing is timed"
        )


def require_close(bound: float, gradients: Callable[[float], float] = float) -> Requirement:
    """Refuse a distance above the bound times the norm; `gradients` makes the gradients' bound of it."""

    def require(what: str, name: str, ours: Array, theirs: Array) -> None:
        most = gradients(bound) if name.startswith("gradient") else bound
        distance, norm = float(np.linalg.norm(ours - theirs)), float(np.linalg.norm(ours))
        if not distance <= most * norm:
            raise DisagreementError(
                f"{what}: {name} is {distance / norm if norm else distance:.1e} of its norm away from "
                f"refnet's, more than {most:.1e}; nothing is timed"
            )

    return require


def roundoff(dtype: str) -> float:
    """The unit roundoff."""
    return float(np.finfo(dtype).eps) / 2
