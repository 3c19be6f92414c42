"""A kernel of somebody's own: found by its name, and called on copies of its inputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnet.arithmetic import Arithmetic, Kernel, core
from refnet.arrays import Array, seen_by_numpy
from refnet.errors import KernelError, kind_of
from refnet.modules import find
from refnet.op import InputGradients, Needs

# What a kernel can be.
EXPECTED = "a function, an object with forward and backward, or an arithmetic"


def find_kernel(source: str) -> Any:
    """The kernel that "module:function" names, as `refnet.modules.find` finds it.

    Parameters
    ----------
    source : str

    Returns
    -------
    callable, object with forward and backward, or Arithmetic
    """
    example = "module:function, as my_kernels:conv3d"
    return find(source, "kernel", example, is_kernel, EXPECTED)


def has_backward(kernel: Any) -> bool:
    """Whether it is an object with forward and backward."""
    return callable(getattr(kernel, "forward", None)) and callable(getattr(kernel, "backward", None))


def is_kernel(found: Any) -> bool:
    """Whether it is a kernel, or has one for an operator."""
    return callable(found) or has_backward(found) or isinstance(found, Arithmetic)


def title_of(kernel: Any) -> str:
    """What it is called; a pair of functions by the first one."""
    kernel = kernel.forward if isinstance(kernel, Kernel) else kernel
    name = getattr(kernel, "__qualname__", type(kernel).__qualname__)
    module = getattr(kernel, "__module__", None)
    return f"{module}:{name}" if module else name


class ForeignKernel:
    """A kernel of somebody's own, behind the interface of refnet's.

    It is given copies that it may write to, and what it did to them is remembered. Where it is a function and
    has no backward pass, `core` has the gradients.

    Parameters
    ----------
    kernel : callable or object
        ``y = kernel(*arrays, **attrs)``, or ``forward`` and ``backward`` as of `refnet.Kernel`.
    op : str
    store : dtype
        In which its results may come, beside the dtype of its inputs.
    title : str
        What it is called.

    Attributes
    ----------
    given : callable or object
    title : str
    backward : bool
        Whether it has a backward pass.
    changed : set of int
        Which of its inputs it has changed, by position; -1 is dy.
    misused : KernelError or None
        That it returned what no kernel returns, whatever it computes: there is nothing to judge.
    """

    def __init__(self, kernel: Any, op: str, store: DTypeLike, title: str):
        self.given, self.title, self._op = kernel, title, op
        self._store = store if isinstance(store, str) else np.dtype(store).name
        self.backward = has_backward(kernel)
        self.changed: set[int] = set()
        self.misused: KernelError | None = None

    @property
    def kernel(self) -> Kernel:
        """It, for an arithmetic."""
        return Kernel(self._forward, self._backward)

    def _forward(self, *arrays: Array, **attrs: Any) -> tuple[Array, Any]:
        copies = [array.copy() for array in arrays]
        call: Callable[..., Any] = self.given.forward if self.backward else self.given
        returned = call(*copies, **attrs)
        self._look([*enumerate(zip(copies, arrays, strict=True))])
        if not self.backward:
            if isinstance(returned, tuple):
                found = "(y, context)" if len(returned) == 2 else f"a tuple of {len(returned)}"
                advice = "y alone, or name an object with forward and backward (a Kernel)"
                raise self._misuse(f"returned {found}: expected {advice}")
            return self._taken("y", returned, arrays), (arrays, attrs)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise self._misuse(f"forward returned {kind_of(returned)}: expected (y, context)")
        y, context = returned
        return self._taken("y", y, arrays), (arrays, context)

    def _backward(self, dy: Array, context: Any, needs: Needs) -> InputGradients:
        arrays, inner = context
        if not self.backward:
            door = core[self._op]
            return door.backward(dy, door.forward(*arrays, **inner)[1], needs)
        copy = dy.copy()
        gradients = self.given.backward(copy, inner, needs)
        self._look([(-1, (copy, dy))])
        if not isinstance(gradients, tuple | list):
            raise self._misuse(f"backward returned {kind_of(gradients)}: expected a tuple of gradients")
        return tuple(
            None if g is None else self._taken(f"gradient {i}", g, arrays) for i, g in enumerate(gradients)
        )

    def _misuse(self, found: str) -> KernelError:
        self.misused = KernelError(f"{self.title} {found}")
        return self.misused

    def _look(self, pairs: list[tuple[int, tuple[Array, Array]]]) -> None:
        self.changed |= {i for i, (now, before) in pairs if now.tobytes() != before.tobytes()}

    def _taken(self, name: str, result: Any, arrays: tuple[Array, ...]) -> Array:
        """What it returned as an array of NumPy's; of the format it stores, in its inputs' dtype."""
        dtype = arrays[0].dtype
        array = seen_by_numpy(name, result, str(dtype))
        return array.astype(dtype) if array.dtype.name == self._store else array
