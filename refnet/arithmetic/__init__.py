"""How operators are carried out: `reference` (definitions), `core` (kernels), `exact` (correctly rounded)."""

from refnet.arithmetic.core import core
from refnet.arithmetic.exact import exact
from refnet.arithmetic.reference import reference
from refnet.arithmetic.table import Arithmetic, Kernel
from refnet.errors import require_known

ARITHMETICS: dict[str, Arithmetic] = {a.name: a for a in (reference, core, exact)}

__all__ = ["ARITHMETICS", "Arithmetic", "Kernel", "core", "exact", "named", "reference"]


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
    """
    if isinstance(arithmetic, Arithmetic):
        return arithmetic
    require_known("arithmetic", arithmetic, ARITHMETICS)
    return ARITHMETICS[arithmetic]
