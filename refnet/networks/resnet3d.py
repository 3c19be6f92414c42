"""The 3D residual bodies of Detect-and-Track (Girdhar et al., CVPR 2018; arXiv:1712.09184).

Their 2D parent is He et al., *Deep Residual Learning*, arXiv:1512.03385, Table 1. Names are those of
the original code, one value a name.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from itertools import pairwise
from numbers import Integral
from typing import Any, TypeVar, cast

from refnet.errors import ShapeError, ValueRangeError, brief, require_known, suggestion
from refnet.net import Net
from refnet.networks.layers import NORMS, ConvOptions, Norm, conv, conv_norm, conv_norm_relu, relu
from refnet.shapes import ONES, Shape, Triple, odd, plain, volume, whole

Builder = TypeVar("Builder", bound=Callable[..., Net])


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """The options of a network's residual blocks, with their defaults.

    Attributes
    ----------
    transformation : {"bottleneck", "basic"}
        The branch of a block; every builder has a default of its own.
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

    Raises
    ------
    RefnetError
        If an option is none of the above, or would change nothing; the message says which.
    """

    transformation: str
    time_kernel: int = 3
    time_stride: bool = False
    groups: int = 1
    width_per_group: int = 64
    stride_1x1: bool = True
    dilation: int = 1
    batch_norm: bool = False
    training: bool = False

    def __post_init__(self) -> None:
        require_known("transformation", self.transformation, TRANSFORMATIONS)
        odd("time_kernel", self.time_kernel)
        for name in ("groups", "width_per_group", "dilation"):
            whole(name, getattr(self, name), 1)
        for name in ("time_stride", "stride_1x1", "batch_norm", "training"):
            if not isinstance(flag := getattr(self, name), bool):
                raise ValueRangeError(f"{name} is {brief(flag)}: expected True or False")
        if self.training and not self.batch_norm:
            raise ValueRangeError(
                "training is True, but batch_norm is False: an affine has no statistics to keep"
            )
        if self.transformation == "basic":
            self._require_default("stride_1x1", "a basic block has no 1x1x1 convolution to stride in")

    def require_effect(self, strides: Mapping[int, Triple]) -> None:
        """Refuse an option that would change nothing in a row of stages.

        Parameters
        ----------
        strides : mapping of int to (T, H, W)
            The number of each stage, and the stride of its first block.

        Raises
        ------
        ValueRangeError
        """
        last = max(strides)
        if last < 5:
            self._require_default("dilation", f"only res5 is dilated and this body ends with res{last}")
        if last == 2 and self.time_kernel != 1:  # which is that of res2
            self._require_default("time_kernel", "it acts from res3 on and this body ends with res2")
        if all(stride == ONES for stride in strides.values()):
            for name in ("time_stride", "stride_1x1"):
                self._require_default(name, f"no block of {', '.join(f'res{k}' for k in strides)} strides")

    def _require_default(self, name: str, why: str) -> None:
        value, default = getattr(self, name), getattr(BlockOptions, name)
        if value != default:
            raise ValueRangeError(f"{name} is {value}: expected {default}, {why}")

    def of_stage(self, k: int) -> "BlockOptions":
        """The options as res{k} takes them: res2 has time kernel 1, and only res5 is dilated."""
        return replace(
            self,
            time_kernel=self.time_kernel if k > 2 else 1,
            dilation=self.dilation if k == 5 else 1,
        )

    def stride(self, k: int, width: int, out: int) -> Triple:
        """The stride of the first block of res{k}, which takes `width` channels to `out`."""
        strides = width != out and k > 2 and (k < 5 or self.dilation == 1)
        step = 2 if strides else 1
        return (step if self.time_stride else 1, step, step)

    @property
    def inner(self) -> int:
        """The inner width of res2."""
        return int(self.groups) * int(self.width_per_group)

    @property
    def window(self) -> ConvOptions:
        """The window of the convolution ``branch2b``."""
        return {
            "kernel": (self.time_kernel, 3, 3),
            "dilation": (1, self.dilation, self.dilation),
            "groups": self.groups,
        }

    @property
    def norm(self) -> Norm:
        """The kind of batch norm."""
        return NORMS[self.batch_norm, self.training]


def takes(record: type, but: Collection[str] = ()) -> Callable[[Builder], Builder]:
    """Let a builder's signature show the fields of a record in place of its ``**keywords``.

    The fields that the builder names itself are left out, and so are those that it decides: `but`.
    """

    def show(builder: Builder) -> Builder:
        own = signature(builder)
        *named, _ = own.parameters.values()
        hidden = {*but, *(parameter.name for parameter in named)}
        # As the builder's last parameter: those that may be given by position are followed by such.
        fields = [
            parameter.replace(kind=named[-1].kind)
            for parameter in signature(record).parameters.values()
            if parameter.name not in hidden
        ]
        shown = own.replace(parameters=[*named, *fields])

        @wraps(builder)
        def build(*args: Any, **options: Any) -> Net:
            for name in options:
                if name not in shown.parameters:
                    hint = f"unexpected keyword argument {name!r}: {suggestion(name, shown.parameters)}"
                    raise TypeError(f"{builder.__name__}() got an {hint}")
            try:
                bound = shown.bind(*args, **options)
            except TypeError as error:
                raise TypeError(f"{builder.__name__}() {error}") from None
            return builder(**bound.arguments)

        build.__signature__ = shown  # type: ignore[attr-defined]
        return cast(Builder, build)

    return show


@takes(BlockOptions)
def body(
    input: Shape = (1, 3, 8, 224, 224),
    block_counts: Sequence[int] = (2, 2, 2),
    feat_dims: Sequence[int] = (64, 64, 128, 256),
    transformation: str = "bottleneck",
    freeze_at: int = 2,
    **block_options: Any,
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
    freeze_at : int
        The stage behind which the gradient stops, 2 or later; 0 for none.
    transformation, **block_options
        See `BlockOptions`.

    Returns
    -------
    Net
        With the input `data` and one output: the last block's ``_relu``, or the stop behind it.

    Raises
    ------
    RefnetError
        If an option is none of the above or changes nothing, or the input does not fit; the message
        says which.
    """
    input = volume("data", input)
    if input[1] != 3:
        raise ShapeError(f"data size C is {input[1]}: expected 3 channels (B, G, R)")
    stages = _stages(block_counts, feat_dims)
    if isinstance(freeze_at, bool) or not isinstance(freeze_at, Integral) or freeze_at not in (0, *stages):
        known = ", ".join(map(str, stages))
        raise ValueRangeError(f"freeze_at is {brief(freeze_at)}: expected 0 or a stage of this body, {known}")
    options = BlockOptions(transformation=transformation, **block_options)
    widths = zip(stages, pairwise(feat_dims), strict=True)
    strides = {k: options.stride(k, width, out) for k, (width, out) in widths}
    options.require_effect(strides)

    net = Net()
    x = stem(net, net.input("data", input), feat_dims[0], options.norm)
    for k, count, out in zip(stages, block_counts, feat_dims[1:], strict=True):
        x = stage(net, x, k, count, out, strides[k], options)
        if k == freeze_at:
            x = net.add("stop_gradient", f"res{k}_{count - 1}_stop", (x,))
    net.output(x)
    return net


def _stages(block_counts: Sequence[int], feat_dims: Sequence[int]) -> range:
    """Check the numbers of blocks and channels of a body, and return the numbers of its stages."""
    for name, numbers in (("block_counts", block_counts), ("feat_dims", feat_dims)):
        if not isinstance(plain(numbers), tuple):
            raise ShapeError(f"{name} is {brief(numbers)}: expected a tuple of whole numbers")
    if not 1 <= len(block_counts) <= 4:
        raise ShapeError(f"block_counts has {len(block_counts)} entries: expected 1 to 4, one a stage")
    if len(feat_dims) != len(block_counts) + 1:
        raise ShapeError(
            f"feat_dims has {len(feat_dims)} entries: expected {len(block_counts) + 1}, "
            "one for the stem and one for each stage"
        )
    for name, numbers in (("block_counts", block_counts), ("feat_dims", feat_dims)):
        for i, number in enumerate(numbers):
            whole(f"{name}[{i}]", number, 1)
    return range(2, 2 + len(block_counts))


def stem(net: Net, x: str, out: int, norm: Norm) -> str:
    """conv1: 1x7x7 stride 2 in H and W, batch norm, ReLU, and pool1: 1x3x3 max, stride 2."""
    x = conv(net, x, "conv1", out, kernel=(1, 7, 7), stride=(1, 2, 2))
    x = norm(net, x, "res_conv1_bn")
    x = relu(net, x, "conv1_relu")
    return net.add("max_pool3d", "pool1", (x,), kernel=(1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 1))


def stage(net: Net, x: str, k: int, count: int, out: int, stride: Triple, options: BlockOptions) -> str:
    """A row of blocks, ``res{k}_0``, ``res{k}_1``, ...; the first one strides."""
    inner, options = options.inner * 2 ** (k - 2), options.of_stage(k)
    x = block(net, x, f"res{k}_0", inner, out, stride, options)
    for i in range(1, count):
        x = block(net, x, f"res{k}_{i}", inner, out, ONES, options)
    return x


def block(net: Net, x: str, name: str, inner: int, out: int, stride: Triple, options: BlockOptions) -> str:
    """relu(branch(x) + shortcut(x)); where the width changes, the shortcut projects."""
    branch = TRANSFORMATIONS[options.transformation](net, x, name, inner, out, stride, options)
    if net.shape(x)[1] != out:
        x = conv_norm(net, x, f"{name}_branch1", out, options.norm, kernel=(1, 1, 1), stride=stride)
    return relu(net, net.add("add", f"{name}_sum", (branch, x)), f"{name}_relu")


def bottleneck(
    net: Net, x: str, name: str, inner: int, out: int, stride: Triple, options: BlockOptions
) -> str:
    """1x1x1 to the inner width, time_kernel x 3 x 3, 1x1x1 to the output width."""
    first, middle = (stride, ONES) if options.stride_1x1 else (ONES, stride)
    x = conv_norm_relu(net, x, f"{name}_branch2a", inner, options.norm, kernel=(1, 1, 1), stride=first)
    x = conv_norm_relu(net, x, f"{name}_branch2b", inner, options.norm, stride=middle, **options.window)
    return conv_norm(net, x, f"{name}_branch2c", out, options.norm, kernel=(1, 1, 1))


def basic(net: Net, x: str, name: str, inner: int, out: int, stride: Triple, options: BlockOptions) -> str:
    """Two convolutions time_kernel x 3 x 3, the first to the inner width."""
    kernel = (options.time_kernel, 3, 3)
    x = conv_norm_relu(net, x, f"{name}_branch2a", inner, options.norm, kernel=kernel, stride=stride)
    return conv_norm(net, x, f"{name}_branch2b", out, options.norm, **options.window)


TRANSFORMATIONS = {"bottleneck": bottleneck, "basic": basic}
