"""The options that commands share, and the reading of shapes, numbers and words."""

import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from refnet import golden, memory
from refnet.arithmetic import ARITHMETICS
from refnet.arithmetic.core import runtime
from refnet.arrays import Array
from refnet.cli.ending import say
from refnet.errors import ShapeError, ValueRangeError, require_known
from refnet.golden import Recipe
from refnet.inputs.clip import Selection
from refnet.inputs.resize import RESIZES
from refnet.net import Net
from refnet.networks import ARCHITECTURES, build
from refnet.networks.resnet3d import TRANSFORMATIONS
from refnet.networks.time_link import LINKS
from refnet.render.made import Made, today
from refnet.shapes import Shape, text

# Geometries that an operator is checked on, beside its cases.
MOST_DRAWS = 100_000


def integer(value: str) -> int:
    """Read a whole number."""
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number") from None


def real(value: str) -> float:
    """Read a number."""
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a number") from None


def number(help: str) -> Any:
    """Declare an option that takes a whole number."""
    return typer.Option(parser=integer, metavar="INTEGER", help=help)


def completing(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Complete a word, or the last one between commas, of those known."""

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        taken = before.split(",")
        return [f"{before}{comma}{w}" for w in known if w.startswith(begun) and w not in taken]

    return complete


def completing_of_net(
    names: Callable[[Net], Iterable[str]],
) -> Callable[[typer.Context, str], list[str]]:
    """Complete a word, or the last one between commas, of those of the architecture that is given."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        given = (word for word in (*context.params.values(), *context.args) if isinstance(word, str))
        arch = next((word for word in given if word in ARCHITECTURES), None)
        return [] if arch is None else completing(names(build(arch)))(incomplete)

    return complete


def word(known: Iterable[str], help: str) -> Any:
    """Declare an option that takes one of a few words."""
    words = tuple(known)
    return typer.Option(metavar="|".join(words), help=help, autocompletion=completing(words))


def one_arithmetic(help: str) -> Any:
    """Declare an option that takes what `refnet.arithmetic.find_arithmetic` does: a name."""
    known = f"{', '.join(ARITHMETICS)}, or MODULE:NAME of a module of one's own"
    return typer.Option(metavar="NAME", help=f"{help}: {known}.", autocompletion=completing(ARITHMETICS))


Arch = Annotated[
    str,
    typer.Argument(metavar="ARCH", help="A name of `refnet list`.", autocompletion=completing(ARCHITECTURES)),
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
Input = Annotated[
    str | None,
    typer.Option(
        metavar="NxCxTxHxW",
        help="Shape of the input. [default: 1x3x8x224x224; resnet*_classifier: 1x3x1x224x224]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def optional_number(help: str) -> Any:
    """Declare a whole number that need not be given."""
    return Annotated[int | None, number(help)]


# What says on and off.
FLAGS = {
    "time_stride": ("--time-stride", "--no-time-stride"),
    "stride_1x1": ("--stride-1x1", "--stride-3x3"),
    "batch_norm": ("--batch-norm", "--affine"),
    "training": ("--training", "--inference"),
    "aligned": ("--aligned", "--legacy"),
}
# Options that are one of a few words.
WORDS = {"transformation": TRANSFORMATIONS, "link": LINKS}
# The options of the architectures; where one is not given, the architecture decides.
MEANINGS = {
    "transformation": "The kind of block.",
    "freeze_at": "Stage behind which gradients stop; 0: none.",
    "time_kernel": "Odd kernel size along T, from res3 on.",
    "time_stride": "Stride in T too, from res3 on.",
    "groups": "Groups of branch2b.",
    "width_per_group": "Inner width of res2, per group.",
    "stride_1x1": "Where a bottleneck strides.",
    "dilation": "Dilation of res5 in H and W.",
    "batch_norm": "Batch norms in place of frozen affines.",
    "training": "Batch norms by the batch's own statistics.",
    "rois": "Tubes of a head over regions.",
    "resolution": "Lines and columns of a pooled region, 14 or 7.",
    "sampling_ratio": "Samples of RoIAlign per bin and axis; 0: adaptive.",
    "aligned": "RoIAlign with or without the half-pixel shift.",
    "link": "Between body and head.",
    "classes": "Classes of a classifier.",
}


def optional_word(known: Iterable[str], help: str) -> Any:
    """Declare a word that need not be given."""
    return Annotated[str | None, word(known, help)]


def dashed(name: str) -> str:
    """The option that gives a parameter."""
    return f"--{name.replace('_', '-')}"


def as_options(message: str) -> str:
    """A message to Python as one to a terminal: it names options, as of `force=True`."""

    def option(found: re.Match[str]) -> str:
        return f"{dashed(found['name'])} {found['word'] or ''}".rstrip()

    named = r"\b(?P<name>force|hashes_only|only|store|dtype)"
    return re.sub(rf'{named}=(True\b|\[\.\.\.\]|"(?P<word>\w+)")', option, message)


def written(option: str, value: Any) -> str:
    """What an option of an architecture is, as it is given on the command line."""
    return FLAGS[option][0 if value else 1] if option in FLAGS else str(value)


def spelled(option: str, value: Any) -> tuple[str, str]:
    """How an option of an architecture is given on the command line, and what it is."""
    return (" / ".join(FLAGS[option]) if option in FLAGS else dashed(option)), written(option, value)


def usual(option: str) -> str:
    """What an option is where it is not given: ``2; resnet*_classifier: 0``, ``--legacy``."""
    having = {name: a.options[option] for name, a in ARCHITECTURES.items() if option in a.options}

    def alike(name: str) -> str:
        kind = re.sub("[0-9]+", "*", name, count=1)
        return kind if len({having[other] for other in having if fnmatch(other, kind)}) == 1 else name

    def shown(value: Any) -> str:
        word = written(option, value)
        return "off" if word.startswith("--no-") else word  # which help would fold

    (most, _), *others = Counter(having.values()).most_common()
    parts = [shown(most)]
    for value, _ in others:
        names = dict.fromkeys(alike(name) for name in having if having[name] == value)
        parts.append(f"{', '.join(names)}: {shown(value)}")
    return "; ".join(parts)


def choice(option: str) -> Any:
    """Declare an option of the architectures."""
    help = f"{MEANINGS[option]} [default: {usual(option)}]"
    if option in FLAGS:
        return Annotated[bool | None, typer.Option("/".join(FLAGS[option]), help=help)]
    return optional_word(WORDS[option], help) if option in WORDS else optional_number(help)


CHOICES = {option: choice(option) for option in MEANINGS}
# A clip, and which of its frames are taken.
CLIP = {
    "clip": Annotated[Path | None, typer.Option(help="A video, a folder of images, .npy or .npz.")],
    "frames": optional_number("Frames of the clip. [default: those of the input]"),
    "stride": optional_number("Take one frame in this many. [default: 1]"),
    "start": optional_number("Index of the first. [default: 0]"),
    "size": Annotated[
        str | None, typer.Option(metavar="HxW", help="Resize frames to this. [default: their own]")
    ],
    "resize": optional_word(RESIZES, "How frames are resized. [default: linear]"),
}


@dataclass(frozen=True)
class Group:
    """Marks a parameter of a command that is several options on the command line."""

    options: Mapping[str, Any]


Options = Annotated[dict[str, Any], Group(CHOICES)]
Clip = Annotated[dict[str, Any], Group(CLIP)]


def takes_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Show the options of every group on the command line; the command gets those that were given."""
    shown: list[Parameter] = []
    groups: dict[str, Group] = {}
    for name, parameter in signature(command).parameters.items():
        match getattr(parameter.annotation, "__metadata__", ()):
            case [Group() as group]:
                groups[name] = group
                shown += [
                    Parameter(option, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
                    for option, annotation in group.options.items()
                ]
            case _:
                shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def wrapped(**values: Any) -> None:
        for name, group in groups.items():
            found = {option: values.pop(option) for option in group.options}
            values[name] = {option: value for option, value in found.items() if value is not None}
        command(**values)

    wrapped.__signature__ = Signature(shown)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return wrapped


Threads = Annotated[
    int | None,
    number(
        "Of kernels, as many as OpenMP has, and of NumPy's where threadpoolctl is installed. [default: all]"
    ),
]


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """A context in which everything that is computed runs on that many threads; on all if it is None."""
    if count is None:
        yield
        return
    in_range("--threads", count, os.cpu_count() or 1)
    if count > 1 and not runtime.openmp_enabled():
        raise ValueRangeError(f"--threads is {count}, but refnet was built without OpenMP: expected 1")
    with runtime.limited(count), blas_limited(count):
        yield


def blas_limited(count: int) -> AbstractContextManager[Any]:
    """A context in which NumPy's matrix products run on that many threads, if threadpoolctl is there."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(count)
    return limits


def computes(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take ``--threads``, and run on so many."""

    @wraps(command)
    def wrapped(*, threads: int | None, **values: Any) -> None:
        with on_threads(threads):
            command(**values)

    asked = Parameter("threads", Parameter.KEYWORD_ONLY, default=None, annotation=Threads)
    shown = [*(p.replace(kind=Parameter.KEYWORD_ONLY) for p in signature(command).parameters.values()), asked]
    wrapped.__signature__ = Signature(shown)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return wrapped


def read_clip(
    recipe: Recipe, input: str | None, given: Mapping[str, Any], allow_nonfinite: bool = False
) -> tuple[Recipe, Array | None]:
    """Read the clip that was given, and the recipe for it; the recipe as it is where none was."""
    frames = {name: value for name, value in given.items() if name != "clip"}
    if "clip" not in given:
        for name, value in frames.items():
            raise ValueRangeError(f"--{name} is {value}, but there is no clip: expected --clip too")
        return recipe, None
    if input is not None:
        raise ValueRangeError(f"--input is {input}, but there is a clip: expected --frames and --size")
    if "resize" in frames and "size" not in frames:
        raise ValueRangeError(f"--resize is {frames['resize']}, but nothing is resized: expected --size too")
    if "size" in frames:
        frames["size"] = parse_shape("--size", frames["size"], rank=2)
    selection = Selection(**{"frames": recipe.input[2]} | frames)
    return golden.clip_recipe(given["clip"], selection, recipe, allow_nonfinite=allow_nonfinite)


def say_own_size(recipe: Recipe, clip: Mapping[str, Any], groups: Collection[str] = ()) -> None:
    """Say what a run takes on a clip whose size nobody gave, and its bundle of these groups."""
    if "clip" not in clip or "size" in clip:
        return
    net = recipe.structure()
    stored = recipe.stored_bytes(net, groups)
    needed = [f"{memory.text(recipe.needed_bytes(net))} of memory"]
    needed += [f"{memory.text(stored)} of disk"] if stored else []
    say(
        f"the input is {text(recipe.input)}, frames of their own size (--size resizes them): "
        f"a run takes about {' and '.join(needed)}"
    )


def title(recipe: Recipe) -> str:
    """Name a network on its input, with every option that is not the architecture's own."""
    usual = ARCHITECTURES[recipe.architecture].options if recipe.architecture else {}
    chosen = [f"{name} {value}" for name, value in recipe.options.items() if value != usual[name]]
    return ", ".join([recipe.title(), *chosen])


def arguments(options: Mapping[str, Any]) -> Iterator[str]:
    """Write options of an architecture as they are given on the command line."""
    for name, value in options.items():
        if isinstance(value, bool):
            yield written(name, value)
        else:
            yield from (dashed(name), written(name, value))


def input_shape(arch: str, given: str | None) -> Shape:
    """The input's shape; the architecture's own if none is given."""
    require_known("architecture", arch, ARCHITECTURES)
    return ARCHITECTURES[arch].input if given is None else parse_shape("--input", given)


def parse_shape(option: str, value: str, rank: int = 5) -> Shape:
    """Read ``1x3x8x224x224``."""
    parts = value.split("x")
    if len(parts) != rank or not all(re.fullmatch("-?[0-9]{1,18}", part) for part in parts):
        example = "1x3x8x224x224" if rank == 5 else "224x224"
        raise ShapeError(f"{option} is {value!r}: expected {rank} whole numbers, such as {example}")
    return tuple(int(part) for part in parts)


def parse_numbers(option: str, value: str) -> list[int]:
    """Read ``0,2,3``."""
    parts = value.split(",")
    if not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise ShapeError(f"{option} is {value!r}: expected whole numbers between commas, such as 0,2,3")
    return [int(part) for part in parts]


def parse_words(option: str, what: str, value: str, known: Iterable[str]) -> list[str]:
    """Read ``torch,numpy``, each a known name."""
    words = list(dict.fromkeys(value.split(",")))
    for word in words:
        require_known(f"{what} of {option}", word, known)
    return words


def in_range(option: str, value: int, most: int) -> int:
    """Refuse a number below 1 or above what there is."""
    if not 1 <= value <= most:
        raise ValueRangeError(f"{option} is {value}: expected a whole number from 1 to {most}")
    return value


def made(page: Path, options: Mapping[str, Any]) -> Made:
    """What a page says of itself: this command, the day, all options of what it shows.

    Of the command, neither where the page lies nor what else was printed.
    """
    shorter = {str(page): page.name, f"--html={page}": f"--html={page.name}"}
    words = [shorter.get(word, word) for word in sys.argv[1:] if word != "--json"]
    return Made(shlex.join(["refnet", *words]), today(), options)


def all_options(recipe: Recipe) -> dict[str, Any]:
    """All that decides about a network, options of its architecture that are not given too."""
    if not recipe.architecture:
        return {"network": recipe.title()}
    options = ARCHITECTURES[recipe.architecture].options | recipe.options
    spelled = {dashed(name)[2:]: value for name, value in options.items()}
    return {"architecture": recipe.architecture, "input": text(recipe.input)} | spelled


def require_none(given: Mapping[str, Any], why: str) -> None:
    """Refuse options of the other kind."""
    for option, value in given.items():
        if value is not None:
            raise ValueRangeError(f"{dashed(option)} is given, but {why}")
