"""Formats of lower precision, and rounding to them."""

from typing import Any, Literal, NamedTuple

import numpy as np

from refnet.arrays import Array
from refnet.check.bounds import unit


class Format(NamedTuple):
    """A binary format.

    Attributes
    ----------
    name : str
    digits : int
        Of the significand, the leading one included.
    quantum : int
        The exponent of the smallest subnormal number.
    largest : float
    """

    name: str
    digits: int
    quantum: int
    largest: float

    @property
    def unit(self) -> float:
        """The unit roundoff."""
        return 2.0**-self.digits

    def round(self, values: Array, way: "Way") -> Array:
        """Round to this format: to nearest, ties to even or away from zero; or toward zero."""
        _, exponent = np.frexp(values)
        last = np.maximum(exponent - self.digits, self.quantum)
        whole = np.ldexp(np.abs(values), -last)
        kept = np.rint(whole) if way == "nearest" else np.floor(whole + (0.5 if way == "away" else 0))
        rounded = np.ldexp(kept, last)
        return np.copysign(np.where(rounded > self.largest, np.inf, rounded), values)


Way = Literal["nearest", "away", "toward zero"]
WAYS: tuple[Way, ...] = ("nearest", "away", "toward zero")
FLOAT32 = Format("float32", 24, -149, float(np.finfo(np.float32).max))
TF32 = Format("TF32", 11, -136, float(np.finfo(np.float32).max))
FLOAT16 = Format("float16", 11, -24, 65504.0)
BFLOAT16 = Format("bfloat16", 8, -133, float(2.0**128 - 2.0**120))


def below(dtype: np.dtype[Any]) -> tuple[Format, ...]:
    """The formats of lower precision than a dtype's."""
    formats = (FLOAT32, TF32, BFLOAT16, FLOAT16)
    return tuple(one for one in formats if one.unit > unit(dtype))
