"""The head over regions of interest: RoIAlign frame by frame, res5, mean over H and W.

Detect-and-Track, `lib/modeling/ResNet3D.py`, `add_ResNet_roi_conv5_head`; He et al., Mask R-CNN,
arXiv:1703.06870. A region is a tube: a box in every frame.
"""

from typing import Any

from refnet.errors import ValueRangeError, brief
from refnet.net import Net, require_net
from refnet.networks import resnet3d
from refnet.networks.time_link import time_link
from refnet.shapes import ONES, whole


@resnet3d.takes(resnet3d.BlockOptions)
def head(
    body: Net,
    rois: int = 8,
    block_count: int = 3,
    out: int = 2048,
    *,
    spatial_scale: float = 1 / 16,
    resolution: int = 14,
    sampling_ratio: int = 2,
    aligned: bool = False,
    link: str = "none",
    transformation: str = "bottleneck",
    **block_options: Any,
) -> Net:
    """Build a head on the output of a conv4 body.

    Parameters
    ----------
    body : Net
        From `refnet.networks.resnet3d.body`, with one output; left as it is.
    rois : int
        Number of tubes.
    block_count, out : int
        Blocks of res5 and its output channels.
    spatial_scale : float
        Size of the body's output over that of the input.
    resolution : {14, 7}
        Lines and columns of a pooled region; with 14, res5 strides as it does in a body.
    sampling_ratio, aligned
        See `refnet.ops.roi_align`.
    link : {"none", "average", "key-frame"}
        Between body and head, see `refnet.networks.time_link`; a tube then has one frame.
    transformation, **block_options
        Of res5, see `refnet.networks.resnet3d.BlockOptions`.

    Returns
    -------
    Net
        The body's nodes and the head's, with the further input `rois`, (rois, 1 + 4 T): for each
        tube the sample that it lies in, and x1, y1, x2, y2 in every frame, in pixels of the input.
        Its output is `res5_pool`, (rois, out, T, 1, 1).

    Raises
    ------
    RefnetError
        If an option is none of the above or changes nothing, or the body has not one output.
    """
    require_net(body, "body")
    if len(body.outputs) != 1 or "rois" in body.inputs or "res5_0_relu" in {n.name for n in body.nodes}:
        raise ValueRangeError(
            f"the body has outputs {', '.join(body.outputs)}: expected those of a conv4 body, one"
        )
    if type(resolution) is not int or resolution not in (7, 14):
        raise ValueRangeError(f"resolution is {brief(resolution)}: expected 14 or 7")
    options = resnet3d.BlockOptions(transformation=transformation, **block_options)
    block_count, out = whole("block_count", block_count, 1), whole("out", out, 1)
    net = body.copy()
    (x,) = net.outputs
    stride = options.stride(5, net.shape(x)[1], out) if resolution == 14 else ONES
    options.require_effect({5: stride})
    net.outputs.clear()
    x = time_link(net, x, link, "time_link")
    tubes = net.input("rois", (whole("rois", rois, 1), 1 + 4 * net.shape(x)[2]))
    x = net.add(
        "roi_align",
        "pool5",
        (x, tubes),
        output=(resolution, resolution),
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    x = resnet3d.stage(net, x, 5, block_count, out, stride, options)
    net.output(net.add("global_average_pool", "res5_pool", (x,)))
    return net
