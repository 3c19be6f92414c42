"""The original's blob names: it wrote in place, where here every value has a name of its own."""

import re

from refnet.net import Net, require_net

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
    require_net(net)
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


def _next_block(sum_name: str) -> str | None:
    """``res3_1_sum`` for ``res3_0_sum``; None for the sum of something else than a block."""
    found = re.fullmatch(r"(res\d+)_(\d+)_sum", sum_name)
    return f"{found[1]}_{int(found[2]) + 1}_sum" if found else None
