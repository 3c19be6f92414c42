"""What a bundle is derived from, and to which machines its bits belong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from refnet import memory
from refnet.arithmetic import ARITHMETICS, Arithmetic, named
from refnet.arrays import dtype_name
from refnet.errors import UnknownNameError, ValueRangeError, require_kind, require_known
from refnet.net import Net
from refnet.networks import ARCHITECTURES, build
from refnet.shapes import Shape, plain, size, text, volume

# To which machines the bits of an arithmetic belong: those of core and exact are defined, those of reference
# are made by NumPy's exp, matrix products and sums. Of somebody's own arithmetic nothing is known.
EVERY_MACHINE, ONE_MACHINE, UNKNOWN = "every machine", "one machine", "unknown"
BITS = {"core": EVERY_MACHINE, "reference": ONE_MACHINE, "exact": EVERY_MACHINE}
SECTIONS = ("inputs", "params", "blobs", "output_gradients", "gradients")
# What a bundle can be told to store: each section, or of the blobs the outputs alone.
GROUPS = ("inputs", "params", "blobs", "outputs", "output_gradients", "gradients")
# What may be somebody's own, and then is not derived: what a run is given, and how it is carried out.
GIVEN = ("inputs", "params", "output_gradients")
OWN = (*GIVEN, "arithmetic")


@dataclass(frozen=True)
class ClipSource:
    """Which frames of which clip the input was read from."""

    name: str
    sha256: str
    frames: int
    stride: int
    start: int
    size: tuple[int, int] | None
    resize: str


@dataclass(frozen=True)
class Source:
    """Where something of somebody's own was found: in which file or folder, or as which "module:name".

    SHA-256 is that of a file; None for what is none.
    """

    name: str
    sha256: str | None


@dataclass(frozen=True)
class Recipe:
    """What a bundle is derived from; with what is somebody's own (a clip's pixels, parameters), all of it.

    What its architecture does not take, and a dtype that there is not, is refused where it is used.

    Attributes
    ----------
    architecture : str
        Empty for a run of somebody's own network: the bundle's graph describes it.
    input : (N, 3, T, H, W)
        Of an architecture.
    options : dict
        Every option of the architecture, those left at their default included.
    seed : int
        Of what is drawn: parameters, output gradients and, without a clip, the input.
    clip : ClipSource or None
    dtype : {"float64", "float32"}
    arithmetic : str or Arithmetic
        Somebody's own is an `Arithmetic`; read from a manifest, it is its name, and nothing can be derived by
        it.
    backward : bool
    store : {"float32"} or None
        Values of a run in float64, rounded once when they are stored; None where they are stored as computed.
    own : dict of str to (Source or None)
        What is somebody's own: of "inputs", "params", "output_gradients", "arithmetic" those, and where they
        were found, if that is known. A clip's pixels are not in it.
    """

    architecture: str
    input: Shape
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    clip: ClipSource | None = None
    dtype: str = "float64"
    arithmetic: str | Arithmetic = "core"
    backward: bool = True
    store: str | None = None
    own: Mapping[str, Source | None] = field(default_factory=dict)

    @property
    def arithmetic_name(self) -> str:
        """What the arithmetic is called, somebody's own too."""
        return self.arithmetic if isinstance(self.arithmetic, str) else named(self.arithmetic).name

    @property
    def owns_arithmetic(self) -> bool:
        """Whether the arithmetic is somebody's own."""
        if isinstance(self.arithmetic, str):
            return "arithmetic" in self.own
        return ARITHMETICS.get(self.arithmetic_name) is not self.arithmetic

    @property
    def bits(self) -> str:
        """To which machines the bits of blobs and gradients belong."""
        return UNKNOWN if self.owns_arithmetic else BITS[self.arithmetic_name]

    def title(self) -> str:
        """Name the network and its input."""
        return f"{self.architecture} on {text(self.input)}" if self.architecture else "a network of its own"

    def is_own(self, section: str, name: str) -> bool:
        """Whether a tensor is somebody's own: it is stored as it was given, for nobody could derive it."""
        return section in self.own or (self.clip is not None and (section, name) == ("inputs", "data"))

    def record(self) -> dict[str, Any]:
        """What a manifest says of it."""
        own = ({"arithmetic": None} if self.owns_arithmetic else {}) | dict(self.own)
        of_catalog = bool(self.architecture)
        usual = ARCHITECTURES[self.architecture].options if of_catalog else {}
        return {
            "architecture": self.architecture if of_catalog else None,
            "input": self.input if of_catalog else None,
            "options": usual | self.options,
            "seed": self.seed if of_catalog else None,
            "clip": None if self.clip is None else asdict(self.clip),
            "dtype": self.dtype,
            "arithmetic": self.arithmetic_name,
            "backward": self.backward,
            "store": self.store,
            "own": {what: None if source is None else asdict(source) for what, source in own.items()},
        }

    def require_legal(self) -> None:
        """Refuse a dtype, an arithmetic or a way of storing that there is not."""
        if not self.owns_arithmetic:
            require_known("arithmetic", self.arithmetic_name, ARITHMETICS)
        dtype_name(self.dtype)
        if self.store is not None:
            require_known("format to store values in", self.store, ("float32",))
            if self.dtype != "float64":
                raise ValueRangeError(
                    f"store is {self.store} and dtype {self.dtype}: expected dtype float64, whose values are "
                    f"rounded when they are stored, or no store, for those of {self.dtype} are as they come"
                )

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", plain(self.input))
        with suppress(UnknownNameError):  # which `structure` refuses
            object.__setattr__(self, "dtype", dtype_name(self.dtype))

    def structure(self) -> Net:
        """Build the network, however much memory a run would take, and refuse what is unknown."""
        self.require_legal()
        require_known("architecture", self.architecture, ARCHITECTURES)
        require_kind("options", self.options, dict, 'as {"time_kernel": 3}')
        ARCHITECTURES[self.architecture].require_options(self.options)
        volume("input", self.input)
        return build(self.architecture, input=self.input, **self.options)

    def net(self) -> Net:
        """Build the network, and refuse what is unknown or would not fit into memory."""
        net = self.structure()
        memory.require(self.needed_bytes(net), self.title())
        return net

    def needed_bytes(self, net: Net) -> int:
        """About how much memory the run takes.

        Beside what it computes: that rounded, gradients on their way, a pool's winners, a draw in float64.
        """
        computed = sum(self._elements(net).values()) * np.dtype(self.dtype).itemsize
        rounded = computed // 2 if self.store else 0
        return computed + rounded + 5 * max((size(node.shape) for node in net.nodes), default=0) * 8

    def stored_bytes(self, net: Net, groups: Collection[str] = SECTIONS) -> int:
        """About how large the bundle's files are, of those groups."""
        itemsize = np.dtype(self.store or self.dtype).itemsize
        elements = self._elements(net)
        if "blobs" not in groups:
            elements["outputs"] = sum(map(size, net.outputs.values()))
        return sum(count for group, count in elements.items() if group in groups) * itemsize

    def _elements(self, net: Net) -> dict[str, int]:
        """About how many elements each section has."""
        inputs, params = (sum(map(size, given.values())) for given in (net.inputs, net.params))
        return {
            "inputs": inputs,
            "params": params,
            "blobs": sum(size(node.shape) for node in net.nodes),
            "output_gradients": sum(map(size, net.outputs.values())) if self.backward else 0,
            "gradients": inputs + params if self.backward else 0,
        }


def require_recipe(recipe: object) -> None:
    """Refuse what is no recipe: the name of an architecture, a net.

    Raises
    ------
    DTypeError
    """
    advice = 'as refnet.golden.Recipe("resnet18_conv4", (1, 3, 8, 224, 224), {"time_kernel": 3})'
    require_kind("recipe", recipe, Recipe, advice)
