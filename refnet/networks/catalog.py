"""The named architectures, and `build`, which makes any of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

from refnet.errors import require_known
from refnet.net import Net
from refnet.networks import fpn3d, resnet3d
from refnet.shapes import Shape

# Blocks of res2 .. res5 (He et al., Table 1).
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
NARROW = (64, 64, 128, 256, 512)
WIDE = (64, 256, 512, 1024, 2048)

# What a caller of `build` may choose about a body, with what is taken if they do not.
BODY_OPTIONS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in signature(resnet3d.body).parameters.items()
    if name not in ("input", "block_counts", "feat_dims")
}
INPUT: Shape = (1, 3, 8, 224, 224)


@dataclass(frozen=True)
class Architecture:
    """A 3D body of the catalog, or the pyramid over one."""

    name: str
    block_counts: tuple[int, ...]
    feat_dims: tuple[int, ...]
    pyramid: bool = False

    def build(self, input: Shape, **options: Any) -> Net:
        """Build it for an input shape, with the options of `refnet.networks.resnet3d.body`."""
        for option in options:
            require_known(f"option of {self.name}", option, BODY_OPTIONS)
        options = BODY_OPTIONS | options
        body = resnet3d.body(input=input, block_counts=self.block_counts, feat_dims=self.feat_dims, **options)
        return fpn3d.fpn(body, time_kernel=options["time_kernel"]) if self.pyramid else body


def _architectures() -> Iterator[Architecture]:
    for depth, blocks in BLOCKS.items():
        dims = NARROW if depth < 50 else WIDE
        yield Architecture(f"resnet{depth}_conv4", blocks[:3], dims[:4])
        yield Architecture(f"resnet{depth}_conv5", blocks, dims)
    for depth, blocks in BLOCKS.items():
        yield Architecture(f"fpn_resnet{depth}_conv5", blocks, NARROW if depth < 50 else WIDE, pyramid=True)


ARCHITECTURES = {architecture.name: architecture for architecture in _architectures()}


def build(architecture: str, *, input: Shape = INPUT, **options: Any) -> Net:
    """Build a named architecture.

    Parameters
    ----------
    architecture : str
        A name of `refnet list`, such as ``"resnet18_conv4"``.
    input : (N, 3, T, H, W)
        Shape of the input blob `data`.
    **options
        Those of `refnet.networks.resnet3d.body`: transformation, freeze_at, time_kernel,
        time_stride, groups, width_per_group, stride_1x1, dilation.

    Returns
    -------
    Net

    Raises
    ------
    UnknownNameError
        If there is no such architecture or option.
    RefnetError
        If the value of an option is not allowed, or the input does not fit.
    """
    require_known("architecture", architecture, ARCHITECTURES)
    return ARCHITECTURES[architecture].build(input, **options)
