"""Modules that refnet does not depend on: what one of somebody's own holds, and other frameworks."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from refnet.errors import (
    KernelError,
    NotInstalledError,
    UnknownNameError,
    ValueRangeError,
    kind_of,
    one_line,
)

# The packages of the extra `peers`, by module, and what their makers call them.
PEERS = {"torch": "PyTorch", "jax": "JAX", "onnx": "ONNX", "onnxruntime": "ONNX Runtime"}


def peer(name: str) -> Any:
    """The module of another framework, which refnet does not depend on.

    Parameters
    ----------
    name : str
        One of `PEERS`.

    Raises
    ------
    NotInstalledError
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        advice = f"pip install {name} (or refnet's extra peers)"
        raise NotInstalledError(f"{PEERS[name]} is not installed: {advice}") from None


def find(source: str, what: str, example: str, fits: Callable[[Any], bool], expected: str) -> Any:
    """What "module:name" names; modules of the current folder come first.

    Parameters
    ----------
    source : str
        A module, dotted where it is in a package, and a name in it, dotted where it is in a class.
    what : str
        What is looked for, for messages: "kernel".
    example : str
        How such a source is written.
    fits : callable
        Whether what is found is one.
    expected : str
        What it has to be, in words.

    Raises
    ------
    ValueRangeError
        If it is not written like that, or names what does not fit.
    UnknownNameError
        If there is no such module, or nothing of that name in it.
    KernelError
        If the module raises an exception when it is imported.
    """
    form = example.partition(",")[0]
    module_name, colon, name = source.partition(":")
    if module_name.endswith(".py"):
        meant = f"{module_name[:-3].replace('/', '.')}:{name or 'NAME'}"
        raise ValueRangeError(f"{what} {source!r} names a file: did you mean {meant}?")
    if not (colon and name and all(part.isidentifier() for part in module_name.split("."))):
        raise ValueRangeError(f"{what} {source!r}: expected {example}")
    found: Any = _module(module_name, form)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in dir(found) if not n.startswith("_") and fits(getattr(found, n))]
            raise UnknownNameError(f"{what} of {module_name}", name, known)
        found = getattr(found, part)
    if not fits(found):
        raise ValueRangeError(f"{source} is {kind_of(found)}: expected {expected}")
    return found


def _module(name: str, form: str) -> Any:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            places = f"{folder} or where Python finds modules"
            raise ValueRangeError(f"there is no module {name!r} in {places}: expected {form}") from None
        raise KernelError(f"importing {name} failed: {one_line(error)}") from error
    except (Exception, SystemExit) as error:  # whatever somebody's module does
        raise KernelError(
            f"importing {name} failed with {type(error).__name__}: {one_line(error)}"
        ) from error
    finally:
        sys.path.remove(folder)
