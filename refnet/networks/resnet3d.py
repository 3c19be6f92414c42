"""The 3D residual bodies of Detect-and-Track (Girdhar et al., CVPR 2018; arXiv:1712.09184).

Their 2D parent is He et al., *Deep Residual Learning*, arXiv:1512.03385, Table 1. Names are those of
the original code, one value a name.
"""

from collections.abc import Sequence
from typing import TypedDict, Unpack

from refnet.errors import ShapeError, ValueRangeError, require_known
from refnet.net import Net
from refnet.networks.layers import Norm, conv, conv_norm, conv_norm_relu, norm_of, relu
from refnet.shapes import ONES, Shape, Triple, odd, volume, whole


def body(
    input: Shape = (1, 3, 8, 224, 224),
    block_counts: Sequence[int] = (2, 2, 2),
    feat_dims: Sequence[int] = (64, 64, 128, 256),
    transformation: str = "bottleneck",
    freeze_at: int = 2,
    time_kernel: int = 3,
    time_stride: bool = False,
    groups: int = 1,
    width_per_group: int = 64,
    stride_1x1: bool = True,
    dilation: int = 1,
    batch_norm: bool = False,
    training: bool = False,
) -> Net:
    """Build a body: stem, stages res2, res3, ..., and the gradient stop.

    Parameters
    ----------
    input : (N, 3, T, H, W)
        Shape of the input blob `data`.
    block_counts : sequence of int
        Blocks in res2, res3, ...: three for a conv4 body, four for conv5.
    feat_dims : sequence of int
        Output channels of the stem and of each stage.
    transformation : {"bottleneck", "basic"}
    freeze_at : int
        The stage behind which the gradient stops, 2 or later; 0 for none.
    time_kernel : int
        Odd kernel size along T of the middle convolutions (basic: of both), from res3 on.
    time_stride : bool
        Whether blocks that stride in H and W do so in T too, from res3 on.
    groups, width_per_group : int
        Groups of the convolution ``branch2b``; the inner width of res2 is their product, and it
        doubles from stage to stage.
    stride_1x1 : bool
        Whether a bottleneck strides in ``branch2a`` (MSRA) or in ``branch2b``.
    dilation : int
        Dilation in H and W of res5, which then does not stride. No other stage is dilated.
    batch_norm : bool
        Whether a batch norm with statistics stands in place of every frozen affine.
    training : bool
        Whether it takes the batch's own statistics, and keeps running ones: after a run with
        ``keep="all"`` they are the blobs ``{name}_bn_running_mean`` and ``_running_variance``, to be
        given as the parameters ``{name}_bn_rm`` and ``_riv`` (Caffe2's names) of the next one.

    Returns
    -------
    Net
        With the input `data` and one output: the last block's ``_relu``, or the stop behind it.

    Raises
    ------
    RefnetError
        If an option is none of the above, or the input does not fit; the message says which.
    """
    input = volume("data", input)
    if input[1] != 3:
        raise ShapeError(f"data size C is {input[1]}: expected 3 channels (B, G, R)")
    for name, counts in (("block_counts", block_counts), ("feat_dims", feat_dims)):
        if not isinstance(counts, tuple | list):
            raise ShapeError(f"{name} is {counts!r}: expected a tuple of whole numbers")
    if not 1 <= len(block_counts) <= 4:
        raise ShapeError(f"block_counts has {len(block_counts)} entries: expected 1 to 4, one a stage")
    if len(feat_dims) != len(block_counts) + 1:
        raise ShapeError(
            f"feat_dims has {len(feat_dims)} entries: expected {len(block_counts) + 1}, "
            "one for the stem and one for each stage"
        )
    for i, count in enumerate(block_counts):
        whole(f"block_counts[{i}]", count, 1)
    for i, dim in enumerate(feat_dims):
        whole(f"feat_dims[{i}]", dim, 1)
    stages = range(2, 2 + len(block_counts))
    if type(freeze_at) is not int or freeze_at not in (0, *stages):
        raise ValueRangeError(
            f"freeze_at is {freeze_at!r}: expected 0 or a stage of this body, {', '.join(map(str, stages))}"
        )
    dim_bottleneck = require_block_options(
        transformation, time_kernel, time_stride, groups, width_per_group, stride_1x1, dilation
    )
    norm = norm_of(batch_norm=batch_norm, training=training)

    net = Net()
    x = stem(net, net.input("data", input), feat_dims[0], norm)
    for k, blocks, out in zip(stages, block_counts, feat_dims[1:], strict=True):
        x = stage(
            net,
            x,
            f"res{k}",
            blocks,
            transformation=transformation,
            inner=dim_bottleneck * 2 ** (k - 2),
            out=out,
            strides=k > 2,
            time_kernel=time_kernel if k > 2 else 1,
            time_stride=time_stride,
            groups=groups,
            stride_1x1=stride_1x1,
            dilation=dilation if k == 5 else 1,
            norm=norm,
        )
        if k == freeze_at:
            x = net.add("stop_gradient", f"res{k}_{blocks - 1}_stop", (x,))
    net.output(x)
    return net


def require_block_options(
    transformation: str,
    time_kernel: int,
    time_stride: bool,
    groups: int,
    width_per_group: int,
    stride_1x1: bool,
    dilation: int,
) -> int:
    """Refuse what is no option of a block; return the inner width of res2.

    Raises
    ------
    RefnetError
        The message says which option, and what was expected.
    """
    require_known("transformation", transformation, TRANSFORMATIONS)
    odd("time_kernel", time_kernel)
    whole("dilation", dilation, 1)
    for name, flag in (("time_stride", time_stride), ("stride_1x1", stride_1x1)):
        if not isinstance(flag, bool):
            raise ValueRangeError(f"{name} is {flag!r}: expected True or False")
    return whole("groups", groups, 1) * whole("width_per_group", width_per_group, 1)


def stem(net: Net, x: str, out: int, norm: Norm) -> str:
    """conv1: 1x7x7 stride 2 in H and W, batch norm, ReLU, and pool1: 1x3x3 max, stride 2."""
    x = conv(net, x, "conv1", out, kernel=(1, 7, 7), stride=(1, 2, 2), pad=(0, 3, 3))
    x = norm(net, x, "res_conv1_bn")
    x = relu(net, x, "conv1_relu")
    return net.add("max_pool3d", "pool1", (x,), kernel=(1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 1))


class Block(TypedDict):
    """What all blocks of a stage have in common; see `body`."""

    transformation: str
    inner: int
    out: int
    strides: bool
    time_kernel: int
    time_stride: bool
    groups: int
    stride_1x1: bool
    dilation: int
    norm: Norm


def stage(net: Net, x: str, name: str, blocks: int, **options: Unpack[Block]) -> str:
    """A row of blocks ``{name}_0``, ``{name}_1``, ..."""
    for i in range(blocks):
        x = block(net, x, f"{name}_{i}", **options)
    return x


def block(
    net: Net,
    x: str,
    name: str,
    *,
    transformation: str,
    inner: int,
    out: int,
    strides: bool,
    time_kernel: int,
    time_stride: bool,
    groups: int,
    stride_1x1: bool,
    dilation: int,
    norm: Norm,
) -> str:
    """relu(branch(x) + shortcut(x)); where the width changes, the block strides and projects."""
    projects = net.shape(x)[1] != out
    step = 2 if projects and strides and dilation == 1 else 1
    stride = (step if time_stride else 1, step, step)
    branch = TRANSFORMATIONS[transformation](
        net,
        x,
        name,
        inner=inner,
        out=out,
        stride=stride,
        time_kernel=time_kernel,
        groups=groups,
        stride_1x1=stride_1x1,
        dilation=dilation,
        norm=norm,
    )
    if projects:
        x = conv_norm(net, x, f"{name}_branch1", out, norm, kernel=(1, 1, 1), stride=stride)
    return relu(net, net.add("add", f"{name}_sum", (branch, x)), f"{name}_relu")


def bottleneck(
    net: Net,
    x: str,
    name: str,
    *,
    inner: int,
    out: int,
    stride: Triple,
    time_kernel: int,
    groups: int,
    stride_1x1: bool,
    dilation: int,
    norm: Norm,
) -> str:
    """1x1x1 to the inner width, time_kernel x 3 x 3, 1x1x1 to the output width."""
    first, middle = (stride, ONES) if stride_1x1 else (ONES, stride)
    x = conv_norm_relu(net, x, f"{name}_branch2a", inner, norm, kernel=(1, 1, 1), stride=first)
    x = conv_norm_relu(
        net,
        x,
        f"{name}_branch2b",
        inner,
        norm,
        kernel=(time_kernel, 3, 3),
        stride=middle,
        pad=(time_kernel // 2, dilation, dilation),
        dilation=(1, dilation, dilation),
        groups=groups,
    )
    return conv_norm(net, x, f"{name}_branch2c", out, norm, kernel=(1, 1, 1))


def basic(
    net: Net,
    x: str,
    name: str,
    *,
    inner: int,
    out: int,
    stride: Triple,
    time_kernel: int,
    groups: int,
    stride_1x1: bool,
    dilation: int,
    norm: Norm,
) -> str:
    """Two convolutions time_kernel x 3 x 3; there is no 1x1x1 to stride in."""
    kernel = (time_kernel, 3, 3)
    x = conv_norm_relu(
        net,
        x,
        f"{name}_branch2a",
        inner,
        norm,
        kernel=kernel,
        stride=stride,
        pad=(time_kernel // 2, 1, 1),
    )
    return conv_norm(
        net,
        x,
        f"{name}_branch2b",
        out,
        norm,
        kernel=kernel,
        pad=(time_kernel // 2, dilation, dilation),
        dilation=(1, dilation, dilation),
        groups=groups,
    )


TRANSFORMATIONS = {"bottleneck": bottleneck, "basic": basic}
