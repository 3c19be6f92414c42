"""The named architectures, and `build`, which makes any of them."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from textwrap import indent, wrap
from typing import Any, TypedDict, Unpack

from refnet.errors import UnknownNameError, require_known
from refnet.net import Net
from refnet.networks import fpn3d, resnet3d, roi_head
from refnet.networks.classifier import classifier
from refnet.shapes import Shape
from refnet.shown import Shown, Table

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

# The parameters of builders that are no options: the input, and what an architecture's name decides.
DECIDED = ("input", "block_counts", "feat_dims", "body", "block_count", "out", "spatial_scale")


def defaults(builder: Callable[..., Net]) -> dict[str, Any]:
    """The options of a builder, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in signature(builder).parameters.items()
        if name not in DECIDED
    }


BODY, HEAD = defaults(resnet3d.body), defaults(roi_head.head)


def pyramid(**options: Any) -> Net:
    """A pyramid over a conv5 body."""
    return fpn3d.fpn(resnet3d.body(**options), time_kernel=options["time_kernel"])


def regions(*, block_counts: tuple[int, ...], feat_dims: tuple[int, ...], **options: Any) -> Net:
    """A head over regions, res5, over a conv4 body; each takes the options that change it."""
    of_body = {name: value for name, value in options.items() if name in ("input", *BODY)}
    of_body["dilation"] = BODY["dilation"]
    of_head = {name: value for name, value in options.items() if name in HEAD}
    if (of_head["resolution"], of_head["dilation"]) != (14, 1):  # res5 does not stride then
        of_head |= {name: HEAD[name] for name in ("time_stride", "stride_1x1")}
    body = resnet3d.body(block_counts=block_counts[:3], feat_dims=feat_dims[:4], **of_body)
    return roi_head.head(body, block_count=block_counts[3], out=feat_dims[4], **of_head)


@dataclass(frozen=True, repr=False)
class Architecture(Shown):
    """A network of the catalog.

    Attributes
    ----------
    name : str
    builder : callable
        Takes `input`, `block_counts`, `feat_dims` and the options.
    block_counts, feat_dims : tuple of int
    options : dict
        The options, with their defaults.
    input : (N, 3, T, H, W)
        The default shape of the input.
    """

    name: str
    builder: Callable[..., Net]
    block_counts: tuple[int, ...]
    feat_dims: tuple[int, ...]
    options: dict[str, Any]
    input: Shape = (1, 3, 8, 224, 224)

    def build(self, input: Shape | None = None, **options: Any) -> Net:
        """Build the network for a shape of the input, with the options that are given."""
        self.require_options(options)
        return self.builder(
            input=self.input if input is None else input,
            block_counts=self.block_counts,
            feat_dims=self.feat_dims,
            **self.options | options,
        )

    def require_options(self, options: Iterable[str]) -> None:
        """Refuse an option that it does not have.

        Raises
        ------
        UnknownNameError
            It says which architectures have it, if any do.
        """
        for option in options:
            if option not in self.options:
                having = (a.name for a in ARCHITECTURES.values() if option in a.options)
                kinds = " and ".join(dict.fromkeys(re.sub("[0-9]+", "*", name, count=1) for name in having))
                advice = f"it is one of {kinds}" if kinds else ""
                known = ["input", *self.options]
                raise UnknownNameError(f"option of {self.name}", option, known, ALIASES, advice)

    def _shown(self) -> Table:
        options = {"input": self.input, **self.options}
        rows = [(name, repr(default)) for name, default in options.items()]
        return Table(f"architecture {self.name}", ("option", "default"), rows)


def _architectures() -> Iterator[Architecture]:
    dims = {depth: NARROW if depth < 50 else WIDE for depth in BLOCKS}
    for depth, blocks in BLOCKS.items():
        yield Architecture(f"resnet{depth}_conv4", resnet3d.body, blocks[:3], dims[depth][:4], BODY)
        yield Architecture(f"resnet{depth}_conv5", resnet3d.body, blocks, dims[depth], BODY)
    for depth, blocks in BLOCKS.items():
        yield Architecture(f"fpn_resnet{depth}_conv5", pyramid, blocks, dims[depth], BODY)
    for depth, blocks in BLOCKS.items():
        yield Architecture(f"roi_resnet{depth}_conv4", regions, blocks, dims[depth], BODY | HEAD)
    for depth, blocks in BLOCKS.items():
        kind = {"transformation": "basic" if depth < 50 else "bottleneck"}
        options, image = defaults(classifier) | kind, (1, 3, 1, 224, 224)
        yield Architecture(f"resnet{depth}_classifier", classifier, blocks, dims[depth], options, image)


ARCHITECTURES = {architecture.name: architecture for architecture in _architectures()}
# Every option that some architecture has.
OPTIONS = tuple(dict.fromkeys(option for a in ARCHITECTURES.values() for option in a.options))
# What they are called elsewhere.
ALIASES = {
    "block": ("transformation",),
    "block_type": ("transformation",),
    "frozen_stages": ("freeze_at",),
    "temporal_kernel": ("time_kernel",),
    "temporal_stride": ("time_stride",),
    "cardinality": ("groups",),
    "base_width": ("width_per_group",),
    "bn": ("batch_norm",),
    "norm": ("batch_norm",),
    "train": ("training",),
    "num_classes": ("classes",),
    "num_rois": ("rois",),
    "shape": ("input",),
    "size": ("input",),
}


class Options(TypedDict, total=False):
    """The options of all architectures, for type checkers."""

    transformation: str
    freeze_at: int
    time_kernel: int
    time_stride: bool
    groups: int
    width_per_group: int
    stride_1x1: bool
    dilation: int
    batch_norm: bool
    training: bool
    rois: int
    resolution: int
    sampling_ratio: int
    aligned: bool
    link: str
    classes: int


def build(architecture: str, input: Shape | None = None, **options: Unpack[Options]) -> Net:
    """Build a named architecture.

    Parameters
    ----------
    architecture : str
        A name of `refnet list`, such as ``"resnet18_conv4"``.
    input : (N, 3, T, H, W), optional
        Shape of the input blob `data`; by default 1x3x8x224x224, of a classifier 1x3x1x224x224.
    **options
        Those of its builder: `refnet.networks.resnet3d.body`, of a classifier
        `refnet.networks.classifier.classifier`, of a head also `refnet.networks.roi_head.head`. They and
        their defaults, by architecture, are listed below; a default that is not the same for all is shown as
        ``...`` in the signature.

    Returns
    -------
    Net

    Raises
    ------
    UnknownNameError
        If there is no such architecture or option.
    RefnetError
        If the value of an option is not allowed or changes nothing, or the input does not fit.
    """
    require_known("architecture", architecture, ARCHITECTURES)
    return ARCHITECTURES[architecture].build(input, **options)


class _Various:
    """A default that is not the same for all."""

    def __repr__(self) -> str:
        return "..."


VARIOUS = _Various()


def _signature() -> Signature:
    """The signature of `build` with every option, and its default where all architectures have the same."""
    *own, _ = signature(build).parameters.values()
    for option in OPTIONS:
        values = [a.options[option] for a in ARCHITECTURES.values() if option in a.options]
        default = values[0] if all(value == values[0] for value in values) else VARIOUS
        annotation = Options.__annotations__[option]
        own.append(Parameter(option, Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    return Signature(own, return_annotation=Net)


def _listed() -> str:
    """The options of each architecture, those that have the same together."""
    together: dict[str, list[str]] = {}
    for a in ARCHITECTURES.values():
        options = ", ".join(f"{name}={default!r}" for name, default in a.options.items())
        together.setdefault(f"input={a.input}, {options}", []).append(a.name)
    lines = ["", "Options", "-------"]
    for options, names in together.items():
        lines += [*wrap(", ".join(names), 96), *(f"    {line}" for line in wrap(options, 92)), ""]
    return indent("\n".join(lines), "    ").rstrip() + "\n    "


build.__signature__ = _signature()  # type: ignore[attr-defined]
build.__doc__ = f"{build.__doc__}{_listed()}"
