"""A function of somebody's arrays, evaluated at arrays of NumPy's.

Libraries are known by the module of an array's type, and found where the caller has imported them: none is
imported here.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from refnet.arrays import REAL, Array, at_the_door, require_wide, seen_by_numpy
from refnet.environment import errstate
from refnet.errors import DTypeError, kind_of

Convert = Callable[[Array], Any]


def converter(name: str, array: object) -> Convert:
    """What makes an array of NumPy's one of the kind that was given.

    Parameters
    ----------
    name : str
        What the array is called in messages.
    array : array_like
        An array of NumPy, PyTorch, JAX or another library of the array API standard; a number or a list.

    Raises
    ------
    DTypeError
        If its library is unknown.
    """
    home = type(array).__module__.partition(".")[0]
    if isinstance(array, np.ndarray) or home in ("builtins", "numpy"):
        return lambda values: values
    if home == "torch":
        return _keeping_dtype(sys.modules["torch"].from_numpy)
    if home.startswith("jax"):
        return _keeping_dtype(sys.modules["jax"].numpy.array)
    if hasattr(array, "__array_namespace__"):
        return _keeping_dtype(array.__array_namespace__().asarray)
    raise DTypeError(f"{name} is {kind_of(array)} of {home}: expected an array of NumPy, PyTorch or JAX")


def _keeping_dtype(convert: Convert) -> Convert:
    """Refuse to convert where the library has no such dtype, as JAX without x64."""

    def converted(values: Array) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = convert(values)
        found = str(array.dtype).removeprefix("torch.")
        if found != values.dtype.name:
            raise DTypeError(f"an array of {values.dtype.name} became {found}")
        return array

    return converted


class Outputs(NamedTuple):
    """What f returned.

    Attributes
    ----------
    arrays : tuple of ndarray
    converters : tuple of callable
        Each makes an array of NumPy's one of the kind that was returned.
    single : bool
        Whether it was one array, not a tuple of them.
    """

    arrays: tuple[Array, ...]
    converters: tuple[Convert, ...]
    single: bool

    @property
    def vector(self) -> Array:
        """All elements, (m,) float64 or complex128."""
        return _vector(self.arrays)


def _vector(arrays: Sequence[Array]) -> Array:
    wanted = np.complex128 if any(a.dtype.kind == "c" for a in arrays) else np.float64
    return np.concatenate([np.empty(0, wanted), *(a.reshape(-1).astype(wanted) for a in arrays)])


class Function:
    """f of some arrays, of which it is given copies each time.

    Parameters
    ----------
    f : callable
    values : sequence of ndarray
        What f is evaluated at; elements of them may be changed between evaluations.
    converters : sequence of callable
        For each array, what makes it one of the caller's kind.

    Attributes
    ----------
    evaluations : int
        How often f was called.
    """

    def __init__(self, f: Callable[..., Any], values: Sequence[Array], converters: Sequence[Convert]):
        self.values = [np.array(value, order="C") for value in values]
        self.evaluations = 0
        self._f, self._converters = f, converters

    def cast(self, dtype: DTypeLike) -> "Function":
        """The function at the same arrays, those of real numbers in another dtype."""
        values = [value.astype(dtype) if value.dtype in REAL else value for value in self.values]
        return Function(self._f, values, self._converters)

    def outputs(self) -> tuple[Outputs, list[int]]:
        """What f returns, float32 or float64, and which of its arrays it changed.

        Raises
        ------
        DTypeError
            If it returns anything else.
        """
        returned, copies = self._call()
        pairs = enumerate(zip(copies, self.values, strict=True))
        changed = [i for i, (copy, value) in pairs if copy.tobytes() != value.tobytes()]
        single = not isinstance(returned, tuple | list)
        parts = [returned] if single else list(returned)
        names = ["what f returns"] if single else [f"output {i} of f" for i in range(len(parts))]
        arrays = tuple(np.array(at_the_door(name, part)) for name, part in zip(names, parts, strict=True))
        for name, part in zip(names, parts, strict=True):
            require_wide(name, part)
        kinds = tuple(converter(name, part) for name, part in zip(names, parts, strict=True))
        return Outputs(arrays, kinds, single), changed

    def vector(self) -> Array | None:
        """All elements that f returns, (m,) float64 or complex128; None where it raises."""
        arrays = self.arrays()
        return None if arrays is None else _vector(arrays)

    def arrays(self) -> list[Array] | None:
        """What f returns, of any dtype; None where it raises, or drops the imaginary part of a number."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*discards the imaginary part")
                returned, _ = self._call()
            parts = returned if isinstance(returned, tuple | list) else [returned]
            return [seen_by_numpy("what f returns", part, "numbers") for part in parts]
        except MemoryError:
            raise
        except Exception:  # whatever somebody's function raises where it is not defined
            return None

    def moved(self, array: int, element: int, value: complex) -> Array | None:
        """All elements that f returns where one element of its arrays has another value."""
        flat = self.values[array].reshape(-1)
        before = flat[element]
        flat[element] = value
        try:
            return self.vector()
        finally:
            flat[element] = before

    def _call(self) -> tuple[Any, list[Array]]:
        """What f returns, and the copies that it was given."""
        copies = [value.copy() for value in self.values]
        self.evaluations += 1
        with errstate(all="ignore"):
            given = [convert(copy) for convert, copy in zip(self._converters, copies, strict=True)]
            return self._f(*given), copies
