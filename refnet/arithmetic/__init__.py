"""How operators are carried out: `reference` (definitions), `core` (kernels), `exact` (correctly rounded)."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refnet.arithmetic.core import core
from refnet.arithmetic.exact import exact
from refnet.arithmetic.reference import reference
from refnet.arithmetic.table import Arithmetic, Door, Kernel
from refnet.errors import DTypeError, ValueRangeError, brief, require_known
from refnet.modules import find

ARITHMETICS: dict[str, Arithmetic] = {a.name: a for a in (reference, core, exact)}

__all__ = ["ARITHMETICS", "Arithmetic", "Kernel", "core", "exact", "find_arithmetic", "named", "reference"]


def named(arithmetic: str | Arithmetic) -> Arithmetic:
    """Return the arithmetic of that name, or the arithmetic itself.

    Parameters
    ----------
    arithmetic : str or Arithmetic

    Returns
    -------
    Arithmetic

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    DTypeError
        If it is neither.
    """
    if isinstance(arithmetic, Arithmetic):
        return arithmetic
    if not isinstance(arithmetic, str):
        found = arithmetic.title if isinstance(arithmetic, Door) else brief(arithmetic)
        expected = "an Arithmetic, as core.replace(relu=Kernel(forward, backward)) makes one"
        raise DTypeError(f"arithmetic is {found}: expected a name ({', '.join(ARITHMETICS)}), or {expected}")
    require_known("arithmetic", arithmetic, ARITHMETICS)
    return ARITHMETICS[arithmetic]


def find_arithmetic(source: str) -> Arithmetic:
    """The arithmetic of that name, or, as "module:name", one of a module of somebody's own.

    A module of the current folder comes before others. What is found is run: never pass on what a file says.

    Parameters
    ----------
    source : str

    Returns
    -------
    Arithmetic

    Raises
    ------
    UnknownNameError
        If there is none of that name, or the module has nothing of it.
    ValueRangeError
        If it names a file, there is no such module, or what it has of that name is no arithmetic.
    KernelError
        If the module raises an exception when it is imported.
    """
    if ":" not in source and not source.endswith(".py"):
        if source not in ARITHMETICS and Path(f"{source}.py").is_file():
            advice = f"did you mean {source}:NAME, an arithmetic in {source}.py?"
            raise ValueRangeError(f"arithmetic {source!r} has no colon: {advice}")
        require_known("arithmetic", source, (*ARITHMETICS, "module:name"))
        return ARITHMETICS[source]
    example = "module:name, as my_kernels:arithmetic"
    expected = "an arithmetic, as refnet.arithmetic.core.replace(conv3d=Kernel(forward, backward))"
    found: Arithmetic = find(source, "arithmetic", example, lambda it: isinstance(it, Arithmetic), expected)
    return found


def _as_pickled(arithmetic: Arithmetic) -> tuple[Callable[..., Arithmetic], tuple[Any, ...]]:
    """What makes an arithmetic again: the name of refnet's own, or what was replaced in which."""
    if ARITHMETICS.get(arithmetic.name) is arithmetic:
        return named, (arithmetic.name,)
    return arithmetic._made()


copyreg.pickle(Arithmetic, _as_pickled)
