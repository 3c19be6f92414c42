"""Feature pyramid over a 3D body.

Lin et al., arXiv:1612.03144; in 3D, Detect-and-Track, `lib/modeling/FPN3D.py`.
"""

import re

from refnet.errors import ShapeError, ValueRangeError
from refnet.net import Net, require_net
from refnet.networks.layers import conv
from refnet.shapes import odd, text, whole


def fpn(body: Net, dim: int = 256, time_kernel: int = 3) -> Net:
    """Build a pyramid on the last blob of every stage of a body.

    Top-down, coarsest first: a 1x1x1 convolution with bias takes each stage to `dim` channels; the
    coarser sum, upsampled twice in H and W by nearest neighbour, is added; a time_kernel x 3 x 3
    convolution with bias makes the level. One more level takes every other line and column of the
    coarsest.

    Parameters
    ----------
    body : Net
        From `refnet.networks.resnet3d.body`, without time striding; left as it is.
    dim : int
        Channels of every level.
    time_kernel : int
        Odd kernel size along T of the output convolutions.

    Returns
    -------
    Net
        The body's nodes and the pyramid's; its outputs are the levels, coarsest first:
        ``fpn_{blob}`` for the stages' last blobs (the original's names, ``res5_2_sum``), and
        ``fpn_{blob}_subsampled_2x`` of the coarsest.

    Raises
    ------
    ShapeError
        If a stage strides in time, or is not half as large as the one before it, or `time_kernel` is
        even.
    ValueRangeError
        If the net is no body of stages.
    """
    require_net(body, "body")
    whole("dim", dim, 1)
    odd("time_kernel", time_kernel)
    stages = _last_blobs(body)
    if not stages:
        raise ValueRangeError("the net has no stages res2, res3, ...: expected a body of resnet3d")
    net = body.copy()
    net.outputs.clear()
    (coarsest, x), *finer = reversed(stages.items())
    inner = conv(net, x, f"fpn_inner_{coarsest}", dim, kernel=(1, 1, 1), bias=True)
    inners = {coarsest: inner}
    for blob, x in finer:
        name = f"fpn_inner_{blob}"
        _require_twice(net, x, inner)
        lateral = conv(net, x, f"{name}_lateral", dim, kernel=(1, 1, 1), bias=True)
        topdown = net.add("upsample_nearest", f"{name}_topdown", (inner,), scale=2)
        inner = inners[blob] = net.add("add", name, (lateral, topdown))
    for blob, x in inners.items():
        net.output(conv(net, x, f"fpn_{blob}", dim, kernel=(time_kernel, 3, 3), bias=True))
    level = f"fpn_{coarsest}"
    extra = f"{level}_subsampled_2x"
    net.output(net.add("max_pool3d", extra, (level,), kernel=(1, 1, 1), stride=(1, 2, 2)))
    return net


def _last_blobs(body: Net) -> dict[str, str]:
    """The original's name of each stage's last blob, and the node that holds its value."""
    last: dict[str, tuple[str, str]] = {}
    for node in body.nodes:
        if found := re.fullmatch(r"(res\d+)_(\d+)_(relu|stop)", node.name):
            last[found[1]] = (f"{found[1]}_{found[2]}_sum", node.name)
    return dict(last.values())


def _require_twice(net: Net, x: str, coarser: str) -> None:
    """Refuse a blob that has not the frames of the coarser one and twice its height and width."""
    fine, coarse = net.shape(x)[2:], net.shape(coarser)[2:]
    if fine[0] != coarse[0]:
        raise ShapeError(
            f"{x} has {fine[0]} frames and {coarser} {coarse[0]}: expected a body without time striding"
        )
    if fine[1:] != (2 * coarse[1], 2 * coarse[2]):
        raise ShapeError(
            f"{x} is {text(fine[1:])} and {coarser} {text(coarse[1:])}: expected twice its size; "
            "take an input whose H and W are multiples of 32, and no dilation"
        )
