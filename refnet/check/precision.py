"""Binary floating-point formats, and rounding to them."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from refnet.arrays import Array, dtype_name


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
    def title(self) -> str:
        """Its name in prose."""
        return "TF32" if self.name == "tf32" else self.name

    @property
    def unit(self) -> float:
        """The unit roundoff u: half the distance from 1 to the next number."""
        return 2.0**-self.digits

    @property
    def smallest(self) -> float:
        """The smallest subnormal number, eta."""
        return 2.0**self.quantum

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return 2.0 ** (self.quantum + self.digits - 1)

    def round(self, values: Array, way: "Way" = "nearest") -> Array:
        """Round to this format: to nearest, ties to even or away from zero; or toward zero."""
        _, exponent = np.frexp(values)
        last = np.maximum(exponent - self.digits, self.quantum)
        whole = np.ldexp(np.abs(values), -last)
        kept = np.rint(whole) if way == "nearest" else np.floor(whole + (0.5 if way == "away" else 0))
        rounded = np.ldexp(kept, last)
        return np.copysign(np.where(rounded > self.largest, np.inf, rounded), values)


Way = Literal["nearest", "away", "zero"]
# To nearest, ties to even; to nearest, ties away from zero; toward zero.
WAYS: dict[Way, str] = {"nearest": "to nearest", "away": "ties away from zero", "zero": "toward zero"}

FLOAT64 = Format("float64", 53, -1074, float(np.finfo(np.float64).max))
FLOAT32 = Format("float32", 24, -149, float(np.finfo(np.float32).max))
TF32 = Format("tf32", 11, -136, float(np.finfo(np.float32).max))
FLOAT16 = Format("float16", 11, -24, 65504.0)
BFLOAT16 = Format("bfloat16", 8, -133, float(2.0**128 - 2.0**120))
FORMATS = {form.name: form for form in (FLOAT64, FLOAT32, TF32, FLOAT16, BFLOAT16)}


def format_of(dtype: DTypeLike) -> Format:
    """The format of a dtype, or of that name.

    Raises
    ------
    UnknownNameError
    """
    return FORMATS[dtype_name(dtype, FORMATS, "format")]


def below(dtype: DTypeLike) -> tuple[Format, ...]:
    """The formats of lower precision than a dtype's."""
    own = format_of(dtype).unit
    return tuple(one for one in (FLOAT32, TF32, BFLOAT16, FLOAT16) if one.unit > own)
