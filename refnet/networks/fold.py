"""Folding of batch norms, (x - mean) s / d + b with d = sqrt(variance + epsilon), into affines s' x + b'.

    s' = s / d,    b' = b - mean s'

The two are equal in real numbers, not in floating point. A batch norm subtracts the mean before it
scales; the terms s' x and b' of an affine are each rounded at their own size before they cancel. Where
|mean| is many times d, the folded result, of size |s|, carries an error of |mean| / d roundings, which
the batch norm itself does not have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import log2

import numpy as np

from refnet.arrays import Array, at_the_door, require_mapping, require_one_dtype, rounded
from refnet.environment import in_default
from refnet.errors import ShapeError, ValueRangeError, require_known
from refnet.net import Net, Node, require_net
from refnet.ops.batch_norm import EPSILON, require_variance, root
from refnet.shapes import text
from refnet.shown import Shown, Table, counted


@dataclass(frozen=True, repr=False, eq=False)
class Folded(Shown):
    """A network whose batch norms have become affines.

    Attributes
    ----------
    net : Net
    params : dict of str to ndarray
        Those of `net`, in the dtype of the given ones.
    lost_bits : dict of str to float
        For each folded node, log2(1 + |mean| / d) at its worst channel: how many bits of a result of
        size |s| folding may cost, beside rounding.
    kept : dict of str to str
        The batch norms that were not folded, and why.
    """

    net: Net
    params: dict[str, Array]
    lost_bits: dict[str, float]
    kept: dict[str, str]

    def _shown(self) -> Table:
        rows = [(name, "folded", f"at most {bits:.1f} bits lost") for name, bits in self.lost_bits.items()]
        rows += [(name, "kept", why) for name, why in self.kept.items()]
        title = f"{counted(len(self.lost_bits), 'batch norm')} folded, {len(self.kept)} kept"
        return Table(title, ("node", "", ""), rows)


@in_default
def fold(net: Net, params: Mapping[str, Array]) -> Folded:
    """Fold the batch norms of a network into affines of the same names.

    Parameters
    ----------
    net : Net
        Left as it is.
    params : mapping of str to ndarray
        Every parameter of `net`.

    Returns
    -------
    Folded

    Raises
    ------
    UnknownNameError, ShapeError, DTypeError, ValueRangeError
        If a parameter is missing, has another shape or dtype, or a variance is negative.
    """
    require_net(net)
    require_mapping("params", params)
    for name in params:
        require_known("parameter", name, net.params)
    values = {name: _checked(name, shape, params) for name, shape in net.params.items()}
    require_one_dtype(params, values)
    reads = Counter(name for node in net.nodes for name in node.inputs)
    folded, lost_bits, kept = [], {}, {}
    for node in net.nodes:
        reason = _reason_to_keep(node, net, reads)
        if reason is None:
            s, b, mean, variance = node.inputs[1:]
            epsilon = node.attrs.get("epsilon", EPSILON)
            try:
                require_variance(values[variance])
            except ValueRangeError as error:
                raise ValueRangeError(f"{variance}: {error}") from None
            deviation = root(values[variance], epsilon)
            lost_bits[node.name] = log2(1 + float(np.max(np.abs(values[mean]) / deviation)))
            values[s] = rounded(values[s] / deviation, values[s].dtype)
            values[b] = values[b] - values[mean] * values[s]
            node = Node(node.name, "affine", node.inputs[:3], {}, node.shape)
        elif node.op.startswith("batch_norm"):
            kept[node.name] = reason
        folded.append(node)
    twin = _rebuilt(net, folded)
    return Folded(twin, {name: values[name] for name in twin.params}, lost_bits, kept)


def _reason_to_keep(node: Node, net: Net, reads: Mapping[str, int]) -> str | None:
    """Why a node is not folded; None for a batch norm that is."""
    if node.op == "batch_norm_training":
        return "it normalises by the batch's own statistics, which differ from batch to batch"
    if node.op != "batch_norm":
        return "it is no batch norm"
    for name in node.inputs[1:]:
        if name not in net.params:
            return f"{name} is no parameter"
        if reads[name] > 1:
            return f"{name} is read elsewhere too"
    return None


def _rebuilt(net: Net, nodes: list[Node]) -> Net:
    """The inputs and outputs of a net around other nodes, with the parameters that those read."""
    read = {name for node in nodes for name in node.inputs}
    twin = Net()
    for name, shape in net.inputs.items():
        twin.input(name, shape)
    for name, shape in net.params.items():
        if name in read:
            twin.param(name, shape)
    for node in nodes:
        twin.add(node.op, node.name, node.inputs, **node.attrs)
    for name in net.outputs:
        twin.output(name)
    return twin


def _checked(name: str, shape: tuple[int, ...], params: Mapping[str, Array]) -> Array:
    require_known("parameter", name, params)
    value = at_the_door(name, params[name])
    if value.shape != shape:
        raise ShapeError(f"{name} has shape {text(value.shape)}: expected {text(shape)}")
    if not np.isfinite(value).all():
        raise ValueRangeError(f"{name} holds NaN or infinity: expected finite numbers")
    return value
