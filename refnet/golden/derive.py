"""From a recipe to its tensors, and from those to a bundle."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from refnet import machine
from refnet.arrays import Array, with_one_nan
from refnet.environment import in_default
from refnet.errors import ShapeError
from refnet.golden.bundle import (
    BITS,
    FORMAT,
    MANIFEST,
    SECTIONS,
    VERSION,
    Bundle,
    ClipSource,
    Recipe,
    added,
    beside,
    require_disk,
    require_free,
    sha,
)
from refnet.inputs import clip, fill
from refnet.net import Net
from refnet.networks import ARCHITECTURES
from refnet.progress import Progress, silent, steps
from refnet.run import Fallbacks, backward, forward
from refnet.shapes import Shape

Tensors = dict[str, dict[str, Array]]


class Derived(NamedTuple):
    """Everything that a bundle holds."""

    tensors: Tensors
    blocked: frozenset[str]
    fallbacks: dict[str, Fallbacks]


@in_default
def make(
    out: str | Path,
    recipe: Recipe,
    *,
    pixels: Array | None = None,
    hashes_only: bool = False,
    force: bool = False,
    allow_nonfinite: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """Run a recipe and write the bundle.

    Parameters
    ----------
    out : str or Path
        The folder to be written. It appears complete or not at all.
    recipe : Recipe
    pixels : (N, 3, T, H, W) ndarray, optional
        The input, where the recipe names a clip.
    hashes_only : bool
        Store no tensor but the clip's pixels, which nobody could derive.
    force : bool
        Replace a bundle that is already there.
    allow_nonfinite : bool
        Accept NaN and infinity in the input.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Bundle

    Raises
    ------
    FileError
        If something is in the way, or cannot be written.
    RefnetError
        If the recipe cannot be run.
    """
    out = Path(out)
    require_free(out, force)
    net = recipe.net()
    if not hashes_only:
        require_disk(out, recipe.stored_bytes(net))
    tensors, blocked, fallbacks = derive(recipe, net, pixels, allow_nonfinite, progress)
    stored = {
        section
        for section in SECTIONS
        if not hashes_only or (section == "inputs" and recipe.clip is not None)
    }
    facts = machine.facts()
    manifest = {
        "format": FORMAT,
        "format_version": VERSION,
        "refnet": facts["refnet"],
        "recipe": asdict(recipe) | {"options": ARCHITECTURES[recipe.architecture].options | recipe.options},
        "bits": BITS[recipe.arithmetic],
        "machine": facts,
        "blocked": sorted(blocked),
        "tensors": _describe(tensors, stored, progress),
    }
    if any(fallbacks.values()):
        manifest["fallbacks"] = _counted(fallbacks)
    with beside(out, force) as folder:
        described = folder / MANIFEST
        described.write_text(json.dumps(manifest, indent=1, default=_plain) + "\n", encoding="utf-8")
        for done, section in enumerate(SECTIONS):
            progress("write", done, len(SECTIONS))
            if section in stored and tensors[section]:
                file = folder / f"{section}.safetensors"
                save_file(tensors[section], file)
                file.chmod(described.stat().st_mode)  # safetensors takes no notice of the umask
    progress("write", len(SECTIONS), len(SECTIONS))
    return Bundle(out)


@in_default
def derive(
    recipe: Recipe,
    net: Net,
    pixels: Array | None,
    allow_nonfinite: bool,
    progress: Progress,
) -> Derived:
    """Compute everything that a bundle holds, every NaN as `np.nan`."""
    given = start(recipe, net, pixels)
    run = forward(
        net,
        {**given["inputs"], **given["params"]},
        recipe.arithmetic,
        allow_nonfinite=allow_nonfinite,
        on_node=steps(progress, "forward", len(net.nodes)),
    )
    tensors: Tensors = {
        "inputs": {name: run.given[name] for name in net.inputs},
        "params": given["params"],
        "blobs": run.blobs,
        "output_gradients": given["output_gradients"],
        "gradients": {},
    }
    blocked, fallbacks = frozenset[str](), {"forward": run.fallbacks, "backward": Fallbacks()}
    if recipe.backward:
        flowing = net.gradient_flow().intersection(run.blobs)
        grads = backward(
            run,
            tensors["output_gradients"],
            on_node=steps(progress, "backward", len(flowing)),
        )
        tensors["gradients"], blocked, fallbacks["backward"] = dict(grads), grads.blocked, grads.fallbacks
    tensors = {
        section: {name: with_one_nan(array) for name, array in arrays.items()}
        for section, arrays in tensors.items()
    }
    return Derived(tensors, blocked, fallbacks)


def start(recipe: Recipe, net: Net, pixels: Array | None) -> Tensors:
    """What a run of a recipe starts from: inputs, parameters, and the gradients of its outputs."""
    if (pixels is None) != (recipe.clip is None):
        raise ShapeError("pixels are given without a clip in the recipe, or the other way round")
    inputs = fill.inputs(net, recipe.seed, recipe.dtype)
    if pixels is not None:
        inputs["data"] = pixels
    return {
        "inputs": inputs,
        "params": fill.params(net, recipe.seed, recipe.dtype),
        "output_gradients": fill.output_gradients(net, recipe.seed, recipe.dtype) if recipe.backward else {},
    }


@in_default
def clip_recipe(
    path: str | Path, selection: clip.Selection, recipe: Recipe, *, allow_nonfinite: bool = False
) -> tuple[Recipe, Array]:
    """Read a clip, and the recipe with the clip's shape and source in it.

    Parameters
    ----------
    path : str or Path
    selection : refnet.clip.Selection
        Which of its frames, and their size.
    recipe : Recipe
        Its `input` is replaced.
    allow_nonfinite : bool

    Returns
    -------
    recipe : Recipe
    pixels : (N, 3, T, H, W) ndarray

    Raises
    ------
    RefnetError
        Whatever `refnet.clip.load` refuses.
    """

    def judge(shape: Shape) -> None:
        """Refuse a shape that the network does not take, or whose run would not fit into memory."""
        replace(recipe, input=shape).net()

    pixels = clip.read(path, selection, recipe.dtype, allow_nonfinite, judge)
    # Of a name that is not UTF-8, the other bytes as escapes.
    name = os.fsencode(Path(path).name).decode("utf-8", "backslashreplace")
    source = ClipSource(name, clip.digest(path), **asdict(selection))
    return replace(recipe, input=pixels.shape, clip=source), pixels


def _counted(fallbacks: Mapping[str, Fallbacks]) -> dict[str, Any]:
    """What was counted of each node and tensor, and added up."""
    counts = (count for of in fallbacks.values() for by_what in of.values() for count in by_what.values())
    return {"total": asdict(added(counts))} | {
        walk: {name: {what: asdict(count) for what, count in by_what.items()} for name, by_what in of.items()}
        for walk, of in fallbacks.items()
    }


def _plain(value: Any) -> Any:
    """A NumPy number as JSON's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is no plain value")


def _describe(tensors: Tensors, stored: set[str], progress: Progress) -> dict[str, Any]:
    step = steps(progress, "hash", sum(map(len, tensors.values())))
    described: dict[str, Any] = {}
    for section, arrays in tensors.items():
        file = f"{section}.safetensors" if section in stored else None
        described[section] = {}
        for name, array in arrays.items():
            described[section][name] = {
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "sha256": sha(array),
                "file": file,
            }
            step(name)
    return described
