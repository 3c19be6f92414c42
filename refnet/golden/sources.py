"""What a recipe is given that is not drawn: a clip, parameters of somebody's own."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from hashlib import file_digest
from pathlib import Path

import numpy as np

from refnet.arrays import Array, at_the_door
from refnet.environment import errstate, in_default
from refnet.errors import DTypeError, FileError, ShapeError, UnknownNameError, one_line, path_of
from refnet.golden.recipe import ClipSource, Recipe, Source, require_recipe
from refnet.inputs import clip, tensor_files
from refnet.shapes import Shape, text


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
    require_recipe(recipe)

    def judge(shape: Shape) -> None:
        """Refuse a shape that the network does not take, or whose run would not fit into memory."""
        replace(recipe, input=shape).net()

    pixels = clip.read(path, selection, recipe.dtype, allow_nonfinite, judge)
    source = ClipSource(_name(path), clip.digest(path), **asdict(selection))
    return replace(recipe, input=pixels.shape, clip=source), pixels


@in_default
def params_recipe(path: str | Path, recipe: Recipe) -> tuple[Recipe, dict[str, Array]]:
    """Read parameters of one's own, and the recipe with their source in it.

    Parameters
    ----------
    path : str or Path
        What `refnet.inputs.tensor_files` reads: every parameter of the recipe's network under its own name,
        or as ``param/NAME``, and nothing else.
    recipe : Recipe

    Returns
    -------
    recipe : Recipe
    params : dict of str to ndarray
        In the recipe's dtype: narrower ones are widened, which changes no value; wider ones are refused.

    Raises
    ------
    FileError
        If it cannot be read, lacks a parameter or holds something else.
    DTypeError, ShapeError
        If a parameter has another shape, or a format whose values the recipe's dtype does not hold.
    """
    path = path_of("path", path)
    require_recipe(recipe)
    net = recipe.structure()
    params: dict[str, Array] = {}
    for whole, array in tensor_files.read(path).items():
        name = whole.removeprefix("param/")
        if name not in net.params:
            near = UnknownNameError(f"parameter in {path}", name, net.params)
            raise FileError(f"{near}; expected the {len(net.params)} of {recipe.title()} alone")
        if name in params:
            raise FileError(f"{path} holds {name} twice: expected one array of each name")
        params[name] = _widened(f"{path}: {name}", array, recipe.dtype)
        if params[name].shape != net.params[name]:
            raise ShapeError(
                f"{path}: {name} has shape {text(array.shape)}: expected {text(net.params[name])}"
            )
    if missing := [name for name in net.params if name not in params]:
        raise FileError(
            f"{path} lacks {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}: "
            f"expected all {len(net.params)} parameters of {recipe.title()}"
        )
    return replace(recipe, own={**recipe.own, "params": _source(path)}), {n: params[n] for n in net.params}


def _widened(what: str, array: Array, dtype: str) -> Array:
    """An array in a dtype that holds each of its values."""
    found = at_the_door(what, array)
    if found.dtype.itemsize > np.dtype(dtype).itemsize:
        raise DTypeError(f'{what} is {found.dtype}: expected {dtype}, or a run of dtype="{found.dtype}"')
    with errstate(invalid="ignore"):  # a NaN may be a signalling one
        return found.astype(dtype, copy=False)


def _source(path: Path) -> Source:
    """What a file is called, and its SHA-256; a folder has none."""
    if path.is_dir():
        return Source(_name(path), None)
    try:
        with path.open("rb") as file:
            return Source(_name(path), file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise FileError(f"{path} cannot be read: {one_line(error)}") from error


def _name(path: str | Path) -> str:
    """The name of a file; of one that is not UTF-8, the other bytes as escapes."""
    return os.fsencode(Path(path).absolute().name).decode("utf-8", "backslashreplace")
