"""The check that all kernels of exact arithmetic stand behind: infinity and NaN are no numbers to round."""

from inspect import signature
from typing import Any

import numpy as np

from refnet._core import exact_sums
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.errors import NotFiniteError
from refnet.op import InputGradients, Needs
from refnet.ops import OPS


def refusing(name: str, kernel: Kernel) -> Kernel:
    """Make a kernel refuse inputs and gradients that are not finite.

    Parameters
    ----------
    name : str
        The operator's.
    kernel : Kernel

    Returns
    -------
    Kernel
        Raises NotFiniteError, which names the operator, the input, and the first index.
    """
    names = list(signature(OPS[name].infer).parameters)

    def forward(*arrays: Array, **attrs: Any) -> tuple[Array, Any]:
        for i, array in enumerate(arrays):
            require_finite(f"{name} {names[i]}", array, i)
        return kernel.forward(*arrays, **attrs)

    def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
        require_finite(f"{name} dy", dy, -1)
        return kernel.backward(dy, context, needs)

    return Kernel(forward, backward)


def require_finite(what: str, array: Array, position: int | None = None) -> None:
    """Refuse infinity and NaN.

    Raises
    ------
    NotFiniteError
        Says what it is, and where the first is.
    """
    if array.dtype.kind != "f" or array.size == 0:
        return
    first = exact_sums.first_not_finite(array.reshape(-1))
    if first >= 0:
        index = tuple(map(int, np.unravel_index(first, array.shape)))
        raise NotFiniteError(what, array[index], index, position)
