"""The original's blob names. It wrote in place; here every value has a name of its own."""

from __future__ import annotations

from refnet.arrays import Array
from refnet.errors import ValueRangeError, require_kind
from refnet.golden import Bundle
from refnet.inplace import names
from refnet.run import Run

__all__ = ["blobs", "names"]


def blobs(run: Run | Bundle) -> dict[str, Array]:
    """Return what a Caffe2 dump of the run holds: each original blob's value at its end.

    Parameters
    ----------
    run : Run or Bundle
        One that kept all blobs, or a golden bundle with its tensors.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueRangeError
        If the run kept only its outputs.
    FileError
        If the bundle holds only hashes, or is damaged.
    """
    if isinstance(run, Bundle):
        return {blob: run[node] for blob, node in names(run.structure()).items()}
    require_kind("run", run, Run, "as refnet.forward returns one, or a bundle")
    table = names(run.net)
    missing = [node for node in table.values() if node not in run.blobs]
    if missing:
        raise ValueRangeError(
            f"the run did not keep {missing[0]} and {len(missing) - 1} more blobs: "
            'run forward with keep="all"'
        )
    return {blob: run.blobs[node] for blob, node in table.items()}
