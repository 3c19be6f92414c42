"""From a recipe, or a run, to its tensors, and from those to a bundle."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from refnet import bounded_json, machine, memory
from refnet.arithmetic.exact.fallback import added
from refnet.arrays import Array, at_the_door, require_mapping, rounded, with_one_nan
from refnet.environment import in_default
from refnet.errors import (
    ShapeError,
    TooLargeError,
    ValueRangeError,
    path_of,
    require_kind,
    require_known,
)
from refnet.given import real_dtype
from refnet.golden import graph
from refnet.golden.bundle import Bundle, sha
from refnet.golden.folder import FORMAT, MANIFEST, beside, require_disk, require_free
from refnet.golden.manifest import VERSION
from refnet.golden.recipe import GIVEN, GROUPS, SECTIONS, Recipe, require_recipe
from refnet.inputs import fill, safetensors_file
from refnet.net import Net
from refnet.progress import Progress, silent, steps
from refnet.run import Fallbacks, Gradients, Run, backward, forward

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
    params: Mapping[str, Array] | None = None,
    only: Collection[str] | None = None,
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
    params : mapping of str to ndarray, optional
        Parameters of one's own, all of them, in the recipe's dtype; drawn where not given.
    only : collection of str, optional
        Store these alone: "inputs", "params", "blobs" or, of those, "outputs", "output_gradients",
        "gradients". Of the others, SHA-256. What nobody could derive (pixels, parameters of one's own) is
        stored in any case.
    hashes_only : bool
        Store nothing else: ``only=()``.
    force : bool
        Replace a bundle that is already there.
    allow_nonfinite : bool
        Accept NaN and infinity in the input and in parameters.
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

    Examples
    --------
    >>> recipe = Recipe("resnet18_conv4", (1, 3, 8, 224, 224), {"time_kernel": 3}, dtype="float32")
    >>> bundle = make("golden", recipe, force=True)  # doctest: +SKIP
    """
    out = path_of("out", out)
    require_recipe(recipe)
    groups = _groups(only, hashes_only)
    require_free(out, force)
    own: Tensors = {} if pixels is None else {"inputs": {"data": pixels}}
    if params is not None:
        require_mapping("params", params)
        own["params"] = dict(params)
        recipe = replace(recipe, own={"params": None, **recipe.own})
    net = recipe.net()
    require_disk(out, recipe.stored_bytes(net, groups))
    derived = derive(recipe, net, own, allow_nonfinite, progress)
    return _write(out, recipe, net, derived, groups, force, progress)


@in_default
def save(
    out: str | Path,
    run: Run,
    gradients: Gradients | None = None,
    *,
    only: Collection[str] | None = None,
    hashes_only: bool = False,
    store: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """Write a bundle of a run that one has; `Run.save` is this.

    What it was given is stored with it, as nobody could derive it.

    Parameters
    ----------
    out : str or Path
        The folder to be written. It appears complete or not at all.
    run : Run
        One that kept all blobs.
    gradients : Gradients, optional
        What `refnet.backward` found for this run.
    only, hashes_only
        As for `make`.
    store : {"float32"}, optional
        Round what was computed in float64 when it is stored.
    force : bool
        Replace a bundle that is already there.
    progress : callable
        Told (stage, done, total).

    Returns
    -------
    Bundle

    Raises
    ------
    FileError
        If something is in the way, or cannot be written.
    ValueRangeError
        If the run did not keep all blobs, or computed no real numbers.
    """
    out = path_of("out", out)
    require_kind("run", run, Run, "as refnet.forward returns one")
    if gradients is not None:
        require_kind("gradients", gradients, Gradients, "as refnet.backward returns them")
    groups = _groups(only, hashes_only)
    require_free(out, force)
    net = run.net
    _require_storable(net)
    if missing := [node.name for node in net.nodes if node.name not in run.blobs]:
        raise ValueRangeError(f'the run did not keep {missing[0]}: expected one of forward(..., keep="all")')
    dtype = real_dtype(run.given)
    if dtype is None:
        raise ValueRangeError("the run was given no real numbers: expected float32 or float64 among them")
    own = dict.fromkeys(GIVEN if gradients is not None else GIVEN[:2])
    recipe = Recipe(
        "",
        (),
        dtype=dtype.name,
        arithmetic=run.arithmetic,
        backward=gradients is not None,
        store=store,
        own=own,
    )
    recipe.require_legal()
    memory.require(recipe.stored_bytes(net), f"a bundle of {recipe.title()}")
    require_disk(out, recipe.stored_bytes(net, groups))
    derived = _derived(recipe, run, gradients)
    return _write(out, recipe, net, derived, groups, force, progress)


@in_default
def derive(
    recipe: Recipe,
    net: Net,
    own: Mapping[str, Mapping[str, Array]],
    allow_nonfinite: bool,
    progress: Progress,
) -> Derived:
    """Compute everything that a bundle holds, as it is stored: every NaN as `np.nan`."""
    given = start(recipe, net, own)
    run = forward(
        net,
        {**given["inputs"], **given["params"]},
        recipe.arithmetic,
        allow_nonfinite=allow_nonfinite,
        on_node=steps(progress, "forward", len(net.nodes)),
    )
    gradients = None
    if recipe.backward:
        flowing = net.gradient_flow().intersection(run.blobs)
        gradients = backward(
            run,
            given["output_gradients"],
            allow_nonfinite=allow_nonfinite,
            on_node=steps(progress, "backward", len(flowing)),
        )
    return _derived(recipe, run, gradients)


def start(recipe: Recipe, net: Net, own: Mapping[str, Mapping[str, Array]]) -> Tensors:
    """What a run of a recipe starts from: inputs, parameters, and the gradients of its outputs.

    Parameters
    ----------
    recipe : Recipe
    net : Net
    own : mapping of str to mapping of str to ndarray
        By section, what is not drawn: a clip's pixels, and what the recipe says to be somebody's own.
    """
    if "inputs" not in recipe.own and ("inputs" in own) != (recipe.clip is not None):
        raise ShapeError("pixels are given without a clip in the recipe, or the other way round")
    draws = {
        "inputs": fill.inputs,
        "params": fill.params,
        "output_gradients": fill.output_gradients,
    }
    found: Tensors = {}
    for section, draw in draws.items():
        if section == "output_gradients" and not recipe.backward:
            found[section] = {}
        elif section in recipe.own:
            found[section] = dict(own.get(section, {}))
        else:
            found[section] = {**draw(net, recipe.seed, recipe.dtype), **own.get(section, {})}
    return found


def _derived(recipe: Recipe, run: Run, gradients: Gradients | None) -> Derived:
    """What a bundle of a run holds."""
    net = run.net
    tensors: Tensors = {
        "inputs": {name: run.given[name] for name in net.inputs},
        "params": {name: run.given[name] for name in net.params},
        "blobs": run.blobs,
        "output_gradients": {},
        "gradients": {},
    }
    blocked, fallbacks = frozenset[str](), {"forward": run.fallbacks, "backward": Fallbacks()}
    if gradients is not None:
        dys = gradients.output_gradients
        tensors["output_gradients"] = {name: at_the_door(f"gradient of {name}", dys[name]) for name in dys}
        tensors["gradients"] = dict(gradients)
        blocked, fallbacks["backward"] = gradients.blocked, gradients.fallbacks
    stored = {
        section: {name: as_stored(recipe, section, name, array) for name, array in arrays.items()}
        for section, arrays in tensors.items()
    }
    return Derived(stored, blocked, fallbacks)


def as_stored(recipe: Recipe, section: str, name: str, array: Array) -> Array:
    """In C order, every NaN as `np.nan`; rounded where the recipe says so, but for what nobody derives."""
    if recipe.store is not None and array.dtype.kind == "f" and not recipe.is_own(section, name):
        array = rounded(array, recipe.store)
    return np.asarray(with_one_nan(array), order="C")


def _require_storable(net: Net) -> None:
    """Refuse names that no file can hold."""
    for name in (*net.inputs, *net.params, *(node.name for node in net.nodes)):
        if name == safetensors_file.METADATA or name != name.encode(errors="replace").decode():
            raise ValueRangeError(f"blob name is {name!r}, which no file can hold: expected another")


def _groups(only: Collection[str] | None, hashes_only: bool) -> Collection[str]:
    """What is to be stored."""
    if hashes_only and only is not None:
        raise ValueRangeError("only and hashes_only are given: expected one of the two")
    if only is not None:
        require_kind("only", only, Collection, "as ['outputs', 'gradients']")
    if isinstance(only, str):
        raise ValueRangeError(f"only is {only!r}: expected a list of names, as ['outputs', 'gradients']")
    for group in only or ():
        require_known("group of tensors to store", group, GROUPS)
    return () if hashes_only else SECTIONS if only is None else only


def _write(
    out: Path,
    recipe: Recipe,
    net: Net,
    derived: Derived,
    groups: Collection[str],
    force: bool,
    progress: Progress,
) -> Bundle:
    """Write what was derived, and of that the values of some."""
    tensors, blocked, fallbacks = derived
    kept = {
        (section, name)
        for section, arrays in tensors.items()
        for name in arrays
        if section in groups
        or (section == "blobs" and "outputs" in groups and name in net.outputs)
        or recipe.is_own(section, name)
    }
    facts = machine.facts()
    manifest = {
        "format": FORMAT,
        "format_version": VERSION,
        "refnet": facts["refnet"],
        "recipe": recipe.record(),
        "bits": recipe.bits,
        "machine": facts,
        "blocked": sorted(blocked),
        "graph": graph.record(net),
        "tensors": _describe(tensors, kept, progress),
    }
    if any(fallbacks.values()):
        manifest["fallbacks"] = _counted(fallbacks)
    content = json.dumps(manifest, indent=1, default=_plain) + "\n"
    if len(content) > bounded_json.LARGEST:
        raise TooLargeError(
            f"the manifest of {out} has {memory.text(len(content))}: expected "
            f"{memory.text(bounded_json.LARGEST)} at most, enough for a network of thousands of nodes"
        )
    with beside(out, force) as folder:
        described = folder / MANIFEST
        described.write_text(content, encoding="utf-8")
        for done, section in enumerate(SECTIONS):
            progress("write", done, len(SECTIONS))
            stored = {name: array for name, array in tensors[section].items() if (section, name) in kept}
            if stored:
                file = folder / f"{section}.safetensors"
                save_file(stored, file)
                file.chmod(described.stat().st_mode)  # safetensors takes no notice of the umask
    progress("write", len(SECTIONS), len(SECTIONS))
    return Bundle(out)


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


def _describe(tensors: Tensors, kept: Collection[tuple[str, str]], progress: Progress) -> dict[str, Any]:
    step = steps(progress, "hash", sum(map(len, tensors.values())))
    described: dict[str, Any] = {}
    for section, arrays in tensors.items():
        described[section] = {}
        for name, array in arrays.items():
            described[section][name] = {
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "sha256": sha(array),
                "file": f"{section}.safetensors" if (section, name) in kept else None,
            }
            step(name)
    return described
