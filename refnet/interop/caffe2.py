"""The original's blob names. It wrote in place; here every value has a name of its own."""

import re

from refnet.arrays import Array
from refnet.errors import ValueRangeError
from refnet.net import Net
from refnet.run import Run

NORMS = ("affine", "batch_norm", "batch_norm_training")
RUNNING = ("running_mean", "running_variance")


def names(net: Net) -> dict[str, str]:
    """Map each blob of the original to the node whose value it holds at the end of a run.

    A convolution and a pool write a blob of their own. An affine or batch norm that feeds a rectifier,
    rectifiers and gradient stops write in place, and running statistics into those that they
    continue. A block's sum is written into its branch's last blob; only the last block of a stage
    has a ``_sum``.

    Parameters
    ----------
    net : Net

    Returns
    -------
    dict of str to str
    """
    rectified = {node.inputs[0] for node in net.nodes if node.op == "relu"}
    nodes = {node.name for node in net.nodes}
    blob_of: dict[str, str] = {}
    for node in net.nodes:
        in_place = (
            node.op in ("relu", "stop_gradient")
            or (node.op in NORMS and node.name in rectified)
            or (node.op == "add" and _next_block(node.name) in nodes)
        )
        if node.op in RUNNING:
            blob_of[node.name] = node.inputs[1]
        else:
            blob_of[node.name] = blob_of.get(node.inputs[0], node.inputs[0]) if in_place else node.name
    return {blob: node for node, blob in blob_of.items() if blob in nodes or blob in net.params}


def blobs(run: Run) -> dict[str, Array]:
    """Return what a Caffe2 dump of the run holds: each original blob's value at its end.

    Parameters
    ----------
    run : Run
        One that kept all blobs.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueRangeError
        If the run kept only its outputs.
    """
    table = names(run.net)
    missing = [node for node in table.values() if node not in run.blobs]
    if missing:
        raise ValueRangeError(
            f"the run did not keep {missing[0]} and {len(missing) - 1} more blobs: "
            'run forward with keep="all"'
        )
    return {blob: run.blobs[node] for blob, node in table.items()}


def _next_block(sum_name: str) -> str | None:
    """``res3_1_sum`` for ``res3_0_sum``; None for the sum of something else than a block."""
    found = re.fullmatch(r"(res\d+)_(\d+)_sum", sum_name)
    return f"{found[1]}_{int(found[2]) + 1}_sum" if found else None
